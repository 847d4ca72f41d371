"""The cost of imports: time and memory, in fresh interpreters."""

import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.processes import environment
from benchmarks.results import Check, Column, Result, Row
from benchmarks.sizes import Sizes
from benchmarks.stores import Stores

NAME = "imports"
OURS, PYDANTIC = "orbiter.train, orbiter_mlflow", "pydantic"
IMPORTS = {
    "(nothing)": "",
    "orbiter.train": "import orbiter.train",
    "orbiter_mlflow": "import orbiter_mlflow",
    OURS: f"import {OURS}",
    "orbiter_mlflow.MLflowTrainerMixin": "from orbiter_mlflow import MLflowTrainerMixin",
    PYDANTIC: "import pydantic",
    "pydantic.BaseModel": "from pydantic import BaseModel",
    "mlflow": "import mlflow",
}
COLUMNS = (
    Column("import", "import"),
    Column("ms", "ms", ",.1f"),
    Column("least", "least ms", ",.1f"),
    Column("most", "most ms", ",.1f"),
    Column("cpu_ms", "CPU ms", ",.1f"),
    Column("peak_mb", "peak RSS MB", ",.1f"),
    Column("modules", "modules", ",d"),
)
NOTE = (
    "Medians of {count} fresh processes each, interleaved, after one that is not counted, so that "
    "bytecode and files are cached. The memory is that of the whole interpreter. Both "
    "pydantic and orbiter_mlflow load most of their modules when one of their names is first "
    "used: the rows that end in a name show the cost to a program that uses them."
)


_PROGRAM = """
import sys, time
before = len(sys.modules)
start, cpu = time.perf_counter(), time.process_time()
{statement}
took, used = time.perf_counter() - start, time.process_time() - cpu
print(took * 1e3, used * 1e3, len(sys.modules) - before)
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def _measure(statement: str, stores: Stores) -> dict[str, float]:
    """Time the import in an interpreter that has imported nothing else."""
    output = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(statement=statement)],
        cwd=stores.folder,
        env=environment(stores.folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    milliseconds, cpu, modules, kilobytes = output.split()
    return {
        "ms": float(milliseconds),
        "cpu_ms": float(cpu),
        "modules": int(modules),
        "peak_mb": int(kilobytes) / 1000,
    }


def run(stores: Stores, sizes: Sizes, say: Callable[[str], None]) -> Result:
    raw: list[dict[str, Any]] = []
    for turn in range(sizes.imports + 1):
        for names, statement in IMPORTS.items():
            row = _measure(statement, stores)
            if turn > 0:
                raw.append({"import": names, **row})
        say(f"round {turn} of {sizes.imports}")
    rows = [_row(names, [row for row in raw if row["import"] == names]) for names in IMPORTS]
    times = {row["import"]: row["ms"] for row in rows}
    check = Check(
        f"import {OURS}, relative to {PYDANTIC}", times[OURS] / times[PYDANTIC], "<=", 1.5
    )
    note = NOTE.format(count=sizes.imports)
    return Result(NAME, "Imports", note, COLUMNS, rows, [check], list(raw))


def _row(names: str, group: list[dict[str, Any]]) -> Row:
    times = [row["ms"] for row in group]
    return {
        "import": names,
        "ms": statistics.median(times),
        "least": min(times),
        "most": max(times),
        "cpu_ms": statistics.median(row["cpu_ms"] for row in group),
        "peak_mb": statistics.median(row["peak_mb"] for row in group),
        "modules": group[0]["modules"],
    }
