"""Fresh processes to measure in, and the CPU time and memory of a process."""

import contextlib
import json
import os
import signal
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
    """The result of a function in its process, and the seconds from its start to its exit."""

    value: T
    seconds: float


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment to measure in: no MLflow settings of the user, a spool of its own."""
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

    Arguments and result are passed as JSON. Returns once its delivery process, if any, has ended
    too, which does not count towards the seconds.

    Raises:
        RuntimeError: the process failed; the message has its output.
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
            code = process.wait()  # a time limit would make it poll, and be late
            seconds = time.perf_counter() - start
            delivery = delivery_of(process.pid)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code != 0:
            output.seek(0)
            text = output.read().decode(errors="replace")
            raise RuntimeError(f"{where}{args} ended with {code}:\n{text[-4000:]}")
    end_delivery(delivery, folder)
    value: T = json.loads(result.read_text())
    result.unlink()
    return Ended(value, seconds)


def end_delivery(pid: int | None, folder: Path, within: float = 60.0) -> None:
    """End a delivery process once it has nothing to do: it would wait for the next training.

    Args:
        pid: the process; None if there is none.
        folder: as for `environment`.
        within: seconds allowed until then.
    """
    deadline = time.monotonic() + within
    while pid is not None and _stat(pid)[:1] not in ([], ["Z"]) and time.monotonic() < deadline:
        if not any((folder / "state").rglob("*.jsonl")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        time.sleep(0.02)


def delivery_of(pid: int) -> int | None:
    """The delivery process of process `pid`; None if there is none, or no /proc."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"orbiter_mlflow.delivery.hosts.child" in command and str(pid).encode() in command:
            return int(entry.name)
    return None


def cpu_seconds(pid: int | None) -> float | None:
    """The CPU time that a process has used so far; None if unknown."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else None


def cpu_with_ended(pid: int) -> float:
    """The CPU time of a process and of its children that have ended; 0 if unknown."""
    return sum(map(int, _stat(pid)[11:15])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int | None) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if it cannot be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def memory_mb(field: str = "VmRSS", pid: int | str = "self") -> float:
    """Memory of a process in MB: resident now (`VmRSS`), or at its peak (`VmHWM`).

    Not `ru_maxrss`, which a process on Linux inherits from its parent.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith(field)), 0.0)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that is not exceeded by `percent` of the values."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def medians(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of several measurements, by key; for other types the value of the first."""
    rows = list(rows)
    return {
        key: statistics.median(row[key] for row in rows)
        if isinstance(value, int | float)
        else value
        for key, value in rows[0].items()
    }
