"""Trainers that are carried into another process, and processes that leave without `atexit`."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from orbiter_mlflow import names
from orbiter_mlflow.delivery.spool_folder import default_spool
from orbiter_mlflow.text.packed_tags import unpacked
from scripts import PRELUDE
from waiting import eventually

FORKS = (
    PRELUDE
    + """
def in_a_fork(action):
    pid = os.fork()
    if pid == 0:
        action()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def train(trainer):
    asyncio.run(trainer.train())

def evaluate(trainer):
    asyncio.run(trainer.evaluate())
"""
)


THREAD = {"ORBITER_MLFLOW_DELIVERY": "thread", "ORBITER_MLFLOW_FLUSH_TIMEOUT": "100"}


def runs_after(script: str, uri: str, count: int, **environment: str) -> tuple[list[Run], str]:
    """The runs that a script leaves, once nothing waits any more, and what it said."""
    path = Path("script.py").absolute()
    path.write_text(FORKS + textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, str(path)],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    eventually(lambda: not list(default_spool().glob("*.jsonl")))
    runs = list(MlflowClient(uri).search_runs(["0"]))
    assert len(runs) == count
    return runs, done.stderr


def points(uri: str, run: Run) -> int:
    return len(MlflowClient(uri).get_metric_history(run.info.run_id, "train/loss"))


@pytest.mark.parametrize("leave", ["sys.exit(0)", "os._exit(0)"])
def test_a_trainer_is_tracked_where_it_trains(leave: str, sqlite_uri: str) -> None:
    script = f"""
    trainer = Tracked()
    trainer.check_dataset([1, 2], [3])
    def action():
        trainer.mark_validated()
        train(trainer)
        evaluate(trainer)
        {leave}
    in_a_fork(action)
    """
    (run,), said = runs_after(script, sqlite_uri, 1)
    assert run.info.status == "FINISHED"
    assert unpacked(run.data.tags)[names.CHECKS] == "check_dataset"
    assert points(sqlite_uri, run) == 100
    assert run.data.metrics["eval/accuracy"] == 0.5
    assert said == ""


def test_a_daemon_is_tracked(sqlite_uri: str) -> None:
    script = """
    trainer = Tracked()
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(3, 256)
    trainer.mark_validated()
    train(trainer)
    """
    (run,), _ = runs_after(script, sqlite_uri, 1)
    assert run.info.status == "FINISHED"
    assert points(sqlite_uri, run) == 100


def test_a_forked_copy_of_a_validated_trainer_has_a_run_of_its_own(sqlite_uri: str) -> None:
    script = """
    trainer = Tracked(TrainConfig(epochs=7))
    trainer.check_dataset([1, 2], [3])
    trainer.mark_validated()
    in_a_fork(lambda: train(trainer))
    """
    runs, said = runs_after(script, sqlite_uri, 2)
    by_origin = {names.FORKED_FROM in unpacked(run.data.tags): run for run in runs}
    parent, child = by_origin[False], by_origin[True]
    assert (parent.info.status, parent.data.tags["orbiter.state"]) == (
        "KILLED",
        "validated",
    )
    assert points(sqlite_uri, parent) == 0
    assert (child.info.status, child.data.tags["orbiter.state"]) == (
        "FINISHED",
        "completed",
    )
    assert points(sqlite_uri, child) == 100
    assert child.data.params["epochs"] == "7"
    assert unpacked(child.data.tags)[names.CHECKS] == "check_dataset"
    assert len(child.inputs.dataset_inputs) == 2
    assert unpacked(child.data.tags)[names.FORKED_FROM] == unpacked(parent.data.tags)[names.UID]
    assert said.count("goes on in a fork") == 1


def test_each_side_of_a_fork_samples_the_system_for_its_own_run(sqlite_uri: str) -> None:
    script = """
    async def sampled(trainer=None):
        while not any(
            path.read_bytes().count(b"cpu_utilization_percentage") >= 4
            for path in spool.glob("*.jsonl")
            if trainer is None or path == trainer._tracked.writer.path
        ):
            await asyncio.sleep(0.02)

    from orbiter_mlflow.delivery.spool_folder import default_spool
    spool = default_spool()
    idle, trainer = Tracked(), Tracked()
    trainer.inside = lambda: sampled(trainer)
    trainer.mark_validated()
    asyncio.run(sampled())
    in_a_fork(lambda: train(trainer))
    in_a_fork(lambda: trainer.set_tag("a", "b"))
    train(trainer)
    """
    environment = {"ORBITER_MLFLOW_SYSTEM_METRICS": "0.1"}
    runs, said = runs_after(script, sqlite_uri, 2, **environment)
    for run in runs:
        key = names.system_metric("cpu_utilization_percentage")
        samples = MlflowClient(sqlite_uri).get_metric_history(run.info.run_id, key)
        assert sorted(point.step for point in samples) == [*range(len(samples))]
        assert len(samples) >= 2
        assert run.info.status == "FINISHED"
    assert "system metrics" not in said


def test_both_sides_of_a_fork_train_into_runs_of_their_own(sqlite_uri: str) -> None:
    script = """
    trainer = validated()
    pid = os.fork()
    train(trainer)
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
    """
    runs, _ = runs_after(script, sqlite_uri, 2)
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    assert [points(sqlite_uri, run) for run in runs] == [100] * 2


def test_a_fork_that_only_reports_or_looks_changes_nothing(sqlite_uri: str) -> None:
    script = """
    async def middle():
        def look():
            trainer.report({"loss": 1e9}, step=10_000)
            trainer.set_tag("forked", "yes")
            assert trainer.run_id is None and not trainer.delivered
        in_a_fork(look)
    trainer = validated(); trainer.inside = middle
    train(trainer)
    """
    (run,), said = runs_after(script, sqlite_uri, 1)
    assert run.info.status == "FINISHED"
    assert points(sqlite_uri, run) == 100
    assert "forked" not in unpacked(run.data.tags)
    assert said.count("tag 'forked' was not set: this fork of process ") == 1


def test_an_artifact_of_a_fork_that_has_no_run_yet_is_told_and_later_ones_are_kept(
    sqlite_uri: str,
) -> None:
    script = """
    trainer = validated()
    def child():
        trainer.log_artifact(__file__, "before")
        train(trainer)
        trainer.log_artifact(__file__, "after")
    in_a_fork(child)
    """
    runs, said = runs_after(script, sqlite_uri, 2)
    assert "script.py was not kept: this fork of process " in said
    (child,) = (run for run in runs if names.FORKED_FROM in unpacked(run.data.tags))
    kept = {file.path for file in MlflowClient(sqlite_uri).list_artifacts(child.info.run_id)}
    assert "after" in kept
    assert "before" not in kept


# -- children of multiprocessing -------------------------------------------------------------------

WAYS = {
    "Process": "child = context.Process(target=evaluated); child.start(); child.join()",
    "ProcessPoolExecutor": """
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(1, context) as pool:
            pool.submit(evaluated).result()
    """,
    "Pool": "pool = context.Pool(1); pool.apply(evaluated); pool.close(); pool.join()",
}


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("way", WAYS)
def test_what_was_evaluated_in_a_child_of_multiprocessing_is_finished(
    way: str, method: str, sqlite_uri: str
) -> None:
    script = f"""
