"""Resumed runs: how the records of a journal are rewritten, whatever happens during delivery."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from journals import HEAD, journal_of, run_lane
from memory_sink import MemoryRun, MemorySink, Trouble
from orbiter_mlflow import names
from orbiter_mlflow.delivery import killed_run, spool
from orbiter_mlflow.delivery.ack import Ack, write_ack
from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.killed_run import last_time
from orbiter_mlflow.delivery.records import (
    Artifact,
    Close,
    Head,
    Metrics,
    Params,
    Record,
    Status,
    Tags,
)
from orbiter_mlflow.delivery.resumption import config_changes, rewriting
from orbiter_mlflow.delivery.resumption.rewriting import Resumption, RunContents
from orbiter_mlflow.delivery.side_lane import side_lanes
from orbiter_mlflow.errors import HeldError, TransientError
from orbiter_mlflow.text.clock import utc

PARAMS = {"learning_rate": "1e-05", "batch_size": "8"}
CONFIG = {
    names.CONFIG_DIGEST: "5f0c",
    names.CONFIG_FIELDS: '["learning_rate","batch_size"]',
}


def trained(first: int, count: int, at: int = 1000) -> list[Record]:
    return [Metrics(i, at + i, {"train/loss": i / 7}) for i in range(first, first + count)]


def evaluated(step: int, at: int) -> Record:
    return Metrics(step, at, {"eval/accuracy": 0.5})


def ending(state: str = "completed", end_time: int = 9000) -> list[Record]:
    return [
        Tags({names.STATE: state, names.state_at(state): f"at {end_time}"}),
        Status("FINISHED" if state == "completed" else "FAILED", end_time),
        Close(),
    ]


def a_training(first: int = 0, count: int = 4, at: int = 1000, **params: str) -> list[Record]:
    """Validate, evaluate, train `count` steps from `first` on, evaluate again."""
    return [
        Tags({names.STATE: "validated", names.state_at("validated"): f"at {at}"}),
        Params(PARAMS | params),
        Tags(CONFIG | {names.CONFIG_DIGEST: str(hash((*params,)))} if params else CONFIG),
        evaluated(0, at),
        *trained(first, count, at),
        evaluated(first + count - 1, at + count),
        *ending(end_time=at + 100),
    ]


def head_of(number: int, run_id: str | None = "run0") -> Head:
    """The head of a journal that resumes `run0`, later than those with lower numbers."""
    start = HEAD.start_time + number * 1000
    return replace(HEAD, uid=f"{number}" * 32, run_id=run_id, start_time=start)


class ResumedRun:
    """A run in memory, and its journals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sink = MemorySink()

    def write(self, number: int, records: list[Record], *, made: bool = False) -> Path:
        """Write the journal of a trainer; `made`: the one that creates the run."""
        head = head_of(number, None if made else "run0")
        return journal_of(self.folder / f"{number}.jsonl", records, head)

    def deliver(self, number: int, records: list[Record], *, made: bool = False) -> Drain:
        journal = self.write(number, records, made=made)
        drain = Drain(journal, lambda _: self.sink)
        assert drain.run(), drain.ack.problem
        for lane in side_lanes(journal, lambda _: self.sink):
            assert run_lane(lane), lane.ack.problem
        return drain

    @property
    def run(self) -> MemoryRun:
        return self.sink.runs["run0"]

    def steps(self, key: str = "train/loss", since: int = 0) -> list[int]:
        return [p.step for p in self.run.points if p.key == key and p.time >= since]


@pytest.fixture
def run(tmp_path: Path) -> ResumedRun:
    """A run whose first trainer trained the steps 0 to 3 and ended."""
    found = ResumedRun(tmp_path)
    found.deliver(1, a_training(), made=True)
    return found


