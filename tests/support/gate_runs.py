"""Runs written directly to a store, for tests of the gate."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from orbiter_mlflow import names
from orbiter_mlflow.cli.main import commands

_STARTS = itertools.count(1_700_000_000_000, 60_000)

BLESSED = {names.BASELINE: "main", names.BLESSED_AT: "2026-01-01T00:00:00.000+00:00"}
"""Tags of a run that is part of the baseline `main`, as `bless` once wrote them."""
DATA = {"eval": ("test_data", "0123abcd")}
"""Context -> name and digest."""


@dataclass
class Shelf:
    """A store and the ids of what is in it, by the names of the runs."""

    uri: str
    client: MlflowClient = field(init=False)
    ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = MlflowClient(self.uri)

    @classmethod
    def fresh(cls, empty_store: Path, folder: Path) -> Self:
        """A store with nothing in it."""
        path = folder / "store.db"
        path.write_bytes(empty_store.read_bytes())
        return cls(f"sqlite:///{path}")

    def call(self, *arguments: object, width: int = 1000) -> tuple[int, str]:
        """Run `orbiter-mlflow` on this store; the exit code and the output."""
        environment = {"MLFLOW_TRACKING_URI": self.uri, "COLUMNS": str(width)}
        result = CliRunner(env=environment).invoke(commands, [*map(str, arguments)])
        assert isinstance(result.exception, SystemExit | None), result.exc_info
        return result.exit_code, result.output

    def experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name))

    def add(
        self,
        name: str,
        metrics: Mapping[str, float | Sequence[float]],
        *,
        experiment: str = "Default",
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        data: Mapping[str, tuple[str, str]] = DATA,
        status: str = "FINISHED",
    ) -> str:
        """A run; a metric with several values has them at the steps 0, 1, ..."""
        start = next(_STARTS)
        run = self.client.create_run(
            self.experiment(experiment), start_time=start, tags=dict(tags or {}), run_name=name
        )
        run_id = str(run.info.run_id)
        points = [
            Metric(key, float(value), start + step, step)
            for key, given in metrics.items()
            for step, value in enumerate(given if isinstance(given, Sequence) else [given])
        ]
        texts = [Param(key, text) for key, text in (params or {}).items()]
        self.client.log_batch(run_id, metrics=points, params=texts, synchronous=True)
        self.client.log_inputs(
            run_id,
            [
                DatasetInput(
                    Dataset(of, digest, "local", "{}"), [InputTag(names.DATASET_CONTEXT, context)]
                )
                for context, (of, digest) in data.items()
            ],
        )
        if status != "RUNNING":
            self.client.set_terminated(run_id, status, start + 30_000)
        self.ids[name] = run_id
        return run_id

    def tag(self, name: str, **tags: str) -> None:
        entities = [RunTag(key, text) for key, text in tags.items()]
        self.client.log_batch(self.ids[name], tags=entities, synchronous=True)


def names_of(shelf: Shelf, ids: Sequence[str]) -> list[str]:
    """The names of runs, in order."""
    by_id = {run_id: name for name, run_id in shelf.ids.items()}
    return [by_id[one] for one in ids]
