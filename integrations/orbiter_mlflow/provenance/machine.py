"""Describe the machine: Python, platform, CPU, GPUs. Cached for the life of the process."""

import os
import platform
from collections import Counter
from functools import cache
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.errors import GpuError
from orbiter_mlflow.provenance.subprocesses import run_subprocess

__all__ = ["GpuError", "gpus", "machine_tags"]

_TIMEOUT = 10.0
"""Seconds: nvidia-smi may have to load the driver first."""


@cache
def machine_tags() -> dict[str, str]:
    """The tags with the version of Python, the platform, and name and number of the CPUs."""
    return {
        names.PYTHON: platform.python_version(),
        names.PLATFORM: platform.platform(),
        names.CPU: f"{os.cpu_count()} x {_cpu() or platform.machine()}",
    }


@cache
def gpus(timeout: float = _TIMEOUT) -> str:
    """Names of the NVIDIA GPUs, counted: `8 x NVIDIA H100`; empty if there are none.

    Args:
        timeout: seconds for nvidia-smi, which runs only if `/proc` has no answer.

    Raises:
        GpuError: nvidia-smi took too long.
    """
    found = _from_driver() or _from_nvidia_smi(timeout)
    return ", ".join(f"{count} x {name}" for name, count in sorted(Counter(found).items()))


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:
            # the first is enough: listing hundreds of them takes long
            return next(_value(line) for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return ""  # not Linux, or not x86


def _from_driver() -> list[str]:
    try:
        texts = [
            path.read_text() for path in Path("/proc/driver/nvidia/gpus").glob("*/information")
        ]
    except OSError:
        return []
    return [
        _value(line) for text in texts for line in text.splitlines() if line.startswith("Model:")
    ]


def _from_nvidia_smi(timeout: float) -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = run_subprocess(command, Path("/"), timeout, environment=os.environ)
    except OSError:  # not installed
        return []
    if answer.timed_out:
        raise GpuError(f"nvidia-smi took longer than {timeout:g} s")
    return answer.text.splitlines() if answer.code == 0 else []


def _value(line: str) -> str:
    return line.partition(":")[2].strip()
