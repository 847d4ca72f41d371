"""A key means the same in every run: bad models that the gate let pass while it did not.

Real trainings in a real store, judged by the command.
"""

import gc
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gate_runs import Shelf
from orbiter.train import TrainerError, TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.gate import baseline_file, run_selection
from orbiter_mlflow.gate.judge import judge
from orbiter_mlflow.gate.model import ALL_OTHERS, BaselineSource, GateRun, MetricResult, Verdict
from orbiter_mlflow.gate.policy import Policy
from orbiter_mlflow.runs.store import RunStore
from trainers import Backend, Tracked, journals, stored, tracked
from waiting import eventually

VALIDATION, TEST, OTHER = [1, 2, 3], [4, 5], [6]

Training = Callable[["Scored", float], Awaitable[Any]]


class Scored(Tracked):
    """Its accuracy is what is put in `accuracy`."""

    accuracy: float | None = None

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        if self.accuracy is None:
            return TrainMetrics(loss=1.0)
        return TrainMetrics(accuracy=self.accuracy)


async def run_of(uri: str, name: str, train: Training, score: float) -> None:
    """One tracked run of a training that is as good as `score` says."""

    async def body(trainer: Backend) -> TrainMetrics:
        assert isinstance(trainer, Scored)
        result = await train(trainer, score)
        return result if isinstance(result, TrainMetrics) else TrainMetrics()

    trainer = tracked(uri, body=body, kind=Scored, run_name=name)
    assert isinstance(trainer, Scored)
    trainer.check_dataset([0], VALIDATION)
    trainer.mark_validated()
    await trainer.train()


def delivered() -> None:
    """All that trainers have left is in their store."""
    gc.collect()
    eventually(lambda: not journals())


def verdict(
    uri: str,
    folder: Path,
    key: str,
    direction: str = "higher",
    more: str = "",
    comparable: str = "",
) -> tuple[int, str]:
    """The gate's result for the run `new` against `old 0` to `old 2`."""
    policy = folder / "gate.toml"
    policy.write_text(
        "[gate]\nschema = 1\ncandidate_runs = 1\n"
        "[baseline]\nfilter = \"attributes.run_name LIKE 'old %'\"\npool = 3\n"
        f"[comparable]\n{comparable}\n"
        f'[metrics."{key}"]\ndirection = "{direction}"\nmax_drop = 0.01\ntest = "none"\n{more}'
    )
    runner = CliRunner(env={"MLFLOW_TRACKING_URI": uri, "COLUMNS": "400"})
    done = runner.invoke(commands, ["check", str(policy), "--candidate", "new"])
    assert isinstance(done.exception, SystemExit | None), done.exc_info
    return done.exit_code, done.output


async def made(
    uri: str,
    old: Training,
    new: Training,
    scores: tuple[float, float],
) -> None:
    for number in range(3):
        await run_of(uri, f"old {number}", old, scores[0])
    await run_of(uri, "new", new, scores[1])
    delivered()


# -- trainings -------------------------------------------------------------------------------------


async def test_a_test_score_is_not_taken_for_one_of_validation(
    sqlite_uri: str, tmp_path: Path
) -> None:
    async def old(trainer: Scored, score: float) -> None:
        for epoch in range(3):
            trainer.at_step(epoch)
            trainer.accuracy = score
            await trainer.evaluate()

    async def stopped_early(trainer: Scored, score: float) -> None:
        trainer.accuracy = score
        await trainer.evaluate(TEST)

    await made(sqlite_uri, old, stopped_early, (0.5, 0.9))
    code, said = verdict(
        sqlite_uri, tmp_path, "eval/accuracy", comparable="allow_differ = ['datasets.eval']"
    )
    assert (code, "1 of 1 candidate runs have no value of it" in said) == (1, True), said


