"""A fresh sqlite store appears complete, and a ready one is opened without writing."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from journals import HEAD
from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.mlflow_client import opening
from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
from scripts import as_user, output, started
from waiting import eventually

# A user's own client beside our delivery, at a time that differs from round to round: before it
# has begun, in the middle of what was MLflow's migration, after it.
BESIDE = """
    from mlflow import MlflowClient  # before the trainer: takes longer than a migration

    trainer = Tracked()
    trainer.mark_validated()
    time.sleep(float(sys.argv[1]))
    client = MlflowClient("sqlite:///mlflow.db")
    assert [found.name for found in client.search_experiments()] == ["Default"]
    asyncio.run(trainer.train())
    print(client.get_run(trainer.run_id).info.status)
"""


@pytest.mark.parametrize("wait", [0.5, 1.5, 2.0, 2.5])
def test_a_users_own_client_never_sees_a_half_created_store(tmp_path: Path, wait: float) -> None:
    said = output(started(BESIDE, tmp_path, [str(wait)]))
    assert said in ("FINISHED\n", "RUNNING\n")
    left = {path.name for path in tmp_path.iterdir() if "mlflow.db" in path.name}
    assert left == {"mlflow.db"}


@pytest.mark.parametrize("others", ["our own", "of MLflow's client"])
def test_many_clients_open_one_fresh_store_at_once(tmp_path: Path, others: str) -> None:
    uri = f"sqlite:///{tmp_path}/fresh.db"
    ours = f"from orbiter_mlflow.delivery.mlflow_sink import MLflowSink; MLflowSink({uri!r})"
    theirs = f"from mlflow import MlflowClient; MlflowClient({uri!r})"
    scripts = [ours] * 4 if others == "our own" else [theirs, ours, ours]
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
        for script in scripts
    ]
    assert [process.communicate(timeout=180)[1] for process in processes][1:] == [""] * (
        len(scripts) - 1
    )
    assert {process.returncode for process in processes} == {0}
    assert [found.name for found in MlflowClient(uri).search_experiments()] == ["Default"]
    assert [path.name for path in tmp_path.iterdir()] == ["fresh.db"]


def test_a_store_that_another_client_is_creating_is_waited_for(
    tmp_path: Path, empty_store: Path
) -> None:
    path = tmp_path / "slow.db"
    path.touch()

    def create() -> None:
        for _ in range(20):  # it grows, as long as its creator works at it
            with path.open("ab") as file:
                file.write(b"\0")
            time.sleep(0.1)
        path.write_bytes(empty_store.read_bytes())

    creator = threading.Thread(target=create)
    creator.start()
    MLflowSink(f"sqlite:///{path}")
    creator.join()
    assert path.read_bytes()[:16] == b"SQLite format 3\0"


@pytest.mark.parametrize("broken", ["empty", "half"])
def test_an_interrupted_creation_is_completed(
    broken: str, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "CREATION_STILL", 0.2)
    path = tmp_path / "cut.db"
    path.touch()
    if broken == "half":
        path.write_bytes(empty_store.read_bytes())
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM experiments")
        connection.close()
    MLflowSink(f"sqlite:///{path}").create_run(HEAD)
    assert {found.name for found in MlflowClient(f"sqlite:///{path}").search_experiments()} == {
        "Default",
        "journals",
    }


def test_a_disk_without_hard_links_has_its_store_created_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    MLflowSink(f"sqlite:///{tmp_path}/plain.db").create_run(HEAD)
    assert [path.name for path in tmp_path.iterdir()] == ["plain.db"]


# -- readers ---------------------------------------------------------------------------------------

CONTENT = """
    config = TrainConfig(learning_rate=0.5, extra={"lora": {"r": 16}})
    for name in ("one", "two"):
        trainer = Tracked(config, mlflow=MLflowSettings(run_name=name, delivery="thread"))
        trainer.mark_validated()
        asyncio.run(trainer.train())
        print(trainer.run_id)
"""
POLICY = """
[gate]
schema = 1
[baseline]
run = "one"
[metrics."train/loss"]
direction = "lower"
max_drop = 0.1
"""


@pytest.fixture
def shelf(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with a read-only store, and the ids of its runs."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    runs = output(started(CONTENT, folder)).split()
    for path in [*folder.rglob("*"), folder]:
        path.chmod(path.stat().st_mode & ~0o222)
    return folder, runs


def test_a_read_only_store_can_be_read(shelf: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, (one, two) = shelf
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    uri = f"sqlite:///{folder}/mlflow.db"
    (tmp_path / "gate.toml").write_text(POLICY)
    load = f"""
        import os
        from orbiter_mlflow import load_config
        try:
            open({str(folder / "x")!r}, "w")
        except OSError:
            print(load_config({one!r}, tracking_uri={uri!r}).extra["lora"]["r"])
    """
    orbiter = (sys.executable, "-m", "orbiter_mlflow")
    store = ("--tracking-uri", uri, "--experiment", "Default")
    for command in (
        (sys.executable, "-c", textwrap.dedent(load)),
        (*orbiter, "diff", one, two, *store),
        (*orbiter, "reproduce", two, *store),
        (*orbiter, "check", "gate.toml", "--candidate", "two", *store),
        (*orbiter, "ui", *store),
    ):
        ended = subprocess.run(
            as_user(*command), cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
        assert ended.stdout
    after = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    assert after == before


def test_a_reader_of_a_ready_store_makes_no_file(sqlite_uri: str, tmp_path: Path) -> None:
    with opening.opening(sqlite_uri):
        assert [path.name for path in tmp_path.iterdir()] == ["store.db"]


def test_a_store_that_is_in_use_is_ready(sqlite_uri: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "store.db", isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert opening._ready(tmp_path / "store.db")
        writer.execute("ROLLBACK")
    writer.close()
    eventually(lambda: opening._ready(tmp_path / "store.db"))
