"""The parts of the benchmarks that say whether a run is whole: they must see what is wrong."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from rich.console import Console

from benchmarks.meeting import Meeting
from benchmarks.meter import Meter, processes_of
from benchmarks.processes import environment
from benchmarks.render import show
from benchmarks.results import Result
from benchmarks.sizes import QUICK, changed
from benchmarks.store_points import Landed, landed
from benchmarks.stores import metrics_of
from waiting import eventually

STEPS, PER_STEP = 5, 10


def points() -> list[Metric]:
    return [
        Metric(f"train/{key}", value, 1_000 + step, step)
        for step in range(STEPS)
        for key, value in metrics_of(step, PER_STEP).items()
    ]


def run_with(uri: str, metrics: list[Metric], status: str = "FINISHED") -> str:
    client = MlflowClient(uri)
    run_id: str = client.create_run("0").info.run_id
    client.log_batch(run_id, metrics=metrics)
    client.set_terminated(run_id, status)
    return run_id


def test_a_whole_run_has_each_point_once(sqlite_uri: str) -> None:
    run_id = run_with(sqlite_uri, points())
    assert landed(sqlite_uri, {run_id: STEPS}) == Landed(STEPS * PER_STEP, 0, 0, 0)


def test_a_point_that_lacks_or_has_another_value_is_missing(sqlite_uri: str) -> None:
    *rest, last = points()
    wrong = Metric(last.key, last.value + 1, last.timestamp, last.step)
    lacking, other = run_with(sqlite_uri, rest), run_with(sqlite_uri, [*rest, wrong])
    assert landed(sqlite_uri, {lacking: STEPS}).missing == 1
    found = landed(sqlite_uri, {other: STEPS})
    assert (found.missing, found.twice) == (1, 1)


def test_a_point_that_was_sent_again_at_another_time_is_there_twice(sqlite_uri: str) -> None:
    again = points()[0]
    again = Metric(again.key, again.value, again.timestamp + 1, again.step)
    run_id = run_with(sqlite_uri, [*points(), again])
    assert landed(sqlite_uri, {run_id: STEPS}) == Landed(STEPS * PER_STEP - 1, 0, 1, 0)


def test_a_run_that_was_killed_is_unfinished(sqlite_uri: str) -> None:
    run_id = run_with(sqlite_uri, points(), "KILLED")
    assert landed(sqlite_uri, {run_id: STEPS}).unfinished == 1


def test_the_meter_counts_the_processes_of_one_folder_only(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    command = [sys.executable, "-c", "input()", "measured.module"]
    started = [
        subprocess.Popen(command, env=os.environ | environment(folder), stdin=subprocess.PIPE)
        for folder in (mine, mine, other)
    ]
    try:
        eventually(lambda: len(processes_of(mine, "measured")) == 2)
        with Meter({"group": lambda: processes_of(mine, "measured")}) as meter:
            eventually(lambda: meter.peaks["group"].memory > 1)
        assert meter.peaks["group"].count == 2
        assert processes_of(mine, "another") == []
    finally:
        for process in started:
            process.communicate(b"\n")


def test_a_meeting_fails_with_the_process_that_fails_before_it(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path, 2)
    meeting.arrive("phase", 0)
    with pytest.raises(RuntimeError, match="failed before phase"):
        meeting.all_arrived("phase", lambda: True)
    meeting.arrive("phase", 1)
    meeting.all_arrived("phase", lambda: True)
    meeting.begin("phase")
    start = time.monotonic()
    meeting.wait("phase", 0)
    assert time.monotonic() - start < 10


def test_a_size_is_replaced_by_one_of_its_type() -> None:
    sizes = changed(QUICK, [("layouts", "[[1, 2]]"), ("load_points", "7")])
    assert (sizes.layouts, sizes.load_points) == (((1, 2),), 7)
    for text in ("7.5", "seven", '"7"'):
        with pytest.raises(click.UsageError, match="load_points"):
            changed(QUICK, [("load_points", text)])


def test_a_note_is_printed_as_it_is() -> None:
    out = io.StringIO()
    note = "psycopg is not installed: pip install -e '.[servers]'"
    show(Console(file=out, width=100), Result("load", "Load", note, (), [], []))
    assert note in out.getvalue()
