"""The CPU as a platform of verl, which has none: enough for supervised fine-tuning.

verl's processes import this by `VERL_USE_EXTERNAL_MODULES`; `VERL_PLATFORM=cpu` chooses it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import verl.utils.distributed
from verl.plugin.platform import PlatformBase, PlatformRegistry


class _Device(ModuleType):
    """`torch.cpu` with what verl asks of `torch.cuda` besides: no memory of its own."""

    current_device = staticmethod(lambda: "cpu")
    empty_cache = staticmethod(lambda: None)
    get_device_name = staticmethod(lambda *_: "cpu")
    get_rng_state = staticmethod(torch.get_rng_state)
    is_available = staticmethod(lambda: False)
    max_memory_allocated = max_memory_reserved = staticmethod(lambda *_: 0)
    mem_get_info = staticmethod(lambda *_: (0, 0))
    memory_allocated = memory_reserved = staticmethod(lambda *_: 0)
    set_rng_state = staticmethod(torch.set_rng_state)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):  # type: ignore[misc]  # untyped here
    """The CPU, with gloo between processes."""

    device_name = vendor_name = "cpu"
    device_module = _Device("orbiter_cpu")

    def is_available(self) -> bool:
        """True."""
        return True

    def current_device(self) -> str:
        """The one device."""
        return "cpu"

    def device_count(self) -> int:
        """One."""
        return 1

    def set_device(self, device_index: int) -> None:
        """Nothing to choose from."""

    def synchronize(self, device_index: int | None = None) -> None:
        """Work on the CPU is done when its call returns."""

    def manual_seed(self, seed: int) -> None:
        """Seed torch."""
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seed torch."""
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """There are none."""

    def empty_cache(self) -> None:
        """There is none."""

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        """None, as verl has it for what is no GPU."""
        return None, None

    def communication_backend_name(self) -> str:
        """gloo."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """As for CUDA; it is empty."""
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """No profiler."""
        yield

    def profiler_start(self) -> None:
        """No profiler."""

    def profiler_stop(self) -> None:
        """No profiler."""

    def ray_resource_name(self) -> str:
        """Ray's name."""
        return "CPU"

    def ray_noset_envvars(self) -> list[str]:
        """None."""
        return []

    def is_ipc_supported(self) -> bool:
        """False."""
        return False

    def cudart(self) -> None:
        """None."""


def _initialize(timeout_second: int = 36000) -> tuple[int, int, int]:
    """As verl does it, which names the CPU's backend twice where the device is the CPU."""
    torch.distributed.init_process_group("gloo")
    return int(os.environ["LOCAL_RANK"]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


verl.utils.distributed.initialize_global_process_group = _initialize
