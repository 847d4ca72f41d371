"""A spool on a full disk: the end of the run is recorded, and losses are counted."""

import itertools
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from disks import fill, small_disk
from journals import HEAD, entries
from memory_sink import MemorySink
from orbiter_mlflow import names
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.ack import Ack, read_ack, write_ack
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.files import preallocation
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.journal_reader import is_closed, whole_size
from orbiter_mlflow.delivery.records import Close, Metrics, Params, Status, Tags
from orbiter_mlflow.delivery.spool import undelivered_bytes
from paths import ROOT
from scripts import PRELUDE, ended
from waiting import eventually


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture(params=["allocates ahead", "does not"])
def journal(request: pytest.FixtureRequest, disk: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """A journal on that disk, with and without preallocation."""
    if request.param == "does not":
        monkeypatch.setattr(preallocation, "_fallocate", lambda: None)
    return Journal(disk / "a.jsonl", HEAD)


def point(step: int) -> Metrics:
    return Metrics(step, 1000 + step, {"train/loss": float(step)})


def full(journal: Journal) -> int:
    """Fill the disk and report until it takes nothing; return the number of points kept."""
    fill(journal.path.parent)
    kept = 0
    while not journal.lost:
        journal.append(point(kept))
        kept += 1
    return kept - 1


def test_threads_on_a_full_disk_cut_no_line_and_leave_space_for_the_end(
    tmp_path: Path,
) -> None:
    for trial in range(10):
        with small_disk(tmp_path / str(trial), "160k") as folder:
            journal = Journal(folder / "a.jsonl", HEAD)
            over = threading.Event()
            others = [
                threading.Thread(target=take_and_give_back, args=(folder, over)),
                threading.Thread(target=set_tags, args=(journal, over)),
            ]
            for other in others:
                other.start()
            for step in range(1500):
                journal.append(point(step))
            over.set()
            for other in others:
                other.join()
            journal.append(Status("FINISHED", 9000))
            journal.append(Close())
            journal.close()
            found = entries(journal.path)
            assert None not in found, "a line was cut short"
            assert found[-1] == Close()
            assert Status("FINISHED", 9000) in found


def take_and_give_back(folder: Path, over: threading.Event) -> None:
    """Act as another program that fills the disk and sometimes frees a little."""
    rng = random.Random(1)
    fd = os.open(folder / "other", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while not over.wait(0.0005):
        try:
            os.write(fd, bytes(700))
        except OSError:
            if rng.random() < 0.3:
                os.ftruncate(fd, max(0, os.fstat(fd).st_size - rng.randrange(9000)))
    os.close(fd)


def set_tags(journal: Journal, over: threading.Event) -> None:
    """Set tags from another thread, as provenance and artifacts do."""
    for number in itertools.count():
        if over.wait(0.0005):
            return
        journal.append(Tags({f"tag {number % 7}": "x" * (number % 300)}))


def test_the_final_records_fit_and_count_what_is_missing(journal: Journal) -> None:
    kept = full(journal)
    for step in range(kept + 1, kept + 500):
        journal.append(point(step))
    journal.append(Params({"learning_rate": "0.1"}))
    journal.append(Tags({"orbiter.state": "training", "mine": "old"}))
    journal.append(Tags({"orbiter.state": "completed", "mine": "new"}))
    journal.append(Status("FINISHED", 9000))
    journal.append(Close())
    journal.close()
    found = [record for record in entries(journal.path)[1:] if record is not None]
    assert sum(isinstance(record, Metrics) for record in found) == kept
    tags: dict[str, str] = {}
    for record in found:
        if isinstance(record, Tags):
            tags |= record.values
    assert tags == {"orbiter.state": "completed", "mine": "new", names.LOST: "500"}
    assert Params({"learning_rate": "0.1"}) in found
    assert found[-2:] == [Status("FINISHED", 9000), Close()]
    assert is_closed(journal.path)
    assert whole_size(journal.path) == journal.path.stat().st_size == journal.size


def test_refused_params_and_tags_are_written_once_there_is_space(journal: Journal) -> None:
    full(journal)
    journal.append(Tags({"a": "1", "b": "1"}))
    (journal.path.parent / "filler").unlink()
    journal.append(Tags({"a": "2"}))
    assert entries(journal.path)[-2:] == [Tags({"a": "2"}), Tags({"b": "1"})]
    assert journal.lost == 1
    journal.close()


def test_a_kill_leaves_at_least_half_of_the_losses_reported(disk: Path) -> None:
    journal = Journal(disk / "a.jsonl", HEAD)
    full(journal)
    for step in range(99):
        journal.append(point(step))
    told = [record.values for record in entries(journal.path) if isinstance(record, Tags)]
    assert told[-1] == {names.LOST: "64"}
    assert len(told) == 7
    journal.close()


def test_more_tags_than_can_be_deferred_are_counted_as_lost(journal: Journal) -> None:
    full(journal)
    for number in range(100):
        journal.append(Tags({f"tag{number}": "x" * 1000}))
    journal.append(Status("FAILED", 9000))
    journal.append(Close())
    found = entries(journal.path)
    kept = {key for record in found if isinstance(record, Tags) for key in record.values}
    lost = int(max((r.values.get(names.LOST, "0") for r in found if isinstance(r, Tags)), key=int))
    assert lost == journal.lost == 1 + 100 - (len(kept) - 1)
    assert found[-2:] == [Status("FAILED", 9000), Close()]


def test_a_closed_journal_frees_its_unused_space(disk: Path) -> None:
    before = os.statvfs(disk).f_bfree
    journal = Journal(disk / "a.jsonl", HEAD)
    assert (before - os.statvfs(disk).f_bfree) * 4096 >= preallocation.RESERVE
    journal.append(Close())
    journal.close()
    assert (before - os.statvfs(disk).f_bfree) * 4096 <= 8192
    assert sorted(disk.iterdir()) == [journal.path, disk / "a.writer"]


def test_an_ack_needs_no_new_block(disk: Path) -> None:
    path = disk / "a.jsonl"
    write_ack(path, Ack())
    fill(disk)
    for offset in (1, 10**9, 5):
        write_ack(path, Ack(offset, problem="x" * 2000))
        assert read_ack(path) == Ack(offset, problem="x" * 2000)
        assert sorted(file.name for file in disk.iterdir()) == ["a.ack", "filler"]
    with pytest.raises(OSError, match="No space"):
        write_ack(path, Ack(7, problem="x" * 9000))
    assert read_ack(path).offset == 5


def test_a_full_spool_drains_itself(disk: Path) -> None:
    opened = spool.open_journal(disk, HEAD)
    kept = full(opened)
    opened.append(Status("FINISHED", 9000))
    opened.append(Close())
    opened.close()
    store = MemorySink()
    assert Drain(opened.path, lambda _: store).run()
    (run,) = store.runs.values()
    assert len(run.points) == kept
    assert run.status.status == "FINISHED"
    assert run.tags[names.LOST] == "1"
    assert not undelivered_bytes(opened.path)


@pytest.mark.parametrize("torn", [b'{"n":9,"c":"00', b'{"n":9,"c":"00' + b"x" * 200_000])
def test_half_a_line_at_the_end_is_not_undelivered(tmp_path: Path, torn: bytes) -> None:
    opened = spool.open_journal(tmp_path, HEAD)
    opened.append(point(1))
    opened.close()
    whole = opened.path.stat().st_size
    with opened.path.open("ab") as file:
        file.write(torn)
    assert whole_size(opened.path) == whole
    store = MemorySink()
    drain = Drain(opened.path, lambda _: store)
    assert drain.run()
    assert undelivered_bytes(opened.path) == 0
    with opened.path.open("ab") as file:
        file.write(b"\n")
    assert undelivered_bytes(opened.path) == len(torn) + 1


def test_a_training_that_completed_on_a_full_spool_is_finished(
    disk: Path, sqlite_uri: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        PRELUDE
        + textwrap.dedent(
            f"""
            sys.path.insert(0, {str(ROOT / "tests/support")!r})
            from disks import fill
            async def middle():
                await trainer.wait_run_id()
                fill(Path({str(disk)!r}))
                for step in range(100, 20_000):
                    trainer.report({{"loss": 1.0}}, step=step)
            trainer = validated(); trainer.inside = middle
            metrics = asyncio.run(trainer.train())
            assert metrics.loss == 0.01
            """
        )
    )
    environment = {"MLFLOW_TRACKING_URI": sqlite_uri, "ORBITER_MLFLOW_SPOOL_DIR": str(disk / "s")}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("takes no more records") == 1
    client = MlflowClient(sqlite_uri)
    run: Run = eventually(lambda: ended(client))
    assert run.info.status == "FINISHED"
    assert run.data.tags["orbiter.state"] == "completed"
    points = len(client.get_metric_history(run.info.run_id, "train/loss"))
    # The result of `train` counts as one record with two points, loss and accuracy.
    assert points + int(run.data.tags[names.LOST]) == 20_000 + 1
    eventually(lambda: not list((disk / "s").glob("*.jsonl")))
