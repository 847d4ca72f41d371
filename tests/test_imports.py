"""Imports point one way: what the sources say, and what a fresh interpreter really loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"orbiter": ROOT, "orbiter_mlflow": ROOT / "integrations"}

LAYOUT = {
    "__main__": "cli",
    "": "config errors mixin runs settings",  # the public names
    "pytest_plugin": "delivery errors gate settings text",
    "cli": "config delivery errors gate mixin names redaction runs settings text ui",
    "gate": "delivery errors names redaction runs settings text ui",
    "mixin": "delivery errors settings tracking ui",
    "ui": "names runs text",
    "runs": "config delivery errors names provenance redaction settings text",
    "tracking": "config delivery names provenance redaction settings text",
    "provenance": "errors names redaction text",
    "params": "config",
    "config": "errors names redaction text",
    "settings": "delivery text",
    "delivery": "errors names text",
    "redaction": "text",
    "text": "names",
    "names": "",
    "errors": "",
}
"""Each module or package at the top of `orbiter_mlflow`, and which others it may import."""

MAY_IMPORT_MLFLOW = {
    "orbiter_mlflow.delivery.mlflow_client.errors",
    "orbiter_mlflow.delivery.mlflow_client",
    "orbiter_mlflow.delivery.mlflow_client.opening",
    "orbiter_mlflow.delivery.mlflow_sink",
    "orbiter_mlflow.runs.store",
}
ENTRY_POINTS = {
    "orbiter_mlflow.cli.main": {"orbiter_mlflow.__main__"},
    "orbiter_mlflow.cli.demo": {"orbiter_mlflow.cli.main"},
    "orbiter_mlflow.pytest_plugin": set[str](),
}
"""Module -> the only ones that may import it."""
PURE = {
    "orbiter_mlflow.gate.comparability",
    "orbiter_mlflow.gate.judge",
    "orbiter_mlflow.gate.statistics",
    "orbiter_mlflow.gate.verdict",
}
IO = {"asyncio", "io", "os", "pathlib", "requests", "shutil", "socket", "subprocess", "tempfile"}

MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """`importer` imports `imported`, the name of a module.

    Attributes:
        on_load: as soon as `importer` is imported, not in a function or for type checkers only.
    """

    importer: str
    imported: str
    on_load: bool

    def of(self, *packages: str) -> bool:
        """Whether one of the packages, or a module in it, is imported."""
        return any(
            self.imported == package or self.imported.startswith(f"{package}.")
            for package in packages
        )


@cache
def modules() -> dict[str, Path]:
    """Name -> file of every module that ships."""
    found = {}
    for package, folder in SOURCES.items():
        for path in (folder / package).rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def imports() -> list[Import]:
    """All imports of all modules."""
    return [
        Import(name, imported, on_load)
        for name, path in modules().items()
        for imported, on_load in imports_in(
            ast.parse(path.read_text(encoding="utf-8")), name, path.name == "__init__.py"
        )
    ]


def imports_in(
    node: ast.AST, name: str, is_package: bool, on_load: bool = True
) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, on_load) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                above = name.split(".")[: None if is_package and child.level == 1 else -child.level]
                base = ".".join([*above, *filter(None, [child.module])])
            for alias in child.names:
                full = f"{base}.{alias.name}"
                yield (full if full in modules() else base), on_load
        else:
            yield from imports_in(child, name, is_package, on_load and not _waits(child))


def _waits(node: ast.AST) -> bool:
    """Whether what stands in it does not run when the module is loaded."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def unit_of(module: str) -> str | None:
    """The module or package at the top of `orbiter_mlflow`; empty for that package itself."""
    package, *rest = module.split(".")
    return (rest[0] if rest else "") if package == "orbiter_mlflow" else None


def shown(wrong: list[Import]) -> list[str]:
    return [f"{found.importer} imports {found.imported}" for found in wrong]


# -- what the sources say --------------------------------------------------------------------------


