"""Datasets and artifacts are delivered beside the metrics: their trouble holds up nothing else, and
a tag names those that are missing at the end."""

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from journals import HEAD, journal_of, run_lane
from memory_sink import MemoryRun, MemorySink, Trouble
from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files, retry, spool
from orbiter_mlflow.delivery.ack import Ack, write_ack
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.hosts.drain_loop import DrainLoop
from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
from orbiter_mlflow.delivery.records import (
    Artifact,
    Close,
    Dataset,
    Head,
    Metrics,
    Record,
    Status,
    Tags,
)
from orbiter_mlflow.delivery.side_lane import SideLane, nothing_waits, side_lanes
from orbiter_mlflow.errors import HeldError, RejectedError, TransientError, UnsupportedError
from waiting import eventually

DATA = Dataset("digits", "abc", "local", "{}", "", "", "train")


class Scene:
    """A finished run with two datasets and two artifacts, and a clock that only a test moves."""

    def __init__(self, folder: Path) -> None:
        self.journal = journal_of(folder / "run.jsonl", [])
        kept = [
            kept_files.keep_content(self.journal, name.encode(), name, "provenance")
            for name in ("a.txt", "b.txt")
        ]
        records: list[Record] = [
            Tags({"orbiter.state": "training"}),
            DATA,
            *kept,
            *[Metrics(i, 1000 + i, {"train/loss": i / 7}) for i in range(20)],
            replace(DATA, name="letters"),
            Status("FINISHED", 5000),
            Close(),
        ]
        self.journal.unlink()
        journal_of(self.journal, records)
        self.sink = MemorySink()
        self.now = 0.0
        self.drain = Drain(self.journal, self.open, clock=self.time, now=self.time)
        self.datasets, self.artifacts, self.rollouts, _ = side_lanes(
            self.journal, self.open, clock=self.time, now=self.time
        )

    def open(self, _: Head) -> MemorySink:
        return self.sink

    def time(self) -> float:
        return self.now

    @property
    def run(self) -> MemoryRun:
        (run,) = self.sink.runs.values()
        return run

    def go_on(self, lane: SideLane, until: Callable[[], bool], most: int = 100) -> None:
        """Run the lane repeatedly, moving the clock to its next attempt."""
        for _ in range(most):
            run_lane(lane)
            if until():
                return
            trial = lane.next_retry()
            waits = [] if trial is None else [self.now + trial]
            self.now = min([*waits, *([lane.not_before] if lane.ack.problem else [])])
        raise AssertionError(lane.ack)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_run_ends_complete_before_a_dataset_or_an_artifact_is_sent(scene: Scene) -> None:
    assert scene.drain.run()
    assert scene.drain.ack.settled
    assert (len(scene.run.points), scene.run.status.status) == (20, "FINISHED")
    assert (scene.run.datasets, scene.run.artifacts) == ([], {})
    assert not nothing_waits(scene.journal)
    assert run_lane(scene.datasets)
    assert run_lane(scene.artifacts)
    assert nothing_waits(scene.journal)
    assert [one.name for one in scene.run.datasets] == ["digits", "letters"]
    assert scene.run.artifacts == {"provenance/a.txt": b"a.txt", "provenance/b.txt": b"b.txt"}
    assert list(scene.journal.with_suffix(".files").iterdir()) == []
    assert not {names.DATASETS_MISSING, names.ARTIFACTS_MISSING} & scene.run.tags.keys()


@pytest.mark.parametrize("error", [HeldError("403 from the bucket"), TransientError("S3 is down")])
def test_a_tag_names_missing_artifacts_until_the_artifact_store_recovers(
    scene: Scene, error: HeldError | TransientError
) -> None:
    scene.sink.troubles += [Trouble(error, "log_artifact") for _ in range(3)]
    assert scene.drain.run()
    assert not run_lane(scene.artifacts)
    assert run_lane(scene.datasets)
    assert scene.run.tags[names.ARTIFACTS_MISSING] == (
        "not delivered yet: provenance/a.txt, provenance/b.txt"
    )
    assert scene.artifacts.ack.problem == str(error)
    assert spool.problem_of(scene.journal) == f"artifacts: {error}"
    assert scene.artifacts.given_up is isinstance(error, HeldError)
    scene.go_on(scene.artifacts, lambda: len(scene.run.artifacts) == 2)
    assert names.ARTIFACTS_MISSING not in scene.run.tags
    assert scene.artifacts.ack.problem == ""


