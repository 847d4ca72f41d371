"""Keys with `:`, and long tags, on servers that refuse them. A proxy before a real server answers
as an old one; `tests/servers/check_old_servers.py` has real ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from journals import HEAD
from odd_keys import assert_whole, call, check_by_gate, odd_config, stored_keys, train
from orbiter_mlflow import names
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.mlflow_sink import MLflowSink
from orbiter_mlflow.errors import RejectedError
from orbiter_mlflow.text import colons
from proxy import Proxy
from trainers import history, journals

POINT = MetricPoint("pass:40:1", 0.5, 1000, 1)
STORED = "pass\u02d040\u02d01"


@pytest.fixture
def proxy(server_uri: str) -> Iterator[Proxy]:
    with Proxy(server_uri) as found:
        found.old_version = "2.14.3"
        yield found
        for journal in journals():  # which a delivery still looks at
            spool.remove(journal)


def new_run(sink: MLflowSink, uid: str) -> str:
    return sink.create_run(replace(HEAD, uid=uid, experiment="older servers"))


@given(st.text(st.sampled_from("a2d0:\u02d0/ .")))
def test_a_key_comes_back_from_the_form_without_colons(key: str) -> None:
    stored = colons.without_colons(key)
    assert ":" not in stored
    assert ":2d0:" in key or colons.original(stored) == key  # our own keys have no `:2d0:`


async def test_a_run_on_an_old_server_reads_as_on_a_new_one(proxy: Proxy, tmp_path: Path) -> None:
    config = odd_config()
    first = await train(proxy.uri, config)
    assert first.run_id is not None
    run = assert_whole(proxy.uri, first.run_id, config, [0, 1, 2])
    assert not [key for key in stored_keys(proxy.uri, first.run_id) if ":" in key]
    assert proxy.requests.count("/version") == 1
    assert run.tags["long"].endswith("(7000 characters)")

    second = await train(proxy.uri, odd_config(learning_rate=1e-3), accuracy=0.4)
    assert second.run_id is not None
    code, output = call(proxy.uri, "diff", first.run_id, second.run_id)
    assert code == 0, output
    assert "learning_rate" in output
    assert not [word for word in ("prompt", "layer-", "\u02d0") if word in output]
    code, output = check_by_gate(proxy.uri, first.run_id, second.run_id, tmp_path)
    assert code == 0, output
    code, output = check_by_gate(proxy.uri, second.run_id, first.run_id, tmp_path)
    assert code == 1, output

    proxy.old_version = None  # the server is upgraded
    resumed = await train(proxy.uri, config, run_id=first.run_id)
    run = assert_whole(proxy.uri, first.run_id, config, [0, 1, 2, 4, 5, 6])
    assert names.CONFIG_CHANGED + ".2" not in run.tags
    assert len(history(proxy.uri, resumed, f"train/{STORED}")) == 6
    assert not [key for key in stored_keys(proxy.uri, first.run_id) if ":" in key]


async def test_a_new_server_keeps_the_keys_as_they_are(server_uri: str) -> None:
    trainer = await train(server_uri, odd_config())
    assert trainer.run_id is not None
    run = assert_whole(server_uri, trainer.run_id, odd_config(), [0, 1, 2])
    found = stored_keys(server_uri, trainer.run_id)
    assert {"train/pass:40:1", "train/a\u02d0", "prompt:0", ":root", "team:a"} <= found
    assert names.COLONS not in run.tags
    assert len(run.tags["long"]) == 7000


def test_a_server_that_is_asked_in_vain_is_asked_again(proxy: Proxy) -> None:
    sink = MLflowSink(proxy.uri)
    run_id = new_run(sink, "a" * 32)
    proxy.old_version = None
    outage = proxy.add("answer", path="/version", status=503)
    upstream_refuses = proxy.add("answer", path="log-batch", status=400, body=REFUSAL)
    with pytest.raises(RejectedError):
        sink.log_batch(run_id, [POINT], {}, {})
    assert (outage.hits, upstream_refuses.hits) == (1, 1)
    proxy.heal()
    proxy.old_version = "2.9.2"
    sink.log_batch(run_id, [POINT], {}, {})
    sink.log_batch(run_id, [POINT._replace(step=2)], {}, {})
    assert len(MlflowClient(proxy.uri).get_metric_history(run_id, STORED)) == 2


REFUSAL = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid parameter name"}'


@pytest.mark.parametrize("answer", [(404, b"nothing here"), (200, b"<html>an app</html>")])
def test_a_server_without_a_version_is_taken_for_a_new_one(
    answer: tuple[int, bytes], server_uri: str
) -> None:
    with Proxy(server_uri) as proxy:
        asked = proxy.add("answer", path="/version", status=answer[0], body=answer[1])
        sink = MLflowSink(proxy.uri)
        run_id = new_run(sink, "b" * 32)
        sink.log_batch(run_id, [POINT], {"a:0": "x"}, {"t:1": "y" * 8000})
        sink.log_batch(run_id, [POINT._replace(step=2)], {}, {})
        assert asked.hits == 1
    run = MlflowClient(server_uri).get_run(run_id)
    assert (run.data.metrics, run.data.params) == ({"pass:40:1": 0.5}, {"a:0": "x"})
    assert len(run.data.tags["t:1"]) == 8000


def test_tags_with_colons_are_created_and_deleted_on_an_old_server(proxy: Proxy) -> None:
    sink = MLflowSink(proxy.uri)
    head = replace(HEAD, uid="c" * 32, experiment="older servers", tags={"team:a": "x"})
    run_id = sink.create_run(head)
    assert sink.read_run(run_id).tags["team:a"] == "x"
    sink.log_batch(run_id, [], {}, {"team:a": "y", "team:b": "z"})
    sink.delete_tags(run_id, ["team:a"])
    tags = sink.read_run(run_id).tags
    assert "team:a" not in tags
    assert tags["team:b"] == "z"
    assert proxy.requests.count("/version") == 1
