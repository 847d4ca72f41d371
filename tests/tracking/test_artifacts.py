"""`log_artifact`: whatever it is given, training neither waits nor fails; what is lost is said."""

import asyncio
import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from journals import entries
from orbiter.train import TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.records import Artifact, Close, Status, Tags
from orbiter_mlflow.tracking import artifact_files, artifacts
from orbiter_mlflow.tracking.background import Background, background
from trainers import Backend, Tracked, journals, only_journal, recorded, tracked
from waiting import eventually

QUIET: dict[str, Any] = {
    "delivery": "offline",
    "skip_provenance": ["git", "command", "machine", "packages", "seeds"],
}


@pytest.fixture
def trainer() -> Tracked:
    """A validated trainer whose journal stays where it is."""
    trainer = tracked("sqlite:///nowhere.db", **QUIET)
    trainer.mark_validated()
    return trainer


def copied(trainer: Tracked) -> dict[str, bytes]:
    """Path -> content of all that the journal of a run keeps, once it is complete."""
    pieces = trainer._tracked._artifacts
    assert pieces is not None
    eventually(lambda: not pieces.pending)
    return {
        "/".join(part for part in (record.folder, record.name) if part): kept_files.verified(
            only_journal(), record
        ).read_bytes()
        for record in recorded(Artifact)
    }


def problems() -> dict[str, str]:
    """What the tag says at last."""
    said: dict[str, str] = {}
    for record in entries(only_journal()):
        if isinstance(record, Tags) and names.ARTIFACT_PROBLEMS in record.values:
            said = json.loads(record.values[names.ARTIFACT_PROBLEMS])
    return said


# -- what is given ---------------------------------------------------------------------------------


