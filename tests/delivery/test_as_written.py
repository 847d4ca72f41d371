"""What MLflow's own clients wrote is delivered as it was written, with no tags of ours but two."""

import os
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from journals import GONE, HEAD, journal_of, run_lane
from memory_sink import MemoryRun, MemorySink, Trouble
from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files, retry
from orbiter_mlflow.delivery.ack import Ack, read_ack, write_ack
from orbiter_mlflow.delivery.batches import Batch, MetricPoint, pack
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.journal_reader import Entry
from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
from orbiter_mlflow.delivery.records import (
    Close,
    Dataset,
    Head,
    Metrics,
    Params,
    Record,
    Tags,
    Update,
    split,
)
from orbiter_mlflow.delivery.side_lane import side_lanes
from orbiter_mlflow.delivery.spool import give_back, take
from orbiter_mlflow.errors import HeldError, RejectedError, TransientError

START = 1_700_000_000_000
USERS_TAGS = {"mlflow.user": "ann", "mlflow.source.name": "train.py", "note": "{run_id}"}
OURS = {names.UID, names.DELIVERED}


def a_head(**fields: object) -> Head:
    """The head of a new journal of an MLflow client."""
    plain = replace(HEAD, uid=uuid.uuid4().hex, as_written=True, experiment=None, experiment_id="0")
    return replace(plain, **fields)  # type: ignore[arg-type]  # names checked by tests