def test_a_server_without_datasets_gets_the_rest_with_one_warning(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.sink.troubles += [
        Trouble(UnsupportedError("HTTP 404 to runs/log-inputs"), "log_dataset") for _ in range(2)
    ]
    assert scene.drain.run()
    assert run_lane(scene.datasets)
    assert run_lane(scene.artifacts)
    said = "2 skipped: the server has no endpoint for them"
    assert scene.run.tags[names.DATASETS_MISSING] == said
    assert names.QUARANTINED not in scene.run.tags
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    kept = scene.journal.with_suffix(".quarantine").read_text().splitlines()
    assert [json.loads(line)["name"] for line in kept] == ["digits", "letters"]


def test_no_dataset_is_skipped_while_a_gateway_answers_404_in_place_of_the_server(
    scene: Scene,
) -> None:
    assert scene.drain.run()
    absent = UnsupportedError("HTTP 404 (default backend)")
    scene.sink.troubles += [Trouble(absent, "log_dataset"), Trouble(absent, "log_batch")]
    assert not run_lane(scene.datasets)
    assert (scene.datasets.ack.skipped, scene.datasets.ack.held) == (0, False)
    scene.go_on(scene.datasets, lambda: not scene.datasets.ack.problem)
    assert scene.datasets.ack.skipped == 0
    assert scene.run.datasets


def test_a_refused_artifact_is_retried_for_minutes_and_then_kept(scene: Scene) -> None:
    original = scene.sink.log_artifact

    def picky(run_id: str, file: Path, artifact: Artifact) -> None:
        if artifact.name == "a.txt":
            raise RejectedError("HTTP 413")
        original(run_id, file, artifact)

    scene.sink.log_artifact = picky  # type: ignore[method-assign]
    assert scene.drain.run()
    run_lane(scene.artifacts)
    assert list(scene.run.artifacts) == ["provenance/b.txt"], "one refusal held up the other file"
    scene.go_on(scene.artifacts, lambda: not scene.artifacts.ack.aside)
    assert scene.now >= 240
    assert scene.artifacts.ack.refused == 1
    assert scene.run.tags[names.ARTIFACTS_MISSING] == "1 refused by the store"
    assert "provenance/a.txt" not in scene.run.artifacts
    spool.remove(scene.journal)
    (kept,) = scene.journal.with_suffix(".refused").iterdir()
    assert kept.read_text() == "a.txt"
    assert '"name": "a.txt"' in scene.journal.with_suffix(".quarantine").read_text()


def test_a_refusal_that_passes_costs_nothing(scene: Scene) -> None:
    scene.sink.troubles += [
        Trouble(RejectedError("UNIQUE constraint failed"), "log_dataset"),
        Trouble(TransientError("HTTP 500", answered=True), "log_dataset"),
    ]
    assert scene.drain.run()
    assert not run_lane(scene.datasets)
    scene.go_on(scene.datasets, lambda: len(scene.run.datasets) == 2)
    assert scene.datasets.ack.refused == 0
    assert names.DATASETS_MISSING not in scene.run.tags


def test_a_lane_that_dies_anywhere_is_continued_by_the_next(scene: Scene) -> None:
    class Killed(BaseException):
        pass

    assert scene.drain.run()
    for dies_at in ("before", "after"):
        original = scene.sink.log_artifact

        def dying(run_id: str, file: Path, artifact: Artifact) -> None:
            if dies_at == "after":  # noqa: B023  called in this turn of the loop
                original(run_id, file, artifact)  # noqa: B023  as above
            raise Killed

        scene.sink.log_artifact = dying  # type: ignore[method-assign]
        with pytest.raises(Killed):
            run_lane(side_lanes(scene.journal, scene.open)[1])
        scene.sink.log_artifact = original  # type: ignore[method-assign]
    assert run_lane(side_lanes(scene.journal, scene.open)[1])
    assert scene.run.artifacts == {"provenance/a.txt": b"a.txt", "provenance/b.txt": b"b.txt"}


def test_an_upload_that_hangs_holds_up_no_metric_of_any_run(tmp_path: Path) -> None:
    scenes = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        scenes.append(Scene(tmp_path / name))
    store, hangs = MemorySink(), threading.Event()

    def hanging(run_id: str, file: Path, artifact: Artifact) -> None:
        assert hangs.wait(60)

    store.log_artifact = hanging  # type: ignore[method-assign]
    busy = DrainLoop(lambda _: store)
    for scene in scenes:
        busy.add(scene.journal, "")
    busy.turn()
    assert [run.status.status for run in store.runs.values()] == ["FINISHED", "FINISHED"]
    assert [len(run.points) for run in store.runs.values()] == [20, 20]
    eventually(lambda: all(len(run.datasets) == 2 for run in store.runs.values()))
    hangs.set()

    def done() -> bool:
        busy.turn()
        return not busy.open()

    eventually(done)
    assert not any(scene.journal.exists() for scene in scenes)


def test_a_lane_does_nothing_if_the_main_lane_is_where_it_was(scene: Scene) -> None:
    """The lanes of hundreds of journals are called at each turn: a look at each would be most of
    the work of delivery."""
    assert scene.drain.run()
    lanes = scene.datasets, scene.artifacts, scene.rollouts
    assert all(lane.run(scene.drain.ack) for lane in lanes)
    scene.journal.unlink()
    assert all(lane.run(scene.drain.ack) for lane in lanes)
    later = replace(scene.drain.ack)
    assert not any(lane.run(later) for lane in lanes)


def test_an_ack_of_the_version_with_one_lane_counts_for_all_lanes(scene: Scene) -> None:
    size = scene.journal.stat().st_size
    old = {"offset": size, "run_id": "run0", "closed": True, "twins": True, "status": "FINISHED"}
    scene.journal.with_suffix(".ack").write_text(json.dumps(old))
    drain = Drain(scene.journal, scene.open)
    assert drain.run()
    assert all(run_lane(lane) for lane in side_lanes(scene.journal, scene.open))
    assert scene.sink.calls == []


def test_eight_runs_that_log_the_same_new_dataset_at_once_all_have_it(
    sqlite_uri: str, tmp_path: Path
) -> None:
    sinks = [MLflowSink(sqlite_uri) for _ in range(8)]
    runs = [sink.create_run(replace(HEAD, uid=f"{i:032x}")) for i, sink in enumerate(sinks)]
    lanes = []
    for number, (sink, run_id) in enumerate(zip(sinks, runs, strict=True)):
        journal = journal_of(tmp_path / f"{number}.jsonl", [DATA, Close()])
        write_ack(journal, Ack(run_id=run_id, lanes=True))
        lanes.append(SideLane("datasets", journal, lambda _, sink=sink: sink))  # type: ignore[misc]
    start = threading.Barrier(8)

    def deliver(lane: SideLane) -> None:
        start.wait()
        eventually(lambda: run_lane(lane), within=60)

    threads = [threading.Thread(target=deliver, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client = MlflowClient(sqlite_uri)
    for run_id in runs:
        (entry,) = client.get_run(run_id).inputs.dataset_inputs
        assert entry.dataset.name == "digits"


def test_a_tag_names_the_first_few_missing_entries(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "many.jsonl", [])
    kept: Sequence[Record] = [
        kept_files.keep_content(journal, b"x", f"{i}.txt", None) for i in range(9)
    ]
    journal.unlink()
    journal_of(journal, [*kept, Status("FAILED", 1), Close()])
    sink = MemorySink()
    sink.troubles += [Trouble(HeldError("no boto3"), "log_artifact")]
    assert Drain(journal, lambda _: sink).run()
    run_lane(side_lanes(journal, lambda _: sink)[1])
    (run,) = sink.runs.values()
    assert run.tags[names.ARTIFACTS_MISSING] == (
        "not delivered yet: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more"
    )


def test_retries_take_as_long_as_the_docs_say() -> None:
    assert len(retry.DOUBTFUL) + 1 == 10
    assert 240 < sum(retry.DOUBTFUL) < 300
    assert sum(retry.DEFINITE) == 5
