"""File locks on disks and systems that support few kinds of them."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from journals import HEAD, journal_of
from orbiter_mlflow.delivery.files import locks
from orbiter_mlflow.delivery.records import Close, Metrics, Record, Status
from waiting import eventually

REFUSE = """
import errno, fcntl, os, sys
def refuse(fd, how, *rest):
    os.fstat(fd)
    raise OSError(errno.{error}, os.strerror(errno.{error}))
"""
# Its locks, which exclude those who only look too, made of the ones that there are here.
WINDOWS = """
import fcntl as own, os, sys, types
def locking(fd, how, count):
    writing = own.fcntl(fd, own.F_GETFL) & os.O_ACCMODE
    kind = own.LOCK_EX if writing else own.LOCK_SH
    own.lockf(fd, kind | own.LOCK_NB, count, os.lseek(fd, 0, os.SEEK_CUR))
sys.modules["fcntl"] = None
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
"""
DISKS = {
    "flock": "",
    "no flock, as Lustre": REFUSE.format(error="ENOSYS") + "fcntl.flock = refuse\n",
    "no flock, as NFS": REFUSE.format(error="ENOLCK") + "fcntl.flock = refuse\n",
    "no locks": REFUSE.format(error="ENOLCK") + "fcntl.flock = fcntl.lockf = refuse\n",
    "no fcntl": "import sys\nsys.modules['fcntl'] = None\n",
    "Windows": WINDOWS,
}
HOLDER = """
from pathlib import Path
import sys, time
from orbiter_mlflow.delivery.files import locks
fd = locks.take(Path(sys.argv[1]))
print(fd is not None, flush=True)
if sys.argv[2] == "hold":
    time.sleep(600)
elif fd is not None:
    locks.release(fd)
