"""Runs on real MLflow servers that are too old for `:` in a key: `make test-old-servers`.

The environments of the servers are those that the Makefile makes: `.old-<version>`.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from faults import all_removed, soon
from odd_keys import assert_whole, call, check_by_gate, odd_config, stored_keys, train
from orbiter.train import TrainMetrics
from orbiter_mlflow import names, newest_checkpoint
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.runs.store import RunStore
from paths import ROOT
from servers import free_port, running_server
from trainers import Backend, history, journals, tracked, trained

TAKE_NO_COLONS = ("2.9.2", "2.14.3")
CUTS_LONG_TAGS = "2.16.2"


@dataclass
class OldServer:
    version: str
    store_uri: str
    folder: Path
    uri: str = ""
    port: int = field(default_factory=free_port)

    def serve(self) -> running_server:
        """The server, which shares no setting with the MLflow of this process."""
        python = ROOT / f".old-{self.version}/bin/python"
        assert python.exists(), f"no {python}: make test-old-servers makes it"
        return running_server(self.store_uri, self.folder, self.port, python=python)

    def upgrade(self) -> None:
        """Bring the store to the MLflow of this process."""
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", self.store_uri]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Leave no journal that a delivery still looks at when its server is gone."""
    yield
    for journal in journals():
        spool.remove(journal)


@pytest.fixture(params=[(v, s) for v in TAKE_NO_COLONS for s in ("sqlite", "files")], ids=str)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OldServer]:
    version, store = request.param
    uri = f"sqlite:///{tmp_path}/old.db" if store == "sqlite" else str(tmp_path / "mlruns")
    found = OldServer(version, uri, tmp_path)
    with found.serve() as found.uri:
        yield found


async def test_a_run_on_an_old_server_is_whole_and_reads_as_on_a_new_one(
    server: OldServer, tmp_path: Path
) -> None:
    uri, config = server.uri, odd_config()
    first = await train(uri, config)
    assert first.run_id is not None
    run = assert_whole(uri, first.run_id, config, [0, 1, 2])
    assert not [key for key in stored_keys(uri, first.run_id) if ":" in key]
    assert len(run.tags["long"]) <= names.MAX_DATA_TAG
    assert run.tags["long"].endswith("(7000 characters)")

    second = await train(uri, odd_config(learning_rate=1e-3), accuracy=0.4)
    assert second.run_id is not None
    code, output = call(uri, "diff", first.run_id, second.run_id)
    assert code == 0, output
    assert "learning_rate" in output
    assert not [word for word in ("prompt", "layer-", "\u02d0") if word in output]
    code, output = check_by_gate(uri, first.run_id, second.run_id, tmp_path)
    assert code == 0, output
    code, output = check_by_gate(uri, second.run_id, first.run_id, tmp_path)
    assert code == 1, output

    resumed = await train(uri, config, run_id=first.run_id)
    run = assert_whole(uri, first.run_id, config, [0, 1, 2, 4, 5, 6])
    assert names.CONFIG_CHANGED + ".2" not in run.tags
    assert len(history(uri, resumed, "train/pass\u02d040\u02d01")) == 6


async def test_a_checkpoint_comes_back_from_a_server_without_logged_models(
    server: OldServer, tmp_path: Path
) -> None:
    async def body(trainer: Backend) -> TrainMetrics:
        for step in (1, 2):
            path = tmp_path / f"checkpoint-{step}"
            path.mkdir()
            (path / "model.bin").write_bytes(b"weights %d" % step)
            trainer.report({"loss": 1 / step}, step=step)
            trainer.report_checkpoint(path, step=step)
        return TrainMetrics()

    trainer = await trained(tracked(server.uri, body=body, log_checkpoints="last"))
    run_id = trainer.run_id
    assert run_id is not None
    del trainer
    await soon(all_removed)
    back = newest_checkpoint(run_id, tmp_path / "back", tracking_uri=server.uri)
    assert back is not None
    assert back.name == "checkpoint-2"
    assert (tmp_path / "back" / "checkpoint-2" / "model.bin").read_bytes() == b"weights 2"
    said = RunStore(server.uri).get(run_id).tags[names.CHECKPOINTS_MISSING]
    assert said.startswith("models of ")


@pytest.mark.parametrize("version", TAKE_NO_COLONS)
async def test_a_run_goes_on_after_its_server_is_upgraded(version: str, tmp_path: Path) -> None:
    config, old = odd_config(), OldServer(version, f"sqlite:///{tmp_path}/old.db", tmp_path)
    with old.serve() as uri:
        run_id = (await train(uri, config)).run_id
        assert run_id is not None
        await soon(all_removed)
    old.upgrade()
    with running_server(old.store_uri, tmp_path, old.port) as uri:
        assert_whole(uri, run_id, config, [0, 1, 2])
        await train(uri, config, run_id=run_id)
        run = assert_whole(uri, run_id, config, [0, 1, 2, 4, 5, 6])
        assert names.CONFIG_CHANGED + ".2" not in run.tags
        assert not [key for key in stored_keys(uri, run_id) if ":" in key]


async def test_a_server_that_cuts_long_tags_gets_them_with_a_note(tmp_path: Path) -> None:
    server = OldServer(CUTS_LONG_TAGS, f"sqlite:///{tmp_path}/old.db", tmp_path)
    with server.serve() as uri:
        config = odd_config()
        trainer = await train(uri, config)
        assert trainer.run_id is not None
        run = assert_whole(uri, trainer.run_id, config, [0, 1, 2])
        assert run.tags["long"].endswith("(7000 characters)")
        assert {"train/pass:40:1", "prompt:0"} <= stored_keys(uri, trainer.run_id)
        assert RunStore(uri).get(trainer.run_id) == run