class Unreadable:
    def __fspath__(self) -> str:
        raise RuntimeError("no path")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "None"),
        (7, "7: no path of a file or folder"),
        (Unreadable(), "no path"),
        ("", "it is not there"),
        ("missing", "it is not there"),
        ("nul\x00", "null"),
        ("x" * 5000, "too long"),
        ("/dev/zero", "neither a regular file nor a folder"),
        ("fifo", "neither a regular file nor a folder"),
        ("socket", "neither a regular file nor a folder"),
        ("to-nowhere", "it is not there"),
        ("round", "Too many levels of symbolic links"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_what_cannot_be_kept_is_told_once_and_raises_nothing(
    given: Any, told: str, trainer: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        Path("to-nowhere").symlink_to("nowhere")
        Path("round").symlink_to("round")
        trainer.log_artifact(given)
    assert copied(trainer) == {}
    (record,) = caplog.records
    assert told in record.getMessage()
    assert [told.split(": ")[-1] in reason for reason in problems().values()] == [True]


def test_a_warning_shows_the_end_of_a_long_path(
    trainer: Tracked, caplog: pytest.LogCaptureFixture
) -> None:
    trainer.log_artifact("a" * 5000 + ".pt")
    (record,) = caplog.records
    assert "a.pt: File name too long" in record.getMessage()
    assert len(record.getMessage()) < 600


def test_a_folder_may_be_a_path_or_a_number(trainer: Tracked) -> None:
    Path("a.txt").write_text("a")
    for folder in (None, "", ".", Path("plots/deep"), 7, b"bytes", "../up", "/abs"):
        trainer.log_artifact(b"a.txt", folder)  # type: ignore[arg-type]  # as users do
    trainer.log_artifact(Path("a.txt"), Unreadable())  # type: ignore[arg-type]
    assert sorted(copied(trainer)) == [
        *("7/a.txt", "_x2e__x2e_/up/a.txt", "a.txt", "abs/a.txt", "bytes/a.txt"),
        "plots/deep/a.txt",
    ]
    assert list(problems()) == ["a.txt"]


def test_of_a_folder_all_regular_files_are_taken_and_nothing_beyond_it(
    trainer: Tracked, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "id_rsa"
    outside.write_text("secret")
    folder = tmp_path / "checkpoint"
    deep = folder.joinpath(*["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "model").write_text("deep")
    (folder / "epoch=3.ckpt").write_text("weights")
    (folder / "last.ckpt").symlink_to("epoch=3.ckpt")
    (folder / "stolen").symlink_to(outside)
    (folder / "home").symlink_to(tmp_path)
    (folder / "self").symlink_to(folder)
    (folder / "dangling").symlink_to("nowhere")
    (folder / "cpuinfo").write_text(Path("/proc/version").read_text())
    os.mkfifo(folder / "fifo")
    trainer.log_artifact(folder)
    found = copied(trainer)
    assert found.pop(next(name for name in found if name.endswith("model"))) == b"deep"
    assert found == {
        "checkpoint/epoch=3.ckpt": b"weights",
        "checkpoint/last.ckpt": b"weights",
        "checkpoint/cpuinfo": Path("/proc/version").read_bytes(),
    }
    assert {name: reason.split(" (")[0] for name, reason in problems().items()} == {
        "checkpoint/stolen": "a link out of the folder: log what it leads to by itself",
        "checkpoint/home": "a link out of the folder: log what it leads to by itself",
        "checkpoint/self": "a link to something that is no regular file",
        "checkpoint/dangling": "a link to nowhere",
        "checkpoint/fifo": "neither a regular file nor a folder",
    }
    (record,) = caplog.records
    assert "(and 4 more)" in record.getMessage()


def test_links_that_are_given_themselves_are_followed(trainer: Tracked, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("a")
    (tmp_path / "latest").symlink_to("real")
    (tmp_path / "b.txt").symlink_to("real/a.txt")
    trainer.log_artifact("latest")
    trainer.log_artifact("b.txt")
    trainer.log_artifact("/proc/self/cmdline")
    found = copied(trainer)
    assert found.pop("cmdline") == Path("/proc/self/cmdline").read_bytes()
    assert found == {"latest/a.txt": b"a", "b.txt": b"a"}


def test_a_folder_that_holds_the_spool_does_not_grow_for_ever(
    trainer: Tracked, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a")
    trainer.log_artifact(tmp_path, "all")
    assert list(copied(trainer)) == [f"all/{tmp_path.name}/a.txt"]
    assert list(problems().values()) == ["the journals of running trainers"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_what_may_not_be_read_is_told(trainer: Tracked, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "mine").write_text("x")
    (tmp_path / "mine").chmod(0)
    (tmp_path / "closed").chmod(0)
    for name in ("closed", "mine"):
        trainer.log_artifact(tmp_path / name)
    assert copied(trainer) == {}
    assert problems() == dict.fromkeys(("closed", "mine"), "Permission denied")


# -- what becomes of a file after the call ---------------------------------------------------------


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is copied before the event is set."""
    go = threading.Event()
    for name in ("keep_content", "keep_copy"):
        real = getattr(kept_files, name)

        def waiting(*args: Any, real: Any = real) -> Artifact:
            assert go.wait(60)
            kept: Artifact = real(*args)
            return kept

        monkeypatch.setattr(kept_files, name, waiting)
    return go


def test_files_may_be_removed_replaced_or_small_ones_changed_once_the_call_is_over(
    trainer: Tracked, tmp_path: Path, slow_disk: threading.Event
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    large = os.urandom(artifact_files.SMALL + 7)
    for name in ("removed", "replaced"):
        (folder / name).write_bytes(large)
    (folder / "small").write_text("first")
    trainer.log_artifact(folder)
    (folder / "small").write_text("second")
    (folder / "new").write_bytes(b"replacement")
    (folder / "new").replace(folder / "replaced")
    shutil.rmtree(folder)
    slow_disk.set()
    assert copied(trainer) == {
        "checkpoint/removed": large,
        "checkpoint/replaced": large,
        "checkpoint/small": b"first",
    }
    assert problems() == {}


def test_a_large_file_that_is_changed_before_its_copy_is_told(
    trainer: Tracked, tmp_path: Path, slow_disk: threading.Event
) -> None:
    log = tmp_path / "train.log"
    log.write_bytes(b"a" * (artifact_files.SMALL + 1))
    trainer.log_artifact(log)
    with log.open("ab") as file:
        file.write(b"more")
    slow_disk.set()
    assert copied(trainer) == {"train.log": b"a" * (artifact_files.SMALL + 1)}
    assert list(problems()) == ["train.log"]
    assert "changed" in problems()["train.log"]


def test_of_a_large_folder_what_vanishes_is_told_by_name_and_number(
    trainer: Tracked,
    tmp_path: Path,
    slow_disk: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(artifacts, "_HOLDING", 0.0)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(50):
        (folder / f"{number}").touch()
    trainer.log_artifact(folder)
    (stays,) = list(folder.iterdir())[:1]
    for file in folder.iterdir():
        if file != stays:
            file.unlink()
    slow_disk.set()
    assert list(copied(trainer)) == [f"many/{stays.name}"]
    assert len(problems()) == 21
    (record,) = caplog.records
    assert "(and 48 more)" in record.getMessage()
    trainer._tracked.close()
    assert problems()["..."] == "29 more"


# -- waiting -------------------------------------------------------------------------------------


def test_the_event_loop_goes_on(tmp_path: Path, slow_disk: threading.Event) -> None:
    many, big = tmp_path / "many", tmp_path / "model"
    many.mkdir()
    for number in range(3000):
        (many / f"{number}").write_bytes(b"x" * 100)
    with big.open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1 << 20))

    async def body(trainer: Backend) -> TrainMetrics:
        assert isinstance(trainer, Tracked)
        for path in (many, big):
            trainer.log_artifact(path)  # returns, although nothing can be copied
        slow_disk.set()
        turns = 0
        while trainer._tracked._artifacts.pending:  # type: ignore[union-attr]  # it is validated
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 20
        return TrainMetrics()

    trainer = tracked("sqlite:///nowhere.db", body=body, **QUIET)
    trainer.mark_validated()
    asyncio.run(trainer.train())
    found = copied(trainer)
    assert len(found) == 3001
    assert problems() == {}
    assert found["model"] == big.read_bytes()


def test_the_end_of_train_waits_for_copies_but_not_for_ever(
    sqlite_uri: str, tmp_path: Path, slow_disk: threading.Event
) -> None:
    (tmp_path / "a.txt").write_text("a")

    async def body(trainer: Backend) -> TrainMetrics:
        assert isinstance(trainer, Tracked)
        trainer.log_artifact(tmp_path / "a.txt")
        return TrainMetrics()

    trainer = tracked(sqlite_uri, body=body, skip_provenance=QUIET["skip_provenance"])
    trainer.mark_validated()
    start = time.monotonic()
    asyncio.run(trainer.train())
    assert time.monotonic() - start > 1.9
    assert not trainer.delivered
    slow_disk.set()
    eventually(lambda: trainer.delivered)
    assert [record.name for record in recorded(Artifact)] == ["a.txt"]


def test_a_trainer_that_is_collected_does_not_wait_and_closes_after_its_copies(
    tmp_path: Path, slow_disk: threading.Event
) -> None:
    (tmp_path / "a.txt").write_text("a")
    trainer = tracked("sqlite:///nowhere.db", **QUIET)
    trainer.mark_validated()
    trainer.log_artifact(tmp_path / "a.txt")
    start = time.monotonic()
    del trainer
    gc.collect()
    assert time.monotonic() - start < 5
    assert recorded(Close) == []
    slow_disk.set()
    eventually(lambda: recorded(Close))
    kinds = [type(record) for record in entries(only_journal())]
    assert kinds[-3:] == [Status, Artifact, Close]


def test_where_no_thread_can_start_the_call_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: Tracked
) -> None:
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.setattr("orbiter_mlflow.tracking.background._background", Background())

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", refused)
        trainer.log_artifact(tmp_path / "a.txt")
        pieces = trainer._tracked._artifacts
        assert pieces is not None
        assert not pieces.pending
    assert copied(trainer) == {"a.txt": b"a"}


# -- the end of the process ------------------------------------------------------------------------

PROGRAM = """
import sys, time
from pathlib import Path
from orbiter.train.policy_gradient import PolicyGradientTrainer
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin
from orbiter_mlflow.delivery import kept_files

real = kept_files.keep_content
def slow(*args):
    time.sleep({seconds})
    return real(*args)
kept_files.keep_content = slow

class Tracked(MLflowTrainerMixin, PolicyGradientTrainer): ...

def main():
    trainer = Tracked(mlflow=MLflowSettings(
        delivery="offline", flush_timeout=2.0,
        skip_provenance=("git", "command", "machine", "packages", "seeds"),
    ))
    trainer.mark_validated()
    for name in "abc":
        Path(name).write_text(name)
        trainer.log_artifact(name)
        Path(name).unlink()
    return trainer
"""
ENDS = {
    "exit": "kept = main()",
    "collected": "main()",
    "child": "import multiprocessing\n"
    "process = multiprocessing.get_context('fork').Process(target=main)\n"
    "process.start()\nprocess.join()",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_process_that_exits_waits_for_what_was_handed_in(end: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(seconds=0.1) + ENDS[end])
    subprocess.run([sys.executable, str(program)], check=True, timeout=60, cwd=tmp_path)
    assert [record.name for record in recorded(Artifact)] == ["a", "b", "c"]
    assert problems() == {}


@pytest.mark.parametrize("end", ["exit", "collected"])
def test_what_is_not_copied_in_time_at_the_exit_is_told(end: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(seconds=20) + ENDS[end])
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, str(program)],
        check=True,
        timeout=60,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert time.monotonic() - start < 15
    reason = "the process ended before it was copied"
    assert problems() == dict.fromkeys("abc", reason)
    assert len(recorded(Close)) == 1
    assert type(entries(only_journal())[-1]) is Close
    assert "Traceback" not in ended.stderr
    assert reason in ended.stderr


def test_a_forked_child_leaves_the_copies_to_its_parent(
    trainer: Tracked, tmp_path: Path, slow_disk: threading.Event
) -> None:
    (tmp_path / "a.txt").write_text("a")
    trainer.log_artifact(tmp_path / "a.txt")
    pid = os.fork()
    if pid == 0:
        slow_disk.set()
        os._exit(0 if background()._left == 0 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    slow_disk.set()
    assert copied(trainer) == {"a.txt": b"a"}
    assert len(journals()) == 1