async def test_an_evaluation_is_logged_at_the_step_of_its_call(
    sqlite_uri: str, tmp_path: Path
) -> None:
    async def curve(trainer: Scored, score: float) -> None:
        for epoch in range(4):
            trainer.at_step(epoch)
            trainer.accuracy = score if epoch == 2 else 0.9
            result = await trainer.evaluate()
            trainer.report({"accuracy": result.accuracy}, step=epoch)

    await made(sqlite_uri, curve, curve, (0.9, 0.1))
    code, said = verdict(sqlite_uri, tmp_path, "eval/accuracy", more='at = "step=2"')
    assert (code, "worse by 0.8" in said) == (1, True), said


async def test_evaluations_in_a_callback_count(sqlite_uri: str, tmp_path: Path) -> None:
    async def with_callback(trainer: Scored, score: float) -> None:
        trainer.accuracy = 0.1  # before training, all are alike
        await trainer.evaluate()
        trainer.report({"eval_accuracy": score, "epoch": 1.0}, step=10, phase="eval")

    await made(sqlite_uri, with_callback, with_callback, (0.9, 0.2))
    code, said = verdict(sqlite_uri, tmp_path, "eval/accuracy")
    assert (code, "worse by 0.7" in said) == (1, True), said


async def test_a_callback_alone_has_the_plain_key(sqlite_uri: str, tmp_path: Path) -> None:
    async def with_callback(trainer: Scored, score: float) -> None:
        trainer.report({"eval_accuracy": score}, step=10, phase="eval")

    await made(sqlite_uri, with_callback, with_callback, (0.9, 0.2))
    code, said = verdict(sqlite_uri, tmp_path, "eval/accuracy")
    assert (code, "worse by 0.7" in said) == (1, True), said


async def test_the_mean_over_a_training_does_not_hide_its_end(
    sqlite_uri: str, tmp_path: Path
) -> None:
    async def training(trainer: Scored, last: float) -> TrainMetrics:
        losses = [4.0, 3.0, last] if last < 1 else [0.5, 0.5, last]
        for step, loss in enumerate(losses):
            trainer.report({"loss": loss}, step=step)
        return TrainMetrics(loss=sum(losses) / 3)  # 2.4 where it was good, 1.3 where it diverged

    await made(sqlite_uri, training, training, (0.2, 3.0))
    code, said = verdict(sqlite_uri, tmp_path, "train/loss", "lower")
    assert (code, "worse by 2.8" in said) == (1, True), said
    code, _ = verdict(sqlite_uri, tmp_path, "train/final/loss", "lower")
    assert code == 0


async def test_a_metric_that_was_never_measured_does_not_pass(
    sqlite_uri: str, tmp_path: Path
) -> None:
    async def training(trainer: Scored, _: float) -> None:
        await trainer.evaluate()

    await made(sqlite_uri, training, training, (0.0, 0.0))
    code, said = verdict(sqlite_uri, tmp_path, "eval/accuracy")
    assert (code, "no run has this metric" in said) == (2, True), said


async def test_a_prefix_of_other_data_is_not_compared_unless_the_policy_says_so(
    sqlite_uri: str, tmp_path: Path
) -> None:
    async def old(trainer: Scored, score: float) -> None:
        trainer.accuracy = score
        await trainer.evaluate(TEST)  # the first others: eval/2
        await trainer.evaluate(OTHER)

    async def in_another_order(trainer: Scored, score: float) -> None:
        trainer.accuracy = score
        await trainer.evaluate(OTHER)
        await trainer.evaluate(TEST)

    await made(sqlite_uri, old, in_another_order, (0.5, 0.9))
    code, said = verdict(sqlite_uri, tmp_path, "eval/2/accuracy")
    assert code == 3, said
    assert "eval/2/ was measured on different data" in said
    assert "add data.eval/2 to comparable.allow_differ" in said
    allowed = 'allow_differ = ["data.eval/*"]'
    assert verdict(sqlite_uri, tmp_path, "eval/2/accuracy", comparable=allowed)[0] == 0


