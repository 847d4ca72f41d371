"""The training process' side of delivery."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from journals import HEAD
from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.ack import read_ack
from orbiter_mlflow.delivery.hosts.process import DeliveryProcess
from orbiter_mlflow.delivery.hosts.thread import DeliveryThread
from orbiter_mlflow.delivery.records import Metrics
from orbiter_mlflow.delivery.run_writer import RunWriter
from waiting import eventually


def test_what_fills_a_request_goes_out_before_the_next_look(
    tmp_path: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "IDLE", 3600.0)
    head = replace(HEAD, tracking_uri=sqlite_uri)
    writer = RunWriter(
        tmp_path, head, DeliveryThread(), tracking_uri=sqlite_uri, flush_timeout=30.0
    )
    eventually(lambda: read_ack(writer.path).run_id)
    size = writer.path.stat().st_size
    step = 0
    while writer.path.stat().st_size < size + retry.FULL:
        step += 1
        writer.append(Metrics(step, HEAD.start_time + step, {f"m{i}": 0.5 for i in range(10)}))
    # Nobody waits here: that would hurry delivery, too.
    eventually(lambda: read_ack(writer.path).offset > size)
    writer.close()


class Interrupted(DeliveryProcess):
    """Another run ends while the first one's order is sent, as by a garbage collection."""

    def _launch(self, pipe: Path | None, environ: Mapping[str, str], reading: int) -> None:
        self.wake()
        super()._launch(pipe, environ, reading)


def test_a_run_that_ends_in_the_middle_of_an_order_does_not_stop_the_training(
    tmp_path: Path, sqlite_uri: str
) -> None:
    head = replace(HEAD, tracking_uri=sqlite_uri)
    found: list[RunWriter] = []

    def open_writer() -> None:
        host = Interrupted()
        found.append(RunWriter(tmp_path, head, host, tracking_uri=sqlite_uri, flush_timeout=30.0))

    opening = threading.Thread(target=open_writer, daemon=True)
    opening.start()
    opening.join(60.0)
    assert not opening.is_alive()
    (writer,) = found
    eventually(lambda: read_ack(writer.path).run_id)
    writer.close()
