"""Copies of artifacts beside a journal are exact, and a planted journal reaches no other file."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from journals import GONE, HEAD, done, journal_of
from orbiter_mlflow.delivery import kept_files, retry
from orbiter_mlflow.delivery.records import Artifact, Close, Metrics, Status
from orbiter_mlflow.errors import RejectedError

SECRET = b"do not send, do not delete"


def record_of(file: str, content: bytes = SECRET) -> Artifact:
    return Artifact(file, "stolen.txt", None, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "id_rsa"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool" / "a.jsonl"


# -- what is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1, 5 << 20])
def test_a_copy_is_exact_and_readable_by_its_owner_only(journal: Path, size: int) -> None:
    journal.touch()
    content = os.urandom(size)
    source = journal.with_name("source")
    source.write_bytes(content + b"written since")
    with source.open("rb") as file:
        file.read(3)  # wherever the descriptor stands
        kept = kept_files.keep_copy(journal, file.fileno(), size, "name", "folder")
    path = kept_files.verified(journal, kept)
    assert path.read_bytes() == content
    assert (kept.name, kept.folder, kept.size) == ("name", "folder", size)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    same = kept_files.keep_content(journal, content, "name", "folder")
    assert replace(same, file="") == replace(kept, file="")
    assert kept_files.verified(journal, same).read_bytes() == content
    for artifact in (kept, same):
        kept_files.discard(journal, artifact)
        kept_files.discard(journal, artifact)
    assert list(path.parent.iterdir()) == []


def test_a_copy_that_fails_leaves_nothing(journal: Path) -> None:
    with pytest.raises(OSError, match="no room for"):
        kept_files.keep_copy(journal, 0, 1 << 60, "name", None)
    folder = os.open(journal.parent, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        kept_files.keep_copy(journal, folder, 10, "name", None)
    os.close(folder)
    assert list(journal.with_suffix(".files").iterdir()) == []


# -- what is refused -------------------------------------------------------------------------------


def outside(journal: Path, victim: Path) -> Artifact:
    journal.with_suffix(".files").mkdir(mode=0o700)
    return record_of(str(victim))


def above(journal: Path, victim: Path) -> Artifact:
    journal.with_suffix(".files").mkdir(mode=0o700)
    return record_of("../../home/id_rsa")


def a_link(journal: Path, victim: Path) -> Artifact:
    journal.with_suffix(".files").mkdir(mode=0o700)
    (journal.with_suffix(".files") / "f").symlink_to(victim)
    return record_of("f")


def a_linked_folder(journal: Path, victim: Path) -> Artifact:
    journal.with_suffix(".files").symlink_to(victim.parent)
    return record_of("id_rsa")


def a_fifo(journal: Path, victim: Path) -> Artifact:
    journal.with_suffix(".files").mkdir(mode=0o700)
    os.mkfifo(journal.with_suffix(".files") / "f", 0o600)
    return record_of("f", b"")


def of_another_owner(journal: Path, victim: Path) -> Artifact:
    kept = kept_files.keep_content(journal, SECRET, "stolen.txt", None)
    if os.geteuid() == 0:
        os.chown(journal.with_suffix(".files") / kept.file, 12345, 12345)
    else:
        pytest.skip("only root gives files away")
    return kept


def in_a_folder_for_all(journal: Path, victim: Path) -> Artifact:
    kept = kept_files.keep_content(journal, SECRET, "stolen.txt", None)
    journal.with_suffix(".files").chmod(0o777)
    return kept


def of_other_content(journal: Path, victim: Path) -> Artifact:
    kept = kept_files.keep_content(journal, SECRET, "stolen.txt", None)
    (journal.with_suffix(".files") / kept.file).write_bytes(SECRET[::-1])
    return kept


def of_another_size(journal: Path, victim: Path) -> Artifact:
    return replace(kept_files.keep_content(journal, SECRET, "stolen.txt", None), size=3)


def gone(journal: Path, victim: Path) -> Artifact:
    kept = kept_files.keep_content(journal, SECRET, "stolen.txt", None)
    (journal.with_suffix(".files") / kept.file).unlink()
    return kept


PLANTED = [
    *(outside, above, a_link, a_linked_folder, a_fifo, of_another_owner, in_a_folder_for_all),
    *(of_other_content, of_another_size, gone),
]


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.__name__)
def test_a_planted_artifact_is_neither_sent_nor_deleted(
    planted: Callable[[Path, Path], Artifact],
    journal: Path,
    victim: Path,
    sqlite_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "DEFINITE", (0.01,))
    artifact = planted(journal, victim)
    point = Metrics(1, 1000, {"train/loss": 0.5})
    journal_of(
        journal,
        [artifact, point, Status("FINISHED", 1_700_000_009_000), Close()],
        replace(HEAD, tracking_uri=sqlite_uri, writer=GONE),
    )
    with pytest.raises(RejectedError, match=r"stolen\.txt"):
        kept_files.verified(journal, artifact)
    done("sync", journal)
    client = MlflowClient(sqlite_uri)
    experiment = client.get_experiment_by_name("journals")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == {"train/loss": 0.5}
    assert client.list_artifacts(run.info.run_id) == []
    kept_files.discard(journal, artifact)
    assert victim.read_bytes() == SECRET


@pytest.mark.parametrize("file", ["", ".", "..", "a/b", "a\\b", "/a", "..\\a", "a\x00", ".hidden"])
def test_a_file_with_other_than_a_plain_name_is_refused(file: str, journal: Path) -> None:
    journal.touch()
    journal.with_suffix(".files").mkdir(mode=0o700)
    with pytest.raises(RejectedError, match="outside the journal's own folder"):
        kept_files.verified(journal, record_of(file))
