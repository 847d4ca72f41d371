"""The page on PostgreSQL and S3, run as it stands, and S3 without the server between:
`make test-servers`."""

import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults import arrived
from orbiter.train import Rollout, TrainMetrics
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
from orbiter_mlflow.errors import HeldError
from orbiter_mlflow.runs.store import RunStore
from pages import ROOT, blocks, lines
from postgres import PASSWORD, Postgres
from s3 import KEYS, S3
from servers import free_port, running_server
from trainers import Backend, Tracked, journals, stored, tracked, trained
from waiting import eventually

PAGE = ROOT / "docs/how-to/postgres-s3.md"
IMPORTED = {"mlflow": "mlflow", "psycopg[binary]": "psycopg_binary", "boto3": "boto3"}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Leave no journal that a delivery still looks at when its server is gone."""
    yield
    for journal in journals():
        spool.remove(journal)


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    with S3(tmp_path) as found:
        yield found


@dataclass
class PageRun:
    """What runs the commands of the page, with this machine in place of those it names."""

    database: Postgres
    s3: S3
    folder: Path
    environment: dict[str, str]
    port: int
    server: "subprocess.Popen[bytes] | None" = None

    def here(self, text: str) -> str:
        """The text with our addresses in place of the page's."""
        for theirs, ours in (
            ("https://minio.example.org", self.s3.uri),
            ("https://mlflow.example.org", f"http://127.0.0.1:{self.port}"),
            ("--allowed-hosts mlflow.example.org", f"--allowed-hosts 127.0.0.1:{self.port}"),
            ("db.example.org", f"127.0.0.1:{self.database.port}"),
            ("--host 0.0.0.0 --port 5000", f"--host 127.0.0.1 --port {self.port}"),
            ("/etc/mlflow/", f"{self.folder}/"),
        ):
            text = text.replace(theirs, ours)
        assert "example.org" not in text, text
        return text

    def run(self, line: str) -> None:
        words = shlex.split(self.here(line))
        if words[0] == "export":
            name, _, text = words[1].partition("=")
            self.environment[name] = text
        elif words[:2] == ["pip", "install"]:
            missing = [word for word in words[2:] if not importlib.util.find_spec(IMPORTED[word])]
            assert not missing, f"the environment of this test lacks {missing}"
        elif words[0] == "mc":
            self.s3.client().create_bucket(Bucket=words[-1].rpartition("/")[2])
        elif words[:2] == ["mlflow", "server"]:
            self.serve(words)
        elif words[0] in ("createuser", "createdb"):  # by the database's administrator
            answers = f"{PASSWORD}\n" * 2
            environment = {**os.environ, **self.database.environment()}
            self.call(words, environment, answers)
        else:
            assert words[0] == "mlflow", line
            self.call([sys.executable, "-m", *words], self.environment)

    def call(self, words: list[str], environment: dict[str, str], answers: str = "") -> None:
        done = subprocess.run(
            words,
            input=answers,
            env=environment,
            capture_output=True,
            text=True,
            start_new_session=True,  # without a terminal, passwords are read from the input
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"

    def serve(self, words: list[str]) -> None:
        log = self.folder / "server.log"
        with log.open("wb") as file:
            self.server = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdout=file,
                stderr=file,
                env=self.environment,
                start_new_session=True,
            )

        def answers() -> bool:
            assert self.server is not None
            assert self.server.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return True
            except OSError:
                return False

        eventually(answers, 120)

    def stop(self) -> None:
        if self.server is not None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()


@pytest.fixture
def page(s3: S3, tmp_path: Path) -> Iterator[PageRun]:
    with Postgres() as database:
        password = tmp_path / "pgpass"
        password.write_text(f"127.0.0.1:{database.port}:*:mlflow:{PASSWORD}\n")
        password.chmod(0o600)
        keys = "\n".join(f"{name.lower()} = {text}" for name, text in KEYS.items())
        (tmp_path / "aws").write_text(f"[default]\n{keys}\nregion = us-east-1\n")
        run = PageRun(database, s3, tmp_path, dict(os.environ), free_port())
        yield run
        run.stop()


async def train(uri: str, folder: Path) -> Tracked:
    """A training with a metric, an artifact and rollouts, all in the store."""
    (folder / "notes.txt").write_text("kept")

    async def body(trainer: Backend) -> TrainMetrics:
        assert isinstance(trainer, Tracked)
        trainer.report({"loss": 0.5}, step=1)
        trainer.report_rollouts([Rollout("2 + 2?", "4", rewards={"right": 1.0})], step=1)
        trainer.log_artifact(folder / "notes.txt")
        return TrainMetrics(steps=1)

    trainer = await trained(tracked(uri, None, body, experiment="team"))
    await arrived(trainer)
    return trainer


async def test_the_page_runs_as_it_stands(page: PageRun, tmp_path: Path) -> None:
    server, bucket, clients = [b.text for b in blocks(PAGE) if b.language == "sh"]
    (endpoint,) = re.findall(r"`(export MLFLOW_S3_ENDPOINT_URL=.*)`", PAGE.read_text())
    for line in [endpoint, *lines(bucket), *lines(server)]:
        page.run(line)

    (line,) = [line for line in lines(clients) if "MLFLOW_TRACKING_URI" in line]
    uri = page.here(line).partition("=")[2]
    assert not [name for name in os.environ if name in {*KEYS, "PGPASSFILE"}]
    trainer = await train(uri, tmp_path)
    run = stored(uri, trainer)
    assert run.data.metrics["train/loss"] == 0.5
    assert run.info.status == "FINISHED"
    kept = page.s3.contents("mlflow")
    (notes,) = [key for key in kept if key.endswith("/notes.txt")]
    assert notes.startswith("artifacts/")
    assert kept[notes] == b"kept"
    assert [key for key in kept if "/rollouts/train/" in key]
    assert RunStore(uri).artifact(run.info.run_id, "notes.txt") == b"kept"

    with pytest.raises(HeldError, match="403"):  # a host that --allowed-hosts does not name
        MLflowSink(uri.replace("127.0.0.1", "localhost"))


async def test_artifacts_go_to_s3_without_the_server_where_it_says_so(
    s3: S3, sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.client().create_bucket(Bucket="direct")
    options = ["--no-serve-artifacts", "--default-artifact-root", "s3://direct/kept"]
    for name, text in s3.environment().items():
        monkeypatch.setenv(name, text)
    with running_server(sqlite_uri, tmp_path, options=options) as uri:
        trainer = await train(uri, tmp_path)
        assert stored(uri, trainer).info.artifact_uri.startswith("s3://direct/kept/")
        kept = s3.contents("direct")
        assert [text for key, text in kept.items() if key.endswith("/notes.txt")] == [b"kept"]
        assert [key for key in kept if "/rollouts/train/" in key]