class Spool:
    """Journals of one folder, and a store in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o700)
        self.sink = MemorySink()

    def journal(self, head: Head, records: Sequence[Record] = (), ack: Ack | None = None) -> Path:
        name = f"{head.start_time}-{head.uid[:8]}.jsonl"
        journal = journal_of(self.folder / name, records, head)
        if ack is not None:
            write_ack(journal, ack)
        return journal

    def drain(self, journal: Path) -> Drain:
        return Drain(journal, lambda _: self.sink)

    def deliver(self, head: Head, records: Sequence[Record] = (), ack: Ack | None = None) -> Drain:
        drain = self.drain(self.journal(head, records, ack))
        assert drain.run(), drain.ack
        return drain

    @property
    def run(self) -> MemoryRun:
        (run,) = self.sink.runs.values()
        return run


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def points(number: int, first: int = 0) -> list[Record]:
    return [Metrics(i, START + i, {"loss": i / 7}) for i in range(first, first + number)]


# -- the run ---------------------------------------------------------------------------------------


def test_a_run_is_made_with_its_users_tags_and_our_uid(spool: Spool) -> None:
    head = a_head(tags=USERS_TAGS, run_name="one")
    spool.deliver(head, [*points(3), Update("FINISHED", START + 9), Close()])
    assert spool.run.head is not None
    assert spool.run.head.run_name == "one"
    assert {k: v for k, v in spool.run.tags.items() if k not in OURS} == USERS_TAGS
    assert spool.run.tags[names.UID] == head.uid
    assert [point.value for point in spool.run.points] == [0.0, 1 / 7, 2 / 7]
    assert (spool.run.status.status, spool.run.status.end_time) == ("FINISHED", START + 9)


def test_a_run_that_the_client_has_made_is_used_without_a_question(spool: Spool) -> None:
    head = a_head()
    run_id = spool.sink.create_run(head)
    spool.sink.calls.clear()
    drain = spool.deliver(head, points(3), Ack(run_id=run_id))
    assert spool.sink.calls == ["log_batch"]
    assert len(spool.run.points) == 3
    assert not drain.ack.overdue


def test_a_second_drain_asks_how_far_the_first_one_came(spool: Spool) -> None:
    head = a_head()
    run_id = spool.sink.create_run(head)
    spool.sink.troubles.append(Trouble(TransientError("lost"), committed=True))
    journal = spool.journal(head, points(3), Ack(run_id=run_id))
    assert not spool.drain(journal).run()
    assert spool.drain(journal).run()
    assert spool.sink.calls.count("log_batch") == 1
    assert len(spool.run.points) == 3


def test_a_run_whose_creation_was_not_answered_is_found_by_its_uid(spool: Spool) -> None:
    head = a_head()
    run_id = spool.sink.create_run(head)
    drain = spool.deliver(head, points(3), Ack(creating=True))
    assert drain.ack.run_id == run_id
    assert len(spool.run.points) == 3


def test_a_run_whose_creation_never_arrived_is_created(spool: Spool) -> None:
    spool.deliver(a_head(), points(3), Ack(creating=True))
    assert len(spool.run.points) == 3
    assert "read_run" not in spool.sink.calls


def test_a_tag_for_which_the_store_refuses_the_run_is_tried_alone(spool: Spool) -> None:
    """MLflow does not check the tags of a run that is created; PostgreSQL refuses long ones."""
    head = a_head(tags=USERS_TAGS | {names.PARENT_RUN_ID: "p", "long": "x" * 9000}, run_name="one")
    journal = spool.journal(head, points(3))
    spool.sink.troubles.append(Trouble(RejectedError("too long"), "create_run"))
    drain = spool.drain(journal)
    assert drain.run(), drain.ack
    kept = {names.USER: "ann", names.PARENT_RUN_ID: "p"}
    assert {k: v for k, v in spool.run.tags.items() if k not in OURS} == kept
    assert len(spool.run.points) == 3
    aside = {tag for one in drain.ack.aside for tag in one.entry["tags"].items()}
    assert aside == {*head.tags.items(), (names.RUN_NAME, "one")} - {*kept.items()}


def test_an_empty_twin_is_deleted_and_one_with_any_metric_stays(spool: Spool) -> None:
    head = a_head()
    journal = spool.journal(head, [*points(3), Update("FINISHED", START + 9), Close()])
    empty, full = spool.sink.create_run(head), spool.sink.create_run(head)
    spool.sink.log_batch(full, [MetricPoint("accuracy", 1.0, START, 0)], {}, {})
    drain = spool.drain(journal)
    assert drain.run()
    assert drain.ack.run_id is not None
    assert spool.sink.runs.keys() == {drain.ack.run_id, full}
    assert empty not in spool.sink.runs


def test_a_nested_run_gets_the_real_id_of_its_parent(spool: Spool) -> None:
    parent = a_head()
    child = a_head(parent_uid=parent.uid, start_time=START + 1)
    outer, inner = spool.journal(parent), spool.drain(spool.journal(child))
    assert inner.run()  # creates the parent first
    parent_id = read_ack(outer).run_id
    assert parent_id is not None
    assert inner.ack.run_id is not None
    assert spool.sink.runs[parent_id].tags[names.UID] == parent.uid
    assert spool.sink.runs[inner.ack.run_id].tags[names.PARENT_RUN_ID] == parent_id


def test_a_parent_from_elsewhere_is_found_in_any_experiment(spool: Spool) -> None:
    parent = a_head(experiment_id="7")
    parent_id = spool.sink.create_run(parent)
    drain = spool.deliver(a_head(parent_uid=parent.uid))
    assert drain.ack.run_id is not None
    assert spool.sink.runs[drain.ack.run_id].tags[names.PARENT_RUN_ID] == parent_id


# -- attached journals -----------------------------------------------------------------------------


def test_an_attached_journal_changes_nothing_but_what_it_holds(spool: Spool) -> None:
    run_id = spool.sink.create_run(replace(HEAD, uid="other"))
    spool.sink.log_batch(run_id, [MetricPoint("train/loss", 1.0, START, 50)], {}, {})
    spool.sink.update_run(run_id, Update("FINISHED", START + 1))
    before = dict(spool.run.tags)
    spool.sink.calls.clear()
    head = a_head(run_id=run_id)
    step_zero = Metrics(0, START, {"train/loss": 2.0})
    spool.deliver(head, [step_zero, Params({"p": "1"}), Tags({"t": "2"}), Close()])
    assert spool.run.points[-1] == MetricPoint("train/loss", 2.0, START, 0)
    assert spool.run.params == {"p": "1"}
    assert spool.run.tags.keys() == {*before, "t", names.DELIVERED}
    assert (spool.run.status.status, spool.run.status.end_time) == ("FINISHED", START + 1)
    assert spool.sink.calls == ["read_run", "log_batch"]


def test_an_attached_journal_has_its_run_created_first(spool: Spool) -> None:
    creator = a_head()
    spool.journal(creator, points(3))
    spool.deliver(a_head(run_uid=creator.uid, start_time=START + 1), points(3, 3))
    assert [point.step for point in spool.run.points] == [0, 1, 2, 3, 4, 5]


def test_an_attached_journal_waits_while_somebody_else_creates_its_run(spool: Spool) -> None:
    creator = a_head()
    first = spool.journal(creator, points(3))
    fd = take(first)
    assert fd is not None
    attached = spool.drain(
        spool.journal(a_head(run_uid=creator.uid, start_time=START + 1), points(3, 3))
    )
    for _ in range(20):
        assert not attached.run()
    assert "is being delivered" in attached.ack.problem
    # However long it has waited, it is tried again soon.
    assert attached.not_before - attached._failed_at == retry.FIRST
    give_back(fd)
    assert spool.drain(first).run()
    assert attached.run()
    assert [point.step for point in spool.run.points] == [0, 1, 2, 3, 4, 5]


def test_a_run_created_by_a_journal_that_is_gone_is_found_by_its_uid(spool: Spool) -> None:
    creator = a_head()
    run_id = spool.sink.create_run(creator)
    drain = spool.deliver(a_head(run_uid=creator.uid), points(3))
    assert drain.ack.run_id == run_id


def test_a_run_that_nobody_has_created_is_waited_for(spool: Spool) -> None:
    drain = spool.drain(spool.journal(a_head(run_uid=uuid.uuid4().hex), points(3)))
    assert not drain.run()
    assert "not created yet" in drain.ack.problem
    assert not drain.ack.held


def test_a_run_that_does_not_exist_is_held_and_told(spool: Spool) -> None:
    drain = spool.drain(spool.journal(a_head(run_id="gone"), points(3)))
    assert not drain.run()
    assert drain.ack.held
    assert "gone" in drain.ack.problem


@pytest.mark.parametrize("by", ["run_id", "run_uid"])
def test_earlier_journals_of_the_run_are_delivered_first(spool: Spool, by: str) -> None:
    creator = a_head()
    run_id = spool.sink.create_run(creator)
    key = {"run_id": run_id} if by == "run_id" else {"run_uid": creator.uid}
    spool.journal(creator, [Tags({"t": "first"})], Ack(run_id=run_id))
    spool.journal(a_head(**key, start_time=START + 1), [Tags({"t": "second"}), Close()])
    spool.deliver(a_head(run_id=run_id, start_time=START + 2), [Tags({"t": "third"})])
    assert spool.run.tags["t"] == "third"
    assert spool.sink.calls.count("log_batch") == 3


def test_an_earlier_journal_that_somebody_else_delivers_is_waited_for(spool: Spool) -> None:
    creator = a_head()
    run_id = spool.sink.create_run(creator)
    journal = spool.journal(creator, points(3), Ack(run_id=run_id))
    drain = spool.drain(spool.journal(a_head(run_id=run_id, start_time=START + 1), points(3, 3)))
    fd = take(journal)
    assert fd is not None
    assert not drain.run()
    assert "is being delivered" in drain.ack.problem
    give_back(fd)
    assert drain.run()
    assert [point.step for point in spool.run.points] == [0, 1, 2, 3, 4, 5]


# -- updates ---------------------------------------------------------------------------------------


def test_updates_are_applied_in_order_and_with_nothing_added(spool: Spool) -> None:
    updates = [Update(name="new"), Update("SCHEDULED"), Update("RUNNING"), Update("FINISHED", 7)]
    seen: list[tuple[Update, int]] = []
    update_run = spool.sink.update_run

    def noted(run_id: str, update: Update) -> None:
        seen.append((update, len(spool.run.points)))
        update_run(run_id, update)

    spool.sink.update_run = noted  # type: ignore[method-assign]
    records = [part for i, update in enumerate(updates) for part in (*points(1, i), update)]
    drain = spool.deliver(a_head(), records)
    assert seen == [(update, i + 1) for i, update in enumerate(updates)]
    assert drain.ack.status == "FINISHED"
    assert "set_status" not in spool.sink.calls


def test_a_new_name_leaves_the_status_that_was_delivered(spool: Spool) -> None:
    drain = spool.deliver(a_head(), [Update("FINISHED", 7), Update(name="late")])
    assert drain.ack.status == "FINISHED"
    assert spool.run.tags[names.RUN_NAME] == "late"


def test_a_name_that_the_store_refuses_holds_up_nothing(spool: Spool) -> None:
    refusal = RejectedError("too long", definite=True)
    spool.sink.troubles.append(Trouble(refusal, "update_run"))
    drain = spool.deliver(a_head(), [Update("FINISHED", 7, "n" * 9000), *points(2)])
    assert spool.run.status.status == "FINISHED"
    assert len(spool.run.points) == 2
    (aside,) = drain.ack.aside
    assert aside.entry["tags"] == {names.RUN_NAME: "n" * 9000}


# -- the end ---------------------------------------------------------------------------------------

LAST = START + 60_000


def die(spool: Spool, head: Head, records: Sequence[Record], ack: Ack | None = None) -> Drain:
    """Deliver the journal of a writer that died at `LAST`."""
    drain = spool.drain(spool.journal(replace(head, writer=GONE), records, ack))
    os.utime(drain.journal, (LAST / 1000, LAST / 1000))
    assert drain.abandon(), drain.ack
    return drain


def test_a_process_that_dies_without_a_word_leaves_a_killed_run_and_no_tags(spool: Spool) -> None:
    die(spool, a_head(tags=USERS_TAGS), points(3))
    assert (spool.run.status.status, spool.run.status.end_time) == ("KILLED", START + 2)
    assert spool.run.tags.keys() == {*USERS_TAGS, *OURS}


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([Params({"a": "b"})], id="no time"),
        pytest.param([Metrics(0, 5, {"a": 1.0})], id="before the start"),
        pytest.param([Metrics(0, LAST + 1, {"a": 1.0})], id="after the last write"),
    ],
)
def test_the_end_of_a_killed_run_is_the_last_write_where_no_metric_tells_it(
    spool: Spool, records: list[Record]
) -> None:
    die(spool, a_head(), records)
    assert spool.run.status.end_time == LAST


@pytest.mark.parametrize("last", [Update("FINISHED", 7), Update("SCHEDULED"), Close()])
def test_a_process_that_said_how_its_run_goes_on_is_not_reported(
    spool: Spool, last: Record
) -> None:
    die(spool, a_head(), [*points(3), last])
    assert spool.run.status.status != "KILLED"
    assert "update_run" not in spool.sink.calls or isinstance(last, Update)


def test_the_death_of_an_attached_process_leaves_the_status_alone(spool: Spool) -> None:
    run_id = spool.sink.create_run(a_head())
    drain = die(spool, a_head(run_id=run_id), points(3))
    assert spool.run.status.status == "RUNNING"
    assert drain.ack.closed
    assert not drain.ack.died


def test_the_death_of_a_process_that_had_started_the_run_again_is_told(spool: Spool) -> None:
    run_id = spool.sink.create_run(a_head())
    die(spool, a_head(run_id=run_id), [Update("RUNNING"), *points(3)])
    assert spool.run.status.status == "KILLED"


def test_a_run_that_another_process_has_ended_stays_so_when_its_creator_dies(
    spool: Spool,
) -> None:
    head = a_head()
    run_id = spool.sink.create_run(head)
    spool.sink.update_run(run_id, Update("FINISHED", START + 5))
    die(spool, head, points(3), Ack(run_id=run_id))
    assert (spool.run.status.status, spool.run.status.end_time) == ("FINISHED", START + 5)


def test_a_run_that_was_declared_dead_goes_on_if_its_journal_grows(spool: Spool) -> None:
    drain = die(spool, a_head(tags=USERS_TAGS), points(3))
    longer = journal_of(
        spool.folder / "longer", [*points(6)], replace(drain._head, writer=GONE)
    ).read_bytes()
    drain.journal.write_bytes(longer)
    assert spool.drain(drain.journal).run()
    assert spool.run.status.status == "RUNNING"
    assert len(spool.run.points) == 6
    assert "delete_tags" not in spool.sink.calls
    assert spool.run.tags.keys() == {*USERS_TAGS, *OURS}


# -- several writers -------------------------------------------------------------------------------


def test_late_tags_are_undone_only_where_they_have_an_earlier_value_of_the_journal(
    spool: Spool,
) -> None:
    journal = spool.journal(
        a_head(),
        [
            Tags({"late": "1", "others": "1", "deleted": "1"}),
            Update(),  # alone, so that the tags go out in two batches
            Tags({"late": "2", "others": "2", "deleted": "2"}),
        ],
    )
    spool.sink.troubles.append(Trouble(TransientError("lost"), committed=True))
    drain = spool.drain(journal)
    assert not drain.run()
    assert drain.run()
    assert drain.ack.overdue
    # The first batch arrives again, and other clients change two tags.
    spool.run.tags |= {"late": "1", "others": "theirs"}
    del spool.run.tags["deleted"]
    ended = journal_of(
        spool.folder / "ended",
        [
            Tags({"late": "1", "others": "1", "deleted": "1"}),
            Update(),
            Tags({"late": "2", "others": "2", "deleted": "2"}),
            Update("FINISHED", 7),
        ],
        drain._head,
    )
    drain.journal.write_bytes(ended.read_bytes())
    assert drain.run()
    assert spool.run.tags["late"] == "2"
    assert spool.run.tags["others"] == "theirs"
    assert "deleted" not in spool.run.tags


# -- metrics of models and datasets ----------------------------------------------------------------

OF = {"model_id": "m-1", "dataset_name": "digits", "dataset_digest": "abc"}


def test_a_batch_carries_what_its_metrics_belong_to() -> None:
    entries = [
        Entry(Metrics(1, 2, {"a": 1.0}, OF), 10),
        Entry(Metrics(1, 2, {"a": 1.0}), 20),
        Entry(Metrics(1, 2, {"a": 1.0}, {"model_id": "m-2"}), 30),
    ]
    (batch,) = pack(entries)
    assert isinstance(batch, Batch)
    assert batch.points == [
        MetricPoint("a", 1.0, 2, 1, "m-1", "digits", "abc"),
        MetricPoint("a", 1.0, 2, 1),
        MetricPoint("a", 1.0, 2, 1, "m-2"),
    ]
    assert Batch.of_entries(batch.entries()).points == batch.points


def test_refused_metrics_of_an_ack_of_the_first_format_are_still_read() -> None:
    old = {"metrics": [{"key": "a", "value": 1.0, "time": 2, "step": 1}], "params": {}, "tags": {}}
    assert Batch.of_entries(old).points == [MetricPoint("a", 1.0, 2, 1)]


def test_metrics_of_a_dataset_with_a_long_name_stay_within_a_request() -> None:
    of = {"model_id": "m" * 36, "dataset_name": "é" * 500, "dataset_digest": "d" * 36}
    whole = Metrics(1, 2, {f"m{i}": 1.0 for i in range(999)}, of)
    parts = list(split(whole))
    assert len(parts) > 1
    batches = list(pack(Entry(part, i) for i, part in enumerate(parts, 1)))
    for batch in batches:
        assert isinstance(batch, Batch)
        assert batch.size <= names.MAX_BATCH_BYTES
    assert sum(len(batch.points) for batch in batches if isinstance(batch, Batch)) == 999


# -- the side lanes --------------------------------------------------------------------------------


def test_a_lane_tests_the_store_of_an_attached_run_with_the_mark_alone(spool: Spool) -> None:
    run_id = spool.sink.create_run(replace(HEAD, uid="other"))
    before = dict(spool.run.tags)
    head = a_head(run_id=run_id)
    journal = spool.journal(head)
    artifact = kept_files.keep_content(journal, b"kept", "notes.txt", "texts")
    journal.unlink()
    spool.journal(head, [artifact])
    assert spool.drain(journal).run()
    _, lane, *_ = side_lanes(journal, lambda _: spool.sink)
    spool.sink.troubles.append(Trouble(TransientError("500", answered=True), "log_artifact"))
    assert not run_lane(lane)
    assert len(lane.ack.aside) == 1
    assert spool.run.tags.keys() == {*before, names.DELIVERED}


# -- a real store ----------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_uri")
    return found


def in_store(uri: str, folder: Path, head: Head, records: Sequence[Record]) -> str:
    """Deliver a journal to a real store; return its run id."""
    folder.chmod(0o700)
    journal = journal_of(folder / f"{head.start_time}-{head.uid[:8]}.jsonl", records, head)
    sink = MLflowSink(uri)
    drain = Drain(journal, lambda _: sink)
    assert drain.run(), drain.ack
    for lane in side_lanes(journal, lambda _: sink):
        assert run_lane(lane), lane.ack
    assert drain.ack.run_id is not None
    return drain.ack.run_id


def test_a_whole_run_lands_in_a_real_store_as_it_was_written(uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    experiment = client.create_experiment(uuid.uuid4().hex)
    model = client.create_logged_model(experiment, "model")
    of = {"model_id": model.model_id, "dataset_name": "digits", "dataset_digest": "abc"}
    head = a_head(experiment_id=experiment, tags=USERS_TAGS, run_name="one")
    tags = {"mlflow.data.context": "training", "fold": "3"}
    run_id = in_store(
        uri,
        tmp_path,
        head,
        [
            Params({"p": "1"}),
            Metrics(1, START + 1, {"loss": 0.5, "nan": float("nan")}),
            Metrics(1, START + 1, {"loss": 0.5}, of),
            Metrics(2, START + 2, {"loss": 0.25}),
            Tags({"mlflow.note.content": "x{run_id}"}),
            Dataset("digits", "abc", "local", "{}", "", "", "", tags),
            Update(name="two"),
            Update("FINISHED", START + 9),
            Close(),
        ],
    )
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("two", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (head.start_time, START + 9)
    assert {k: v for k, v in run.data.tags.items() if k not in OURS} == USERS_TAGS | {
        "mlflow.runName": "two",
        "mlflow.note.content": "x{run_id}",
    }
    history = client.get_metric_history(run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(1, 0.5), (2, 0.25)]
    (measured,) = client.get_logged_model(model.model_id).metrics or []
    assert measured == Metric("loss", 0.5, START + 1, 1, model.model_id, "digits", "abc", run_id)
    (dataset,) = run.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in dataset.tags} == tags
    assert MLflowSink(uri).find_runs_anywhere(head.uid) == [run_id]


def test_several_processes_log_into_one_run_exactly_once(uri: str, tmp_path: Path) -> None:
    """Each overwrites the others' mark, so a lost answer sends points twice."""
    client = MlflowClient(uri)
    experiment = client.create_experiment(uuid.uuid4().hex)
    model = client.create_logged_model(experiment, "model")
    of = {"model_id": model.model_id}
    run_id = client.create_run(experiment).info.run_id
    sink = MLflowSink(uri)
    drains = []
    for rank in range(3):
        head = a_head(run_id=run_id, experiment_id=experiment, start_time=START + rank)
        records: list[Record] = [
            Metrics(0, START, {f"nan{rank}": float("nan")}),
            *[Metrics(i, START + i, {f"loss{rank}": i / 7}) for i in range(30)],
            *[Metrics(i, START + i, {f"model{rank}": i / 7}, of) for i in range(30)],
            Tags({f"rank{rank}": "done"}),
            Close(),
        ]
        folder = tmp_path / str(rank)  # of a machine of its own
        folder.mkdir(mode=0o700)
        journal = journal_of(folder / f"{head.start_time}-{head.uid[:8]}.jsonl", records, head)
        drains.append(Drain(journal, lambda _: sink))
    with ThreadPoolExecutor() as pool:
        assert all(pool.map(Drain.run, drains)), [drain.ack for drain in drains]
    for rank, drain in enumerate(drains):  # acks are lost, and two of three marks overwritten
        whole = drain.ack
        write_ack(drain.journal, replace(whole, offset=0, closed=False))
        again = Drain(drain.journal, lambda _: sink)
        assert again.run(), again.ack
        assert again.ack.quarantined == 0
        # Older versions of MLflow refuse a NaN that they have; that changes nothing.
        refused = {point["key"] for one in again.ack.aside for point in one.entry["metrics"]}
        assert refused <= {f"nan{rank}"}
    expected = [(i, i / 7) for i in range(30)]
    for rank in range(3):
        history = client.get_metric_history(run_id, f"loss{rank}")
        assert [(one.step, one.value) for one in history] == expected
        assert len(client.get_metric_history(run_id, f"nan{rank}")) == 1
        assert len(client.get_metric_history(run_id, f"model{rank}")) == 30
    assert len(client.get_logged_model(model.model_id).metrics or []) == 3 * 30
    tags = client.get_run(run_id).data.tags
    assert {key for key in tags if key.startswith("orbiter")} == {names.DELIVERED}


def test_a_deleted_run_holds_an_attached_journal(sqlite_uri: str, tmp_path: Path) -> None:
    client = MlflowClient(sqlite_uri)
    experiment = client.create_experiment(uuid.uuid4().hex)
    run_id = client.create_run(experiment).info.run_id
    client.delete_run(run_id)
    head = a_head(run_id=run_id, experiment_id=experiment)
    journal = journal_of(tmp_path / "j.jsonl", [*points(3)], head)
    sink = MLflowSink(sqlite_uri)
    drain = Drain(journal, lambda _: sink)
    assert not drain.run()
    assert drain.ack.held
    with pytest.raises(HeldError):
        sink.update_run(run_id, Update("FINISHED", 7))


def test_a_batch_of_one_key_many_times_keeps_every_point(sqlite_uri: str, tmp_path: Path) -> None:
    head = a_head(experiment_id=MlflowClient(sqlite_uri).create_experiment(uuid.uuid4().hex))
    records: list[Record] = [Metrics(0, START, {"a": float(i)}) for i in range(50)]
    run_id = in_store(sqlite_uri, tmp_path, head, records)
    history = MlflowClient(sqlite_uri).get_metric_history(run_id, "a")
    assert sorted(one.value for one in history) == [float(i) for i in range(50)]
