"""A journal that others may have written is delivered nowhere without asking."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from faults import delivery_processes
from journals import HEAD, journal_of
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.delivery.records import Close, Head, Metrics, Record, Status
from orbiter_mlflow.delivery.spool import is_ours
from orbiter_mlflow.delivery.store_uri import is_local, same_store
from proxy import Proxy
from scripts import output, started
from waiting import eventually

GONE = replace(HEAD.writer, pid=2**22 + 1, started="1")  # past the largest pid of Linux
RECORDS: list[Record] = [
    Metrics(1, 1000, {"train/loss": 0.5}),
    Status("FINISHED", 1_700_000_009_000),
    Close(),
]


def planted(path: Path, uri: str, uid: str = "a") -> Path:
    """A journal with a writer that is gone."""
    path.parent.mkdir(exist_ok=True)
    head = Head(uid * 32, uri, 1_700_000_000_000, GONE, experiment=path.parents[1].name)
    return journal_of(path, RECORDS, head)


def sync(*arguments: object, **environ: str) -> tuple[int, str]:
    result = CliRunner(env=environ).invoke(commands, ["sync", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.output


def runs(uri: str, experiment: str) -> int:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return 0 if found is None else len(client.search_runs([found.experiment_id]))


# -- sync ------------------------------------------------------------------------------------------


@pytest.fixture
def listener(server_uri: str) -> Iterator[Proxy]:
    """A server that records requests and passes them on to a real one."""
    with Proxy(server_uri) as proxy:
        yield proxy


@pytest.mark.parametrize("in_force", [None, "https://ours.example.org"])
def test_a_journal_for_another_server_is_refused_and_the_way_out_named(
    listener: Proxy, tmp_path: Path, in_force: str | None
) -> None:
    journal = planted(tmp_path / "spool" / "a.jsonl", listener.uri)
    environ = {"MLFLOW_TRACKING_URI": in_force} if in_force else {}
    code, said = sync(journal.parent, **environ)
    assert code == 1
    assert listener.requests == []
    assert journal.exists()
    for part in (listener.uri, in_force or "sqlite:///", "--trust-uri", "--tracking-uri"):
        assert part in said


def test_a_journal_is_delivered_if_its_uri_is_trusted_or_in_force(
    listener: Proxy, server_uri: str, tmp_path: Path
) -> None:
    first, second, third = [
        planted(tmp_path / "spool" / f"{uid}.jsonl", listener.uri, uid) for uid in "abc"
    ]
    assert sync(first, "--trust-uri")[0] == 0
    assert sync(second, MLFLOW_TRACKING_URI=f"{listener.uri}/")[0] == 0
    assert sync(third, "--tracking-uri", server_uri)[0] == 0
    assert runs(server_uri, tmp_path.name) == 3


def test_credentials_in_the_uri_in_force_are_used_and_not_shown(
    listener: Proxy, tmp_path: Path
) -> None:
    journal = planted(tmp_path / "spool" / "a.jsonl", listener.uri)
    ended = subprocess.run(
        [sys.executable, "-m", "orbiter_mlflow", "sync", str(journal)],
        env=os.environ | {"MLFLOW_TRACKING_URI": listener.uri.replace("//", "//ada:hunter2@")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_terminal_sync_asks_once_for_each_uri(
    listener: Proxy, server_uri: str, tmp_path: Path, answer: str
) -> None:
    for uid in "ab":
        planted(tmp_path / "spool" / f"{uid}.jsonl", listener.uri, uid)
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "orbiter_mlflow", "sync", str(tmp_path / "spool")],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        close_fds=True,
    )
    os.close(terminal)
    os.write(main, f"{answer}\n".encode())
    said = b""
    try:
        while block := os.read(main, 1024):
            said += block
    except OSError:  # the other end is closed
        pass
    os.close(main)
    assert process.wait(60) == (answer == "n")
    assert said.count(b"Send it, and the credentials") == 1
    assert listener.uri.encode() in said
    assert runs(server_uri, tmp_path.name) == (2 if answer == "y" else 0)
    assert bool(listener.requests) is (answer == "y")


def test_a_local_store_needs_no_question_if_the_journal_is_ours(
    tmp_path: Path, sqlite_uri: str
) -> None:
    other = tmp_path / "brought"
    ours = planted(tmp_path / "spool" / "a.jsonl", sqlite_uri)
    assert sync(ours, MLFLOW_TRACKING_URI="https://ours.example.org")[0] == 0
    theirs = planted(other / "b.jsonl", sqlite_uri, "b")
    other.chmod(0o777)
    code, said = sync(theirs)
    assert (code, "--trust-uri" in said) == (1, True)
    assert sync(theirs, MLFLOW_TRACKING_URI=sqlite_uri)[0] == 0


# -- adoption by the delivery of a training --------------------------------------------------------


def test_delivery_adopts_only_journals_for_its_own_store(
    listener: Proxy, tmp_path: Path, sqlite_uri: str
) -> None:
    adopted = planted(tmp_path / "spool" / "a.jsonl", sqlite_uri)
    left = planted(tmp_path / "spool" / "b.jsonl", listener.uri, "b")
    open_to_others = planted(tmp_path / "spool" / "c.jsonl", sqlite_uri, "c")
    open_to_others.chmod(0o620)
    script = "    print(trained()._tracked._pid)"
    environ = {
        "ORBITER_MLFLOW_SPOOL_DIR": str(tmp_path / "spool"),
        "MLFLOW_TRACKING_URI": sqlite_uri,
    }
    pid = int(output(started(script, tmp_path, environ=environ)))
    eventually(lambda: not delivery_processes(pid))
    assert not adopted.exists()
    assert left.exists()
    assert open_to_others.exists()
    assert listener.requests == []
    assert runs(sqlite_uri, tmp_path.name) == 1


def test_a_journal_is_ours_only_if_nobody_else_can_have_written_it(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    journal = planted(folder / "a.jsonl", "sqlite:///x.db")
    assert is_ours(journal)
    link = folder / "link.jsonl"
    link.symlink_to(journal)
    assert not is_ours(link)
    assert not is_ours(folder / "nowhere.jsonl")
    assert not is_ours(folder)
    for mode in (0o640, 0o604, 0o660):
        journal.chmod(mode)
        assert not is_ours(journal)
    journal.chmod(0o600)
    for mode in (0o770, 0o707, 0o777):
        folder.chmod(mode)
        assert not is_ours(journal)
    folder.chmod(0o755)
    assert is_ours(journal)
    if os.geteuid() == 0:
        os.chown(journal, 12345, -1)
        assert not is_ours(journal)


# -- URIs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://h", "https://h/", True),
        ("https://h", "https://me:pw@H:443", True),
        ("https://h/a", "https://h/b", False),
        ("https://h", "http://h", False),
        ("https://h", "https://h:8443", False),
        ("https://h", "https://h@evil", False),
        ("https://h", "https://h.evil", False),
        ("sqlite:////a/b.db", "sqlite:////a/b.db?timeout=3", True),
        ("sqlite:////a/b.db", "sqlite:////a/c.db", False),
        ("postgresql://u:pw@h/db", "postgresql://h/db", True),
        ("postgresql://h/db", "postgresql://evil/db", False),
        ("databricks://one", "databricks://two", False),
        ("databricks", "databricks", True),
    ],
)
def test_uris_name_the_same_store_or_not(one: str, other: str, same: bool) -> None:
    assert same_store(one, other) is same
    assert same_store(other, one) is same


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("sqlite:////a/b.db", True),
        ("file:///a/runs", True),
        ("file://host/share", False),
        ("http://127.0.0.1:5000", False),
        ("postgresql://localhost/db", False),
        ("databricks", False),
    ],
)
def test_a_store_is_local_or_not(uri: str, local: bool) -> None:
    assert is_local(uri) is local