# -- steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "steps"),
    [
        (0, [4, 5, 6]),
        (1, [4, 5, 6]),
        (2, [2, 3, 4]),  # the trainer has restored an older checkpoint
        (4, [4, 5, 6]),  # the trainer has restored its count of steps
        (100, [100, 101, 102]),
    ],
)
def test_steps_continue_after_the_last_one(run: ResumedRun, first: int, steps: list[int]) -> None:
    run.deliver(2, a_training(first, 3, at=5000))
    assert run.steps(since=5000) == steps
    overlaps = json.loads(run.run.tags["orbiter.life.2"]).get("overlaps_from_step")
    assert overlaps == (2 if first == 2 else None)
    assert run.steps("eval/accuracy", since=5000) == [3, steps[-1]]
    assert [p.value for p in run.run.points if p.time >= 5000 and p.key == "train/loss"] == [
        step / 7 for step in range(first, first + 3)
    ]


def test_a_resumption_that_only_evaluates_logs_at_the_last_step(run: ResumedRun) -> None:
    run.deliver(2, [evaluated(0, 5000), evaluated(0, 5001)])
    assert run.steps("eval/accuracy", since=5000) == [3, 3]
    run.deliver(3, a_training(0, 2, at=7000))
    assert run.steps(since=7000) == [4, 5]


def test_a_second_resumption_continues_after_the_first(run: ResumedRun) -> None:
    run.deliver(2, a_training(0, 3, at=5000))
    run.deliver(3, a_training(0, 2, at=7000))
    assert run.steps() == list(range(9))
    assert {name for name in run.run.tags if name.startswith(names.LIFE)} == {
        "orbiter.life.2",
        "orbiter.life.3",
    }
    assert run.run.tags["orbiter.state.validated_at.3"] == "at 7000"


def sampled(count: int, at: int) -> list[Record]:
    return [Metrics(i, at + i, {names.system_metric("cpu"): 50.0}) for i in range(count)]


def test_steps_of_the_system_count_samples_and_continue_by_themselves(run: ResumedRun) -> None:
    key = names.system_metric("cpu")
    run.deliver(2, [*sampled(2, 5000), *a_training(0, 3, at=5000)])
    run.deliver(3, [*sampled(3, 7000), *a_training(100, 2, at=7000)])
    run.deliver(4, sampled(2, 9000))
    assert run.steps(key) == [*range(7)]
    assert run.steps() == [*range(7), 100, 101]
    lives = [json.loads(run.run.tags[f"orbiter.life.{number}"]) for number in (2, 3, 4)]
    assert [life.get("after_system_step") for life in lives] == [None, 1, 4]
    for journal in (3, 4):  # delivered again, by a drain that has lost its ack
        write_ack(run.folder / f"{journal}.jsonl", Ack())
        assert Drain(run.folder / f"{journal}.jsonl", lambda _: run.sink).run()
    samples = {point for point in run.run.points if point.key == key}
    assert len(samples) == 7  # MLflow ignores a point that it has


def test_samples_follow_those_of_mlflows_own_client(tmp_path: Path) -> None:
    run = ResumedRun(tmp_path)
    run_id = run.sink.create_run(head_of(1, None))
    run.sink.log_batch(run_id, [MetricPoint(names.system_metric("cpu"), 1.0, 1, 7)], {}, {})
    del run.run.tags[names.UID]
    run.deliver(2, sampled(2, 5000))
    assert run.steps(names.system_metric("cpu")) == [7, 8, 9]


def test_metrics_of_others_do_not_count() -> None:
    assert rewriting.last_step([("system/cpu", 900), ("tokens", 10**6), ("train/loss", 3)]) == 3
    assert rewriting.last_step([("tokens", 10**6)]) is None


def test_steps_stay_within_64_bits() -> None:
    resumption = Resumption(2, rewriting.MAX_STEP - 1).advanced_by(
        Metrics(0, 0, {"train/loss": 1.0})
    )
    moved = resumption.rewrite(Metrics(7, 0, {"train/loss": 1.0}))
    assert isinstance(moved, Metrics)
    assert moved.step == rewriting.MAX_STEP


