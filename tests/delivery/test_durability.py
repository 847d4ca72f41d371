"""Journals reach the disk within a second, or with each record; nobody waits for it."""

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from disk_log import DiskLog
from folders import each_file
from journals import HEAD, entries, run_lane
from memory_sink import MemorySink, Trouble
from orbiter_mlflow.delivery import kept_files, spool
from orbiter_mlflow.delivery.ack import ack_path, read_ack
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.durability import Syncer
from orbiter_mlflow.delivery.files import disk_sync
from orbiter_mlflow.delivery.hosts.base import OfflineHost
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.kept_files import folder_of, keep_content
from orbiter_mlflow.delivery.records import Head, Metrics
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.delivery.side_lane import side_lanes
from orbiter_mlflow.errors import RejectedError
from scripts import output, started
from waiting import eventually

POINT = Metrics(1, HEAD.start_time, {"loss": 0.5})


class Disk:
    """A disk that is seen at work; `on_sync` may wait, or raise."""

    def __init__(self) -> None:
        self.synced: list[tuple[int, int]] = []
        """Inode and size of each file that was synced."""
        self.on_sync: Callable[[int], None] = lambda inode: None

    def size(self, file: Path) -> int:
        """Bytes of a file that are on the disk."""
        inode = file.stat().st_ino
        return max((size for one, size in self.synced if one == inode), default=-1)

    def times(self, file: Path) -> int:
        inode = file.stat().st_ino
        return sum(one == inode for one, _ in self.synced)

    def holds(self, file: Path) -> bool:
        return self.size(file) == file.stat().st_size


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()

    def sync(fd: int) -> None:
        status = os.fstat(fd)
        disk.on_sync(status.st_ino)
        real(fd)
        disk.synced.append((status.st_ino, status.st_size))

    real = disk_sync.sync
    monkeypatch.setattr(disk_sync, "sync", sync)
    return disk


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = spool.open_journal(tmp_path / "spool", HEAD)
    yield journal
    journal.close()


def offline(folder: Path, host: OfflineHost, *, sync_each: bool = False) -> RunWriter:
    return RunWriter(
        folder, HEAD, host, tracking_uri=HEAD.tracking_uri, flush_timeout=0, sync_each=sync_each
    )


def at_rest(journal: Journal) -> Syncer:
    """A syncer of a journal, without the passes of its threads."""
    syncer = Syncer()
    next(syncer._watching)
    syncer.watch(journal.path)
    return syncer


# -- the threads of a host -------------------------------------------------------------------------


def test_what_a_journal_grows_by_is_synced_from_another_thread(disk: Disk, tmp_path: Path) -> None:
    me = threading.get_ident()
    callers: set[int] = set()
    disk.on_sync = lambda inode: callers.add(threading.get_ident())
    writer = offline(tmp_path, OfflineHost())
    for _ in range(3):
        writer.append(POINT)
        eventually(lambda: disk.holds(writer.path))
    assert me not in callers
    writer.close()


def test_a_journal_that_does_not_grow_is_not_synced_again(disk: Disk, journal: Journal) -> None:
    syncer = at_rest(journal)
    syncer.sync()
    syncer.sync()
    assert disk.times(journal.path) == 1
    journal.append(POINT)
    syncer.sync()
    syncer.sync()
    assert disk.times(journal.path) == 2
    assert disk.holds(journal.path)


def test_a_slow_disk_delays_no_record_and_makes_no_queue(disk: Disk, tmp_path: Path) -> None:
    busy, answer = threading.Event(), threading.Event()

    def slow(inode: int) -> None:
        busy.set()
        assert answer.wait(60)

    disk.on_sync = slow
    writer = offline(tmp_path, OfflineHost())
    assert busy.wait(60)
    for _ in range(1000):
        writer.append(POINT)
    assert disk.size(writer.path) == -1
    answer.set()
    eventually(lambda: disk.holds(writer.path))
    assert disk.times(writer.path) <= 2
    writer.close()


