"""What verl writes while it runs is reported with its step and phase; a script stands for verl."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orbiter.train import TrainerError, TrainMetrics, VeRLAlgorithm, VeRLConfig, VeRLTrainer
from orbiter.train.rollouts import Rollout
from orbiter.train.verl.launch import LaunchPlan, Phase

SCRIPT = """
import json, os, sys
def line(**given):
    return json.dumps(given) + "\\n"
with open("metrics.jsonl", "w") as file:
    file.write(line(step=0, data={"val-core/orbiter/reward/mean@1": 0.25}))
    file.write(line(step=1, data={"actor/pg_loss": 0.5, "critic/score/mean": 0.1}))
    file.write(line(step=2, data={"train/loss": 2.0, "val/loss": 3.0}))
for folder in ("validation", "said"):
    os.mkdir(folder)
    with open(f"{folder}/2.jsonl", "w") as file:
        file.write(line(input="1+1", output=folder, score=1.0, gts="2", step=2))
sys.exit(int(sys.argv[1]))
"""


class Recording(VeRLTrainer):
    """Keeps its reports."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[tuple[str, int, Any]] = []

    def _on_report(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        self.reports.append(("train", step, metrics))

    def _on_evaluation_report(
        self, metrics: Mapping[str, Any] | TrainMetrics, step: int, data: Any
    ) -> None:
        self.reports.append(("eval", step, metrics))

    def _on_checkpoint(self, path: str, step: int) -> None:
        self.reports.append(("checkpoint", step, Path(path).name))

    def _on_rollouts(self, rollouts: Any, step: int, phase: Any) -> None:
        found: list[Rollout] = list(rollouts)
        self.reports.append((phase, step, [rollout.completion for rollout in found]))


def plan(folder: Path, *arguments: str) -> LaunchPlan:
    return LaunchPlan(
        command=[sys.executable, "-c", SCRIPT, *arguments],
        environment=os.environ,
        log=folder / "verl.log",
        metrics=folder / "metrics.jsonl",
        completions={"eval": folder / "validation", "train": folder / "said"},
    )


async def test_metrics_and_completions_are_reported(own_folder: Path) -> None:
    trainer = Recording()
    result = await trainer._run(plan(own_folder, "0"))
    assert trainer.reports == [
        ("eval", 0, {"val-core/orbiter/reward/mean@1": 0.25}),
        ("train", 1, {"actor/pg_loss": 0.5, "critic/score/mean": 0.1}),
        ("train", 2, {"loss": 2.0}),
        ("eval", 2, {"loss": 3.0}),
        ("eval", 2, ["validation"]),
        ("train", 2, ["said"]),
    ]
    assert result == TrainMetrics(loss=2.0, steps=2)
    trainer.check_dataset([{"input": "a"}], [{"input": "b"}])
    assert await trainer.evaluate() == TrainMetrics(loss=3.0, steps=1, extra={"eval_items": 1})


async def test_checkpoints_are_reported_once_they_are_complete(own_folder: Path) -> None:
    folder = own_folder / "checkpoints"
    latest = folder / "latest_checkpointed_iteration.txt"
    for step in (1, 2):
        (folder / f"global_step_{step}").mkdir(parents=True)
    latest.write_text("1")  # of the training that is resumed
    saving = f"open({str(latest)!r}, 'w').write('2')\n"
    planned = plan(own_folder, "0")
    command = [sys.executable, "-c", saving + SCRIPT, "0"]
    trainer = Recording()
    await trainer._run(replace(planned, command=command, checkpoints=folder))
    assert [one for one in trainer.reports if one[0] == "checkpoint"] == [
        ("checkpoint", 2, "global_step_2")
    ]


async def test_an_evaluation_counts_the_rows_that_fine_tuning_has_measured(
    own_folder: Path,
) -> None:
    trainer = Recording()
    trainer.check_config(VeRLConfig(algorithm=VeRLAlgorithm.SFT, batch_size=2))
    trainer.check_dataset([{"input": "a"}], [{"input": "b"}] * 5)
    assert (await trainer.evaluate()).extra == {"eval_items": 5}
    await trainer._run(plan(own_folder, "0"))
    assert await trainer.evaluate() == TrainMetrics(loss=3.0, steps=4, extra={"eval_items": 4})


async def test_what_came_before_an_error_is_reported(own_folder: Path) -> None:
    trainer = Recording()
    with pytest.raises(TrainerError, match="verl ended with exit code 3"):
        await trainer._run(plan(own_folder, "3"))
    assert len(trainer.reports) == 6


async def test_completions_that_cannot_be_read_fail_no_training(
    own_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Recording()
    planned = plan(own_folder, "0")
    folders: Mapping[Phase, Path] = {"eval": own_folder / "no", "train": own_folder / "said"}
    script = "import os; os.makedirs('no/2.jsonl')\n" + SCRIPT  # a folder in the place of a file
    command = [sys.executable, "-c", script, "0"]
    await trainer._run(replace(planned, command=command, completions=folders))
    assert trainer.reports[-1] == ("train", 2, ["said"])
    assert "completions of phase 'eval' could not be read" in caplog.text


async def test_a_verl_that_has_nothing_left_to_do_is_no_training(own_folder: Path) -> None:
    nothing = plan(own_folder, "0")
    with pytest.raises(TrainerError, match="verl ended without a step"):
        await Recording()._run(
            LaunchPlan(
                [sys.executable, "-c", ""], nothing.environment, nothing.log, nothing.metrics, {}
            )
        )
