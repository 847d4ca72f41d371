"""Trainings as people start them: scripts in a process and a folder of their own, also as a user
that is not root.
"""

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
from mlflow import MlflowClient
from mlflow.entities import Run

PRELUDE = """
import asyncio, os, signal, sys, time
from pathlib import Path
from orbiter.train import *
from orbiter_mlflow import *

class Backend(Trainer):
    inside = None
    in_evaluate = None
    def check_agent(self, agent): pass
    def check_dataset(self, train_data, test_data=None): pass
    def check_reward(self, reward_fn=None): pass
    def check_config(self, config=None): pass
    async def train(self):
        self._require_validated()
        for step in range(100):
            self.report({"loss": 1.0 / (step + 1)}, step=step)
        if self.inside is not None:
            await self.inside()
        return TrainMetrics(loss=0.01, steps=100)
    async def evaluate(self, test_data=None):
        if self.in_evaluate is not None:
            await self.in_evaluate()
        return TrainMetrics(accuracy=0.5)

class Tracked(MLflowTrainerMixin, Backend):
    pass

def ready():
    Path("ready").touch()

def validated(config=None, **settings):
    trainer = Tracked(config, mlflow=MLflowSettings(**settings) if settings else None)
    trainer.check_agent(None)
    trainer.mark_validated()
    return trainer

def trained(**settings):
    trainer = validated(**settings)
    asyncio.run(trainer.train())
    return trainer

async def forever():
    ready()
    while True:  # asyncio notices a signal that comes right before it waits only when it wakes
        await asyncio.sleep(0.05)
"""
"""The head of a script: a tracked trainer that awaits `inside` in `train`, `in_evaluate` in
`evaluate`; `ready` tells the test that the script has come this far."""


def started(
    script: str,
    folder: Path,
    arguments: Sequence[str] = (),
    *,
    user: bool = False,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> "subprocess.Popen[str]":
    """Start `PRELUDE` and a script in a folder; with `user`, as a user that is not root."""
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
    """Wait for a script to succeed, and return its standard output."""
    out, err = process.communicate(timeout=within)
    assert process.returncode == 0, err
    sys.stderr.write(err)  # shown if the test fails later
    return out


def as_user(*command: str) -> list[str]:
    """The command as run by a user that is not root, so that file modes bind it.

    Root becomes such a user in a user namespace: it still owns our files, but may do with them only
    as their modes allow.
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


def ended(client: MlflowClient) -> Run | None:
    """The only run of a store, once it has its final status."""
    found = client.search_runs(["0"])
    assert len(found) <= 1
    return found[0] if found and found[0].info.status != "RUNNING" else None
