"""The machine's CPU, memory, disk and network, under the names and in the units of MLflow's own
monitors (mlflow/system_metrics/metrics, 3.17).
"""

import os
from collections.abc import Mapping

import psutil

__all__ = ["Machine"]

_MEGABYTE = 1e6
"""Bytes, as MLflow counts them."""


class Machine:
    """Readings of one machine; call them on one thread.

    The first reading of the CPU says nothing: it is taken against the next one. The network is
    counted from the first reading on.
    """

    def __init__(self) -> None:
        self._traffic = Traffic()

    def cpu(self) -> dict[str, float]:
        """How busy all cores were since the last reading."""
        return {"cpu_utilization_percentage": psutil.cpu_percent()}

    def memory(self) -> dict[str, float]:
        """Memory in use."""
        memory = psutil.virtual_memory()
        return {
            "system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system_memory_usage_percentage": memory.used / memory.total * 100,
        }

    def disk(self) -> dict[str, float]:
        """The file system of the root folder."""
        disk = psutil.disk_usage(os.sep)
        return {
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / _MEGABYTE,
            "disk_available_megabytes": disk.free / _MEGABYTE,
        }

    def network(self) -> dict[str, float]:
        """Traffic of all interfaces since the first reading."""
        # psutil would correct counters that wrap, but under a lock: a process that is forked while
        # we hold it could never read them again.
        counters = psutil.net_io_counters(pernic=True, nowrap=False)
        received, sent = self._traffic.since_first(
            {name: (one.bytes_recv, one.bytes_sent) for name, one in counters.items()}
        )
        return {
            "network_receive_megabytes": received / _MEGABYTE,
            "network_transmit_megabytes": sent / _MEGABYTE,
        }


class Traffic:
    """Add up the growth of counters that may start again from zero, appear and disappear."""

    def __init__(self) -> None:
        self._before: Mapping[str, tuple[int, int]] | None = None
        self._received = self._sent = 0

    def since_first(self, counters: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
        """Bytes received and sent since the first call, of the interfaces by name."""
        before, self._before = self._before, counters
        if before is not None:
            for name, (received, sent) in counters.items():
                last_received, last_sent = before.get(name, (0, 0))
                self._received += _growth(last_received, received)
                self._sent += _growth(last_sent, sent)
        return self._received, self._sent


def _growth(before: int, now: int) -> int:
    return now - before if now >= before else now  # it has started again
