"""Read a tracking store: runs by id, start of an id, or name; and missing runs."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from journals import done
from orbiter_mlflow import load_config, names
from orbiter_mlflow.errors import RunNotFoundError, StoreError
from orbiter_mlflow.runs.model import MetricPoint
from orbiter_mlflow.runs.store import RunStore
from orbiter_mlflow.text.suggestions import did_you_mean
from servers import free_port


class Filled:
    """A store with a run that has all there is, and some that have odd names."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self.client = MlflowClient(uri)
        self.experiment = f"store {folder.name}"
        self.experiment_id: str = self.client.create_experiment(
            self.experiment, artifact_location=None if uri.startswith("http") else folder.as_uri()
        )
        self.run_id = self.run("whole")
        self.client.log_batch(
            self.run_id,
            params=[Param("epochs", "3"), Param("extra.note", "one\ntwo")],
            metrics=[Metric("loss", value, step, step) for step, value in ((2, 0.5), (1, 1.0))],
            tags=[RunTag("team", "rl")],
        )
        dataset = Dataset("images", "abc", "local", "{}")
        context = InputTag(names.DATASET_CONTEXT, "train")
        self.client.log_inputs(
            self.run_id,
            [
                DatasetInput(dataset, [context]),
                DatasetInput(Dataset("bare", "d", "local", "{}"), []),
            ],
        )
        self.client.log_text(self.run_id, "flask==3\n", "provenance/requirements.txt")
        self.client.set_terminated(self.run_id)

    def run(self, name: str) -> str:
        made = self.client.create_run(self.experiment_id, run_name=name)
        return str(made.info.run_id)


@pytest.fixture
def filled(sqlite_uri: str, tmp_path: Path) -> Filled:
    return Filled(sqlite_uri, tmp_path)


