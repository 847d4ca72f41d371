"""Regenerate the journals of the example store: `python mlruns.example/regenerate.py`.

Real trainings on real images, recorded offline: three configs with three seeds each, one training
that diverges, and one whose process is killed. Facts about the machine are left out.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orbiter.train import TrainerError, TrainMetrics
from orbiter.train.policy_gradient import PolicyGradientConfig, SoftmaxPolicy
from orbiter_mlflow import MLflowSettings
from orbiter_mlflow.cli.demo_runs import ACTIONS, DemoTrainer, load_digits
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.journal_reader import read_entries, read_head
from orbiter_mlflow.delivery.process_identity import ProcessIdentity
from orbiter_mlflow.delivery.records import Metrics, Status

HERE = Path(__file__).resolve().parent
JOURNALS = HERE / "journals"
SEEDS = (0, 1, 2)
CONFIGS: dict[str, dict[str, Any]] = {
    "lr-0.5": {"learning_rate": 0.5},
    "lr-0.5-less-entropy": {"learning_rate": 0.5, "entropy_coef": 0.05},
    "lr-0.1": {"learning_rate": 0.1},
}
DIVERGED = {"learning_rate": 1000.0, "weight_decay": 0.01}
KILLED_AT = 900
"""The step at which the last process is killed, of 1,800."""
EXPERIMENT = "example"

# The journals are published: replace the facts about this user and machine.
os.environ["MLFLOW_RUN_CONTEXT"] = json.dumps(
    {"mlflow.user": "example", "mlflow.source.name": "mlruns.example/regenerate.py"}
)
NOWHERE = ProcessIdentity(host="example", boot="", pid=0, started="")


class KilledTrainer(DemoTrainer):
    """Kills its process in the middle of the training, as the system does when memory runs out."""

    def _on_report(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        super()._on_report(metrics, step)
        if step >= KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)


def train(name: str, spool: Path, kind: type[DemoTrainer], **changes: Any) -> None:
    """Train one run, and leave its journal in `spool`."""
    settings = MLflowSettings(
        tracking_uri="http://127.0.0.1:5000",  # never contacted: `sync` gets the real one
        experiment=EXPERIMENT,
        run_name=name,
        delivery="offline",
        spool_dir=spool,
        skip_provenance=("git", "diff", "command", "machine", "packages"),
    )
    asyncio.run(_train(kind(PolicyGradientConfig(**changes), mlflow=settings)))


async def _train(trainer: DemoTrainer) -> None:
    train_data, test_data = load_digits()
    trainer.check_agent(SoftmaxPolicy(train_data[0].shape[1], ACTIONS))
    trainer.check_dataset(train_data, test_data)
    trainer.check_reward()
    trainer.check_config()
    await trainer.evaluate()
    trainer.mark_validated()
    try:
        await trainer.train()
    except TrainerError as error:
        print(error)
    else:
        await trainer.evaluate()


def keep(journal: Path, name: str) -> None:
    """Copy a journal into the example, without the facts about this machine in its head."""
    head = replace(read_head(journal), writer=NOWHERE, folder=None)
    kept = Journal(JOURNALS / f"{name}.jsonl", head)
    for entry in list(read_entries(journal))[1:]:
        if entry.record is None:
            sys.exit(f"{journal} is damaged: {entry.damage}")
        kept.append(entry.record)
    kept.close()
    kept.path.with_suffix(".writer").unlink(missing_ok=True)  # the lock of a journal without an end
    kept.path.chmod(0o644)


def table() -> str:
    """The rows of the README's table: the outcome of each run, from its journal."""
    rows = []
    for path in sorted(JOURNALS.glob("*.jsonl")):
        records = [entry.record for entry in read_entries(path)]
        ends = [record.status for record in records if isinstance(record, Status)]
        scores = [
            record.values["eval/accuracy"]
            for record in records
            if isinstance(record, Metrics) and "eval/accuracy" in record.values
        ]
        name = path.stem.partition("-")[2]
        kind = name.rpartition("-seed")[0]
        changes = CONFIGS.get(kind, DIVERGED if name == "diverged" else {})
        config = ", ".join(f"`{key}={value}`" for key, value in changes.items()) or "as `lr-0.5`"
        rows.append(f"| `{name}` | {(ends or ['KILLED'])[-1]} | {scores[-1]:.1%} | {config} |\n")
    return "".join(rows)


def main() -> None:
    """Train all runs, and replace the old journals and the README's table."""
    shutil.rmtree(JOURNALS, ignore_errors=True)
    JOURNALS.mkdir()
    runs = [
        (f"{name}-seed-{seed}", DemoTrainer, changes | {"seed": seed})
        for name, changes in CONFIGS.items()
        for seed in SEEDS
    ]
    runs += [("diverged", DemoTrainer, DIVERGED), ("killed", KilledTrainer, {})]
    for number, (name, kind, changes) in enumerate(runs, 1):
        print(name)
        with TemporaryDirectory() as folder:
            # In a process of its own, because its end closes the run, and the last one is killed.
            job = subprocess.Popen(  # noqa: S603  ourselves
                [sys.executable, __file__, folder, name, kind.__name__, json.dumps(changes)]
            )
            if job.wait() not in (0, -signal.SIGKILL):
                sys.exit(f"the training {name} failed")
            (journal,) = Path(folder).glob("*.jsonl")
            keep(journal, f"{number:02}-{name}")
    readme = HERE / "README.md"
    head, rule, rest = readme.read_text(encoding="utf-8").partition("|---|---|---|---|\n")
    readme.write_text(f"{head}{rule}{table()}\n{rest.partition(chr(10) * 2)[2]}", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        folder, name, kind_name, changes = sys.argv[1:]
        kinds = {kind.__name__: kind for kind in (DemoTrainer, KilledTrainer)}
        train(name, Path(folder), kinds[kind_name], **json.loads(changes))