def test_the_reading_of_imports_sees_them_all() -> None:
    source = (
        "import a.b, c\n"
        "from orbiter_mlflow import names, MLflowSettings\n"
        "from . import spool\n"
        "from .journal import read\n"
        "from ..params import x\n"
        "if TYPE_CHECKING:\n"
        "    import d\n"
        "try:\n"
        "    import e\n"
        "except ImportError:\n"
        "    import f\n"
        "class C:\n"
        "    import g\n"
        "    def method(self):\n"
        "        import h\n"
    )
    found = list(imports_in(ast.parse(source), "orbiter_mlflow.delivery.drain", is_package=False))
    assert found == [
        ("a.b", True),
        ("c", True),
        ("orbiter_mlflow.names", True),
        ("orbiter_mlflow", True),
        ("orbiter_mlflow.delivery.spool", True),
        ("orbiter_mlflow.delivery.journal", True),
        ("orbiter_mlflow.params", True),
        ("d", False),
        ("e", True),
        ("f", True),
        ("g", True),
        ("h", False),
    ]
    package = list(imports_in(ast.parse("from . import x"), "orbiter_mlflow", is_package=True))
    assert package == [("orbiter_mlflow", True)]
    assert {"orbiter.train.trainer", "orbiter_mlflow", "orbiter_mlflow.names"} <= set(modules())


def test_orbiter_knows_nothing_of_mlflow() -> None:
    assert not shown(
        [
            i
            for i in imports()
            if i.importer.split(".")[0] == "orbiter" and i.of("orbiter_mlflow", "mlflow")
        ]
    )


def test_only_the_far_side_imports_mlflow() -> None:
    assert not shown(
        [i for i in imports() if i.of("mlflow") and i.importer not in MAY_IMPORT_MLFLOW]
    )


def test_what_imports_mlflow_is_loaded_where_it_is_needed_only() -> None:
    assert not shown(
        [
            i
            for i in imports()
            if i.on_load
            and i.imported in MAY_IMPORT_MLFLOW
            and i.importer not in MAY_IMPORT_MLFLOW | set(ENTRY_POINTS)
        ]
    )


def test_packages_import_only_what_the_layout_allows() -> None:
    edges: dict[str, set[str]] = {unit: set() for unit in map(unit_of, modules()) if unit}
    edges[""] = set()
    for found in imports():
        importer, imported = unit_of(found.importer), unit_of(found.imported)
        if importer is not None and imported and importer != imported:
            edges[importer].add(imported)
    assert edges == {unit: set(allowed.split()) for unit, allowed in LAYOUT.items()}


def test_the_top_stays_small() -> None:
    assert len(LAYOUT) <= 18
    assert sum(len(allowed.split()) for allowed in LAYOUT.values()) < 70


def test_the_layout_points_one_way() -> None:
    TopologicalSorter({unit: set(to.split()) for unit, to in LAYOUT.items()}).prepare()


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_nothing_builds_on_an_entry_point(entry_point: str) -> None:
    allowed = ENTRY_POINTS[entry_point]
    assert not shown([i for i in imports() if i.of(entry_point) and i.importer not in allowed])


def test_what_decides_does_no_io() -> None:
    assert not shown([i for i in imports() if i.importer in PURE and i.of("mlflow", *IO)])


def test_no_module_needs_itself() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for found in imports():
        if found.on_load and found.imported in graph:
            graph[found.importer].add(found.imported)
    TopologicalSorter(graph).prepare()  # a CycleError lists the modules


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_is_short_enough_to_read(name: str) -> None:
    lines = modules()[name].read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{name} has {lines} lines: it holds more than one concept"


# -- what is really loaded -------------------------------------------------------------------------

TRACKED = """
from orbiter.train import Trainer
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin

class Backend(Trainer):
    def check_agent(self, agent): ...
    def check_dataset(self, train_data, test_data=None): ...
    def check_reward(self, reward_fn=None): ...
    def check_config(self, config=None): ...
    async def train(self): ...
    async def evaluate(self, test_data=None): ...

class Tracked(MLflowTrainerMixin, Backend): ...

"""
HEAVY = ("mlflow", "numpy", "pandas", "sklearn", "sqlalchemy")


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import orbiter.train", ("orbiter_mlflow", "pydantic", *HEAVY)),
        ("import orbiter_mlflow", HEAVY),
        ("from orbiter_mlflow import load_config", HEAVY),
        ("import orbiter_mlflow.cli.main", HEAVY),
        (TRACKED, HEAVY),
        (TRACKED + "Tracked(mlflow=MLflowSettings(experiment='e'))", HEAVY),
        (TRACKED + "Tracked().check_agent(None)", HEAVY),
    ],
    ids=["orbiter", "orbiter_mlflow", "load_config", "cli", "class", "trainer", "checked"],
)
def test_nothing_heavy_is_loaded(code: str, unwanted: tuple[str, ...]) -> None:
    script = f"{code}\nimport sys\nprint(*sorted(set(sys.modules) & {set(unwanted)}))"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == []
    assert ended.stderr == ""
