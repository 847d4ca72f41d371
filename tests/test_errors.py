"""All exceptions are in one module, under one root, each with a line on how to handle it."""

import ast
import re
from inspect import isclass

import orbiter_mlflow
from orbiter_mlflow import errors
from test_imports import modules

ROOT = "OrbiterMLflowError"
ALL = {name: value for name, value in vars(errors).items() if name in errors.__all__}


def test_every_exception_is_exported_and_has_the_root() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isclass(value) and value.__module__ == errors.__name__
    }
    assert set(errors.__all__) == defined
    assert set(errors.__all__) <= set(orbiter_mlflow.__all__)
    for name, error in ALL.items():
        assert issubclass(error, errors.OrbiterMLflowError), name
        assert getattr(orbiter_mlflow, name) is error
        assert error.__doc__, name


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    path = [ROOT]
    drawn = {}
    for line in (errors.__doc__ or "").partition(f"{ROOT}\n")[2].splitlines():
        branch = re.fullmatch(r"((?:│   |    )*)[├└]── (\w+) +(\S.*)", line)
        assert branch is not None, line
        depth = len(branch[1]) // 4 + 1
        path[depth:] = [branch[2]]
        drawn[branch[2]] = path[depth - 1]
    own = {name: error.__mro__[1].__name__ for name, error in ALL.items() if name != ROOT}
    assert drawn == own


def test_no_public_exception_is_defined_elsewhere() -> None:
    elsewhere = [
        f"{module}.{node.name}"
        for module, path in modules().items()
        if module.startswith("orbiter_mlflow.") and module != errors.__name__
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases)
    ]
    assert sorted(elsewhere) == [
        "orbiter_mlflow.cli.options.NoAnswerError",  # click makes it an exit code
        "orbiter_mlflow.config.codec.kinds.kind.NotWholeError",  # never leaves the codec
        "orbiter_mlflow.plugin.asking.NoAnswerError",  # never leaves the plugin
    ]
