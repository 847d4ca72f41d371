"""Fresh processes to measure in, and what the system knows about a process."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_ROOT = Path(__file__).parent.parent
_SETTINGS = ("MLFLOW_", "ORBITER_MLFLOW_", "RANK", "WORLD_SIZE", "SLURM_")


@dataclass(frozen=True)
class Ended(Generic[T]):
    """A process that has ended: what its function returned, and seconds from start to exit."""

    value: T
    seconds: float


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of what is measured: nobody's MLflow settings, a spool of its own."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_SETTINGS)}
    return (
        kept
        | {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "ORBITER_MLFLOW_LINGER": "5",
            "PYTHONPATH": str(_ROOT),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        | more
    )


def fresh(
    function: Callable[..., T], folder: Path, *args: Any, variables: Mapping[str, str] | None = None
) -> Ended[T]:
    """Call a function of a module in a fresh process, whose working folder is `folder`.

    Arguments and result travel as JSON. Returns once a delivery process that it may have started
    has ended as well, which does not count as its time.

    Raises:
        RuntimeError: the process failed; what it wrote is in the message.
    """
    handle, name = tempfile.mkstemp(".json", dir=folder)
    os.close(handle)
    result = Path(name)
    where = f"{function.__module__}:{function.__qualname__}"
    command = [sys.executable, "-m", "benchmarks.child", where, str(result), json.dumps(args)]
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(folder, **(variables or {})),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        delivery: int | None = None
        try:
            code = process.wait()  # with a time limit it would poll, and be late by as much
            seconds = time.perf_counter() - start
            delivery = delivery_of(process.pid)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code != 0:
            output.seek(0)
            said = output.read().decode(errors="replace")
            raise RuntimeError(f"{where}{args} ended with {code}:\n{said[-4000:]}")
    _await_end(delivery)
    value: T = json.loads(result.read_text())
    result.unlink()
    return Ended(value, seconds)


def _await_end(pid: int | None, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while pid is not None and _stat(pid)[:1] not in ([], ["Z"]) and time.monotonic() < deadline:
        time.sleep(0.02)


def delivery_of(pid: int) -> int | None:
    """The process that delivers for process `pid`; None where there is none, or no /proc."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"orbiter_mlflow.delivery.hosts.child" in command and str(pid).encode() in command:
            return int(entry.name)
    return None


def cpu_seconds(pid: int | None) -> float | None:
    """CPU time that a process has used so far; None where that is not known."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else None


def _stat(pid: int | None) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty where there are none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def memory_mb(what: str = "VmRSS", pid: int | str = "self") -> float:
    """Memory of a process in MB: resident now (`VmRSS`), or at its peak (`VmHWM`).

    Not `ru_maxrss`: on Linux a process inherits that from the one that started it.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith(what)), 0.0)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def medians(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Key by key the median of several measurements; what is no number is taken from the first."""
    given = list(rows)
    return {
        key: statistics.median(row[key] for row in given)
        if isinstance(value, int | float)
        else value
        for key, value in given[0].items()
    }
