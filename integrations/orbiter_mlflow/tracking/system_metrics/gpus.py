"""The GPUs that NVIDIA's driver knows: their use, memory and power under the names of MLflow's own
monitor, and their temperature, which it has not.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pynvml

__all__ = ["Gpus"]

_MEGABYTE = 1e6


class Gpus:
    """The GPUs of the machine, also those that `CUDA_VISIBLE_DEVICES` hides, as MLflow has them.

    Raises:
        pynvml.NVMLError: the driver is in trouble. No driver is no trouble: there are no GPUs.
    """

    def __init__(self) -> None:
        self._count = 0
        self._open = False
        with suppress(
            pynvml.NVMLError_LibraryNotFound,
            pynvml.NVMLError_DriverNotLoaded,
        ):
            pynvml.nvmlInit()
            self._open = True
            self._count = pynvml.nvmlDeviceGetCount()

    def readings(self) -> list[tuple[str, Callable[[], dict[str, float]]]]:
        """The readings of each GPU, and what each is about. One that the model or the driver
        refuses fails alone."""
        return [
            (f"{what} of GPU {index}", partial(reading, index))
            for index in range(self._count)
            for what, reading in _READINGS.items()
        ]

    def close(self) -> None:
        """Let go of the driver."""
        if self._open:
            self._open = False
            pynvml.nvmlShutdown()


def _utilization(index: int) -> dict[str, float]:
    rates = pynvml.nvmlDeviceGetUtilizationRates(_handle(index))
    return {f"gpu_{index}_utilization_percentage": rates.gpu}


def _memory(index: int) -> dict[str, float]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(_handle(index))
    return {
        f"gpu_{index}_memory_usage_percentage": memory.used / memory.total * 100,
        f"gpu_{index}_memory_usage_megabytes": memory.used / _MEGABYTE,
    }


def _power(index: int) -> dict[str, float]:
    handle = _handle(index)
    used = pynvml.nvmlDeviceGetPowerUsage(handle)  # milliwatts, both
    limit = pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)
    return {
        f"gpu_{index}_power_usage_watts": used / 1000,
        f"gpu_{index}_power_usage_percentage": used / limit * 100,
    }


def _temperature(index: int) -> dict[str, float]:
    sensor = pynvml.NVML_TEMPERATURE_GPU
    celsius = pynvml.nvmlDeviceGetTemperature(_handle(index), sensor)
    return {f"gpu_{index}_temperature_celsius": celsius}


def _handle(index: int) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


_READINGS: dict[str, Callable[[int], dict[str, float]]] = {
    "use": _utilization,
    "memory": _memory,
    "power": _power,
    "temperature": _temperature,
}
