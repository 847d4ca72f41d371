"""Faults of the network and the server: everything arrives exactly once, and training goes on.

The server and the delivery process are real; a proxy in front of the server makes the faults.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ViewType

from faults import (
    POINTS,
    Scene,
    ack_of,
    all_removed,
    arrived,
    delivery_processes,
    expected,
    in_trouble,
    soon,
)
from folders import each_file
from orbiter.train import TrainConfig, TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.delivery.hosts import base
from orbiter_mlflow.delivery.spool_folder import default_spool
from orbiter_mlflow.errors import TrackingError
from proxy import BATCH, CREATE, Proxy
from trainers import Tracked, wait_for_provenance

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", autouse=True)
def own_delivery() -> Iterator[None]:
    """One delivery process for the tests of this file, with a short timeout for requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_hosts", {})
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        yield


@pytest.fixture
def scene(server_uri: str, tmp_path: Path) -> Iterator[Scene]:
    with Proxy(server_uri) as proxy, Scene(proxy, server_uri, tmp_path.name) as scene:
        yield scene


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("orbiter")
    ]


# -- the server is not there ---------------------------------------------------------------------


async def test_down_at_the_start(scene: Scene) -> None:
    scene.proxy.refuse()

    async def middle(trainer: Tracked) -> None:
        await in_trouble(trainer)
        scene.proxy.open()

    trainer = scene.trainer(middle)
    assert (await trainer.train()).steps == 300
    await arrived(trainer)
    scene.assert_whole()


async def test_down_in_the_middle(scene: Scene) -> None:
    async def middle(trainer: Tracked) -> None:
        await arrived(trainer)
        scene.proxy.refuse()
        trainer.set_tag("phase", "two")
        await in_trouble(trainer)
        scene.proxy.open()

    trainer = scene.trainer(middle)
    assert (await trainer.train()).steps == 300
    await arrived(trainer)
    assert scene.assert_whole().data.tags["phase"] == "two"


async def test_down_from_the_middle_until_after_the_end(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    async def middle(trainer: Tracked) -> None:
        await arrived(trainer)
        scene.proxy.refuse()
        trainer.set_tag("phase", "two")
        await in_trouble(trainer)

    trainer = scene.trainer(middle, flush_timeout=3.0)
    assert (await trainer.train()).steps == 300
    start = time.monotonic()
    assert await trainer.evaluate() == trainer.scores
    assert time.monotonic() - start < 2.5, "an evaluate waited again for the same outage"
    (warning,) = warnings_in(caplog)
    assert str(scene.journals[0]) in warning
    assert "orbiter-mlflow sync" in warning
    scene.proxy.open()
    await arrived(trainer)
    scene.assert_whole()
    assert scene.history(key="eval/accuracy") == [(300, 0.75)]


async def test_down_for_the_whole_life_of_the_trainer_and_back_later(scene: Scene) -> None:
    scene.proxy.refuse()
    trainer = scene.trainer(in_trouble, flush_timeout=0)
    assert (await trainer.train()).steps == 300
    del trainer
    assert not all_removed()
    scene.proxy.open()
    await soon(all_removed)
    scene.assert_whole()


async def test_on_failure_raise_raises_once_training_is_over(scene: Scene) -> None:
    scene.proxy.refuse()
    trainer = scene.trainer(in_trouble, flush_timeout=0.1, on_failure="raise")
    with pytest.raises(TrackingError) as caught:
        await trainer.train()
    assert isinstance(caught.value.metrics, TrainMetrics)
    del caught  # its traceback would keep the trainer, whose end would warn in a later test
    assert trainer.state == "completed"
    scene.proxy.open()
    await arrived(trainer)
    scene.assert_whole()


async def test_a_server_that_hangs_costs_the_flush_timeout_once(scene: Scene) -> None:
    async def middle(trainer: Tracked) -> None:
        await arrived(trainer)
        scene.proxy.add("hang")

    trainer = scene.trainer(middle, flush_timeout=3.0)
    start = time.monotonic()
    assert (await trainer.train()).steps == 300
    reached = time.monotonic() - start
    await trainer.evaluate()
    assert time.monotonic() - start - reached < 2.5, "an evaluate waited again"
    await soon(lambda: scene.proxy.faults[0].hits)
    scene.proxy.heal()
    await arrived(trainer)
    scene.assert_whole()


# -- what is beside the metrics is in trouble ------------------------------------------------------

UPLOADS = "mlflow-artifacts"


@pytest.fixture
def notes(own_folder: Path) -> Path:
    file = own_folder / "notes.txt"
    file.write_text("notes")
    return file


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "answer", "status": 403},
        {"kind": "answer", "status": 413},
        {"kind": "answer", "status": 500},
        {"kind": "answer", "status": 404},
        {"kind": "cut"},
        {"kind": "hang"},
    ],
    ids=lambda fault: f"{fault['kind']} {fault.get('status', '')}".strip(),
)
async def test_an_artifact_store_in_trouble_costs_no_metric_and_no_status(
    scene: Scene, notes: Path, fault: dict[str, Any]
) -> None:
    scene.proxy.add(path=UPLOADS, **fault)

    async def middle(trainer: Tracked) -> None:
        trainer.log_artifact(notes)

    trainer = scene.trainer(middle)
    await trainer.train()
    run = scene.assert_whole()
    run_id = run.info.run_id

    def missing() -> str:
        tags: dict[str, str] = scene.client.get_run(run_id).data.tags
        return tags.get(names.ARTIFACTS_MISSING, "")

    await soon(lambda: "notes.txt" in missing())
    assert not trainer.delivered
    scene.proxy.heal()
    await arrived(trainer)
    await soon(lambda: missing() == "")
    assert "notes.txt" in [entry.path for entry in scene.client.list_artifacts(run_id)]


