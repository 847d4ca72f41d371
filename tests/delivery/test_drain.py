"""The drain delivers everything exactly once, whatever the store does."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from journals import HEAD, journal_of, run_lane
from memory_sink import MemoryRun, MemorySink, Trouble
from orbiter_mlflow import names
from orbiter_mlflow.delivery import retry, spool
from orbiter_mlflow.delivery.ack import Ack, read_ack, write_ack
from orbiter_mlflow.delivery.batches import Batch, MetricPoint, pack
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.journal_reader import read_entries
from orbiter_mlflow.delivery.records import (
    Close,
    Dataset,
    Head,
    Metrics,
    Params,
    Record,
    Status,
    Tags,
)
from orbiter_mlflow.delivery.side_lane import SideLane, side_lanes
from orbiter_mlflow.errors import (
    DeliveryError,
    HeldError,
    RejectedError,
    TransientError,
    UnsupportedError,
)

DATA = Dataset("digits", "abc", "local", "{}", "", '{"num_rows":3}', "train")


def points(number: int, first: int = 0) -> list[Record]:
    return [Metrics(i, 1000 + i, {"train/loss": i / 7}) for i in range(first, first + number)]


def a_run() -> list[Record]:
    return [
        Tags({"orbiter.state": "validated"}),
        Params({"learning_rate": "0.1"}),
        DATA,
        *points(2500),
        Tags({"orbiter.state": "completed"}),
        Status("FINISHED", 5000),
        Close(),
    ]


class Setup:
    """A journal, a store in memory, a clock that only a test moves."""

    def __init__(self, folder: Path, records: list[Record]) -> None:
        self.journal = journal_of(folder / "run.jsonl", records)
        self.sink = MemorySink()
        self.now = 0.0

    def drain(self) -> Drain:
        return Drain(
            self.journal, lambda _: self.sink, clock=lambda: self.now, now=lambda: self.now
        )

    def lanes(self) -> list[SideLane]:
        return side_lanes(
            self.journal, lambda _: self.sink, clock=lambda: self.now, now=lambda: self.now
        )

    def drain_to_the_end(self, drain: Drain | None = None, most: int = 50) -> Drain:
        """Deliver everything, retries included."""
        drain = drain or self.drain()
        self.run_to_the_end(drain, most)
        for lane in self.lanes():
            self.run_to_the_end(lane, most)
        return drain

    def run_to_the_end(self, lane: Drain | SideLane, most: int = 50) -> None:
        for _ in range(most):
            whole = lane.run() if isinstance(lane, Drain) else run_lane(lane)
            if whole and not lane.ack.aside:
                return
            if lane.ack.problem:
                assert lane.not_before > self.now
                self.now = lane.not_before
            else:
                self.now += lane.next_retry() or 0.0
        raise AssertionError(f"not delivered: {lane.ack}")

    @property
    def run(self) -> MemoryRun:
        (run,) = self.sink.runs.values()
        return run


def assert_whole(run: MemoryRun) -> None:
    """All of `a_run`, each point exactly once."""
    assert [(p.step, p.time, p.value) for p in run.points] == [
        (i, 1000 + i, i / 7) for i in range(2500)
    ]
    assert run.params == {"learning_rate": "0.1"}
    assert run.tags["orbiter.state"] == "completed"
    assert run.datasets == [DATA]
    assert run.status == Status("FINISHED", 5000)


def test_a_journal_is_delivered_in_full_batches(tmp_path: Path) -> None:
    setup = Setup(tmp_path, a_run())
    done = setup.drain_to_the_end()
    assert_whole(setup.run)
    assert done.ack.closed
    assert done.ack.offset == setup.journal.stat().st_size
    # 2500 points in three batches: tags and params are in the first one, tags in the last one
    assert setup.sink.calls.count("log_batch") == 3
    assert "read_run" not in setup.sink.calls


def test_a_second_drain_finds_nothing_to_do(tmp_path: Path) -> None:
    setup = Setup(tmp_path, a_run())
    setup.drain_to_the_end()
    setup.sink.calls.clear()
    assert setup.drain().run()
    assert setup.sink.calls == []


def test_a_growing_journal_is_followed(tmp_path: Path) -> None:
    whole = journal_of(tmp_path / "whole.jsonl", a_run()).read_bytes()
    setup = Setup(tmp_path, [])
    drain = setup.drain()
    for length in range(0, len(whole), 7001):
        setup.journal.write_bytes(whole[:length])
        if whole[:length].count(b"\n"):
            assert drain.run()
    setup.journal.write_bytes(whole)
    setup.drain_to_the_end(drain)
    assert_whole(setup.run)


METHODS = ("create_run", "log_batch", "log_dataset", "set_status")


@pytest.mark.parametrize("committed", [False, True], ids=["not committed", "committed"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("times", [1, 3])
def test_an_outage_loses_and_duplicates_nothing(
    tmp_path: Path, method: str, committed: bool, times: int
) -> None:
    setup = Setup(tmp_path, a_run())
    for _ in range(times):
        error = TransientError("connection dropped")
        setup.sink.troubles.append(Trouble(error, method, committed))
    setup.drain_to_the_end()
    if method == "log_dataset" and committed:  # MLflow takes the same input once
        setup.run.datasets = setup.run.datasets[:1]
    assert_whole(setup.run)


@pytest.mark.parametrize("committed", [False, True], ids=["not committed", "committed"])
@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_a_drain_that_dies_in_a_batch_is_continued_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int, committed: bool
) -> None:
    setup = Setup(tmp_path, a_run())
    drain_, original, calls = setup.drain(), setup.sink.log_batch, 0

    class Killed(BaseException):
        pass

    def dying(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls != dies_at or committed:
            original(*args)
        if calls == dies_at:
            raise Killed

    monkeypatch.setattr(setup.sink, "log_batch", dying)
    with pytest.raises(Killed):
        drain_.run()
    setup.drain_to_the_end()
    assert_whole(setup.run)


def test_a_slow_request_that_creates_a_second_run_leaves_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path, a_run())
    setup.sink.troubles.append(Trouble(TransientError("timed out"), "create_run"))
    drain_ = setup.drain()
    assert not drain_.run()
    setup.now = drain_.not_before
    # The first request is committed only now, after the second search has found nothing.
    original, late = setup.sink.find_runs, [HEAD]

    def slow(head: Head) -> Sequence[str]:
        found = original(head)
        while late:
            setup.sink.create_run(late.pop())
        return found

    monkeypatch.setattr(setup.sink, "find_runs", slow)
    setup.drain_to_the_end(drain_)
    assert_whole(setup.run)  # `run` asserts that there is only one


def test_an_entry_that_is_refused_is_quarantined_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = a_run()
    setup = Setup(tmp_path, records)
    original = setup.sink.log_batch

    def picky(
        run_id: str, points: Sequence[MetricPoint], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        if any(point.step == 1234 for point in points) or "learning_rate" in params:
            raise RejectedError("bad value")
        original(run_id, points, params, tags)

    monkeypatch.setattr(setup.sink, "log_batch", picky)
    done = setup.drain_to_the_end()
    assert done.ack.quarantined == 2
    assert sorted(p.step for p in setup.run.points) == [i for i in range(2500) if i != 1234]
    assert setup.run.tags[names.QUARANTINED] == "2"
    assert setup.run.status == Status("FINISHED", 5000)
    kept = setup.journal.with_suffix(".quarantine").read_text().splitlines()
    assert len(kept) == 2
    assert "learning_rate" in kept[0]
    assert '"step": 1234' in kept[1]


def test_an_action_that_is_refused_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    setup = Setup(tmp_path, a_run())
    setup.sink.troubles.append(Trouble(RejectedError("digest too long"), "log_dataset"))
    drain_ = setup.drain()
    assert drain_.run()
    (datasets, *_) = setup.lanes()
    assert not run_lane(datasets)
    assert len(setup.run.points) == 2500
    assert setup.run.status.status == "FINISHED"
    assert "not delivered yet: digits" in setup.run.tags[names.DATASETS_MISSING]
    setup.run_to_the_end(datasets)
    assert setup.run.datasets == [DATA]
    assert names.DATASETS_MISSING not in setup.run.tags


def test_a_repeated_5xx_while_other_writes_pass_is_blamed_on_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path, [Tags({"a": "1"}), Params({"bad": "\x00"}), Status("FINISHED", 1)])
    original = setup.sink.log_batch

    def broken(
        run_id: str, points: Sequence[MetricPoint], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        if params:
            raise TransientError("500 Internal Server Error", answered=True)
        original(run_id, points, params, tags)

    monkeypatch.setattr(setup.sink, "log_batch", broken)
    done = setup.drain_to_the_end(most=30)
    assert done.ack.quarantined == 1
    assert setup.run.tags["a"] == "1"
    assert setup.run.status.status == "FINISHED"


def test_a_store_that_answers_reads_but_takes_no_writes_is_waited_for(tmp_path: Path) -> None:
    setup = Setup(tmp_path, a_run())
    setup.sink.troubles += [
        Trouble(TransientError("503 read-only", answered=True)) for _ in range(30)
    ]
    done = setup.drain_to_the_end(most=100)
    assert done.ack.quarantined == 0
    assert_whole(setup.run)


def test_trouble_that_a_person_must_fix_holds_the_journal_and_drops_nothing(tmp_path: Path) -> None:
    setup = Setup(tmp_path, a_run())
    setup.sink.troubles += [Trouble(HeldError("401 wrong password")) for _ in range(3)]
    drain_ = setup.drain()
    assert not drain_.run()
    held = drain_.ack
    assert held.held
    assert read_ack(setup.journal).problem == "401 wrong password"
    assert drain_.not_before == retry.HELD
    setup.drain_to_the_end(drain_)
    assert replace(drain_.ack, held=True, problem="") != drain_.ack
    assert not read_ack(setup.journal).problem
    assert_whole(setup.run)


def test_waits_double_up_to_a_cap_with_jitter(tmp_path: Path) -> None:
    rng = random.Random(7)
    waits = [retry.delay(failures, rng) for failures in range(1, 12)]
    for wait, full in zip(waits, [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60], strict=True):
        assert full / 2 <= wait <= full
    setup = Setup(tmp_path, a_run())
    setup.sink.troubles += [Trouble(TransientError("down"), "create_run") for _ in range(3)]
    drain_ = Drain(
        setup.journal, lambda _: setup.sink, clock=lambda: setup.now, rng=random.Random(7)
    )
    seen = []
    while not drain_.run():
        seen.append(drain_.not_before - setup.now)
        setup.now = drain_.not_before
    assert seen == pytest.approx(waits[:3])


def test_a_run_is_resumed_by_its_id(tmp_path: Path) -> None:
    head = replace(HEAD, run_id="old")
    journal = journal_of(tmp_path / "r.jsonl", a_run(), head)
    sink = MemorySink()
    sink.runs["old"] = MemoryRun(status=Status("FINISHED", 1))
    assert Drain(journal, lambda _: sink).run()
    for lane in side_lanes(journal, lambda _: sink):
        assert run_lane(lane)
    assert list(sink.runs) == ["old"]
    assert_whole(sink.runs["old"])
    assert "create_run" not in sink.calls


def test_a_run_that_does_not_exist_is_held(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "r.jsonl", a_run(), replace(HEAD, run_id="gone"))
    drain_ = Drain(journal, lambda _: MemorySink())
    assert not drain_.run()
    assert drain_.ack.held
    assert "gone" in drain_.ack.problem


def test_a_writer_that_died_leaves_a_killed_run(tmp_path: Path) -> None:
    setup = Setup(tmp_path, [Tags({"orbiter.state": "training"}), *points(10)])
    drain_ = setup.drain()
    assert drain_.abandon()
    assert drain_.abandon()
    assert setup.run.status.status == "KILLED"
    assert setup.run.tags["orbiter.state"] == "failed"
    assert setup.run.tags[names.ERROR_TYPE] == "ProcessDied"
    assert len(setup.run.points) == 10


def test_a_death_after_the_end_changes_nothing(tmp_path: Path) -> None:
    setup = Setup(tmp_path, a_run()[:-1])
    assert setup.drain().abandon()
    setup.drain_to_the_end()
    assert_whole(setup.run)


def test_a_damaged_line_is_skipped_counted_and_quarantined(tmp_path: Path) -> None:
    setup = Setup(tmp_path, a_run())
    lines = setup.journal.read_bytes().splitlines(keepends=True)
    lines[10] = b"\x00" * 20 + b"\n"
    setup.journal.write_bytes(b"".join(lines))
    done = setup.drain_to_the_end()
    assert done.ack.damaged == 1
    assert setup.run.tags[names.DAMAGED] == "1"
    assert len(setup.run.points) == 2499
    assert setup.run.status.status == "FINISHED"
    assert "damaged line" in setup.journal.with_suffix(".quarantine").read_text()


def test_a_lost_ack_is_recovered_from_the_tag_in_the_store(tmp_path: Path) -> None:
    setup = Setup(tmp_path, a_run())
    done = setup.drain_to_the_end()
    ack = done.ack
    write_ack(setup.journal, Ack(run_id=ack.run_id))
    setup.drain_to_the_end()
    assert_whole(setup.run)


def test_batches_keep_all_limits_and_the_order(tmp_path: Path) -> None:
    records: list[Record] = []
    for i in range(300):
        records.append(Params({f"p{i}": "x" * 6000}))
        records.append(Tags({f"t{i}": "y" * 8000}))
        records.append(Metrics(i, i, {f"m{k}": 1.0 for k in range(20)}))
    journal = journal_of(tmp_path / "big.jsonl", records)
    seen = MemoryRun()
    end = 0
    for batch in pack(read_entries(journal, next(iter(read_entries(journal))).end)):
        assert isinstance(batch, Batch)
        assert len(batch) <= 999
        assert len(batch.points) <= 1000
        assert len(batch.params) <= 100
        assert len(batch.tags) <= 99
        assert batch.size <= 900_000
        assert batch.end > end
        end = batch.end
        seen.points += batch.points
        seen.params |= batch.params
        seen.tags |= batch.tags
    assert end == journal.stat().st_size
    assert [p.step for p in seen.points] == [i for i in range(300) for _ in range(20)]
    assert len(seen.params) == 300
    assert len(seen.tags) == 300


def test_a_param_that_changes_is_not_sent_with_the_first(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "p.jsonl", [Params({"a": "1"}), Params({"a": "2"})])
    first, *rest = pack(read_entries(journal, next(iter(read_entries(journal))).end))
    assert isinstance(first, Batch)
    assert first.params == {"a": "1"}
    assert len(rest) == 1


def test_the_error_tree_matches_its_docstring() -> None:
    for kind in (TransientError, RejectedError, UnsupportedError, HeldError):
        assert kind.__base__ is DeliveryError


def test_the_ack_names_the_drainer_even_if_nothing_else_changed(tmp_path: Path) -> None:
    setup = Setup(tmp_path, a_run())
    setup.sink.troubles += [Trouble(TransientError("down"), "create_run") for _ in range(3)]
    for _ in range(2):
        assert not setup.drain().run()
    before = read_ack(setup.journal)
    write_ack(setup.journal, replace(before, drainer="process 1 on another"))
    assert not setup.drain().run()
    assert read_ack(setup.journal).drainer == before.drainer


# -- what is believed of a refusal -----------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        RejectedError("400 of a gateway"),
        RejectedError("INVALID_PARAMETER_VALUE", definite=True),
        TransientError("504"),
        TransientError("500", answered=True),
        HeldError("403"),
        UnsupportedError("404"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("method", ["set_status", "find_runs", "create_run", "read_run"])
def test_a_failed_status_or_read_is_never_blamed_on_the_content(
    tmp_path: Path, error: DeliveryError, method: str
) -> None:
    setup = Setup(tmp_path, a_run())
    if method == "read_run":  # asked where an earlier delivery left off
        assert Drain(setup.journal, lambda _: setup.sink).run()
        setup.sink.runs["run0"].status = Status("RUNNING")
        ack = read_ack(setup.journal)
        write_ack(setup.journal, replace(ack, offset=0, closed=False))
    setup.sink.troubles += [Trouble(error, method) for _ in range(20)]
    done = setup.drain_to_the_end(most=60)
    assert (done.ack.quarantined, done.ack.closed) == (0, True)
    assert_whole(setup.run)


def test_random_failures_of_most_requests_quarantine_no_status_and_no_point(tmp_path: Path) -> None:
    for seed in range(40):
        rng = random.Random(seed)
        (tmp_path / str(seed)).mkdir()
        setup = Setup(tmp_path / str(seed), a_run())

        def failing(method: Any, rng: random.Random = rng) -> Any:
            def call(*args: Any) -> Any:
                if rng.random() < 0.6:
                    raise TransientError("HTTP 500", answered=True)
                return method(*args)

            return call

        for name in ("create_run", "log_batch", "set_status", "find_runs", "read_run"):
            setattr(setup.sink, name, failing(getattr(setup.sink, name)))
        setup.run_to_the_end(setup.drain(), most=2000)
        assert setup.run.status == Status("FINISHED", 5000), seed
        assert sorted({p.step for p in setup.run.points}) == list(range(2500)), seed
        assert names.QUARANTINED not in setup.run.tags, seed


def test_a_refused_entry_is_retried_before_it_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path, [Tags({"a": "1"}), Params({"p": "x"}), *points(3)])
    original, refusals = setup.sink.log_batch, [0]

    def doubtful(
        run_id: str, points: Sequence[MetricPoint], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        if params and refusals[0] < 8:
            refusals[0] += 1
            raise RejectedError("the database: UNIQUE constraint failed")
        original(run_id, points, params, tags)

    monkeypatch.setattr(setup.sink, "log_batch", doubtful)
    drain_ = setup.drain()
    assert drain_.run()
    assert [p.step for p in setup.run.points] == [0, 1, 2], "the rest waited for one entry"
    assert len(drain_.ack.aside) == 1
    again = setup.drain()  # a delivery that is started anew goes on with the trial
    setup.run_to_the_end(again)
    assert setup.run.params == {"p": "x"}
    assert again.ack.quarantined == 0


def test_a_retried_tag_does_not_overwrite_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path, [Tags({"phase": "one"})])
    original = setup.sink.log_batch

    def refusing(run_id: str, points: Any, params: Any, tags: dict[str, str]) -> None:
        if tags.get("phase") == "one":
            raise RejectedError("not now")
        original(run_id, points, params, tags)

    monkeypatch.setattr(setup.sink, "log_batch", refusing)
    drain_ = setup.drain()
    assert drain_.run()
    assert drain_.ack.aside
    monkeypatch.setattr(setup.sink, "log_batch", original)
    more = journal_of(tmp_path / "more.jsonl", [Tags({"phase": "one"}), Tags({"phase": "two"})])
    setup.journal.write_bytes(more.read_bytes())
    setup.run_to_the_end(drain_)
    assert setup.run.tags["phase"] == "two"


def test_a_store_that_refuses_every_entry_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path, a_run())
    original, refuses = setup.sink.log_batch, [True]

    def refusing(run_id: str, points: Any, params: Any, tags: Any) -> None:
        if points and refuses[0]:
            raise RejectedError("no")
        original(run_id, points, params, tags)

    monkeypatch.setattr(setup.sink, "log_batch", refusing)
    drain_ = setup.drain()
    assert not drain_.run()
    assert "the store refuses one entry after the other (no)" in drain_.ack.problem
    assert len(drain_.ack.aside) <= retry.MOST_ASIDE
    refuses[0] = False
    setup.drain_to_the_end(drain_)
    assert {p.step for p in setup.run.points} == set(range(2500))
    assert drain_.ack.quarantined == 0


# -- the end of a run is what happened -------------------------------------------------------------


def test_an_empty_twin_of_a_repeated_request_is_removed_and_a_full_one_stays(
    tmp_path: Path,
) -> None:
    setup = Setup(tmp_path, a_run())
    original = setup.sink.create_run

    def repeated(head: Head) -> str:  # by a proxy, or by mlflow's own retries
        original(head)
        return original(head)

    setup.sink.create_run = repeated  # type: ignore[method-assign]
    full = setup.sink.create_run(HEAD)
    setup.sink.log_batch(full, [], {"of": "a copy of the journal delivered elsewhere"}, {})
    setup.drain_to_the_end()
    assert len(setup.sink.runs) == 2
    del setup.sink.runs[full]
    assert_whole(setup.run)


def test_a_journal_that_grows_after_its_end_is_reopened(tmp_path: Path) -> None:
    whole = journal_of(tmp_path / "whole.jsonl", a_run()).read_bytes()
    setup = Setup(tmp_path, [])
    lines = whole.splitlines(keepends=True)
    setup.journal.write_bytes(b"".join(lines[:800]))
    taken_for_dead = setup.drain()
    assert taken_for_dead.abandon()
    assert setup.run.status == Status("KILLED", 1795)
    assert setup.run.tags[names.ERROR_TYPE] == "ProcessDied"
    setup.journal.write_bytes(b"".join(lines[:900]))
    assert setup.drain().run()
    assert setup.run.status == Status("RUNNING")
    setup.journal.write_bytes(whole)
    setup.drain_to_the_end()
    assert_whole(setup.run)
    assert not set(names.ERROR) & setup.run.tags.keys()


def test_a_line_cut_short_by_a_death_does_not_keep_a_journal_forever(tmp_path: Path) -> None:
    setup = Setup(tmp_path, [Tags({"orbiter.state": "training"}), *points(10)])
    with setup.journal.open("ab") as file:
        file.write(b'{"n":12,"c":"00000000","r":{"ki')
    assert setup.drain().run()
    assert spool.undelivered_bytes(setup.journal) == 0
    done = setup.drain()
    assert done.abandon()
    setup.drain_to_the_end(done)
    assert done.ack.settled
    assert not spool.is_waiting(setup.journal)
    assert (setup.run.status.status, setup.run.tags[names.DAMAGED]) == ("KILLED", "1")
    assert "cut short" in setup.journal.with_suffix(".quarantine").read_text()