"""


def process(disk: str, script: str, *arguments: object) -> "subprocess.Popen[str]":
    """Run a script on a disk, or a system, with only these locks."""
    return subprocess.Popen(
        [sys.executable, "-c", DISKS[disk] + textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "COLUMNS": "200"},
    )


def said(disk: str, script: str, *arguments: object) -> tuple[str, str]:
    out, errors = (running := process(disk, script, *arguments)).communicate(timeout=120)
    assert running.returncode == 0, errors
    return out, errors


@pytest.mark.parametrize("disk", DISKS)
def test_one_process_at_a_time_holds_a_lock_and_its_death_releases_it(
    disk: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("")
    with process(disk, HOLDER, file, "hold") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        out, errors = said(disk, HOLDER, file, "leave")
        assert out == "False\n"
        assert errors.count("has no flock") == (0 if disk in ("flock", "Windows") else 1)
        holder.kill()
    assert said(disk, HOLDER, file, "leave")[0] == "True\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("disk", DISKS)
def test_threads_exclude_each_other_and_a_look_takes_no_lock(disk: str, tmp_path: Path) -> None:
    script = """
    import os, sys, threading
    from pathlib import Path
    from orbiter_mlflow.delivery.files import locks
    file = Path(sys.argv[1])
    assert not locks.is_taken(file)
    fd = locks.take(file)
    found = []
    for _ in range(2):
        look = lambda: found.append((locks.take(file), locks.is_taken(file)))
        thread = threading.Thread(target=look)
        thread.start(); thread.join()
    assert found == [(None, True)] * 2, found
    file.read_bytes()  # to open and close the file gives nothing back
    assert locks.is_taken(file)
    locks.release(fd)
    assert not locks.is_taken(file)
    os.close(locks.take(file))  # by another way than `release`
    fd = locks.take(file)
    assert fd is not None
    locks.release(fd)
    file.unlink()
    try:
        locks.take(file)
    except FileNotFoundError:
        print("gone")
    """
    file = tmp_path / "a.jsonl"
    file.write_text("")
    assert said(disk, script, file)[0] == "gone\n"


@pytest.mark.parametrize("disk", DISKS)
def test_a_forked_child_neither_holds_nor_releases_its_parents_lock(
    disk: str, tmp_path: Path
) -> None:
    script = """
    import os, sys
    from pathlib import Path
    from orbiter_mlflow.delivery.files import locks
    file = Path(sys.argv[1])
    fd = locks.take(file)
    go, gone = os.pipe()
    ready, running = os.pipe()
    pid = os.fork()
    if pid == 0:
        assert locks.take(file) is None
        locks.release(fd)
        assert locks.is_taken(file)
        os.close(gone)
        os.write(running, b"x")
        os.read(go, 1)
        os._exit(0)
    os.close(go)
    assert os.read(ready, 1) == b"x"
    assert locks.is_taken(file)
    locks.release(fd)
    assert not locks.is_taken(file)  # while the child lives on
    os.close(gone)
    print(os.waitpid(pid, 0)[1])
    """
    file = tmp_path / "a.jsonl"
    file.write_text("")
    assert said(disk, script, file)[0] == "0\n"


@pytest.mark.parametrize("disk", DISKS)
def test_eight_processes_count_without_a_miss(disk: str, tmp_path: Path) -> None:
    script = """
    import sys
    from pathlib import Path
    from orbiter_mlflow.delivery.files import locks
    count = Path(sys.argv[1])
    for _ in range(20):
        with locks.exclusive(count.with_name(".lock")):
            count.write_text(str(int(count.read_text()) + 1))
    """
    count = tmp_path / "count"
    count.write_text("0")
    running = [process(disk, script, count) for _ in range(8)]
    for one in running:
        assert one.communicate(timeout=120)[1].count("Traceback") == 0
    assert count.read_text() == "160"
    assert list(tmp_path.iterdir()) == [count]


def lock_file(path: Path, **changes: object) -> Path:
    """A lock file left by a process that was killed, on a disk without locks."""
    file = locks.beside(path)
    file.touch()
    note = {**vars_of(HEAD.writer), "inode": file.stat().st_ino, "time": 0.0} | changes
    file.write_text(json.dumps(note))
    return file


def vars_of(writer: object) -> dict[str, object]:
    return {name: getattr(writer, name) for name in ("host", "boot", "pid", "started", "namespace")}


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"pid": 1, "started": "1"}, True),  # its pid is another process' by now
        ({"pid": 2**22 + 1}, True),
        ({"inode": 1, "host": "another-machine"}, True),  # a copy, of a lock held elsewhere
        ({"host": "another-machine"}, False),
        ({"boot": "another"}, False),
        ({"namespace": "pid:[1]"}, False),
        ({}, False),  # this very process lives
    ],
)
def test_a_lock_file_is_taken_over_only_if_its_holder_is_certainly_gone(
    tmp_path: Path, changes: dict[str, object], taken: bool
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("")
    lock_file(file, **changes)
    out, _ = said("no locks", HOLDER, file, "leave")
    assert out == f"{taken}\n"
    assert locks.beside(file).exists() is not taken


def test_a_lock_file_that_names_nobody_is_left_alone_for_a_minute(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("")
    lock = locks.beside(file)
    lock.write_text("")
    assert said("no locks", HOLDER, file, "leave")[0] == "False\n"
    os.utime(lock, (1, 1))
    assert said("no locks", HOLDER, file, "leave")[0] == "True\n"


# -- journals there --------------------------------------------------------------------------------

COMMAND = """
import sys
from orbiter_mlflow.cli.main import main
sys.argv[0] = "orbiter-mlflow"
main()
"""


@pytest.mark.parametrize("disk", ["no flock, as NFS", "no locks", "no fcntl"])
def test_journals_are_listed_and_delivered(disk: str, tmp_path: Path, sqlite_uri: str) -> None:
    records: list[Record] = [
        *[Metrics(step, 1000 + step, {"train/loss": float(step)}) for step in range(50)],
        Status("FINISHED", 2000),
        Close(),
    ]
    folder = tmp_path / "spool"
    folder.mkdir()
    gone = replace(HEAD.writer, pid=2**22 + 1)
    journal = journal_of(
        folder / "a.jsonl", records, replace(HEAD, tracking_uri=sqlite_uri, writer=gone)
    )
    out, errors = said(disk, COMMAND, "status", folder)
    assert "waiting" in out
    assert sorted(folder.iterdir()) == [journal, folder / "a.writer"]
    with process(disk, HOLDER, journal, "hold") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert "delivering" in said(disk, COMMAND, "status", folder)[0]
        holder.kill()
    out, errors = said(disk, COMMAND, "sync", folder)
    assert "a.jsonl: delivered, run " in out, errors
    assert list(folder.iterdir()) == []
    client = MlflowClient(sqlite_uri)
    experiment = client.get_experiment_by_name("journals")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 50


def test_a_look_keeps_nobody_from_taking_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("")
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            locks.is_taken(file)

    def take_and_release() -> (
        bool
    ):  # a looker that the system has put to sleep may hold it for a while
        fd = locks.take(file)
        if fd is not None:
            locks.release(fd)
        return fd is not None

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for one in lookers:
        one.start()
    try:
        for _ in range(200):
            eventually(take_and_release)
    finally:
        done.set()
        for one in lookers:
            one.join()
