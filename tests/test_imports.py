"""Imports point one way: in the sources, and as loaded by a fresh interpreter."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"orbiter": ROOT, "orbiter_mlflow": ROOT / "integrations"}

LAYOUT = {
    "__main__": "cli",
    "": "config errors mixin runs settings tracking",  # the public names
    "pytest_plugin": "errors gate settings text",
    "cli": "config delivery errors gate mixin names redaction runs settings text ui",
    "gate": "delivery errors names provenance redaction runs settings text ui",
    "plugin": "delivery errors names settings text tracking",
    "mixin": "errors plugin settings tracking ui",
    "ui": "names runs text",
    "runs": "config delivery errors names provenance redaction settings text",
    "tracking": "config delivery errors names provenance redaction settings text",
    "provenance": "errors names redaction text",
    "params": "config",
    "transformers": "",
    "config": "errors names redaction text",
    "settings": "delivery text",
    "delivery": "errors names redaction text",
    "redaction": "text",
    "text": "names",
    "names": "",
    "errors": "",
}
"""Allowed imports: each module or package at the top of `orbiter_mlflow`, and those it imports."""

MAY_IMPORT_MLFLOW = {
    "orbiter_mlflow.delivery.mlflow_client.artifacts",
    "orbiter_mlflow.delivery.mlflow_client.errors",
    "orbiter_mlflow.delivery.mlflow_client",
    "orbiter_mlflow.delivery.mlflow_client.models",
    "orbiter_mlflow.delivery.mlflow_client.older_servers",
    "orbiter_mlflow.delivery.mlflow_client.opening",
    "orbiter_mlflow.delivery.mlflow_client.server_version",
    "orbiter_mlflow.delivery.mlflow_client.traces",
    "orbiter_mlflow.delivery.mlflow_client.uids",
    "orbiter_mlflow.delivery.mlflow_sink",
    "orbiter_mlflow.plugin.active_run",
    "orbiter_mlflow.plugin.artifact_repository",
    "orbiter_mlflow.plugin.asking",
    "orbiter_mlflow.plugin.bound_run",
    "orbiter_mlflow.plugin.entities",
    "orbiter_mlflow.plugin.late_run",
    "orbiter_mlflow.plugin.entry_points",
    "orbiter_mlflow.plugin.journaled_run",
    "orbiter_mlflow.plugin.model_registry",
    "orbiter_mlflow.plugin.provisional",
    "orbiter_mlflow.plugin.runs",
    "orbiter_mlflow.plugin.store",
    "orbiter_mlflow.runs.store",
}
ENTRY_POINTS = {
    "orbiter_mlflow.cli.main": {"orbiter_mlflow.__main__"},
    "orbiter_mlflow.cli.demo_runs": {"orbiter_mlflow.cli.demo"},
    "orbiter_mlflow.cli.demo_trl": {"orbiter_mlflow.cli.demo"},
    "orbiter_mlflow.plugin.entry_points": set[str](),
    "orbiter_mlflow.pytest_plugin": set[str](),
}
"""Module -> the only modules that may import it."""
DECIDES = {
    "orbiter_mlflow.gate.approvals",
    "orbiter_mlflow.gate.attempts",
    "orbiter_mlflow.gate.blessings",
    "orbiter_mlflow.gate.comparability",
    "orbiter_mlflow.gate.drift",
    "orbiter_mlflow.gate.effect",
    "orbiter_mlflow.gate.evaluations",
    "orbiter_mlflow.gate.examples.judge",
    "orbiter_mlflow.gate.examples.paired_test",
    "orbiter_mlflow.gate.examples.pairs",
    "orbiter_mlflow.gate.examples.table",
    "orbiter_mlflow.gate.history",
    "orbiter_mlflow.gate.judge",
    "orbiter_mlflow.gate.limits",
    "orbiter_mlflow.gate.lineage",
    "orbiter_mlflow.gate.lowered",
    "orbiter_mlflow.gate.past",
    "orbiter_mlflow.gate.ranking",
    "orbiter_mlflow.gate.remarks",
    "orbiter_mlflow.gate.statistics",
    "orbiter_mlflow.gate.statistics.advice",
    "orbiter_mlflow.gate.statistics.choice",
    "orbiter_mlflow.gate.statistics.corrections",
    "orbiter_mlflow.gate.statistics.losses",
    "orbiter_mlflow.gate.statistics.significance",
    "orbiter_mlflow.gate.tolerance",
    "orbiter_mlflow.gate.stricter",
    "orbiter_mlflow.gate.verdict",
}
"""Modules that decide: no I/O."""
IO = {"asyncio", "io", "os", "pathlib", "requests", "shutil", "socket", "subprocess", "tempfile"}

MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """One import of a module by another.

    Attributes:
        on_load: whether it runs when `importer` is loaded: not in a function or for type checkers.
        line: of `importer`'s file.
    """

    importer: str
    imported: str
    on_load: bool
    line: int

    def __str__(self) -> str:
        path = modules()[self.importer].relative_to(ROOT)
        return f"{path}:{self.line}: {self.importer} imports {self.imported}"

    def of(self, *packages: str) -> bool:
        """Whether it imports one of the packages, or a module in it."""
        return any(
            self.imported == package or self.imported.startswith(f"{package}.")
            for package in packages
        )


@cache
def modules() -> dict[str, Path]:
    """Name -> file of every shipped module."""
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
        Import(name, *found)
        for name, path in modules().items()
        for found in imports_in(
            ast.parse(path.read_text(encoding="utf-8")), name, path.name == "__init__.py"
        )
    ]


def imports_in(
    node: ast.AST, name: str, is_package: bool, on_load: bool = True
) -> Iterator[tuple[str, bool, int]]:
    """The imported module, whether it is imported on load, and the line of each import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, on_load, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                above = name.split(".")[: None if is_package and child.level == 1 else -child.level]
                base = ".".join([*above, *filter(None, [child.module])])
            for alias in child.names:
                full = f"{base}.{alias.name}"
                yield (full if full in modules() else base), on_load, child.lineno
        else:
            yield from imports_in(child, name, is_package, on_load and not _is_deferred(child))