async def test_a_continued_run_with_data_in_another_order_is_not_compared(
    sqlite_uri: str, tmp_path: Path
) -> None:
    async def old(trainer: Scored, score: float) -> None:
        trainer.accuracy = score
        await trainer.evaluate(TEST)

    await made(sqlite_uri, old, old, (0.5, 0.5))
    run_id = RunStore(sqlite_uri).find("new", experiment="Default").run_id
    second = tracked(sqlite_uri, kind=Scored, run_id=run_id)
    assert isinstance(second, Scored)
    second.accuracy = 0.9
    await second.evaluate(OTHER)
    second.mark_validated()
    await second.train()
    del second
    delivered()
    code, said = verdict(
        sqlite_uri, tmp_path, "eval/2/accuracy", comparable="allow_differ = ['datasets.eval']"
    )
    assert (code, "eval/2/ was measured on different data" in said) == (3, True), said


async def test_a_failed_evaluation_leaves_no_score(sqlite_uri: str) -> None:
    class Failing(Scored):
        async def evaluate(self, test_data: Any = None) -> TrainMetrics:
            raise ValueError("no")

    trainer = tracked(sqlite_uri, kind=Failing)
    with pytest.raises(TrainerError):
        await trainer.evaluate(TEST)
    assert stored(sqlite_uri, trainer).data.metrics == {}


# -- the rule --------------------------------------------------------------------------------------


def gate_run(
    run_id: str, key: str, data: Mapping[str, str], datasets: Mapping[str, str] | None = None
) -> GateRun:
    return GateRun(run_id, run_id, "FINISHED", {}, datasets or {}, {key: 0.5}, data=data)


def result(
    candidate: GateRun,
    *baseline: GateRun,
    key: str = "eval/m",
    comparable: Any = None,
    **limits: Any,
) -> MetricResult:
    limits = limits or {"max_drop": 0.1}
    content = {
        "gate": {"schema": 1},
        "baseline": {"run": "r"},
        "comparable": {"require_equal": [], **(comparable or {})},
        "metrics": {key: {"direction": "higher", **limits}},
    }
    policy = Policy.model_validate(content)
    (found,) = judge(policy, [candidate], baseline, source=BaselineSource("made up")).metrics
    return found


A, B, RENAMED = {"eval": "test:aa"}, {"eval": "test:bb"}, {"eval": "other name:aa"}


@pytest.mark.parametrize(
    ("candidate", "baseline", "expected"),
    [
        (A, A, Verdict.PASS),
        (A, RENAMED, Verdict.PASS),
        (A, B, Verdict.CANNOT_COMPARE),
        (A, {}, Verdict.CANNOT_COMPARE),
        ({}, A, Verdict.CANNOT_COMPARE),
        ({}, {}, Verdict.PASS),
        (A, {"eval": "test:aa,test:bb"}, Verdict.CANNOT_COMPARE),
        (A, A | {"eval/m": "nothing of it"}, Verdict.PASS),
        ({ALL_OTHERS: ""}, A, Verdict.CANNOT_COMPARE),
        (A | {ALL_OTHERS: ""}, A | {ALL_OTHERS: ""}, Verdict.PASS),
    ],
)
def test_the_digests_of_a_prefix_must_be_equal(
    candidate: dict[str, str], baseline: dict[str, str], expected: Verdict
) -> None:
    found = result(gate_run("c", "eval/m", candidate), gate_run("b", "eval/m", baseline))
    assert found.verdict is expected, found.reason


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [
        ({"eval": "test_data:aa"}, Verdict.PASS),
        ({"eval": "test_data:bb"}, Verdict.CANNOT_COMPARE),
        ({"eval": "test_data:aa,test_data:bb"}, Verdict.CANNOT_COMPARE),
        ({"train": "train_data:aa"}, Verdict.CANNOT_COMPARE),
    ],
)
def test_an_older_run_with_one_evaluation_dataset_was_evaluated_on_that(
    datasets: dict[str, str], expected: Verdict
) -> None:
    older = gate_run("b", "eval/m", {}, datasets)
    for pair in ((gate_run("c", "eval/m", A), older), (older, gate_run("c", "eval/m", A))):
        assert result(*pair).verdict is expected


