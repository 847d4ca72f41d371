"""Users without a home, and homes that take no file."""

import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from orbiter_mlflow import MLflowSettings
from orbiter_mlflow.delivery.spool_folder import default_spool, fallbacks
from scripts import PRELUDE
from waiting import eventually

NOBODY = 54321
"""A user id that has no entry in the table of users."""

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root becomes another user, by setpriv",
)


OF_A_JOURNAL = (".jsonl", ".ack", ".writer", ".files")
"""Suffixes of what is removed with a journal."""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder of that user, with a folder for temporary files in it."""
    folder = Path(tmp_path_factory.getbasetemp().parent.parent, f"nobody-{os.urandom(4).hex()}")
    for one in (folder, folder / "tmp"):
        one.mkdir(mode=0o700)
        os.chown(one, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


BECOME = [
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    # The interpreter may lie in a folder of root's: it may be read, and nothing be written.
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]


def as_nobody(
    folder: Path, *command: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    homes = ("HOME", "XDG_STATE_HOME")
    given = {name: text for name, text in os.environ.items() if name not in homes}
    given["ORBITER_MLFLOW_SKIP_PROVENANCE"] = "git,packages"
    done = subprocess.run(
        [*BECOME, sys.executable, *command],
        cwd=folder,
        env=given | {"TMPDIR": str(folder / "tmp"), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def script(folder: Path, text: str) -> str:
    path = folder / "script.py"
    path.write_text(PRELUDE + textwrap.dedent(text))
    path.chmod(0o755)
    return str(path)


TRAIN = """
first = validated()
asyncio.run(first.train())
second = validated()
asyncio.run(second.train())
"""


@needs_root
@pytest.mark.parametrize("home", [None, "/"], ids=["none", "not writable"])
def test_runs_of_a_user_without_a_home_are_tracked(
    folder: Path, sqlite_uri: str, home: str | None
) -> None:
    store = folder / "store.db"
    store.write_bytes(Path(sqlite_uri.removeprefix("sqlite:///")).read_bytes())
    os.chown(store, NOBODY, NOBODY)
    given = {"MLFLOW_TRACKING_URI": f"sqlite:///{store}"} | ({} if home is None else {"HOME": home})
    done = as_nobody(folder, script(folder, TRAIN), **given)
    assert done.returncode == 0, done.stderr
    private = folder / "tmp" / f"orbiter-mlflow-{NOBODY}"
    assert done.stderr.count(f"journals go to {private}") == 1
    assert ("there is no home folder" in done.stderr) is (home is None)
    status = private.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, NOBODY)
    client = MlflowClient(f"sqlite:///{store}")
    eventually(lambda: [run.info.status for run in client.search_runs(["0"])] == ["FINISHED"] * 2)
    eventually(lambda: not [one for one in private.iterdir() if one.suffix in OF_A_JOURNAL])


@needs_root
def test_commands_look_where_the_journals_went(folder: Path) -> None:
    done = as_nobody(folder, script(folder, TRAIN), ORBITER_MLFLOW_DELIVERY="offline")
    assert done.returncode == 0, done.stderr
    journals = [path.name for path in (folder / "tmp").glob("*/*.jsonl")]
    assert len(journals) == 2
    for command in (["status"], ["sync", "--dry-run"]):
        listed = as_nobody(folder, "-m", "orbiter_mlflow", *command)
        assert (listed.returncode, listed.stderr) == (0, "")
        assert all(name in listed.stdout for name in journals)
    synced = as_nobody(folder, "-m", "orbiter_mlflow", "sync")
    assert synced.stdout.count("delivered, run") == 2, synced.stderr
    for path in (folder / "tmp").rglob("*"):
        assert not path.is_file(), path


@needs_root
@pytest.mark.parametrize("what", ["link", "open to all", "another user's"])
def test_a_folder_that_others_have_put_there_is_not_trusted(folder: Path, what: str) -> None:
    trap = folder / "tmp" / f"orbiter-mlflow-{NOBODY}"
    if what == "link":
        (folder / "elsewhere").mkdir(mode=0o700)
        os.chown(folder / "elsewhere", NOBODY, NOBODY)
        trap.symlink_to(folder / "elsewhere")
    else:
        trap.mkdir()
        trap.chmod(0o777)
        if what == "open to all":
            os.chown(trap, NOBODY, NOBODY)
    done = as_nobody(folder, script(folder, TRAIN), ORBITER_MLFLOW_DELIVERY="offline")
    assert done.returncode == 0, done.stderr
    assert f"journals go to {folder / '.orbiter-mlflow'}" in done.stderr
    assert list(trap.iterdir()) == []
    assert len(list((folder / ".orbiter-mlflow").glob("*.jsonl"))) == 2


@needs_root
def test_who_needs_no_home_hears_nothing_of_it(folder: Path) -> None:
    text = """
    spool = Path("given")
    off = Tracked(mlflow=MLflowSettings(enabled=False))
    off.mark_validated()
    asyncio.run(off.train())
    kept = Tracked(mlflow=MLflowSettings(spool_dir=spool, delivery="offline"))
    kept.mark_validated()
    asyncio.run(kept.train())
    assert len(list(spool.glob("*.jsonl"))) == 1
    """
    done = as_nobody(folder, script(folder, text))
    assert (done.returncode, done.stderr) == (0, "")
    assert list((folder / "tmp").iterdir()) == []


def test_a_folder_that_was_asked_for_is_never_replaced(tmp_path: Path) -> None:
    assert MLflowSettings(spool_dir=tmp_path).spool_folders == [tmp_path]
    assert MLflowSettings().spool_folders == [
        default_spool(),
        *fallbacks(),
    ]


def test_a_tilde_without_a_home_is_told_as_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="there is no home folder to expand ~ to"):
        MLflowSettings(spool_dir=Path("~no-such-user/spool"))
