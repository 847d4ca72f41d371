"""A driver of NVIDIA's with GPUs of given values, where nvidia-ml-py loads the real one.

Everything above it is real: nvidia-ml-py, and MLflow's own monitor of GPUs.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml
import pytest

MEMORY = "nvmlDeviceGetMemoryInfo"
UTILIZATION = "nvmlDeviceGetUtilizationRates"
POWER = "nvmlDeviceGetPowerUsage"
POWER_LIMIT = "nvmlDeviceGetEnforcedPowerLimit"
TEMPERATURE = "nvmlDeviceGetTemperature"


@dataclass
class Gpu:
    """What the driver says of one GPU: percent, bytes, milliwatts, degrees Celsius.

    Attributes:
        errors: name of a function of the driver -> the code that it returns instead.
    """

    utilization: int = 73
    memory_used: int = 60_123_456_789
    memory_total: int = 150_754_820_096
    power: int = 412_345
    power_limit: int = 700_000
    temperature: int = 61
    errors: dict[str, int] = field(default_factory=dict)


class Driver:
    """The functions of the driver that are used; each is a plain function, as ctypes' are.

    Attributes:
        opened: how many users have it open.
        refuses: the code with which it refuses to open; 0 for success.
    """

    def __init__(self, *gpus: Gpu) -> None:
        self.gpus = gpus
        self.opened = self.refuses = 0
        self._devices = [pynvml.struct_c_nvmlDevice_t() for _ in gpus]

        def set_value(method: str, name: str) -> Callable[..., int]:
            return self._of_gpu(method, lambda gpu, to: setattr(to, "value", getattr(gpu, name)))

        def init(_flags: int) -> int:
            self.opened += not self.refuses
            return self.refuses

        def shutdown() -> int:
            self.opened -= 1
            return 0

        def count(to: Any) -> int:
            to._obj.value = len(gpus)
            return 0

        def handle(index: Any, to: Any) -> int:
            to._obj.contents = self._devices[index.value]
            return 0

        def memory(gpu: Gpu, to: Any) -> None:
            to.used, to.total = gpu.memory_used, gpu.memory_total

        def utilization(gpu: Gpu, to: Any) -> None:
            to.gpu = gpu.utilization

        self.nvmlInitWithFlags = init
        self.nvmlShutdown = shutdown
        self.nvmlDeviceGetCount_v2 = count
        self.nvmlDeviceGetHandleByIndex_v2 = handle
        for method, call in {
            MEMORY: self._of_gpu(MEMORY, memory),
            UTILIZATION: self._of_gpu(UTILIZATION, utilization),
            POWER: set_value(POWER, "power"),
            POWER_LIMIT: set_value(POWER_LIMIT, "power_limit"),
            TEMPERATURE: set_value(TEMPERATURE, "temperature"),
        }.items():
            setattr(self, method, call)

    def _of_gpu(self, method: str, write: Callable[[Gpu, Any], None]) -> Callable[..., int]:
        def call(handle: Any, *arguments: Any) -> int:
            addresses = [ctypes.addressof(device) for device in self._devices]
            gpu = self.gpus[addresses.index(ctypes.addressof(handle.contents))]
            if method in gpu.errors:
                return gpu.errors[method]
            write(gpu, arguments[-1]._obj)
            return 0

        return call


def install(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> Driver:
    """Let nvidia-ml-py find this driver instead of that of the machine."""
    monkeypatch.setattr(pynvml, "nvmlLib", driver)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return driver
