"""CPU time and memory of groups of processes, sampled while they run."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import cpu_seconds, cpu_with_ended

DELIVERY = "orbiter_mlflow.delivery.hosts"
"""The package of the delivery process' module, which its command line names."""
TRAINING = "benchmarks.child"
_SMALLEST_PAUSE = 0.25
_SHARE = 0.05
"""Of the time, at most, that sampling takes: it reads each page table of each process."""


@dataclass
class Sample:
    """A group of processes at one time: how many, their memory in MB, their CPU seconds so far."""

    count: int = 0
    memory: float = 0.0
    cpu: float = 0.0


Group = Callable[[], list[int]]


class Meter:
    """Samples groups of processes in a thread, from `with` on.

    Memory is proportional (PSS): a page that processes share counts once in all.

    Args:
        groups: for each name, what finds its processes.
        gauges: other numbers to sample.

    Attributes:
        peaks: the largest memory of each group, and the largest count.
        highest: the largest number of each gauge.
    """

    def __init__(
        self, groups: Mapping[str, Group], gauges: Mapping[str, Callable[[], int]] | None = None
    ) -> None:
        self._groups = groups
        self._gauges = gauges or {}
        self.highest = dict.fromkeys(self._gauges, 0)
        self.peaks = {name: Sample() for name in groups}
        self._cpu: dict[str, dict[int, float]] = {name: {} for name in groups}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Meter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def sample(self) -> dict[str, Sample]:
        """Look now. The CPU time includes that of processes of the group that have ended."""
        with self._lock:
            return {name: self._look(name) for name in self._groups}

    def _look(self, name: str) -> Sample:
        pids = self._groups[name]()
        for pid in pids:
            self._cpu[name][pid] = cpu_seconds(pid) or self._cpu[name].get(pid, 0.0)
        now = Sample(len(pids), sum(map(pss_mb, pids)), sum(self._cpu[name].values()))
        peak = self.peaks[name]
        peak.count = max(peak.count, now.count)
        peak.memory = max(peak.memory, now.memory)
        peak.cpu = now.cpu
        return now

    def _run(self) -> None:
        pause = 0.0
        while not self._done.wait(pause):
            start = time.perf_counter()
            self.sample()
            for name, gauge in self._gauges.items():
                self.highest[name] = max(self.highest[name], gauge())
            pause = max(_SMALLEST_PAUSE, (time.perf_counter() - start) / _SHARE)


def pss_mb(pid: int) -> float:
    """The proportional memory of a process in MB; 0 if it has ended, or there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:")), 0.0)


def processes_of(folder: Path, module: str) -> list[int]:
    """The processes that run a module, or one of a package, with `folder` for their state."""
    mine = f"XDG_STATE_HOME={folder / 'state'}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if any(part.startswith(module.encode()) for part in command):
                environment = (entry / "environ").read_bytes().split(b"\0")
                if mine in environment:
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def tree_of(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, rest = [], [root]
    while rest:
        pid = rest.pop()
        found.append(pid)
        rest += children.get(pid, [])
    return found


def tree_cpu(root: int) -> float:
    """CPU seconds of a process and all that descend from it, those included that have ended."""
    return sum(cpu_with_ended(pid) for pid in tree_of(root))


def connections_to(port: int) -> int:
    """Connections that are open to a TCP port of this machine."""
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        count += state == "01" and int(local.partition(":")[2], 16) == port
    return count
