"""The machine that a run runs on: Python, platform, CPU, GPUs. The same for a process' life."""

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
"""Seconds: where no driver is kept loaded, nvidia-smi loads it."""


@cache
def machine_tags() -> dict[str, str]:
    """Version of Python, platform, and name and number of the CPUs."""
    return {
        names.PYTHON: platform.python_version(),
        names.PLATFORM: platform.platform(),
        names.CPU: f"{os.cpu_count()} x {_cpu() or platform.machine()}",
    }


@cache
def gpus(timeout: float = _TIMEOUT) -> str:
    """Names of the NVIDIA GPUs, counted: `8 x NVIDIA H100`; empty where there are none.

    Args:
        timeout: seconds that nvidia-smi may take; only where the driver does not tell is it asked.

    Raises:
        GpuError: nvidia-smi took too long.
    """
    found = _told_by_driver() or _told_by_tool(timeout)
    return ", ".join(f"{count} x {name}" for name, count in sorted(Counter(found).items()))


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:
            # The first one is enough: a machine with hundreds of them takes long to tell all.
            return next(_value(line) for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return ""  # not Linux, or not x86


def _told_by_driver() -> list[str]:
    try:
        texts = [
            path.read_text() for path in Path("/proc/driver/nvidia/gpus").glob("*/information")
        ]
    except OSError:
        return []
    return [
        _value(line) for text in texts for line in text.splitlines() if line.startswith("Model:")
    ]


def _told_by_tool(timeout: float) -> list[str]:
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