def test_a_large_copy_does_not_delay_the_journal_that_names_it(disk: Disk, tmp_path: Path) -> None:
    answer = threading.Event()
    writer = offline(tmp_path, OfflineHost())
    folder = folder_of(writer.path)

    def slow(inode: int) -> None:
        copies = each_file(folder, lambda file: file.stat().st_ino)
        assert inode not in copies.values() or answer.wait(60)

    disk.on_sync = slow  # before there is a copy, which may be seen at once
    kept = keep_content(writer.path, b"content", "a.txt", None)
    file = folder / kept.file
    writer.append(kept)
    eventually(lambda: disk.holds(writer.path))
    writer.append(POINT)
    eventually(lambda: disk.holds(writer.path))
    assert disk.size(file) == -1
    answer.set()
    eventually(lambda: disk.holds(file))
    writer.close()


def test_copies_are_synced_once_and_again_if_they_change(disk: Disk, journal: Journal) -> None:
    syncer = at_rest(journal)
    first = keep_content(journal.path, b"first", "a.txt", None)
    journal.append(first)
    syncer.sync()
    growing = folder_of(journal.path) / "growing"
    growing.write_bytes(b"half")
    journal.append(keep_content(journal.path, b"second", "b.txt", None))
    syncer.sync()
    growing.write_bytes(b"half and half")
    journal.append(POINT)
    syncer.sync()
    assert disk.times(folder_of(journal.path) / first.file) == 1
    assert all(disk.holds(file) for file in folder_of(journal.path).iterdir())