@pytest.mark.parametrize("where", ["sqlite", "server"])
def test_a_run_is_read_whole(where: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    filled = Filled(request.getfixturevalue(f"{where}_uri"), tmp_path)
    store = RunStore(filled.uri)
    run = store.get(filled.run_id)
    assert (run.run_id, run.name, run.experiment_id) == (
        filled.run_id,
        "whole",
        filled.experiment_id,
    )
    assert run.status == "FINISHED"
    assert run.end_time is not None
    assert run.start_time <= run.end_time
    assert run.params == {"epochs": "3", "extra.note": "one\ntwo"}
    assert run.tags["team"] == "rl"
    assert run.metrics == {"loss": 0.5}
    assert {(one.name, one.digest, one.context) for one in run.datasets} == {
        ("images", "abc", "train"),
        ("bare", "d", ""),
    }
    assert store.history(run.run_id, "loss") == [MetricPoint(1, 1, 1.0), MetricPoint(2, 2, 0.5)]
    assert store.history(run.run_id, "none") == []
    assert store.artifact(run.run_id, "provenance/requirements.txt") == b"flask==3\n"
    assert store.artifact(run.run_id, "provenance/other.txt") is None
    assert store.artifact(run.run_id, "other/requirements.txt") is None

    store.set_tags(run.run_id, {"baseline": "main", "team": "vision"})
    assert store.get(run.run_id).tags.items() >= {"baseline": "main", "team": "vision"}.items()

    odd = filled.run("it's 100%_sure")
    assert store.find("it's 100%_sure", experiment=filled.experiment).run_id == odd
    assert store.find(filled.run_id[:12]) == store.get(filled.run_id)
    with pytest.raises(RunNotFoundError, match="no run 0"):
        store.get("0" * 32)
    with pytest.raises(StoreError, match="no experiment 'none'"):
        store.find("whole", experiment="none")


NAMES = (
    *("plain", "it's", 'the "best"', """both ' and \"""", "back\\slash", "ends with \\", "100%"),
    *("100%x", "a_b", "axb", "' OR 1=1 --", "größer 🚀", "PLAIN", "`tick`", "line\nbreak"),
)


def test_a_name_means_just_itself(filled: Filled) -> None:
    runs = {name: filled.run(name) for name in NAMES}
    store = RunStore(filled.uri)
    for name, run_id in runs.items():
        assert store.find(name, experiment=filled.experiment).run_id == run_id
    for name in ("%", "_", "a%", "a__", "' OR '1'='1", '" OR "1"="1', "\\", "", "nobody"):
        with pytest.raises(RunNotFoundError, match="no run of experiment"):
            store.find(name, experiment=filled.experiment)
    with pytest.raises(RunNotFoundError, match="a name needs its experiment"):
        store.find("plain")
    twin = filled.run("plain")
    with pytest.raises(RunNotFoundError, match="matches ") as caught:
        store.find("plain", experiment=filled.experiment)
    assert twin in str(caught.value)
    assert runs["plain"] in str(caught.value)


def test_the_start_of_an_id(filled: Filled) -> None:
    store = RunStore(filled.uri)
    others = {filled.run("more") for _ in range(3)}
    assert store.find(filled.run_id[:8]).run_id == filled.run_id
    for start in (filled.run_id[:3], "zzzz", "%", "____", filled.run_id[:4] + "%"):
        with pytest.raises(RunNotFoundError):
            store.find(start)
    named = filled.run(filled.run_id[:8])  # a name that looks like the start of another's id
    assert store.find(filled.run_id[:8], experiment=filled.experiment).run_id == filled.run_id
    assert named not in others
    filled.client.delete_run(filled.run_id)
    with pytest.raises(RunNotFoundError):
        store.find(filled.run_id[:8])
    assert store.get(filled.run_id).run_id == filled.run_id


def test_an_invalid_id(filled: Filled) -> None:
    store = RunStore(filled.uri)
    for text in ("", "a/b", "../x", "-rf", "x" * 300, "a b", "%"):
        with pytest.raises(RunNotFoundError, match="not a run id"):
            store.get(text)


def test_searching_reads_page_by_page(filled: Filled) -> None:
    for _ in range(4):
        filled.run("more")
    store = RunStore(filled.uri)
    found = list(store.search("", [filled.experiment_id], page=2))
    assert len({run.run_id for run in found}) == 5
    starts = [run.start_time for run in found]
    assert starts == sorted(starts, reverse=True)
    (whole,) = store.search("params.epochs = '3'", [filled.experiment_id])
    assert whole == store.get(filled.run_id)
    assert set(store.experiments()) == {"0", filled.experiment_id}
    with pytest.raises(StoreError, match="the filter 'nonsense = '"):
        list(store.search("nonsense = ", [filled.experiment_id]))


def test_similar_runs_are_suggested(filled: Filled) -> None:
    store = RunStore(filled.uri)
    accurate = filled.run("Accurate-1")
    client = filled.client
    elsewhere = client.create_run(client.create_experiment("sweeps"), run_name="far")
    for typed in ("acurate-1", "ACCURATE", "accurate 1"):
        with pytest.raises(RunNotFoundError, match=rf"did you mean 'Accurate-1' \({accurate}\)"):
            store.find(typed, experiment=filled.experiment)
    with pytest.raises(RunNotFoundError, match=f"did you mean {accurate}"):
        store.find(accurate[:-2] + "zz")
    with pytest.raises(RunNotFoundError, match=r"'entirely else'$"):
        store.find("entirely else", experiment=filled.experiment)
    there = f"of that name is {elsewhere.info.run_id} in experiment 'sweeps'"
    for experiment in (None, filled.experiment):
        with pytest.raises(RunNotFoundError, match=there):
            store.find("far", experiment=experiment)
    with pytest.raises(StoreError, match=r"did you mean 'sweeps'\?"):
        store.experiment_id("sweep")
    with pytest.raises(RunNotFoundError, match=there):
        load_config("far", tracking_uri=filled.uri)
    with pytest.raises(RunNotFoundError, match=f"did you mean {accurate}"):
        load_config(accurate[:12], tracking_uri=filled.uri)


PROVISIONAL = "0123456789abcdef" * 2


def test_a_provisional_id_means_the_run_that_was_created_under_it(filled: Filled) -> None:
    elsewhere = filled.client.create_experiment("elsewhere")
    empty = filled.client.create_run(elsewhere, tags={names.UID: PROVISIONAL}).info.run_id
    twin = filled.client.create_run(filled.experiment_id, tags={names.UID: PROVISIONAL})
    run_id = str(twin.info.run_id)
    filled.client.set_tag(run_id, names.DELIVERED, f"{PROVISIONAL}:1")
    store = RunStore(filled.uri)
    assert store.get(PROVISIONAL).run_id == run_id
    assert store.find(PROVISIONAL).run_id == run_id
    assert store.get(empty).run_id == empty
    code, out = done("diff", PROVISIONAL, filled.run_id, "--tracking-uri", filled.uri)
    assert (code, run_id[:8] in out) == (0, True), out
    # No trainer of ours wrote its params, nor will one: they are read as those of any MLflow run.
    filled.client.log_param(run_id, "epochs", 5)
    assert load_config(PROVISIONAL, tracking_uri=filled.uri).epochs == 5


@pytest.mark.parametrize("unknown", ["f" * 32, "F" * 32, "f" * 31 + "'"])
def test_an_id_under_which_no_run_was_created_is_told(filled: Filled, unknown: str) -> None:
    with pytest.raises(RunNotFoundError):
        RunStore(filled.uri).get(unknown)


def test_near_names() -> None:
    known = {name: name.upper() for name in ("accuracy", "loss", "loss/kl", "")}
    assert did_you_mean("acuracy", known) == "; did you mean ACCURACY?"
    assert did_you_mean("LOSS", known) == "; did you mean LOSS or LOSS/KL?"
    assert did_you_mean("zebra", known) == did_you_mean("", {}) == did_you_mean("a", {}) == ""
    many = {f"run-{number}": f"{number}" for number in range(10)}
    assert did_you_mean("run", many).count(" or ") == 2


def test_an_html_page_is_not_an_answer_of_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single sign-on in front of the server answers 200 and a page of its own."""
    page = f"<!DOCTYPE html><html><head><title>Sign in</title></head>{'x' * 24_000}</html>"

    class SignIn(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page.encode())

        do_POST = do_GET  # noqa: N815  as the server wants it

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ThreadingHTTPServer(("127.0.0.1", 0), SignIn) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        store = RunStore(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(StoreError, match=r"not an answer of MLflow's own \(Sign in\)") as told:
            store.get("0" * 32)
        server.shutdown()
    assert len(str(told.value)) < 200


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(StoreError, match="no store at"):
        RunStore(f"sqlite:///{path}")
    assert not path.exists()
    text = tmp_path / "text.db"
    text.write_text("this is no database" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        RunStore(f"sqlite:///{text}")


def test_a_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = RunStore(f"http://ada:hunter2@127.0.0.1:{free_port()}")
    requests: list[Any] = [
        lambda: store.get("0" * 32),
        lambda: store.find("x"),
        lambda: list(store.search("", ["0"])),
        lambda: store.history("0" * 32, "loss"),
        store.experiments,
        lambda: store.experiment_id("x"),
        lambda: store.set_tags("0" * 32, {"a": "b"}),
    ]
    for request in requests:
        with pytest.raises(StoreError) as caught:
            request()
        assert not isinstance(caught.value, RunNotFoundError)
        assert "hunter2" not in str(caught.value)
