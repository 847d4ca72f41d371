"""A process' identity shows whether it still runs."""

import subprocess
import sys
from dataclasses import replace

import pytest

from orbiter_mlflow.delivery.process_identity import (
    ProcessIdentity,
    is_gone,
    runs_elsewhere,
    this_process,
)
from waiting import eventually


def writer_of(process: "subprocess.Popen[bytes]") -> ProcessIdentity:
    """The identity that the process itself would write."""
    said = process.stdout
    assert said is not None
    return replace(this_process(), pid=process.pid, started=said.readline().decode().strip())


def sleeper() -> "subprocess.Popen[bytes]":
    script = (
        "from orbiter_mlflow.delivery.process_identity import this_process\n"
        "import sys, time\n"
        "print(this_process().started, flush=True)\n"
        "time.sleep(600)\n"
    )
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)


def test_a_running_process_is_alive_and_a_killed_one_gone_even_as_a_zombie() -> None:
    with sleeper() as process:
        writer = writer_of(process)
        assert not is_gone(writer)
        process.kill()
        eventually(lambda: is_gone(writer))  # nobody has reaped it yet
        assert process.poll() is not None
        assert is_gone(writer)


def test_a_later_process_with_the_same_pid_is_another_one() -> None:
    assert not is_gone(this_process())
    assert is_gone(replace(this_process(), started="1"))


@pytest.mark.parametrize(
    "other",
    [
        {"host": "another-machine", "boot": "x"},
        {"boot": "before the last boot"},  # or another machine that has the same name
        {"namespace": "pid:[1]"},  # a container that has its host's name
    ],
    ids=["machine", "boot", "container"],
)
def test_the_pid_of_another_machine_or_container_says_nothing(other: dict[str, str]) -> None:
    there = replace(this_process(), started="1", pid=2**22 + 1, **other)
    assert not is_gone(there)
    assert runs_elsewhere(there)
    assert not runs_elsewhere(this_process())
