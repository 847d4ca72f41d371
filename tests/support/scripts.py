"""Trainings as people start them: a script of its own process, here also of a user that is not
root, and of a folder of choice."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pytest

PRELUDE = """
import asyncio, os, sys, time
from pathlib import Path
from types import MappingProxyType
from orbiter.train import TrainConfig, Trainer, TrainMetrics
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin

class Tracked(MLflowTrainerMixin, Trainer):
    async def body(self): pass
    def check_agent(self, agent): pass
    def check_dataset(self, train_data, test_data=None): pass
    def check_reward(self, reward_fn=None): pass
    def check_config(self, config=None): pass
    async def train(self):
        for step in range(10):
            self.report({"loss": 1 / (step + 1)}, step=step)
        await self.body()
        return TrainMetrics(loss=0.1, steps=10)
    async def evaluate(self, test_data=None):
        return TrainMetrics(accuracy=0.5)

def trained(**settings):
    trainer = Tracked(mlflow=MLflowSettings(**settings))
    trainer.mark_validated()
    asyncio.run(trainer.train())
    return trainer
"""


def started(
    script: str,
    folder: Path,
    arguments: Sequence[str] = (),
    *,
    user: bool = False,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> "subprocess.Popen[str]":
    """Run a script, after `PRELUDE`, in a folder; `user`: as one that is not root."""
    file = folder / "script.py"
    file.write_text(PRELUDE + textwrap.dedent(script))
    command = [sys.executable, str(file), *arguments]
    return subprocess.Popen(
        as_user(*command) if user else command,
        cwd=folder,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(process: "subprocess.Popen[str]", within: float = 120.0) -> str:
    """What it printed, once it has ended well."""
    out, err = process.communicate(timeout=within)
    assert process.returncode == 0, err
    sys.stderr.write(err)  # shown where the test fails later
    return out


def as_user(*command: str) -> list[str]:
    """The command, run by a user that is not root and whom the modes of files bind.

    Root becomes one in a user namespace: files of ours are still its own, whatever it may not do
    with its own files by their modes it cannot do.
    """
    if os.geteuid() != 0:
        return list(command)
    if not _has_user_namespaces():
        pytest.skip("root cannot become another user here: no user namespaces")
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--", *command]


@cache
def _has_user_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--", "true"]
    return subprocess.run(command, capture_output=True).returncode == 0
