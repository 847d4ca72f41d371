"""Programs that close our descriptors: nothing that we write ends up in their files."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from journals import HEAD, entries
from orbiter_mlflow.delivery import writer_lock
from orbiter_mlflow.delivery.files import locks
from orbiter_mlflow.delivery.files.descriptors import Descriptor
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.records import Close, Tags
from paths import PYTHONPATH
from scripts import PRELUDE as TRAINER

PRELUDE = """
import os, sys
from pathlib import Path
from journals import HEAD
from orbiter_mlflow.delivery import writer_lock
from orbiter_mlflow.delivery.files import locks
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.records import Close, Tags
journal = Journal(Path("j.jsonl"), HEAD)
number = journal._file.number
journal.append(Tags({"first": "kept"}))
"""


def run(script: str, limit: str = "") -> None:
    done = subprocess.run(
        [sys.executable, "-c", limit + PRELUDE + textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "takes no more records" not in done.stderr


@pytest.mark.parametrize("last", [256, 65536], ids=["the idiom", "all"])
def test_a_checkpoint_that_gets_a_closed_descriptor_number_gets_no_records(
    tmp_path: Path, last: int
) -> None:
    run(
        f"""
        os.closerange(3, {last})
        checkpoints = [os.open(f"checkpoint{{n}}", os.O_RDWR | os.O_CREAT) for n in range(700)]
        assert {last} == 256 or number in checkpoints
        journal.append(Tags({{"second": "kept"}}))
        assert journal.size == os.stat("j.jsonl").st_size and not journal.lost
        journal.append(Close())
        journal.close()
        for fd in checkpoints:
            assert os.fstat(fd).st_size == 0
        """
    )
    assert entries(tmp_path / "j.jsonl")[1:] == [
        Tags({"first": "kept"}),
        Tags({"second": "kept"}),
        Close(),
    ]
    assert sum(path.name.startswith("checkpoint") for path in tmp_path.iterdir()) == 700


def test_no_order_to_the_delivery_process_goes_into_a_file_of_the_program(
    tmp_path: Path, sqlite_uri: str
) -> None:
    script = textwrap.dedent(
        """
        trainer = validated()
        assert trainer.run_id
        os.closerange(3, 65536)
        files = [os.open(f"file{n}", os.O_RDWR | os.O_CREAT) for n in range(700)]
        asyncio.run(trainer.train())
        trainer.delivered
        assert not [fd for fd in files if os.fstat(fd).st_size]
        """
    )
    path = tmp_path / "script.py"
    path.write_text(TRAINER + script)
    done = subprocess.run(
        [sys.executable, str(path)],
        env=os.environ | {"MLFLOW_TRACKING_URI": sqlite_uri},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_low_limit_on_open_files_still_gives_the_highest_possible_number(tmp_path: Path) -> None:
    run(
        """
        assert number >= 32, number
        """,
        limit="import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    )


def test_a_writer_whose_descriptors_were_closed_locks_its_journal_again(tmp_path: Path) -> None:
    run(
        """
        import time
        os.closerange(3, 65536)
        sidecar = Path("j.writer")
        assert not locks.is_held(sidecar)
        deadline = time.monotonic() + 10
        while not locks.is_held(sidecar):
            assert time.monotonic() < deadline
            journal.append(Tags({"again": "kept"}))
            time.sleep(0.05)
        """
    )


def test_a_file_that_replaced_a_journal_is_not_written_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "j.jsonl", HEAD)
    os.close(journal._file.number)
    (tmp_path / "j.jsonl").rename(tmp_path / "moved.jsonl")
    (tmp_path / "j.jsonl").write_text("somebody else's\n")
    journal.append(Close())
    assert (tmp_path / "j.jsonl").read_text() == "somebody else's\n"
    assert journal.lost == 1
    assert "another file is in its place" in caplog.text
    journal.close()


def test_records_for_a_journal_that_was_removed_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "j.jsonl", HEAD)
    journal.path.unlink()
    journal.append(Close())
    assert journal.lost == 1
    assert "takes no more records (No such file" in caplog.text
    journal.close()
    assert not journal.path.exists()


def test_a_descriptor_that_is_no_longer_ours_is_not_closed(tmp_path: Path) -> None:
    ours = Descriptor(os.open(tmp_path / "ours", os.O_WRONLY | os.O_CREAT))
    number = ours.number
    os.close(number)
    theirs = os.open(tmp_path / "theirs", os.O_WRONLY | os.O_CREAT)
    os.dup2(theirs, number)
    ours.close()
    assert os.fstat(number).st_ino == os.fstat(theirs).st_ino
    os.close(number)
    os.close(theirs)


def test_a_forked_child_holds_neither_file_nor_lock(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", HEAD)
    sidecar = writer_lock.path_of(journal.path)
    reader, writer = os.pipe()
    ready, running = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.write(running, b"x")
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    os.close(running)
    assert locks.is_held(sidecar)
    journal.close()
    assert not locks.is_held(sidecar)  # while the child lives on
    os.close(writer)
    os.waitpid(child, 0)
