"""Rollouts in a store: the table of each report, and a sample of it as traces."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Trace
from mlflow.store.tracking.rest_store import RestStore

from journals import HEAD, done, journal_of, run_lane
from memory_sink import MemorySink, Trouble
from orbiter.train import Rollout, TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.ack import read_ack, read_lane_ack
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.mlflow_client.traces import send
from orbiter_mlflow.delivery.records import Close, Metrics, Record, Rollouts, Status, Tags
from orbiter_mlflow.delivery.resumption.rewriting import Resumption
from orbiter_mlflow.delivery.rollout_traces import traces_of
from orbiter_mlflow.delivery.side_lane import SideLane, nothing_waits, side_lanes
from orbiter_mlflow.errors import HeldError, RejectedError, TransientError, UnsupportedError
from orbiter_mlflow.text import artifact_paths
from proxy import Proxy
from scripts import started
from servers import LateStore
from trainers import Backend, Tracked, only_journal, run_of, stored, tracked
from waiting import eventually

EPISODE = Rollout(
    messages=[{"role": "system", "content": "Count."}, {"role": "user", "content": "2 + 2?"}],
    completion=[
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "function": {"name": "sum", "arguments": {"of": [2, 2]}}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "4"},
        {"role": "assistant", "content": "It is 4."},
    ],
    rewards={"right": 1.0},
)


def rollouts(count: int, step: int = 0) -> list[Rollout]:
    return [
        Rollout(
            f"{n} + {step}?",
            f"{n + step}",
            rewards={"right": float(n % 2), "short": n / 10, "format": 1.0, "total": n / 5},
            tokens=n,
            extra={"answer": n + step},
        )
        for n in range(count)
    ]


# -- a store in memory -----------------------------------------------------------------------------


def kept(journal: Path, step: int = 3, number: int = 1, phase: str = "train") -> Rollouts:
    """A record, and its table beside a journal."""
    table = {
        "columns": ["rollout", "prompt", "completion", "reward/right", "tokens"],
        "data": [[n + 1, f"{n}?", f"{n}!", n / 2, 7] for n in range(3)],
    }
    name = artifact_paths.step_file(step, number)
    folder = artifact_paths.rollouts_folder(phase)
    file = kept_files.keep_content(journal, json.dumps(table).encode(), name, folder)
    where = (file.file, name, folder, file.size, file.sha256)
    return Rollouts(*where, phase, step, number, 1_700_000_000_000, [0, 2])


class Scene:
    """The journal of a run with rollouts at steps 3 and 4, and a store in memory."""

    def __init__(self, folder: Path, **head: Any) -> None:
        self.journal = journal_of(folder / "run.jsonl", [])
        records: list[Record] = [
            Tags({names.TRAINER: "mine:Trainer"}),
            Metrics(1, 1000, {"train/loss": 0.5}),
            kept(self.journal, 3),
            kept(self.journal, 4),
            Status("FINISHED", 5000),
            Close(),
        ]
        self.journal.unlink()
        journal_of(self.journal, records, replace(HEAD, **head))
        self.sink = MemorySink()
        self.now = 0.0

    def drain(self) -> None:
        assert Drain(self.journal, lambda _: self.sink).run()

    def lane(self) -> SideLane:
        clock: Callable[[], float] = lambda: self.now  # noqa: E731
        lanes = side_lanes(self.journal, lambda _: self.sink, clock=clock, now=clock)
        return next(lane for lane in lanes if lane.name == "rollouts")

    def files(self) -> list[Path]:
        return [*self.journal.with_suffix(".files").iterdir()]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_table_and_its_traces_are_delivered_and_the_file_removed(scene: Scene) -> None:
    scene.drain()
    assert not nothing_waits(scene.journal)
    assert run_lane(scene.lane())
    (run,) = scene.sink.runs.values()
    assert [*run.artifacts] == ["rollouts/train/step-3.json", "rollouts/train/step-4.json"]
    assert [(one.tags["mlflow.traceName"], one.request, one.rewards) for one in run.traces.values()]
    assert [one.request for one in run.traces.values()] == ["0?", "2?"] * 2
    assert scene.files() == []
    assert nothing_waits(scene.journal)


def test_metrics_do_not_wait_for_rollouts(scene: Scene) -> None:
    scene.sink.troubles.append(Trouble(HeldError("no"), "log_traces"))
    scene.drain()
    assert not run_lane(scene.lane())
    (run,) = scene.sink.runs.values()
    assert run.status.status == "FINISHED"
    assert run.tags[names.ROLLOUTS_MISSING] == (
        "not delivered yet: rollouts/train/step-3.json, rollouts/train/step-4.json"
    )
    assert run_lane(scene.lane())
    assert names.ROLLOUTS_MISSING not in run.tags


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("method", ["log_artifact", "log_traces"])
def test_what_is_sent_twice_is_there_once(method: str, committed: bool, scene: Scene) -> None:
    scene.drain()
    error = TransientError("lost")
    scene.sink.troubles.append(Trouble(error, method, committed=committed))
    assert not run_lane(scene.lane())
    assert run_lane(scene.lane())
    (run,) = scene.sink.runs.values()
    assert len(run.traces) == 4
    assert len(run.artifacts) == 2
    assert scene.sink.calls.count("log_traces") == (3 if method == "log_traces" else 2)


def test_a_server_without_traces_gets_the_tables(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.drain()
    scene.sink.troubles += [Trouble(UnsupportedError("no traces"), "log_traces") for _ in "34"]
    assert run_lane(scene.lane())
    (run,) = scene.sink.runs.values()
    assert len(run.artifacts) == 2
    assert run.tags[names.ROLLOUTS_MISSING] == (
        "traces of 2 skipped: the server has no endpoint for them"
    )
    assert caplog.text.count("are skipped") == 1
    assert scene.files() == []


@pytest.mark.parametrize(
    ("status", "version", "error"),
    [
        (200, "3.3.2", UnsupportedError),
        (200, "2.9.0", UnsupportedError),
        (404, "", UnsupportedError),
        (503, "", TransientError),
    ],
)
def test_a_server_that_may_take_no_spans_gets_nothing_of_a_trace(
    status: int, version: str, error: type[Exception], tmp_path: Path
) -> None:
    asked: list[str] = []

    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(version.encode())

        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None: ...

    journal = journal_of(tmp_path / "a.jsonl", [])
    record = kept(journal)
    found = traces_of(record, kept_files.verified(journal, record.table).read_bytes(), "key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        client = MlflowClient(f"http://127.0.0.1:{server.server_address[1]}")
        try:
            with pytest.raises(error, match="no traces" if status != 503 else "tell its version"):
                send(client._tracking_client.store, "0", "run", found)
        finally:
            # MLflow remembers the version by the port, which another server may get.
            RestStore._get_server_version.cache_clear()
            server.shutdown()
    assert set(asked) == {"/version"}


@pytest.mark.server
def test_spans_that_are_too_large_together_for_a_proxy_are_sent_one_by_one(
    server_uri: str, tmp_path: Path
) -> None:
    client = MlflowClient(server_uri)
    experiment_id = client.create_experiment("small bodies")
    run_id = client.create_run(experiment_id).info.run_id
    journal = journal_of(tmp_path / "a.jsonl", [])
    record = kept(journal)
    found = traces_of(record, kept_files.verified(journal, record.table).read_bytes(), "key")
    with Proxy(server_uri) as proxy:
        refused = proxy.add("answer", path="v1/traces", times=1, status=413)
        behind = MlflowClient(proxy.uri)
        send(behind._tracking_client.store, experiment_id, run_id, found)
        assert refused.hits == 1
        assert sum("v1/traces" in path for path in proxy.requests) == 1 + len(found)
    traces = client.search_traces(locations=[experiment_id], run_id=run_id)
    assert [len(one.data.spans) > 0 for one in traces] == [True] * len(found)


def test_traces_that_are_refused_for_good_are_set_aside(scene: Scene) -> None:
    scene.drain()
    lane = scene.lane()
    for _ in range(20):
        scene.sink.troubles = [Trouble(RejectedError("bad", definite=True), "log_traces")] * 2
        run_lane(lane)
        if lane.ack.refused == 2:
            break
        scene.now += 3600
    assert lane.ack.refused == 2
    assert len([*scene.journal.with_suffix(".refused").iterdir()]) == 2


def test_a_table_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    record = kept(journal_of(tmp_path / "run.jsonl", []))
    for content in (
        b"{",
        b"[" * 100_000,
        b"[]",
        b'{"columns": ["a"], "data": [[1]]}',
        b'{"columns":[],"data":[]}',
    ):
        with pytest.raises(RejectedError, match="cannot be read"):
            traces_of(record, content, "key")


def tool_results(tmp_path: Path, completion: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """Arguments and result of each tool span of an episode."""
    record = replace(kept(tmp_path / "run.jsonl"), traces=[0])
    messages = json.dumps({"prompt": "?", "completion": completion})
    table = {
        "columns": ["rollout", "prompt", "completion", "messages"],
        "data": [[1, "?", "!", messages]],
    }
    (trace,) = traces_of(record, json.dumps(table).encode(), "key")
    return [(one.inputs, one.outputs) for one in trace.spans if one.kind == "TOOL"]


def turn(*calls: tuple[str | None, int]) -> dict[str, Any]:
    called = [
        {"type": "function", "function": {"name": "f", "arguments": given}}
        | ({} if id_ is None else {"id": id_})
        for id_, given in calls
    ]
    return {"role": "assistant", "content": "", "tool_calls": called}


def answer(id_: str | None, content: str) -> dict[str, Any]:
    named = {"name": "f"} if id_ is None else {"tool_call_id": id_}
    return {"role": "tool", "content": content} | named


def test_an_id_that_each_turn_uses_again_gives_each_call_its_own_result(tmp_path: Path) -> None:
    episode = [turn(("1", 10)), answer("1", "ten"), turn(("1", 20)), answer("1", "twenty"), turn()]
    assert tool_results(tmp_path, episode) == [(10, "ten"), (20, "twenty")]


def test_results_without_ids_follow_the_calls_in_their_order(tmp_path: Path) -> None:
    episode = [
        turn((None, 10), (None, 20)),
        answer(None, "ten"),
        answer(None, "twenty"),
        turn((None, 30)),
        turn((None, 40)),
        answer(None, "forty"),
    ]
    expected = [(10, "ten"), (20, "twenty"), (30, None), (40, "forty")]
    assert tool_results(tmp_path, episode) == expected


def test_ids_say_which_result_a_call_has_and_repeated_ones_do_not(tmp_path: Path) -> None:
    swapped = [turn(("a", 10), ("b", 20)), answer("b", "twenty"), answer("a", "ten")]
    assert tool_results(tmp_path, swapped) == [(10, "ten"), (20, "twenty")]
    repeated = [turn(("a", 10), ("a", 20)), answer("a", "ten"), answer("a", "twenty")]
    assert tool_results(tmp_path, repeated) == [(10, "ten"), (20, "twenty")]
    lost = [turn(("a", 10), ("b", 20)), answer("b", "twenty"), answer("c", "of nobody")]
    assert tool_results(tmp_path, lost) == [(10, None), (20, "twenty")]
    without = [turn(("a", 10), ("b", 20)), answer(None, "ten"), answer(None, "twenty")]
    assert tool_results(tmp_path, without) == [(10, "ten"), (20, "twenty")]


def test_the_steps_of_a_resumed_run_go_on(tmp_path: Path) -> None:
    sink = MemorySink()
    first = Scene(tmp_path)
    first.sink = sink
    first.drain()
    journal = journal_of(tmp_path / "second.jsonl", [])
    before, after = kept(journal, 0), kept(journal, 1)
    journal.unlink()
    shown = json.dumps([{"path": "rollouts/train/step-1.json", "type": "table"}])
    records: list[Record] = [
        before,
        after,
        Tags({names.LOGGED_TABLES: shown}),
        Status("FINISHED", 9000),
        Close(),
    ]
    journal_of(journal, records, replace(HEAD, uid="2" * 32, run_id="run0"))
    second = Scene.__new__(Scene)
    second.journal, second.sink, second.now = journal, sink, 0.0
    lane = second.lane()
    run_lane(lane)  # the run is not resumed yet
    assert sink.calls.count("log_traces") == 0
    second.drain()
    assert run_lane(second.lane())
    run = sink.runs["run0"]
    assert [*run.artifacts] == [
        "rollouts/train/step-2.life-2.json",
        "rollouts/train/step-3.life-2.json",
    ]
    assert {one.tags[names.STEP] for one in run.traces.values()} == {"2", "3"}
    assert json.loads(run.tags[names.LOGGED_TABLES])[0]["path"] == [*run.artifacts][1]


def test_evaluations_of_a_resumed_run_before_its_training_keep_tables_of_their_own(
    tmp_path: Path,
) -> None:
    resumed = Resumption(number=2, after_step=100)
    table = json.dumps([{"path": "rollouts/eval/step-5.json", "type": "table"}])
    sent = [
        resumed.rewrite(kept(tmp_path / "run.jsonl", step, number, "eval"))
        for step, number in ((0, 1), (5, 1), (5, 2), (100, 1))
    ]
    assert [(one.step, one.name) for one in sent if isinstance(one, Rollouts)] == [
        (100, "step-100.from-0.life-2.json"),
        (100, "step-100.from-5.life-2.json"),
        (100, "step-100.2.from-5.life-2.json"),
        (100, "step-100.life-2.json"),
    ]
    tags = resumed.rewrite(Tags({names.LOGGED_TABLES: table}))
    assert isinstance(tags, Tags)
    assert "rollouts/eval/step-100.from-5.life-2.json" in tags.values[names.LOGGED_TABLES]
    assert artifact_paths.step_file_parts("step-100.2.from-5.life-2.json") == (100, 2, 2)


def test_an_old_journal_without_rollouts_is_read(tmp_path: Path) -> None:
    for version in (1, 2):
        folder = tmp_path / str(version)
        folder.mkdir()
        journal = folder / "run.jsonl"
        journal_of(journal, [Status("FINISHED", 1), Close()], replace(HEAD, format=version))
        sink = MemorySink()
        assert Drain(journal, lambda _, sink=sink: sink).run()  # type: ignore[misc]
        assert all(run_lane(lane) for lane in side_lanes(journal, lambda _, sink=sink: sink))  # type: ignore[misc]


# -- real stores -----------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    """A store of each kind."""
    found: str = request.getfixturevalue(f"{request.param}_uri")
    return found


async def delivered(uri: str, reports: Sequence[tuple[Sequence[Rollout], int]]) -> Tracked:
    """A trainer that has reported rollouts, all of which are in the store."""

    async def body(trainer: Backend) -> TrainMetrics:
        for reported, step in reports:
            trainer.report({"loss": 0.5}, step=step)
            trainer.report_rollouts(reported, step=step)
        return TrainMetrics()

    trainer = tracked(uri, body=body, experiment="rollouts", skip_provenance=["git", "packages"])
    trainer.mark_validated()
    await trainer.train()
    stored(uri, trainer)
    return trainer


def traces(uri: str, run_id: str | None) -> list[Trace]:
    client = MlflowClient(uri)
    run = run_of(uri, run_id)
    found = client.search_traces(
        locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=500
    )
    return sorted(found, key=lambda one: (one.info.tags[names.STEP], one.info.request_preview))


async def test_people_find_rollouts_as_traces_and_tables(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = await delivered(uri, [(rollouts(12), 1), ([EPISODE], 300)])
    found = traces(uri, trainer.run_id)
    assert len(found) == 9
    plain, episode = found[0], found[-1]
    assert plain.info.tags["mlflow.traceName"] == "train/000001"
    assert plain.info.trace_metadata["mlflow.sourceRun"] == trainer.run_id
    assert (plain.info.request_preview, plain.info.response_preview) == ("0 + 0?", "0")
    assert {one.name: one.feedback.value for one in plain.info.assessments} == {
        "right": 0.0,
        "short": 0.0,
        "format": 1.0,
        "total": 0.0,
    }
    (span,) = plain.data.spans
    assert span.span_type == "CHAT_MODEL"
    assert span.inputs == {"messages": [{"role": "user", "content": "0 + 0?"}]}
    assert plain.info.tags["orbiter.tokens"] == "0"
    assert "orbiter.tokens" not in episode.info.tags
    assert plain.info.token_usage is None  # nobody counted the tokens of the prompt
    assert [(one.name, one.span_type) for one in episode.data.spans] == [
        ("rollout", "AGENT"),
        ("turn 1", "CHAT_MODEL"),
        ("sum", "TOOL"),
        ("turn 2", "CHAT_MODEL"),
    ]
    tool = episode.data.spans[2]
    assert (tool.inputs, tool.outputs) == ({"of": [2, 2]}, "4")
    first = episode.data.spans[0].outputs["messages"][0]  # in the form that the UI shows as a chat
    function = {"name": "sum", "arguments": '{"of": [2, 2]}'}
    assert first["tool_calls"] == [{"id": "c", "type": "function", "function": function}]
    assert first["content"] == ""
    assert episode.info.tags[names.PHASE] == "train"
    by_name = MlflowClient(uri).search_traces(
        locations=[run_of(uri, trainer.run_id).info.experiment_id],
        filter_string="attributes.name = 'train/000300'",
        run_id=trainer.run_id,
    )
    assert len(by_name) == 1

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_experiment("rollouts")
    table = mlflow.load_table("rollouts/train/step-1.json", run_ids=[str(trainer.run_id)])
    assert len(table) == 12
    assert list(table["reward/right"]) == [0.0, 1.0] * 6


async def test_sending_again_changes_nothing(uri: str, tmp_path: Path) -> None:
    from orbiter_mlflow.delivery.mlflow_sink import MLflowSink

    trainer = await delivered(uri, [([EPISODE], 1)])
    run_id = str(trainer.run_id)
    record = kept(journal_of(tmp_path / "run.jsonl", []))
    table = kept_files.verified(tmp_path / "run.jsonl", record.table).read_bytes()
    sink = MLflowSink(uri)
    sink.log_traces(run_id, traces_of(record, table, "key"))
    before = [one.to_dict() for one in traces(uri, run_id)]
    assert len(before) == 3
    MLflowSink(uri).log_traces(run_id, traces_of(record, table, "key"))
    assert [one.to_dict() for one in traces(uri, run_id)] == before


async def test_a_trace_that_a_person_deletes_stays_away(sqlite_uri: str) -> None:
    trainer = await delivered(sqlite_uri, [(rollouts(2), 1)])
    first, second = traces(sqlite_uri, trainer.run_id)
    experiment = run_of(sqlite_uri, trainer.run_id).info.experiment_id
    MlflowClient(sqlite_uri).delete_traces(experiment, trace_ids=[first.info.trace_id])
    trainer.report_rollouts(rollouts(1, step=9), step=9)
    stored(sqlite_uri, trainer)
    names_left = [one.info.request_preview for one in traces(sqlite_uri, trainer.run_id)]
    assert names_left == [second.info.request_preview, "0 + 9?"]


async def test_rollouts_of_an_outage_arrive_after_it(late_store: LateStore) -> None:
    trainer = tracked(late_store.uri, flush_timeout=0, skip_provenance=["git", "packages"])
    trainer.mark_validated()
    trainer.report_rollouts(rollouts(3), step=1)
    assert not trainer.delivered
    late_store.appear()
    stored(late_store.uri, trainer)
    assert len(traces(late_store.uri, trainer.run_id)) == 3


def test_a_delivery_that_is_killed_in_the_middle_leaves_each_rollout_once(
    sqlite_uri: str,
) -> None:
    trainer = tracked(sqlite_uri, skip_provenance=["git", "packages"])
    trainer.mark_validated()
    for step in range(6):
        trainer.report_rollouts(rollouts(16, step), step=step)
    journal = only_journal()
    eventually(lambda: read_lane_ack(journal, "rollouts").offset > 0)
    os.kill(int(read_ack(journal).drainer.split()[1]), signal.SIGKILL)
    run_id = stored(sqlite_uri, trainer).info.run_id
    found = traces(sqlite_uri, run_id)
    by_step = Counter(one.info.tags[names.STEP] for one in found)
    assert by_step == {str(step): 8 for step in range(6)}
    assert all(len(one.info.assessments) == 4 for one in found)
    assert len(MlflowClient(sqlite_uri).list_artifacts(run_id, "rollouts/train")) == 6


def test_rollouts_of_a_killed_training_are_delivered_by_sync(
    sqlite_uri: str, tmp_path: Path
) -> None:
    folder = tmp_path / "training"
    folder.mkdir()
    script = f"""
    trainer = validated(tracking_uri={sqlite_uri!r}, delivery="offline")
    trainer.report_rollouts([{{"prompt": str(n), "rewards": {{"r": n}}}} for n in range(4)], step=7)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    process = started(script, folder)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    code, output = done("sync", "--tracking-uri", sqlite_uri)
    assert code == 0, output
    (run,) = MlflowClient(sqlite_uri).search_runs(["0"])
    assert run.info.status == "KILLED"
    assert len(traces(sqlite_uri, run.info.run_id)) == 4
    (table,) = MlflowClient(sqlite_uri).list_artifacts(run.info.run_id, "rollouts/train")
    assert table.path == "rollouts/train/step-7.json"