def test_a_journal_that_grows_while_it_is_delivered(run: ResumedRun) -> None:
    whole = run.write(2, a_training(0, 300, at=5000)).read_bytes()
    journal = run.folder / "growing.jsonl"
    (run.folder / "2.jsonl").unlink()
    journal.write_bytes(whole[:700])
    drain = Drain(journal, lambda _: run.sink)
    for length in range(700, len(whole), 997):
        journal.write_bytes(whole[:length])
        assert drain.run()
        if length % 3 == 0:  # another delivery takes over
            drain = Drain(journal, lambda _: run.sink)
    journal.write_bytes(whole)
    assert drain.run()
    assert run.steps(since=5000) == list(range(4, 304))
    assert run.steps("eval/accuracy", since=5000) == [3, 303]


# -- tags, artifacts -------------------------------------------------------------------------------


def test_tags_of_a_resumption_do_not_replace_those_before_it(run: ResumedRun) -> None:
    before = dict(run.run.tags)
    apart = {
        names.state_at("training"): "t",
        names.GIT_COMMIT: "c2",
        names.GIT_DIRTY: "true",
        names.SOURCE_NAME: "again.py",
        names.USER: "somebody",
        names.TRAINER: "m:T",
        names.NONFINITE: '["train/loss"]',
        f"{names.CONFIG_FIELDS}:0": "[",
    }
    present = {names.STATE: "training", names.CHECKS: "check_agent", "team": "rl"}
    present |= {"orbiter.train.verdict": "good", names.LOST: "3"}
    run.deliver(2, [Tags(CONFIG | apart | present)])
    tags = run.run.tags
    for name, text in apart.items():
        assert tags[names.in_life(name, 2)] == text
        assert tags.get(name) == before.get(name)
    assert f"{names.CONFIG_FIELDS}.2:0" in tags
    assert {name: tags[name] for name in present} == present
    assert tags[names.CONFIG_DIGEST] == tags[f"{names.CONFIG_DIGEST}.2"] == "5f0c"


def test_provenance_of_a_resumption_does_not_replace_the_first(run: ResumedRun) -> None:
    folders = {None: "a", "plots": "plots/a", "provenance": "provenance/life-2/a"}
    folders["provenance/more"] = "provenance/life-2/more/a"
    folders["provenances"] = "provenances/a"
    files = (run.folder / "2.jsonl").with_suffix(".files")
    files.mkdir()
    (files / "kept").write_text("x")
    for folder, name in folders.items():
        sent = Resumption(2).rewrite(Artifact("kept", "a", folder, 1, "0"))
        assert isinstance(sent, Artifact)
        assert "/".join(filter(None, [sent.folder, sent.name])) == name
        assert Resumption(1).rewrite(sent) == sent
    digest = hashlib.sha256(b"x").hexdigest()
    run.deliver(2, [Artifact("kept", "a", "provenance", 1, digest)])
    assert run.run.artifacts == {"provenance/life-2/a": b"x"}


def test_a_resumed_run_loses_its_past_error(tmp_path: Path) -> None:
    run = ResumedRun(tmp_path)
    error = dict.fromkeys(names.ERROR, "boom")
    run.deliver(1, [Tags(CONFIG), *trained(0, 2), Tags(error), *ending("failed")], made=True)
    run.deliver(2, a_training(0, 2, at=5000))
    tags = run.run.tags
    assert not set(names.ERROR) & set(tags)
    assert {tags[names.in_life(name, 1)] for name in names.ERROR} == {"boom"}
    assert (tags[names.STATE], run.run.status) == ("completed", Status("FINISHED", 5100))
    assert tags["orbiter.state.failed_at"] == "at 9000"
    assert tags["orbiter.state.completed_at.2"] == "at 5100"
    again = dict.fromkeys(names.ERROR, "bang")
    run.deliver(3, [Tags(again), *ending("failed")])
    assert {tags[name] for name in names.ERROR} == {"bang"}


def test_a_resumption_whose_process_dies_is_killed(run: ResumedRun) -> None:
    journal = run.write(2, a_training(0, 2, at=5000)[:-3])
    drain = Drain(journal, lambda _: run.sink)
    assert drain.abandon()
    died = last_time(journal)
    assert run.run.status == Status("KILLED", died)
    tags = run.run.tags
    assert tags[names.STATE] == "failed"
    assert "orbiter.state.failed_at.2" in tags
    assert "orbiter.state.failed_at" not in tags
    assert tags[names.ERROR_TYPE] == "ProcessDied"