def test_a_disk_that_refuses_is_told_once_and_asked_again(
    disk: Disk, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(inode: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    disk.on_sync = refuse
    syncer = at_rest(journal)
    syncer.sync()
    syncer.sync()
    (told,) = [one.message for one in caplog.records if str(journal.path) in one.message]
    assert "Input/output error" in told
    disk.on_sync = lambda inode: None
    syncer.sync()
    assert disk.holds(journal.path)


def test_a_removed_journal_is_no_trouble(
    disk: Disk, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    syncer = at_rest(journal)
    syncer.sync()
    times = disk.times(journal.path)
    inode = journal.path.stat().st_ino
    journal.append(POINT)
    spool.remove(journal.path)
    syncer.sync()
    assert [one for one, _ in disk.synced].count(inode) == times == 1
    assert not [one for one in caplog.records if str(journal.path) in one.message]


# -- each record -----------------------------------------------------------------------------------


def test_with_record_each_append_returns_when_the_disk_has_it(disk: Disk, tmp_path: Path) -> None:
    writer = offline(tmp_path, OfflineHost(), sync_each=True)
    assert disk.holds(writer.path)
    for _ in range(3):
        writer.append(POINT)
        assert disk.holds(writer.path)
    assert writer.offer(POINT) == []
    assert disk.holds(writer.path)
    writer.close()


def test_with_record_the_disk_has_a_copy_before_the_record_that_names_it(
    disk: Disk, tmp_path: Path
) -> None:
    writer = offline(tmp_path, OfflineHost(), sync_each=True)
    kept = keep_content(writer.path, b"content", "a.txt", None)
    file = folder_of(writer.path) / kept.file
    before = writer.path.stat().st_size
    sizes: list[int] = []
    copy = file.stat().st_ino
    disk.on_sync = lambda inode: sizes.append(writer.path.stat().st_size) if inode == copy else None
    writer.append(kept)
    assert before in sizes
    assert disk.holds(file)
    assert disk.holds(writer.path)
    writer.close()


def test_with_record_a_disk_that_refuses_is_told_once_and_training_goes_on(
    disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = offline(tmp_path, OfflineHost(), sync_each=True)

    def refuse(inode: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    disk.on_sync = refuse
    me = threading.current_thread().name
    for _ in range(3):
        writer.append(POINT)
    assert entries(writer.path)[1:] == [POINT] * 3
    told = [one for one in caplog.records if one.threadName == me]
    assert ["Input/output error" in one.message for one in told] == [True]
    disk.on_sync = lambda inode: None
    writer.close()


# -- what delivery knows alone ---------------------------------------------------------------------


def test_a_run_is_created_when_the_disk_has_its_journal_and_the_intent(
    disk: Disk, journal: Journal
) -> None:
    class Store(MemorySink):
        def create_run(self, head: Head) -> str:
            assert read_ack(journal.path).creating
            assert disk.holds(ack_path(journal.path))
            assert disk.holds(journal.path)
            return super().create_run(head)

    journal.append(POINT)
    store = Store()
    assert Drain(journal.path, lambda _: store).run()
    assert store.calls.count("create_run") == 1


def test_the_disk_knows_of_a_refused_entry_before_the_store_knows_that_later_ones_arrived(
    disk: Disk, journal: Journal
) -> None:
    store = MemorySink()
    journal.append(POINT)
    store.troubles.append(Trouble(RejectedError("no", definite=True)))
    drain = Drain(journal.path, lambda _: store)
    drain.run()
    assert len(read_ack(journal.path).aside) == 1
    assert disk.holds(ack_path(journal.path))


def test_a_copy_is_removed_when_the_disk_knows_that_it_was_uploaded(
    disk: Disk, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemorySink()
    journal.append(keep_content(journal.path, b"content", "a.txt", None))
    assert Drain(journal.path, lambda _: store).run()
    removed: list[bool] = []

    def discard(*what: Any) -> None:
        removed.append(disk.holds(ack_path(journal.path, "artifacts")))

    monkeypatch.setattr(kept_files, "discard", discard)
    for lane in side_lanes(journal.path, lambda _: store):
        assert run_lane(lane)
    assert removed == [True]


# -- whole processes -------------------------------------------------------------------------------

EXIT = """
trainer = validated(delivery="offline", spool_dir="spool")
asyncio.run(trainer.train())
"""


def test_an_offline_process_syncs_the_rest_as_it_exits(tmp_path: Path) -> None:
    log = DiskLog(tmp_path / "log")
    process = started(EXIT, tmp_path, environ=log.environment)
    output(process)
    (journal,) = (tmp_path / "spool").glob("*.jsonl")
    assert max(one.size for one in log.syncs(journal)) == journal.stat().st_size
    folders = {one.inode for one in log.syncs() if one.call == "fsync"}
    assert {(tmp_path / "spool").stat().st_ino, tmp_path.stat().st_ino} <= folders


RECORD = """
import json
trainer = validated(
    delivery="offline", spool_dir="spool", durability="record",
    skip_provenance=("git", "diff", "command", "machine", "packages", "seeds"),  # by other threads
)
(journal,) = Path("spool").glob("*.jsonl")
reports = []
for step in range(20):
    trainer.report({"loss": 1.0}, step=step)
    reports.append((time.monotonic(), journal.stat().st_size))
print(json.dumps(reports))
"""


def test_a_trainer_with_durability_record_waits_for_the_disk(tmp_path: Path) -> None:
    log = DiskLog(tmp_path / "log")
    process = started(RECORD, tmp_path, environ=log.environment)
    reports = json.loads(output(process))
    (journal,) = (tmp_path / "spool").glob("*.jsonl")
    syncs = log.syncs(journal)
    for returned, size in reports:
        assert max(one.size for one in syncs if one.end <= returned) >= size


# -- systems ---------------------------------------------------------------------------------------


def test_without_fdatasync_the_file_is_synced_by_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(os, "fsync", synced.append)
    file = tmp_path / "file"
    file.touch()
    disk_sync.sync_file(file)
    assert len(synced) == 1


def test_on_macos_the_cache_of_the_disk_is_flushed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Fcntl:
        F_FULLFSYNC = 51

        @staticmethod
        def fcntl(fd: int, command: int) -> None:
            asked.append(command)

    monkeypatch.setattr(disk_sync, "fcntl", Fcntl)
    file = tmp_path / "file"
    file.touch()
    disk_sync.sync_file(file)
    assert asked == [51]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    (tmp_path / "target").touch()
    with pytest.raises(OSError, match="link"):
        disk_sync.sync_file(link)


def test_syncing_a_fifo_waits_for_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    began = time.monotonic()
    with pytest.raises(OSError):  # noqa: PT011  of any kind
        disk_sync.sync_file(tmp_path / "fifo")
    assert time.monotonic() - began < 5