async def test_a_server_without_datasets_gets_everything_else(scene: Scene) -> None:
    scene.proxy.add("answer", path="runs/log-inputs", status=404, body=b"<title>404</title>")
    trainer = scene.trainer(data=[[1, 2], [3, 4]])
    await trainer.train()
    await arrived(trainer)
    run = scene.assert_whole()
    assert run.inputs.dataset_inputs == []
    await soon(lambda: "no endpoint" in scene.run().data.tags.get(names.DATASETS_MISSING, ""))


# -- the server says no --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_temporary_error_status_is_retried_until_it_passes(
    scene: Scene, status: int
) -> None:
    async def middle(trainer: Tracked) -> None:
        scene.proxy.add("answer", status=status, times=2, headers={"Retry-After": "1"})
        trainer.set_tag("phase", "two")
        await soon(lambda: scene.proxy.faults[0].hits == 2)

    trainer = scene.trainer(middle)
    await trainer.train()
    await arrived(trainer)
    scene.assert_whole()


@pytest.mark.parametrize("status", [301, 400, 407, 418])
@pytest.mark.parametrize("path", ["runs/update", "runs/search", "runs/get", BATCH, CREATE])
async def test_an_answer_of_a_gateway_is_not_blamed_on_the_content(
    scene: Scene, path: str, status: int
) -> None:
    page = b"<html><title>Blocked by the gateway</title></html>"
    fault = scene.proxy.add("answer", path=path, status=status, body=page, times=2)
    trainer = scene.trainer(flush_timeout=0)
    await trainer.train()
    await arrived(trainer)
    scene.assert_whole()
    assert fault.hits == 2 or path == "runs/get"


@pytest.mark.parametrize("delivery", ["process", "thread"])
async def test_a_proxy_that_repeats_requests_leaves_one_run(scene: Scene, delivery: str) -> None:
    scene.proxy.add("twice", path="/api/")
    trainer = scene.trainer(delivery=delivery)
    await trainer.train()
    await arrived(trainer)
    scene.assert_whole()  # which finds one run only
    assert len(scene.runs(ViewType.ALL)) == 2


async def test_500_to_all_but_small_requests_is_halved(scene: Scene) -> None:
    fault = scene.proxy.add("answer", path=BATCH, status=500, over=10_000)
    trainer = scene.trainer()
    await trainer.train()
    await arrived(trainer)
    assert fault.hits > 5
    scene.assert_whole()