# -- params ----------------------------------------------------------------------------------------


def test_params_stay_and_their_changes_are_tagged(run: ResumedRun) -> None:
    params: dict[str, Any] = {"learning_rate": "0.5", "warmup": "100"}
    others = [record for record in a_training(at=5000, **params) if not isinstance(record, Params)]
    new = Params({key: text for key, text in (PARAMS | params).items() if key != "batch_size"})
    drain = run.deliver(2, [new, *others])
    assert run.run.params == PARAMS
    assert json.loads(run.run.tags["orbiter.config.changed.2"]) == {
        "batch_size": ["8", None],
        "learning_rate": ["1e-05", "0.5"],
        "warmup": [None, "100"],
    }
    assert run.run.tags[names.CONFIG_DIGEST] == "5f0c"
    assert run.run.tags[f"{names.CONFIG_DIGEST}.2"] != "5f0c"
    assert "learning_rate=1e-05 (this trainer has 0.5)" in drain.ack.kept
    assert "batch_size=8 (this trainer has none)" in drain.ack.kept
    assert drain.ack.quarantined == 0
    assert names.QUARANTINED not in run.run.tags


def test_equal_params_are_not_tagged_as_changed(run: ResumedRun) -> None:
    run.run.params["logged_by_others"] = "1"
    drain = run.deliver(2, a_training(at=5000))
    assert drain.ack.kept == ""
    assert "orbiter.config.changed.2" not in run.run.tags


def test_params_that_end_a_journal_are_delivered(run: ResumedRun) -> None:
    drain = run.deliver(2, [Params(PARAMS)])
    assert drain.ack.offset == drain.journal.stat().st_size


def test_a_run_without_a_config_of_ours_takes_the_new_one(tmp_path: Path) -> None:
    run = ResumedRun(tmp_path)
    run.deliver(1, [Tags({names.TRAINER: "a:B"}), evaluated(0, 10)], made=True)
    run.deliver(2, a_training(at=5000))
    assert run.run.params == PARAMS
    assert run.run.tags[names.CONFIG_DIGEST] == "5f0c"
    assert run.run.tags["orbiter.state.validated_at.2"] == "at 5000"
    run.deliver(3, a_training(at=7000, learning_rate="0.5"))
    assert run.run.params == PARAMS
    assert "orbiter.config.changed.3" in run.run.tags


@pytest.mark.parametrize(
    ("count", "length", "named"), [(2, 50_000, 2), (30, 2000, 30), (400, 30, None), (120, 9, 120)]
)
def test_many_and_long_changes_fit_into_a_tag(count: int, length: int, named: int | None) -> None:
    changes = {f"field_{i}": ("x" * length, "é" * length) for i in range(count)}
    ((name, text),) = config_changes.changes_tag(changes, 2).items()
    assert name == "orbiter.config.changed.2"
    assert len(text) <= names.MAX_DATA_TAG
    tagged = json.loads(text)
    if length == 50_000:
        assert tagged["field_1"][0] == "x" * 1000 + "... (50000 characters)"
    if named is None:
        more = tagged.pop("...")
        assert more == f"{count - len(tagged)} more"
        assert len(tagged) > 50
    else:
        assert len(tagged) == named
    assert "395 more" in config_changes.changes_text(changes, 2) or count < 400


# -- which resumption ------------------------------------------------------------------------------


def test_a_run_created_by_others_gets_tags_without_a_number(tmp_path: Path) -> None:
    run = ResumedRun(tmp_path)
    run.sink.runs["run0"] = MemoryRun(tags={"mlflow.user": "me"}, params={"entry": "main"})
    run.deliver(1, a_training())
    assert run.steps() == [0, 1, 2, 3]
    assert run.run.tags[names.state_at("completed")] == "at 1100"
    assert run.run.params == PARAMS | {"entry": "main"}
    run.deliver(2, a_training(at=5000))
    assert run.steps() == list(range(8))
    assert run.run.tags["orbiter.state.completed_at.2"] == "at 5100"


