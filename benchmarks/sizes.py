"""The sizes of the benchmarks: the full ones, and quick ones to check that everything runs."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import click

from benchmarks.stores import DIRECT, POSTGRES, SERVER, SQLITE


@dataclass(frozen=True)
class Sizes:
    """The amount of work, and the number of repetitions.

    Attributes:
        stores: the stores of the tracking benchmark.
        steps: calls of `log` in the tracking benchmark, of `METRICS` metrics each.
        rounds: runs of each of its contenders; the rows are medians.
        client_rounds: runs of each row of the benchmark of MLflow's own clients.
        landing_steps: steps in those of its rows that show the landing rate.
        trl_rounds: trainings by TRL of each row of that benchmark.
        trl_turns: turns of each training.
        trl_seconds: length of a turn.
        reports: calls of `report` in the latency benchmark.
        report_rounds: repetitions of that benchmark.
        loop_seconds: length of the CPU-bound loop.
        pairs: interleaved pairs of it, without and with tracking.
        imports: fresh processes for each import.
        history: points in the run before an answer is lost.
        batches: lost answers, and fresh batches to compare them with.
        rollout_rounds: steps of the benchmark of rollouts.
        outage: points reported while the server is down.
        processes: interleaved pairs of whole processes.
        encodings: repetitions of encoding and loading the config.
        gate_runs: runs in the store that the gate reads.
        gate_points: points in each history that the gate reads.
        gate_rounds: repetitions of the check.
        trials: simulated candidates for each row of the gate's tests.
        load_stores: the stores of the benchmark of many trainers, of those in `stores.py`.
        layouts: its processes, and trainers in each; the first is one alone.
        load_points: points that each of its processes reports.
        bare_steps: steps of `METRICS` metrics that bare batches bring to the same store.
        million: points of the run whose memory is watched.
        landing_stores: the stores of the benchmark of the landing rate.
        fleet_stores: the servers of the fleet.
        fleet_trainers: its trainers.
        fleet_machines: processes that deliver for them.
        fleet_period: seconds between two steps of a trainer.
        fleet_seconds: how long they train.
        fleet_backlog: steps that each of them delivers late.
    """

    stores: tuple[str, ...] = ("sqlite", "server")
    steps: int = 1_000
    rounds: int = 3
    client_rounds: int = 3
    landing_steps: int = 5_000
    trl_rounds: int = 3
    trl_turns: int = 10
    trl_seconds: float = 2.0
    reports: int = 5_000
    report_rounds: int = 3
    loop_seconds: float = 5.0
    pairs: int = 11
    imports: int = 7
    history: int = 1_000_000
    batches: int = 5
    rollout_rounds: int = 3
    outage: int = 1_000_000
    processes: int = 5
    encodings: int = 50
    gate_runs: int = 10_000
    gate_points: int = 10_000
    gate_rounds: int = 5
    trials: int = 50_000
    load_stores: tuple[str, ...] = (SQLITE, SERVER, POSTGRES)
    layouts: tuple[tuple[int, int], ...] = ((1, 1), (1, 64), (8, 8), (64, 1))
    load_points: int = 100_000
    bare_steps: int = 5_000
    million: int = 1_000_000
    landing_stores: tuple[str, ...] = (SQLITE, SERVER, POSTGRES, DIRECT)
    fleet_stores: tuple[str, ...] = (SERVER, POSTGRES)
    fleet_trainers: int = 1_000
    fleet_machines: int = 16
    fleet_period: float = 5.0
    fleet_seconds: float = 60.0
    fleet_backlog: int = 30


METRICS = 10
"""Metrics of one step."""

FULL = Sizes()
QUICK = Sizes(
    stores=("server",),
    steps=30,
    rounds=1,
    client_rounds=1,
    landing_steps=60,
    trl_rounds=1,
    trl_turns=2,
    trl_seconds=2.0,
    reports=500,
    report_rounds=1,
    loop_seconds=0.5,
    pairs=1,
    imports=1,
    history=10_000,
    batches=2,
    rollout_rounds=1,
    outage=10_000,
    processes=1,
    encodings=10,
    gate_runs=1_200,
    gate_points=1_000,
    gate_rounds=1,
    trials=2_000,
    layouts=((1, 1), (1, 8), (2, 4), (4, 1)),
    load_points=2_000,
    bare_steps=200,
    million=10_000,
    fleet_trainers=20,
    fleet_machines=2,
    fleet_seconds=10.0,
    fleet_backlog=20,
)


def changed(sizes: Sizes, changes: Iterable[tuple[str, str]]) -> Sizes:
    """Sizes with other values, each given as JSON.

    Raises:
        click.UsageError: a value is of another type than the one that it replaces.
    """
    for name, text in changes:
        try:
            value = _tuples(json.loads(text))
        except ValueError as error:
            raise click.UsageError(f"{name}: {text!r} is not JSON") from error
        if type(value) is not type(getattr(sizes, name)):
            raise click.UsageError(f"{name}: {text} has another type than its default")
        sizes = replace(sizes, **{name: value})
    return sizes


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
