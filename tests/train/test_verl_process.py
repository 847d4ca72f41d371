"""A process of verl's, with all that it has started, ends with the training that started it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orbiter.train.verl import process
from orbiter.train.verl.process import run_guarded
from waiting import eventually

FAMILY = """
import os, subprocess, sys, time
from pathlib import Path
generation = int(sys.argv[1])
if generation:
    subprocess.Popen([sys.executable, __file__, str(generation - 1)], start_new_session=True)
Path(f"pid-{generation}").write_text(str(os.getpid()))
time.sleep(600)
"""
"""A process, its child and grandchild, each in a session of its own, as torchrun starts them."""

STUBBORN = """
import os, signal, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: Path("asked").touch())
Path("ready").write_text(str(os.getpid()))
while True:
    time.sleep(600)
"""


def written(name: str, text: str) -> Path:
    path = Path.cwd() / name
    path.write_text(text)
    return path


async def guarded(*command: str) -> int:
    return await run_guarded(
        [sys.executable, *command],
        environment=os.environ,
        log=Path.cwd() / "log",
        on_tick=lambda _ended: None,
    )


async def until(*names: str) -> None:
    for name in names:
        await asyncio.to_thread(eventually, lambda name=name: Path(name).exists())


def family() -> list[int]:
    def pids() -> list[int]:
        texts = [file.read_text() for file in sorted(Path.cwd().glob("pid-*"))]
        return [int(text) for text in texts if text] if len(texts) == 3 and all(texts) else []

    return eventually(pids)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # gone before it was opened, or before it was read
        return True


async def test_the_exit_code_and_all_that_was_printed_come_back() -> None:
    ticks: list[bool] = []
    code = await run_guarded(
        [sys.executable, "-c", "import sys; print('out'); sys.exit('err')"],
        environment=os.environ,
        log=Path.cwd() / "log",
        on_tick=ticks.append,
    )
    assert code == 1
    assert sorted(Path("log").read_text().split()) == ["err", "out"]  # noqa: ASYNC240
    assert ticks[-1] is True
    assert not any(ticks[:-1])


async def test_a_command_that_a_signal_ends_has_its_number_in_the_code() -> None:
    assert await guarded("-c", "import os; os.kill(os.getpid(), 9)") == 128 + signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
async def test_a_cancelled_command_ends_with_all_that_it_has_started() -> None:
    script = written("family.py", FAMILY)
    running = asyncio.ensure_future(guarded(str(script), "2"))
    pids = await asyncio.to_thread(family)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(is_gone(pid) for pid in pids)


async def test_a_command_is_asked_to_end_before_it_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_PATIENCE", 3)
    running = asyncio.ensure_future(guarded(str(written("stubborn.py", STUBBORN))))
    await until("ready")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert Path("asked").exists()  # noqa: ASYNC240


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
async def test_a_command_that_is_cancelled_twice_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_PATIENCE", 3)
    ticks: list[bool] = []
    running = asyncio.ensure_future(
        run_guarded(
            [sys.executable, str(written("stubborn.py", STUBBORN))],
            environment=os.environ,
            log=Path.cwd() / "log",
            on_tick=ticks.append,
        )
    )
    await until("ready")
    running.cancel()
    await until("asked")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert is_gone(int(Path("ready").read_text()))  # noqa: ASYNC240
    assert ticks[-1] is True


async def test_a_folder_with_the_name_of_the_package_is_not_in_the_way() -> None:
    Path("orbiter").mkdir()  # noqa: ASYNC240
    written("orbiter/__init__.py", "raise RuntimeError")
    assert await guarded("-c", "") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_ends_with_a_caller_that_a_signal_ends(number: signal.Signals) -> None:
    script = written("family.py", FAMILY)
    caller = written(
        "caller.py",
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from orbiter.train.verl.process import run_guarded\n"
        f"command = [sys.executable, {str(script)!r}, '2']\n"
        "asyncio.run(run_guarded(command, environment=os.environ, log=Path('log'),"
        " on_tick=lambda ended: None))\n",
    )
    with subprocess.Popen([sys.executable, str(caller)]) as started:
        pids = family()
        started.send_signal(number)
    eventually(lambda: all(is_gone(pid) for pid in pids))