def test_resumption_tags_that_somebody_changed_still_count() -> None:
    tags = {"orbiter.life.2": "{", "orbiter.life.3": "[]", "orbiter.life.x": "?"}
    assert rewriting.next_resumption(RunContents(None, {}, tags)).number == 4
    assert rewriting.find_resumption(RunContents(None, {}, tags), "uid") is None
    assert rewriting.next_resumption(RunContents(None, {}, {names.CONFIG_FIELDS: "{"})).number == 1


# -- crashes ---------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the death of the delivery."""


class DyingSink:
    """A store whose user dies in the `at`th request, before or after it is carried out."""

    def __init__(self, sink: MemorySink, at: int, *, committed: bool) -> None:
        self._sink, self._at, self._committed = sink, at, committed
        self.requests = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def request(*args: Any) -> Any:
            self.requests += 1
            dies = self.requests == self._at
            if dies and not self._committed:
                raise Killed
            answer = getattr(self._sink, name)(*args)
            if dies:
                raise Killed
            return answer

        return request


def failed_once(folder: Path) -> ResumedRun:
    """A run whose first trainer failed."""
    folder.mkdir()
    run = ResumedRun(folder)
    error = Tags(dict.fromkeys(names.ERROR, "boom"))
    first = a_training()[:-3]
    run.deliver(1, [*first, error, *ending("failed")], made=True)
    return run


SECOND = a_training(1, 1500, at=5000, learning_rate="0.5")


def die_and_go_on(folder: Path, at: int, committed: bool, ack_lost: bool) -> tuple[MemoryRun, int]:
    run = failed_once(folder)
    journal = run.write(2, SECOND)
    dying: Any = DyingSink(run.sink, at, committed=committed)
    try:
        assert Drain(journal, lambda _: dying).run()
    except Killed:
        if ack_lost:
            journal.with_suffix(".ack").unlink(missing_ok=True)
        assert Drain(journal, lambda _: run.sink).run()
    return run.run, dying.requests


def test_a_resumption_killed_in_any_request_is_continued_by_the_next(tmp_path: Path) -> None:
    whole, requests = die_and_go_on(tmp_path / "whole", 0, False, False)
    steps = [p.step for p in whole.points if p.key == "train/loss"]
    assert steps == list(range(1504))
    assert whole.status == Status("FINISHED", 5100)
    assert requests >= 9
    for at in range(1, requests + 1):
        for committed in (False, True):
            for ack_lost in (False, True):
                case = (at, committed, ack_lost)
                run, _ = die_and_go_on(tmp_path / str(case), *case)
                assert run.points == whole.points, case
                mark = {names.DELIVERED: ""}  # its offset depends on the work left over
                assert run.tags | mark == whole.tags | mark, case
                assert run.params == whole.params, case
                assert run.status == whole.status, case


@pytest.mark.parametrize("method", ["read_run", "set_status", "log_batch", "delete_tags"])
@pytest.mark.parametrize("committed", [False, True])
def test_an_outage_at_the_start_of_a_resumption(
    tmp_path: Path, method: str, committed: bool
) -> None:
    run = failed_once(tmp_path / "run")
    journal = run.write(2, SECOND)
    run.sink.troubles += [Trouble(TransientError("dropped"), method, committed) for _ in range(2)]
    now = 0.0
    drain = Drain(journal, lambda _: run.sink, clock=lambda: now)
    while not drain.run():
        now = drain.not_before
    assert run.steps() == list(range(1504))
    assert not set(names.ERROR) & set(run.run.tags)
    assert "orbiter.life.3" not in run.run.tags


# -- an earlier journal that is not delivered yet --------------------------------------------------


GONE = replace(HEAD.writer, pid=2**22 + 1)
"""The identity of a process that cannot exist."""


