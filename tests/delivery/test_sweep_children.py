"""The parent of a sweep names its children by uid; delivery puts in their run ids."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from journals import HEAD, journal_of, run_lane
from memory_sink import MemorySink, Trouble
from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.ack import Ack, read_ack, write_ack
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.records import Close, Head, Record, Status, Tags, Update
from orbiter_mlflow.delivery.side_lane import SideLane
from orbiter_mlflow.delivery.spool import give_back, take
from orbiter_mlflow.errors import HeldError

PARENT = replace(HEAD, as_written=True, tags={names.SWEEP: "s"})
END: list[Record] = [Update("FINISHED", HEAD.start_time + 9), Close()]


class Sweep:
    """The journals of a parent and of some children, and a store in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o700)
        self.sink = MemorySink()
        self.children = [
            replace(HEAD, uid=uuid.uuid4().hex, start_time=HEAD.start_time + n, parent_uid=HEAD.uid)
            for n in range(1, 4)
        ]

    def drain(self, journal: Path) -> Drain:
        return Drain(journal, lambda _: self.sink)

    def journal(self, head: Head, records: Sequence[Record]) -> Path:
        return journal_of(self.folder / f"{head.start_time}-{head.uid[:8]}.jsonl", records, head)

    def child(self, number: int) -> Path:
        return self.journal(self.children[number], [Status("FINISHED", HEAD.start_time), Close()])

    def best(self, number: int) -> Path:
        return self.journal(PARENT, [Tags({names.SWEEP_BEST: self.children[number].uid}), *END])

    def table(self) -> tuple[Path, SideLane]:
        """The parent's journal with a table of all children, and its lane of artifacts."""
        journal = self.journal(PARENT, [])
        rows = [[child.uid, "s"] for child in self.children]
        content = json.dumps({"columns": ["run_id", "name"], "data": rows}).encode()
        kept = kept_files.keep_content(journal, content, "children.json", "sweep")
        journal.unlink()
        self.journal(PARENT, [replace(kept, names_runs=True), *END])
        return journal, SideLane("artifacts", journal, lambda _: self.sink)

    def run_id(self, head: Head) -> str | None:
        found = [i for i, run in self.sink.runs.items() if run.tags[names.UID] == head.uid]
        return found[0] if found else None

    @property
    def parent_tags(self) -> dict[str, str]:
        run_id = self.run_id(PARENT)
        assert run_id is not None
        return self.sink.runs[run_id].tags


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def test_the_best_child_has_its_run_made_first_and_is_named_by_its_id(sweep: Sweep) -> None:
    child, parent = sweep.child(1), sweep.drain(sweep.best(1))
    assert parent.run()
    assert parent.ack.closed
    run_id = sweep.run_id(sweep.children[1])
    assert run_id is not None
    assert sweep.parent_tags[names.SWEEP_BEST] == run_id
    assert sweep.sink.runs[run_id].tags[names.PARENT_RUN_ID] == parent.ack.run_id
    assert not child.exists()  # all of it is delivered


def test_a_child_that_is_delivered_first_has_its_parent_made_and_does_not_wait_for_its_rest(
    sweep: Sweep,
) -> None:
    parent, child = sweep.best(0), sweep.child(0)
    fd = take(child)  # as every host does, so that nobody else delivers it
    assert fd is not None
    drain = sweep.drain(child)
    assert drain.run()
    assert read_ack(parent).run_id == sweep.run_id(PARENT)
    assert names.SWEEP_BEST not in sweep.parent_tags
    assert sweep.drain(parent).run()
    give_back(fd)
    assert sweep.parent_tags[names.SWEEP_BEST] == drain.ack.run_id


def test_the_best_child_of_another_spool_is_found_by_its_uid(sweep: Sweep) -> None:
    run_id = sweep.sink.create_run(sweep.children[2])
    assert sweep.drain(sweep.best(2)).run()
    assert sweep.parent_tags[names.SWEEP_BEST] == run_id


def test_the_parent_does_not_wait_for_a_child_that_is_gone(sweep: Sweep) -> None:
    parent = sweep.drain(sweep.best(0))
    assert parent.run()
    assert parent.ack.closed
    assert sweep.parent_tags[names.SWEEP_BEST] == sweep.children[0].uid


@pytest.mark.parametrize("known", [True, False], ids=["known to be held", "held just now"])
def test_the_parent_does_not_wait_for_a_child_that_a_person_must_free(
    known: bool, sweep: Sweep
) -> None:
    parent, child = sweep.best(0), sweep.child(0)
    write_ack(parent, Ack(run_id=sweep.sink.create_run(PARENT), lanes=True))
    sweep.sink.troubles.append(Trouble(HeldError("the experiment is deleted"), "create_run"))
    if known:
        assert not sweep.drain(child).run()
        assert read_ack(child).held
    drain = sweep.drain(parent)
    assert drain.run()
    assert drain.ack.closed
    assert sweep.parent_tags[names.SWEEP_BEST] == sweep.children[0].uid


def test_the_table_waits_for_the_runs_of_journals_beside_and_then_names_them(sweep: Sweep) -> None:
    journal, lane = sweep.table()
    first, second = sweep.child(0), sweep.child(1)
    assert sweep.drain(journal).run()
    assert sweep.drain(first).run()
    assert not run_lane(lane)
    assert "is not made yet" in lane.ack.problem
    assert not lane.ack.held
    assert sweep.drain(second).run()
    assert run_lane(lane)
    run_id = sweep.run_id(PARENT)
    assert run_id is not None
    table = json.loads(sweep.sink.runs[run_id].artifacts["sweep/children.json"])
    ids = [sweep.run_id(child) for child in sweep.children[:2]]
    assert None not in ids
    # The third child has no journal here and no run: it keeps its provisional id.
    assert [row[0] for row in table["data"]] == [*ids, sweep.children[2].uid]
