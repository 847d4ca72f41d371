"""Trainers behind nginx: TLS by a private CA, a path prefix, a body limit and time-outs:
`make test-servers`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from faults import arrived, in_trouble
from nginx import Nginx
from orbiter.train import TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.runs.store import RunStore
from proxy import BATCH, Proxy
from trainers import Backend, Tracked, journals, tracked

POINTS = 6000
LONG = "a-key-as-long-as-those-of-large-models/" * 4


@pytest.fixture
def proxy(server_uri: str) -> Iterator[Proxy]:
    with Proxy(server_uri) as found:
        yield found


@pytest.fixture
def nginx(proxy: Proxy, tmp_path: Path) -> Iterator[Nginx]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with Nginx(proxy.uri, folder, body_limit="60k") as found:
        yield found
    for journal in journals():
        spool.remove(journal)


async def test_all_arrives_through_tls_a_prefix_a_body_limit_and_time_outs(
    nginx: Nginx, proxy: Proxy, server_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(nginx.ca))
    (tmp_path / "notes.txt").write_text("kept")

    async def body(trainer: Backend) -> TrainMetrics:
        assert isinstance(trainer, Tracked)
        await arrived(trainer)
        hangs = proxy.add("hang", path=BATCH)
        for step in range(POINTS):
            trainer.report({LONG + "loss": step / 7}, step=step)
        trainer.log_artifact(tmp_path / "notes.txt")
        await in_trouble(trainer)
        assert hangs.hits
        proxy.heal()
        return TrainMetrics(steps=POINTS)

    trainer = tracked(nginx.uri, None, body, experiment="nginx")
    trainer.mark_validated()
    await trainer.train()
    await arrived(trainer)

    client = MlflowClient(server_uri)
    assert trainer.run_id is not None
    run = client.get_run(trainer.run_id)
    points = client.get_metric_history(trainer.run_id, f"train/{LONG}loss")
    assert sorted((one.step, one.value) for one in points) == [(n, n / 7) for n in range(POINTS)]
    assert run.info.status == "FINISHED"
    assert not {names.QUARANTINED, names.LOST, names.ARTIFACTS_MISSING} & run.data.tags.keys()
    assert RunStore(nginx.uri).artifact(trainer.run_id, "notes.txt") == b"kept"