def test_the_longest_prefix_of_a_key_counts() -> None:
    key = "eval/hard/m"
    same, other = A | {"eval/hard": "h:cc"}, B | {"eval/hard": "h:cc"}
    assert result(gate_run("c", key, same), gate_run("b", key, other), key=key).verdict == "pass"
    moved = A | {"eval/hard": "h:dd"}
    found = result(gate_run("c", key, moved), gate_run("b", key, same), key=key)
    assert found.verdict is Verdict.CANNOT_COMPARE
    assert "eval/hard/" in found.reason
    cut = gate_run("b", key, A | {ALL_OTHERS: ""})
    assert result(gate_run("c", key, A | {ALL_OTHERS: ""}), cut, key=key).verdict == (
        Verdict.CANNOT_COMPARE
    )


def test_other_data_keep_bounds_and_other_metrics_judged() -> None:
    sides = gate_run("c", "eval/m", A), gate_run("b", "eval/m", B)
    assert result(*sides, min=0.4).verdict is Verdict.PASS
    assert result(*sides, min=0.6, max_drop=0.1).verdict is Verdict.FAIL
    allowed = {"allow_differ": ["data.eval"]}
    assert result(*sides, comparable=allowed).verdict is Verdict.PASS
    trained = gate_run("c", "train/m", A), gate_run("b", "train/m", B)
    assert result(*trained, key="train/m").verdict is Verdict.PASS


# -- where it stands -------------------------------------------------------------------------------


def told(name: str, digest: str) -> dict[str, str]:
    return {"name": name, "digest": digest}


@pytest.mark.parametrize(
    ("tags", "data"),
    [
        ({}, {}),
        ({"": {"eval": told("t", "aa")}}, {"eval": "t:aa"}),
        (
            {
                "": {"eval": told("t", "aa"), "eval/2": told("u", "bb")},
                ".2": {"eval": told("t", "aa"), "eval/2": told("v", "c")},
            },
            {"eval": "t:aa", "eval/2": "u:bb,v:c"},
        ),
        ({"": {"eval": told("t", "aa"), "...": "3 more"}}, {"eval": "t:aa", "...": ""}),
        ({"": "was edited"}, {"...": ""}),
        ({"": {"eval": "changed"}}, {"...": ""}),
    ],
)
def test_the_tags_of_a_run_are_read(
    tags: dict[str, Any], data: dict[str, str], empty_store: Path, tmp_path: Path
) -> None:
    shelf = Shelf.fresh(empty_store, tmp_path)
    written = {f"{names.EVALUATED_DATA}{life}": json.dumps(table) for life, table in tags.items()}
    run_id = shelf.add("a", {"eval/m": 1.0}, tags=written)
    store = RunStore(shelf.uri)
    (read,), _ = run_selection.gate_runs(store, None, [store.get(run_id)], [], {})
    assert {key: text for key, text in read.data.items() if key != "eval" or text} == data


def test_a_baseline_file_keeps_them() -> None:
    blessing = baseline_file.Blessing(at="now", by="me", reason="good")
    runs = [gate_run("b", "eval/m", A)]
    text = baseline_file.make_baseline(runs, {"eval/m": None}, blessing).text()
    (again,) = baseline_file.parse_baseline(text.encode(), "file").gate_runs()
    assert again.data == A
    older = json.loads(text)
    for run in older["runs"].values():
        del run["data"]
    (again,) = baseline_file.parse_baseline(json.dumps(older).encode(), "file").gate_runs()
    assert again.data == {}