def interrupted(run: ResumedRun, *, keep: bool = False) -> Path:
    """The first journal: half of it is delivered, and its store does not answer."""
    head = replace(head_of(1, None), writer=GONE, keep=keep)
    journal = journal_of(run.folder / "1.jsonl", a_training(0, 2500)[:-3], head)
    dying: Any = DyingSink(run.sink, 4, committed=False)
    with pytest.raises(Killed):
        Drain(journal, lambda _: dying).run()
    assert 0 < len(run.steps()) < 2500
    return journal


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("ack", ["as it was", "lost", "without the run's id"])
def test_an_earlier_journal_is_delivered_first(tmp_path: Path, ack: str, keep: bool) -> None:
    run = ResumedRun(tmp_path)
    first = interrupted(run, keep=keep)
    if ack != "as it was":
        first.with_suffix(".ack").write_text("" if ack == "lost" else '{"creating":true}')
    run.deliver(2, a_training(0, 3, at=10_000))
    assert run.steps() == list(range(2503))
    assert run.run.status == Status("FINISHED", 10_100)
    tags = run.run.tags
    assert tags[names.STATE] == "completed"
    assert {"orbiter.state.failed_at", "orbiter.state.completed_at.2"} <= set(tags)
    assert first.exists() is keep
    assert len(run.sink.runs) == 1


def test_an_earlier_journal_that_another_process_delivers_is_waited_for(tmp_path: Path) -> None:
    run = ResumedRun(tmp_path)
    first = interrupted(run)
    fd = spool.take(first)
    assert fd is not None
    drain = Drain(run.write(2, a_training(0, 3, at=10_000)), lambda _: run.sink)
    try:
        assert not drain.run()
        assert not drain.ack.held
        assert str(first) in drain.ack.problem
        assert run.run.status == Status("RUNNING")
    finally:
        os.close(fd)
    assert drain.run()
    assert run.steps() == list(range(2503))


def test_an_earlier_journal_in_trouble_is_named(tmp_path: Path) -> None:
    run = ResumedRun(tmp_path)
    first = interrupted(run)
    run.sink.troubles.append(Trouble(HeldError("401 wrong password")))
    drain = Drain(run.write(2, a_training(0, 3, at=10_000)), lambda _: run.sink)
    assert not drain.run()
    assert drain.ack.held
    assert "401 wrong password" in drain.ack.problem
    assert str(first) in drain.ack.problem
    assert drain.run()
    assert run.steps() == list(range(2503))


def test_only_records_already_written_by_an_earlier_live_trainer_are_waited_for(
    tmp_path: Path,
) -> None:
    run = ResumedRun(tmp_path)
    run.sink.runs["run0"] = MemoryRun(tags={names.UID: head_of(1).uid})
    first = run.write(1, trained(0, 5), made=True)
    fd = spool.take(first)  # its own delivery has it
    assert fd is not None
    try:
        drain = Drain(run.write(2, [evaluated(0, 10_000)]), lambda _: run.sink)
        assert not drain.run()
        write_ack(first, Ack(run_id="run0", offset=first.stat().st_size))
        with first.open("ab") as file:
            file.write(b"more")
        assert drain.run()
    finally:
        os.close(fd)


def test_journals_of_other_runs_are_left_alone(run: ResumedRun) -> None:
    other = journal_of(run.folder / "other.jsonl", a_training(), replace(HEAD, uid="f" * 32))
    (run.folder / "broken.jsonl").write_text("no journal\n")
    run.deliver(2, a_training(at=5000))
    assert not other.with_suffix(".ack").exists()


def test_the_later_of_two_journals_waits_for_the_earlier(tmp_path: Path) -> None:
    run = ResumedRun(tmp_path)
    run.sink.runs["run0"] = MemoryRun()
    run.write(1, a_training())
    later = run.write(2, a_training(at=5000))
    assert Drain(later, lambda _: run.sink).run()
    assert run.steps() == list(range(8))
    assert run.run.tags[names.state_at("validated")] == "at 1000"
    assert run.run.tags["orbiter.state.validated_at.2"] == "at 5000"


def test_the_time_of_a_death_is_written_as_the_trainer_writes_times() -> None:
    died = 1_700_000_000_250
    assert (
        killed_run.death_tags(died, "train")[names.state_at("failed")]
        == "2023-11-14T22:13:20.250+00:00"
    )
    assert utc(1_700_000_000_000) == "2023-11-14T22:13:20.000+00:00"