import multiprocessing

def evaluated():
    evaluate(Tracked())

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
{textwrap.indent(textwrap.dedent(WAYS[way]), "    ")}
"""
    (run,), said = runs_after(script, sqlite_uri, 1)
    assert run.info.status == "FINISHED"
    assert names.ERROR_TYPE not in unpacked(run.data.tags)
    assert run.data.params["epochs"] == "1"
    assert run.data.metrics["eval/accuracy"] == 0.5
    assert said == ""


def test_a_trainer_made_before_is_evaluated_in_a_child_of_multiprocessing(sqlite_uri: str) -> None:
    script = """
    import multiprocessing
    trainer = Tracked()
    child = multiprocessing.get_context("fork").Process(target=evaluate, args=(trainer,))
    child.start(); child.join()
    """
    (run,), _ = runs_after(script, sqlite_uri, 1)
    assert run.info.status == "FINISHED"


def test_delivery_by_a_thread_gets_its_moment_in_a_child(sqlite_uri: str) -> None:
    script = """
    import multiprocessing
    def trained():
        train(validated())
    child = multiprocessing.get_context("fork").Process(target=trained)
    child.start(); child.join()
    """
    (run,), _ = runs_after(script, sqlite_uri, 1, **THREAD)
    assert run.info.status == "FINISHED"
    assert points(sqlite_uri, run) == 100


@pytest.mark.parametrize(
    ("begin", "phase"),
    [
        ("trainer = Tracked(); trainer.in_evaluate = killed; evaluate(trainer)", "evaluate"),
        ("trainer = validated(); trainer.inside = killed; train(trainer)", "train"),
        ("trainer = validated(); asyncio.run(killed())", None),
    ],
    ids=["evaluating", "training", "validated"],
)
def test_a_death_is_told_with_what_it_interrupted(
    begin: str, phase: str | None, sqlite_uri: str
) -> None:
    script = f"""
    async def killed():
        os.kill(os.getpid(), 9)
    def action():
        {begin}
    pid = os.fork()
    if pid == 0:
        action()
    assert os.waitpid(pid, 0)[1] == 9
    """
    (run,), _ = runs_after(script, sqlite_uri, 1)
    assert run.info.status == "KILLED"
    assert unpacked(run.data.tags)[names.ERROR_TYPE] == "ProcessDied"
    assert unpacked(run.data.tags).get(names.ERROR_PHASE) == phase


def test_delivery_by_a_thread_gets_its_moment_after_the_last_run_has_ended(sqlite_uri: str) -> None:
    script = """
    trainer = Tracked()
    evaluate(trainer)
    """
    (run,), said = runs_after(script, sqlite_uri, 1, **THREAD)
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "1"
    assert said == ""


def test_the_run_of_a_fork_says_which_data_its_keys_stand_for(sqlite_uri: str) -> None:
    script = """
    trainer = Tracked()
    trainer.check_dataset([1, 2], [3])
    trainer.mark_validated()
    evaluate(trainer)
    asyncio.run(trainer.evaluate([7, 8]))
    def action():
        asyncio.run(trainer.evaluate([7, 8]))
        train(trainer)
    in_a_fork(action)
    """
    one, other = runs_after(script, sqlite_uri, 2)[0]
    assert "eval/2/accuracy" in one.data.metrics.keys() & other.data.metrics.keys()
    told = unpacked(one.data.tags)[names.EVALUATED_DATA]
    assert '"eval/2"' in told
    assert told == unpacked(other.data.tags)[names.EVALUATED_DATA]
    inputs = [{one.dataset.digest for one in run.inputs.dataset_inputs} for run in (one, other)]
    assert inputs[0] == inputs[1]
    assert len(inputs[0]) == 3
