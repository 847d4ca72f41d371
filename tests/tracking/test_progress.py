"""The progress bar: on a real terminal it moves with `report`, elsewhere it does not exist."""

import io
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import pytest
from rich.console import Console

from orbiter.train import TrainMetrics
from orbiter_mlflow import MLflowSettings
from orbiter_mlflow.tracking.progress import open_bar
from paths import PYTHONPATH

PROGRAM = """
import asyncio
from orbiter.train import TrainMetrics
from orbiter_mlflow import MLflowSettings
from trainers import Tracked, reporting

reports = [({"loss": 1 / (n + 1), "[red]x": 2.0, "text": "a"}, n + 1) for n in range(50)]
settings = MLflowSettings(delivery="offline", progress=50, run_name="a [bold]name")
trainer = Tracked(None, reporting(*reports), mlflow=settings)
trainer.mark_validated()
asyncio.run(trainer.train())
print("done")
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


def on_a_terminal(program: str) -> str:
    """What a program prints on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": PYTHONPATH}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        out = b""
        with suppress(OSError):  # the far end is closed
            while piece := os.read(ours, 65536):
                out += piece
        os.close(ours)
    assert process.returncode == 0, out.decode()
    return ESCAPES.sub("", out.decode())


def test_on_a_terminal_the_bar_shows_name_steps_and_metrics() -> None:
    seen = on_a_terminal(PROGRAM)
    assert "a [bold]name" in seen
    assert "step 50 of 50" in seen
    assert "[red]x 2" in seen
    assert seen.rstrip().endswith("done")


def test_without_a_terminal_there_is_no_bar() -> None:
    assert open_bar("title", 10, Console(file=io.StringIO())) is None
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "done\n"
    assert done.stderr == ""


def test_a_bar_takes_train_metrics_and_an_unknown_number_of_steps() -> None:
    file = io.StringIO()
    bar = open_bar("title", None, Console(file=file, force_terminal=True, width=100))
    assert bar is not None
    bar.moved(TrainMetrics(loss=0.25, accuracy=0.5), 7)
    bar.stop()
    shown = ESCAPES.sub("", file.getvalue())
    assert "step 7" in shown
    assert "loss 0.25  accuracy 0.5" in shown


@pytest.mark.parametrize(("text", "progress"), [("true", True), ("0", False), ("500", 500)])
def test_the_setting_is_a_switch_or_a_number_of_steps(text: str, progress: object) -> None:
    found = MLflowSettings.model_validate({"progress": text}).progress
    assert found == progress
    assert type(found) is type(progress)