def _is_deferred(node: ast.AST) -> bool:
    """Whether the code in it does not run when the module is loaded."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def unit_of(module: str) -> str | None:
    """The module or package at the top of `orbiter_mlflow`; empty for that package itself."""
    package, *rest = module.split(".")
    return (rest[0] if rest else "") if package == "orbiter_mlflow" else None


def require_none(wrong: Iterable[Import], rule: str) -> None:
    """Fail with the line of each import that breaks a rule."""
    found = [str(one) for one in wrong]
    assert not found, "\n  ".join([rule, *found])


# -- in the sources --------------------------------------------------------------------------------


def test_every_form_of_import_is_found() -> None:
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
    assert [line for _, _, line in found] == [1, 1, 2, 2, 3, 4, 5, 7, 9, 11, 13, 15]
    assert [import_[:2] for import_ in found] == [
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
    assert package == [("orbiter_mlflow", True, 1)]
    assert {"orbiter.train.trainer", "orbiter_mlflow", "orbiter_mlflow.names"} <= set(modules())


def test_orbiter_does_not_know_mlflow() -> None:
    require_none(
        (
            found
            for found in imports()
            if found.importer.split(".")[0] == "orbiter" and found.of("orbiter_mlflow", "mlflow")
        ),
        "orbiter must not import MLflow or its integration",
    )


def test_an_integration_uses_public_modules_of_orbiter_only() -> None:
    require_none(
        (
            found
            for found in imports()
            if found.importer.split(".")[0] == "orbiter_mlflow"
            and found.of("orbiter")
            and any(part.startswith("_") for part in found.imported.split("."))
        ),
        "orbiter.train.hooks has what an integration needs",
    )


def test_few_modules_import_mlflow() -> None:
    require_none(
        (i for i in imports() if i.of("mlflow") and i.importer not in MAY_IMPORT_MLFLOW),
        "only the modules of MAY_IMPORT_MLFLOW may import MLflow",
    )


def test_modules_that_import_mlflow_are_loaded_on_first_use() -> None:
    require_none(
        (
            found
            for found in imports()
            if found.on_load
            and found.imported in MAY_IMPORT_MLFLOW
            and found.importer not in MAY_IMPORT_MLFLOW | set(ENTRY_POINTS)
        ),
        "a module that imports MLflow must be imported inside a function",
    )


def test_packages_import_only_what_the_layout_allows() -> None:
    allowed = {unit: set(others.split()) for unit, others in LAYOUT.items()}
    used = {(unit_of(found.importer), unit_of(found.imported)): found for found in imports()}
    require_none(
        (
            found
            for (importer, imported), found in used.items()
            if importer is not None
            and imported
            and importer != imported
            and imported not in allowed.get(importer, set())
        ),
        "LAYOUT does not allow these imports: move the code, or argue for a new edge",
    )
    unused = [
        f"{importer or 'orbiter_mlflow'} -> {imported}"
        for importer, others in allowed.items()
        for imported in sorted(others)
        if (importer, imported) not in used
    ]
    assert not unused, f"LAYOUT has edges that no import needs any more; remove {unused}"
    units = {unit for unit in map(unit_of, modules()) if unit is not None}
    assert units == allowed.keys(), "LAYOUT must list every module and package at the top"


def test_the_top_stays_small() -> None:
    edges = sum(len(others.split()) for others in LAYOUT.values())
    assert len(LAYOUT) <= 20, f"{len(LAYOUT)} modules and packages at the top of orbiter_mlflow"
    assert edges < 79, f"{edges} edges between them"


def test_the_layout_points_one_way() -> None:
    _require_no_cycle({unit: set(others.split()) for unit, others in LAYOUT.items()})


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_nothing_imports_an_entry_point(entry_point: str) -> None:
    allowed = ENTRY_POINTS[entry_point]
    require_none(
        (i for i in imports() if i.of(entry_point) and i.importer not in allowed),
        f"{entry_point} is an entry point: move the shared code out of it",
    )


def test_modules_that_decide_do_no_io() -> None:
    require_none(
        (i for i in imports() if i.importer in DECIDES and i.of("mlflow", *IO)),
        "the modules of DECIDES are pure",
    )


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for found in imports():
        if found.on_load and found.imported in graph:
            graph[found.importer].add(found.imported)
    _require_no_cycle(graph)


def test_the_contract_has_no_circle_even_for_type_checkers() -> None:
    names = [name for name in modules() if name.startswith("orbiter.train.")]
    graph: dict[str, set[str]] = {name: set() for name in names}
    for found in imports():
        if found.importer in graph and found.imported in graph:
            graph[found.importer].add(found.imported)
    _require_no_cycle(graph)


def _require_no_cycle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib lists a node before those that depend on it
        pytest.fail("a circle: " + " imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_is_short_enough_to_read(name: str) -> None:
    lines = modules()[name].read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{name} has {lines} lines: it holds more than one concept"


# -- as loaded -------------------------------------------------------------------------------------

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
    ("code", "heavy"),
    [
        ("import orbiter.train", ("orbiter_mlflow", "pydantic", *HEAVY)),
        ("import orbiter_mlflow", HEAVY),
        ("from orbiter_mlflow import load_config", HEAVY),
        ("import orbiter_mlflow.cli.main", HEAVY),
        ("import orbiter_mlflow.plugin.entry_points", ("pydantic", *HEAVY)),
        (TRACKED, HEAVY),
        (TRACKED + "Tracked(mlflow=MLflowSettings(experiment='e'))", HEAVY),
        (TRACKED + "Tracked().check_agent(None)", HEAVY),
    ],
    ids=[
        "orbiter",
        "orbiter_mlflow",
        "load_config",
        "cli",
        "plugin",
        "class",
        "trainer",
        "checked",
    ],
)
def test_nothing_heavy_is_loaded(code: str, heavy: tuple[str, ...]) -> None:
    script = f"{code}\nimport sys\nprint(*sorted(set(sys.modules) & {set(heavy)}))"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == []
    assert ended.stderr == ""