async def test_413_is_halved(scene: Scene) -> None:
    fault = scene.proxy.add("answer", path=BATCH, status=413, over=5_000)
    trainer = scene.trainer()
    await trainer.train()
    await arrived(trainer)
    assert fault.hits >= 2
    scene.assert_whole()


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("when", ["start", "middle"])
async def test_wrong_credentials_hold_the_journal_until_they_are_right(
    scene: Scene, status: int, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def middle(trainer: Tracked) -> None:
        if when == "middle":
            await arrived(trainer)
            scene.proxy.add("answer", status=status)
            trainer.set_tag("phase", "two")
        await soon(lambda: ack_of(trainer).held)

    if when == "start":
        scene.proxy.add("answer", status=status)
    trainer = scene.trainer(middle)
    ended = await _timed(trainer)
    assert ended < 10, "the end of train waited for a person"
    assert "credentials" in ack_of(trainer).problem
    (warning,) = warnings_in(caplog)
    assert "credentials" in warning
    scene.proxy.heal()
    await trainer.evaluate()  # somebody waits: it is tried again at once
    await arrived(trainer)
    scene.assert_whole()


async def _timed(trainer: Tracked) -> float:
    start = time.monotonic()
    assert (await trainer.train()).steps == 300
    return time.monotonic() - start


# -- the answer is lost --------------------------------------------------------------------------


async def test_the_answer_to_a_batch_is_lost(scene: Scene) -> None:
    faults = [scene.proxy.add("drop", path=BATCH, times=1)]

    async def middle(trainer: Tracked) -> None:
        await arrived(trainer)
        faults.append(scene.proxy.add("drop", path=BATCH, times=1))

    trainer = scene.trainer(middle)
    await trainer.train()
    await arrived(trainer)
    assert [fault.passed for fault in faults] == [1, 1]
    scene.assert_whole()


async def test_the_answers_to_all_other_requests_are_lost_once(scene: Scene) -> None:
    paths = ("experiments/create", "experiments/search", "runs/update", "runs/search")
    faults = [scene.proxy.add("drop", path=path, times=1) for path in paths]
    scene.proxy.add("drop", path=CREATE, times=1)
    trainer = scene.trainer()
    await trainer.train()
    await arrived(trainer)
    assert [fault.passed for fault in faults] == [1, 1, 1, 1]
    scene.assert_whole()


async def test_the_answer_to_the_creation_of_the_run_is_lost(scene: Scene) -> None:
    fault = scene.proxy.add("drop", path=CREATE, times=1)
    trainer = scene.trainer()
    await trainer.train()
    await arrived(trainer)
    assert fault.passed == 1
    scene.assert_whole()
    assert len(scene.runs(ViewType.ALL)) == 1


async def test_a_batch_that_is_committed_long_after_its_timeout(scene: Scene) -> None:
    async def middle(trainer: Tracked) -> None:
        await asyncio.to_thread(wait_for_provenance)  # whose tags would be held
        await arrived(trainer)
        late = scene.proxy.add("hold", path=BATCH, times=1)
        trainer.set_tag("phase", "one")
        await soon(lambda: late.hits)
        trainer.set_tag("phase", "two")
        await arrived(trainer)
        late.release()
        await soon(lambda: late.passed)
        # It has undone the tag, which the end of the run restores.
        assert scene.run().data.tags["phase"] == "one"

    trainer = scene.trainer(middle)
    await trainer.train()
    await arrived(trainer)
    assert scene.assert_whole().data.tags["phase"] == "two"


@pytest.mark.parametrize("second", ["is answered", "is not answered"])
async def test_a_run_that_is_created_long_after_the_timeout_leaves_one(
    scene: Scene, second: str
) -> None:
    late = scene.proxy.add("hold", path=CREATE, times=1)

    async def middle(trainer: Tracked) -> None:
        await soon(lambda: late.hits)
        if second == "is not answered":
            scene.proxy.add("drop", path=CREATE, times=1)
        await arrived(trainer)
        late.release()
        await soon(lambda: late.passed)

    trainer = scene.trainer(middle)
    await trainer.train()
    await arrived(trainer)
    scene.assert_whole()
    (twin,) = scene.runs(ViewType.DELETED_ONLY)
    assert scene.history(twin) == []


# -- somebody has changed things on the server ---------------------------------------------------


@pytest.mark.parametrize("what", ["run", "experiment"])
async def test_deleted_on_the_server_and_restored(
    scene: Scene, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def middle(trainer: Tracked) -> None:
        await arrived(trainer)
        run = scene.run()
        if what == "run":
            scene.client.delete_run(run.info.run_id)
        else:
            scene.client.delete_experiment(run.info.experiment_id)
        trainer.report({"other": 1}, step=0)
        await soon(lambda: ack_of(trainer).held)

    trainer = scene.trainer(middle)
    assert await _timed(trainer) < 20
    assert "restore it" in ack_of(trainer).problem
    (warning,) = warnings_in(caplog)
    assert "restore it" in warning
    if what == "run":
        assert trainer.run_id is not None
        scene.client.restore_run(trainer.run_id)
    else:
        found = scene.client.get_experiment_by_name(scene.experiment)
        assert found is not None
        scene.client.restore_experiment(found.experiment_id)
    await trainer.evaluate()
    await arrived(trainer)
    scene.assert_whole()


async def test_a_run_that_is_resumed_with_other_params_warns_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    first = scene.trainer()
    await first.train()
    run_id = first.run_id
    second = scene.trainer(config=TrainConfig(learning_rate=0.5, batch_size=99), run_id=run_id)
    await second.train()
    await second.evaluate()
    assert second.run_id == run_id
    await arrived(second)
    run = scene.run()
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "1e-05"
    assert "orbiter.quarantined" not in run.data.tags
    assert json.loads(run.data.tags["orbiter.config.changed.2"]) == {
        "batch_size": ["8", "99"],
        "learning_rate": ["1e-05", "0.5"],
    }
    second_life = [(step + POINTS + 1, value) for step, value in expected()]
    assert scene.history() == expected() + second_life
    # A busy machine may take longer than a request's timeout, of which another warning tells.
    (warning,) = [text for text in warnings_in(caplog) if "keeps " in text]
    assert "keeps batch_size=8 (this trainer has 99), learning_rate=1e-05 (this tr" in warning


# -- more than one, and other clocks -------------------------------------------------------------


async def test_two_trainers_in_one_loop(scene: Scene) -> None:
    async def middle(trainer: Tracked) -> None:
        await asyncio.sleep(0)
        scene.proxy.add("drop", path=BATCH, times=1)
        trainer.set_tag("who", scene.journals[0].name)

    pair = [scene.trainer(middle), scene.trainer(middle)]
    await asyncio.gather(*(trainer.train() for trainer in pair))
    runs = scene.runs()
    assert {run.info.run_id for run in runs} == {trainer.run_id for trainer in pair}
    assert len(runs) == 2
    for run in runs:
        scene.assert_whole(run)


async def test_the_clock_is_set_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time_ns

    async def middle(trainer: Tracked) -> None:
        for moment in range(10):
            monkeypatch.setattr(time, "time_ns", lambda at=moment: real() - at * 3_600 * 10**9)
            trainer.report({"again": float(moment)}, step=5)

    trainer = scene.trainer(middle)
    await trainer.train()
    await arrived(trainer)
    run = scene.assert_whole()
    assert scene.history(key="train/again") == [(5, float(moment)) for moment in range(10)]
    assert run.data.metrics["train/again"] == 9.0, "the last one said is not the latest"
    assert run.data.metrics["train/loss"] == 299 / 7


# -- what must not be seen -----------------------------------------------------------------------


async def test_credentials_in_the_uri_appear_nowhere(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    scene.proxy.refuse()

    async def middle(trainer: Tracked) -> None:
        await in_trouble(trainer)
        problems.append(ack_of(trainer).problem)
        scene.proxy.add("answer", status=401)
        scene.proxy.open()
        await soon(lambda: ack_of(trainer).held)
        problems.append(ack_of(trainer).problem)

    problems: list[str] = []
    uri = scene.proxy.uri.replace("//", "//me:s3cretpw@")
    trainer = scene.trainer(middle, tracking_uri=uri)
    await trainer.train()
    seen = [*problems, caplog.text, *readable()]
    assert len(seen) >= 6
    assert not [text for text in seen if "s3cretpw" in text]
    scene.proxy.heal()
    await trainer.evaluate()
    await arrived(trainer)
    scene.assert_whole()


def readable() -> list[str]:
    """The texts that others may read: the files of the spool, and the command lines of delivery."""
    commands = []
    for pid in delivery_processes():
        with contextlib.suppress(OSError):  # one of an earlier test has just ended
            commands.append(Path(f"/proc/{pid}/cmdline").read_text())
    return [*each_file(default_spool(), Path.read_text).values(), *commands]
