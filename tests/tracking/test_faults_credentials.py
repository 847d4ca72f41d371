"""Credentials: one refreshed while the training runs reaches delivery, and no file on the way."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from faults import delivery_processes
from folders import each_file
from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.hosts.environment import Environment, files_from
from orbiter_mlflow.delivery.spool import journals, remove
from orbiter_mlflow.delivery.spool_folder import default_spool
from proxy import Proxy
from scripts import output, started
from waiting import eventually

pytestmark = pytest.mark.server

OLD, NEW = "token-that-has-expired", "token-that-is-new"

REFRESHES = """
    async def inside(trainer):
        while not Path("refresh").exists():
            await asyncio.sleep(0.02)
        os.environ["MLFLOW_TRACKING_TOKEN"] = Path("refresh").read_text()
        for step in range(100, 1000):
            trainer.report({"loss": 0.0}, step=step)
            await asyncio.sleep(0.1)
            if trainer.delivered:
                break

    Tracked.inside = inside
    trained(experiment=sys.argv[1], delivery=sys.argv[2])
"""


@pytest.fixture
def proxy(server_uri: str) -> Iterator[Proxy]:
    with Proxy(server_uri) as proxy:
        proxy.token = NEW
        yield proxy
    for journal in journals(default_spool()):
        remove(journal)


def run_of(server_uri: str, experiment: str) -> Run:
    client = MlflowClient(server_uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    return run


def only_journal() -> Path:
    (journal,) = eventually(lambda: journals(default_spool()))
    return journal


@pytest.mark.parametrize("delivery", ["process", "thread"])
def test_a_token_refreshed_by_the_trainer_reaches_its_delivery(
    proxy: Proxy, server_uri: str, tmp_path: Path, delivery: str
) -> None:
    process = started(
        REFRESHES,
        tmp_path,
        [tmp_path.name, delivery],
        environ={"MLFLOW_TRACKING_URI": proxy.uri, "MLFLOW_TRACKING_TOKEN": OLD},
    )
    eventually(lambda: read_ack(only_journal()).held)
    (tmp_path / "new").write_text(NEW)
    (tmp_path / "new").rename(tmp_path / "refresh")
    output(process, within=50)  # what is held is tried once a minute
    eventually(lambda: run_of(server_uri, tmp_path.name).info.status == "FINISHED")
    written = each_file(default_spool(), Path.read_bytes).values()
    assert not [text for text in written if NEW.encode() in text or OLD.encode() in text]


def test_sync_takes_over_what_a_delivery_holds(
    proxy: Proxy, server_uri: str, tmp_path: Path
) -> None:
    script = f"    print(trained(experiment={tmp_path.name!r}, flush_timeout=1.0)._tracked._pid)"
    environ = {"MLFLOW_TRACKING_URI": proxy.uri, "MLFLOW_TRACKING_TOKEN": OLD}
    pid = int(output(started(script, tmp_path, environ=environ)))
    eventually(lambda: read_ack(only_journal()).held)
    assert delivery_processes(pid)
    ended = subprocess.run(
        [sys.executable, "-m", "orbiter_mlflow", "sync"],
        env=os.environ | environ | {"MLFLOW_TRACKING_TOKEN": NEW},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ": delivered, run " in ended.stdout) == (0, True), ended.stdout
    run = run_of(server_uri, tmp_path.name)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train/loss"] == 0.01
    assert journals(default_spool()) == []
    eventually(lambda: not delivery_processes(pid))


def test_changes_of_variables_for_stores_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "ENVIRONMENT_POLL", 0.0)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "old")
    monkeypatch.setenv("https_proxy", "http://p")
    watched = Environment()
    assert not watched.changed()
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "LEARNING_RATE", "RANK"):
        monkeypatch.setenv(name, "a" * 32)  # for a trainer alone
    assert not watched.changed()
    changes: list[Callable[[], object]] = [
        lambda: monkeypatch.setenv("AWS_SESSION_TOKEN", "new"),
        lambda: monkeypatch.delenv("https_proxy"),
        lambda: monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7"),
        lambda: monkeypatch.setenv("OUR_STORES_TOKEN", "t"),
    ]
    for change in changes:
        change()
        assert watched.changed()
        assert not watched.changed()


def test_looks_at_the_environment_are_rare() -> None:
    watched = Environment()
    watched.changed()
    os.environ["AWS_PROFILE"] = "look"
    try:
        assert not watched.changed()
        assert eventually(watched.changed)
    finally:
        del os.environ["AWS_PROFILE"]


def test_a_certificate_that_is_named_from_the_trainings_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "training" / "certs").mkdir(parents=True)
    (tmp_path / "training" / "certs" / "ca.pem").touch()
    (tmp_path / "here.pem").touch()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "certs/ca.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", "here.pem")
    monkeypatch.setenv("SSL_CERT_FILE", "nowhere.pem")
    names = ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_FILE")
    before = [os.environ[name] for name in names]
    with files_from(tmp_path / "training"):
        assert [os.environ[name] for name in names] == [
            str(tmp_path / "training" / "certs" / "ca.pem"),
            "here.pem",
            "nowhere.pem",
        ]
    assert [os.environ[name] for name in names] == before


def test_delivery_by_a_thread_prints_no_link_with_the_credentials_in_it(
    server_uri: str, tmp_path: Path
) -> None:
    uri = server_uri.replace("//", "//somebody:hunter2@")
    script = "    trained(experiment=sys.argv[1], delivery='thread')"
    environ = {"MLFLOW_TRACKING_URI": uri}
    said = output(started(script, tmp_path, [tmp_path.name], environ=environ))
    assert run_of(server_uri, tmp_path.name).info.status == "FINISHED"
    assert "hunter2" not in said
