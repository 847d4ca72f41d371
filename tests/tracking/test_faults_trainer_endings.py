"""How each ending looks: the design's table, each row a real process with a real store."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow import MlflowClient

from scripts import PRELUDE, ended
from waiting import eventually


@dataclass(frozen=True)
class Ending:
    script: str
    status: str
    state: str | None
    error: tuple[str, str] | None = None
    """Type and phase."""
    then: Callable[["subprocess.Popen[bytes]"], None] = lambda process: None
    """What is done to the process once it is ready."""
    exit_code: int | None = 0
    tags: dict[str, str] = field(default_factory=dict)
    points: int = 100
    """Of train/loss, from `report` alone."""


def send(number: int) -> Callable[["subprocess.Popen[bytes]"], None]:
    return lambda process: process.send_signal(number)


ENDINGS = {
    "train returns": Ending("asyncio.run(validated().train())", "FINISHED", "completed"),
    "train raises": Ending(
        """
        async def boom(): raise ValueError("no such luck")
        trainer = validated(); trainer.inside = boom
        try: asyncio.run(trainer.train())
        except TrainerError as error: assert isinstance(error.__cause__, ValueError)
        """,
        "FAILED",
        "failed",
        ("ValueError", "train"),
        tags={"orbiter.error.message": "no such luck"},
    ),
    "train raises and the process ends with it": Ending(
        """
        async def boom(): raise ValueError("no such luck")
        trainer = validated(); trainer.inside = boom
        asyncio.run(trainer.train())
        """,
        "FAILED",
        "failed",
        ("ValueError", "train"),
        exit_code=1,
    ),
    "train is cancelled": Ending(
        """
        async def main():
            trainer = validated(); trainer.inside = forever
            task = asyncio.create_task(trainer.train())
            await asyncio.sleep(0.1)
            task.cancel()
            start = time.monotonic()
            try: await task
            except asyncio.CancelledError: assert time.monotonic() - start < 20
        asyncio.run(main())
        """,
        "KILLED",
        "failed",
        ("CancelledError", "train"),
    ),
    "Ctrl-C in train": Ending(
        "trainer = validated(); trainer.inside = forever; asyncio.run(trainer.train())",
        "KILLED",
        "failed",
        ("CancelledError", "train"),
        then=send(signal.SIGINT),
        exit_code=-signal.SIGINT,
    ),
    "sys.exit in train": Ending(
        """
        async def leave(): sys.exit(0)
        trainer = validated(); trainer.inside = leave
        asyncio.run(trainer.train())
        """,
        "KILLED",
        "failed",
        ("SystemExit", "train"),
    ),
    "SIGTERM in train": Ending(
        "trainer = validated(); trainer.inside = forever; asyncio.run(trainer.train())",
        "KILLED",
        "failed",
        ("ProcessDied", "train"),
        then=send(signal.SIGTERM),
        exit_code=-signal.SIGTERM,
    ),
    "kill -9 in train": Ending(
        "trainer = validated(); trainer.inside = forever; asyncio.run(trainer.train())",
        "KILLED",
        "failed",
        ("ProcessDied", "train"),
        then=send(signal.SIGKILL),
        exit_code=-signal.SIGKILL,
    ),
    "os._exit in train": Ending(
        """
        async def drop(): os._exit(3)
        trainer = validated(); trainer.inside = drop
        asyncio.run(trainer.train())
        """,
        "KILLED",
        "failed",
        ("ProcessDied", "train"),
        exit_code=3,
    ),
    "kill -9 while a forked worker lives on": Ending(
        """
        async def fork_and_wait():
            if os.fork() == 0:
                time.sleep(600)
            await forever()
        trainer = validated(); trainer.inside = fork_and_wait
        asyncio.run(trainer.train())
        """,
        "KILLED",
        "failed",
        ("ProcessDied", "train"),
        then=send(signal.SIGKILL),
        exit_code=-signal.SIGKILL,
    ),
    "evaluate raises after train": Ending(
        """
        async def boom(): raise ValueError("bad data")
        trainer = validated()
        asyncio.run(trainer.train())
        trainer.in_evaluate = boom
        try: asyncio.run(trainer.evaluate())
        except TrainerError: pass
        """,
        "FINISHED",
        "completed",
        ("ValueError", "evaluate"),
    ),
    "evaluate raises and there was no training": Ending(
        """
        async def boom(): raise ValueError("bad data")
        trainer = Tracked(); trainer.in_evaluate = boom
        try: asyncio.run(trainer.evaluate())
        except TrainerError: pass
        """,
        "FAILED",
        None,
        ("ValueError", "evaluate"),
        points=0,
    ),
    "evaluate is cancelled and there was no training": Ending(
        """
        async def main():
            trainer = Tracked(); trainer.in_evaluate = forever
            task = asyncio.create_task(trainer.evaluate())
            await asyncio.sleep(0.1)
            task.cancel()
            try: await task
            except asyncio.CancelledError: pass
        asyncio.run(main())
        """,
        "FAILED",
        None,
        ("CancelledError", "evaluate"),
        points=0,
    ),
    "evaluated, never trained": Ending(
        "trainer = Tracked(); asyncio.run(trainer.evaluate())", "FINISHED", None, points=0
    ),
    "validated, never trained nor evaluated": Ending(
        "trainer = validated()", "KILLED", "validated", points=0
    ),
    "evaluated after training": Ending(
        """
        trainer = validated()
        asyncio.run(trainer.train())
        asyncio.run(trainer.evaluate())
        """,
        "FINISHED",
        "completed",
    ),
    "kill -9 after the training": Ending(
        """
        trainer = validated()
        asyncio.run(trainer.train())
        ready()
        time.sleep(600)
        """,
        "FINISHED",
        "completed",
        then=send(signal.SIGKILL),
        exit_code=-signal.SIGKILL,
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_ending(name: str, sqlite_uri: str, tmp_path: Path) -> None:
    ending = ENDINGS[name]
    script = tmp_path / "script.py"
    script.write_text(PRELUDE + textwrap.dedent(ending.script))
    environment = os.environ | {"MLFLOW_TRACKING_URI": sqlite_uri}
    said = tmp_path / "stderr.txt"
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(script)], env=environment, stderr=stderr, process_group=0
        )
    try:
        if ending.exit_code is not None and ending.exit_code < 0:
            eventually(lambda: (tmp_path / "ready").exists() or process.poll() is not None)
        ending.then(process)
        assert process.wait(60) == ending.exit_code, said.read_text()
        assert "Traceback" not in said.read_text() or ending.exit_code != 0, said.read_text()

        client = MlflowClient(sqlite_uri)
        run = eventually(lambda: ended(client))
        assert run.info.status == ending.status
        assert run.data.tags.get("orbiter.state") == ending.state
        error = run.data.tags.get("orbiter.error.type"), run.data.tags.get("orbiter.error.phase")
        assert error == (ending.error or (None, None))
        for key, value in ending.tags.items():
            assert run.data.tags[key] == value
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert len(history) == ending.points
        assert run.info.end_time is not None
        assert run.info.end_time <= time.time() * 1000
        assert run.data.params["learning_rate"] == "1e-05"
        # Nothing is left: no journal, no process that delivers.
        eventually(lambda: not list((tmp_path / "state" / "orbiter-mlflow").glob("*.jsonl")))
    finally:
        kill_group(process)


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """End the process and its forked children; the delivery process has a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
