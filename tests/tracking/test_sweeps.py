"""Sweeps in one process, on a store that is up: what the parent says of its children."""

import asyncio
import gc
import json
import math
import os
import pickle
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from pydantic import ValidationError

from journals import HEAD, done
from orbiter_mlflow import MLflowSettings, Sweep, SweepError, names
from orbiter_mlflow.delivery.spool_folder import default_spool
from orbiter_mlflow.gate.run_selection import find_runs
from orbiter_mlflow.runs.store import RunStore
from orbiter_mlflow.tracking.sweeps import parent as parent_module
from orbiter_mlflow.tracking.sweeps.folder import ChildNote, SweepFolder, SweepNote, write_child
from orbiter_mlflow.tracking.sweeps.summary import Ranking, summary_of
from sweeps import child, children, counts, parent_of, table, trainer_of
from trainers import run_of
from waiting import eventually

LOWER: dict[str, Any] = {"metric": "train/loss", "direction": "lower"}


def scan(uri: str, **settings: Any) -> MLflowSettings:
    return MLflowSettings(tracking_uri=uri, experiment="scan", **settings)


def stopped(sweep: Sweep, *rates: float, by: BaseException) -> None:
    """A sweep that an exception ends after some children."""
    with sweep:
        for rate in rates:
            asyncio.run(child(sweep, rate))
        raise by


def test_the_parent_has_counts_the_best_child_and_a_table(sqlite_uri: str) -> None:
    async def run() -> Sweep:
        tags = {"team": "rl", "orbiter.state": "no"}
        settings = scan(sqlite_uri, tags=tags, description="Why: to know.")
        async with Sweep("lr-scan", settings, **LOWER) as sweep:
            await asyncio.gather(*(child(sweep, rate) for rate in (0.5, 0.25, 0.75)))
            with pytest.raises(Exception, match="diverged"):
                await child(sweep, 0.1, fails=True)
        return sweep

    sweep = asyncio.run(run())
    parent = parent_of(sqlite_uri, sweep)
    nested = children(sqlite_uri, parent)
    assert (parent.info.run_name, parent.info.status) == ("lr-scan", "FINISHED")
    assert sweep.run_id == parent.info.run_id
    assert nested.keys() == {"0.5", "0.25", "0.75", "0.1"}
    assert {run.data.tags[names.SWEEP] for run in [parent, *nested.values()]} == {"lr-scan"}
    assert {run.data.tags["team"] for run in [parent, *nested.values()]} == {"rl"}
    tags = parent.data.tags
    assert tags[names.DESCRIPTION] == "Why: to know."
    assert names.STATE not in tags
    assert counts(parent) == {"FAILED": 1, "FINISHED": 3}
    assert tags[names.SWEEP_METRIC] == "train/loss (lower)"
    assert tags[names.SWEEP_BEST] == nested["0.25"].info.run_id
    assert float(tags[names.SWEEP_BEST_VALUE]) == 0.25
    shown = table(sqlite_uri, parent)
    assert shown["columns"] == ["run_id", "name", "status", "train/loss", "learning_rate"]
    assert [(row[0], *row[2:]) for row in shown["data"]] == [
        (nested["0.25"].info.run_id, "FINISHED", 0.25, "0.25"),
        (nested["0.5"].info.run_id, "FINISHED", 0.5, "0.5"),
        (nested["0.75"].info.run_id, "FINISHED", 0.75, "0.75"),
        (nested["0.1"].info.run_id, "FAILED", 0.2, "0.1"),
    ]
    assert {row[1] for row in shown["data"]} == {f"lr-scan-{n}" for n in (1, 2, 3, 4)}
    assert json.loads(tags[names.LOGGED_TABLES]) == [
        {"path": "sweep/children.json", "type": "table"}
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(), "KILLED")],
)
def test_an_exception_that_leaves_the_block_ends_the_parent(
    error: BaseException, status: str, sqlite_uri: str
) -> None:
    sweep = Sweep("lr-scan", scan(sqlite_uri))
    with pytest.raises(type(error)):
        stopped(sweep, 0.5, by=error)
    parent = parent_of(sqlite_uri, sweep)
    assert parent.info.status == status
    assert children(sqlite_uri, parent)["0.5"].info.status == "FINISHED"
    assert names.SWEEP_BEST not in parent.data.tags  # no metric was named


def test_a_cancelled_sweep_is_killed(sqlite_uri: str) -> None:
    async def run() -> Sweep:
        entered = asyncio.Event()
        sweep = Sweep("lr-scan", scan(sqlite_uri))

        async def forever() -> None:
            async with sweep:
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(forever())
        await entered.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return sweep

    assert parent_of(sqlite_uri, asyncio.run(run())).info.status == "KILLED"


def test_a_child_without_a_run_is_told_and_one_that_only_began_is_killed(sqlite_uri: str) -> None:
    with Sweep("lr-scan", scan(sqlite_uri), **LOWER) as sweep:
        sweep.settings()
        trainer = trainer_of(sweep.settings(), 0.5)
        assert sweep.counts() == {"not seen": 2}
        trainer.mark_validated()
        assert sweep.counts() == {"RUNNING": 1, "not seen": 1}
        del trainer
        gc.collect()
        assert sweep.counts() == {"KILLED": 1, "not seen": 1}
    assert sweep.counts() == {"KILLED": 1, "not seen": 1}
    assert counts(parent_of(sqlite_uri, sweep)) == {"KILLED": 1, "not seen": 1}


def test_the_result_of_an_evaluation_counts(sqlite_uri: str) -> None:
    async def run() -> Sweep:
        settings = scan(sqlite_uri)
        async with Sweep("s", settings, metric="eval/accuracy", direction="higher") as sweep:
            for accuracy in (0.5, 0.9, 0.7):
                trainer = trainer_of(sweep.settings(f"acc-{accuracy}"), accuracy)
                trainer.scores.accuracy = accuracy
                trainer.mark_validated()
                await trainer.train()
                await trainer.evaluate()
        return sweep

    parent = parent_of(sqlite_uri, asyncio.run(run()))
    assert float(parent.data.tags[names.SWEEP_BEST_VALUE]) == 0.9
    shown = table(sqlite_uri, parent)
    assert [row[1] for row in shown["data"]] == ["acc-0.9", "acc-0.7", "acc-0.5"]


def test_a_sweep_that_is_switched_off_changes_nothing(sqlite_uri: str) -> None:
    with Sweep("s", scan(sqlite_uri, enabled=False), **LOWER) as sweep:
        trainer = asyncio.run(child(sweep, 0.5))
        assert (sweep.id, sweep.run_id, sweep.counts()) == ("", None, {})
        assert sweep.settings("one").run_name == "one"
        assert sweep.environment()["ORBITER_MLFLOW_ENABLED"] == "false"
    assert trainer.run_id is None
    assert not default_spool().exists()


def test_a_sweep_goes_on_where_nothing_can_be_written(
    sqlite_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with Sweep("s", scan(sqlite_uri, spool_dir=tmp_path / "file" / "spool")) as sweep:
        trainer = asyncio.run(child(sweep, 0.5))
    assert trainer.state == "completed"
    assert "the sweep s has no parent run" in caplog.text


def test_a_sweep_whose_notes_cannot_be_written_has_a_killed_parent(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    default_spool().mkdir(parents=True)
    (default_spool() / "sweeps").touch()
    with Sweep("s", scan(sqlite_uri)) as sweep:
        trainer = asyncio.run(child(sweep, 0.5))
    assert trainer.state == "completed"
    assert "the sweep s has no parent run" in caplog.text
    client = MlflowClient(sqlite_uri)

    def killed() -> list[Run]:
        places = [one.experiment_id for one in client.search_experiments()]
        named = "attributes.run_name = 's' AND attributes.status = 'KILLED'"
        return [*client.search_runs(places, named)]

    assert len(eventually(killed)) == 1


def test_secrets_of_a_child_reach_neither_its_note_nor_the_table(sqlite_uri: str) -> None:
    with Sweep("s", scan(sqlite_uri)) as sweep:
        for number in range(2):
            trainer = trainer_of(sweep.settings(), number)
            trainer.config.extra["api_key"] = f"secret-{number}"
            trainer.mark_validated()
            asyncio.run(trainer.train())
    notes = [path.read_text() for path in (default_spool() / "sweeps").rglob("*.json")]
    assert len(notes) == 3
    assert not [text for text in notes if "secret-" in text]
    assert "secret-" not in json.dumps(table(sqlite_uri, parent_of(sqlite_uri, sweep)))


def test_the_parent_is_kept_up_to_date_while_the_sweep_goes_on(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent_module, "_EVERY", 0.01)
    monkeypatch.setattr(parent_module, "_TABLE_EVERY", 0.01)
    with Sweep("s", scan(sqlite_uri), **LOWER) as sweep:
        asyncio.run(child(sweep, 0.5))
        run_id = eventually(lambda: sweep.run_id)
        live = eventually(lambda: with_best(run_of(sqlite_uri, run_id)))
        assert live.info.status == "RUNNING"
        assert counts(live) == {"FINISHED": 1}
        assert len(table(sqlite_uri, live)["data"]) == 1


def with_best(run: Run) -> Run | None:
    return run if names.SWEEP_BEST in run.data.tags else None


def test_a_sweep_inside_a_child_nests_under_the_outer_parent(sqlite_uri: str) -> None:
    with Sweep("outer", scan(sqlite_uri)) as outer, Sweep("inner", outer.settings()) as inner:
        asyncio.run(child(inner, 0.5))
    top, middle = parent_of(sqlite_uri, outer), parent_of(sqlite_uri, inner)
    assert middle.data.tags[names.PARENT_RUN_ID] == top.info.run_id
    assert children(sqlite_uri, middle).keys() == {"0.5"}


def test_neither_the_gate_nor_best_takes_the_parent_for_a_result(sqlite_uri: str) -> None:
    with Sweep("s", scan(sqlite_uri, tags={"attempt": "7"}), **LOWER) as sweep:
        for rate in (0.5, 0.25):
            asyncio.run(child(sweep, rate))
    parent_of(sqlite_uri, sweep)
    store = RunStore(sqlite_uri)
    found = find_runs(store, ["tags.attempt = '7'"], experiment="scan")
    assert {run.name for run in found} == {"s-1", "s-2"}
    assert [run.name for run in find_runs(store, ["s"], experiment="scan")] == ["s"]
    where = ("--tracking-uri", sqlite_uri, "--experiment", "scan")
    how = ("--metric", "train/loss", "--direction", "lower", "--format", "json")
    code, text = done("best", *where, *how)
    assert (code, json.loads(text)["left_out"]) == (0, [])


# -- misuse ----------------------------------------------------------------------------------------


def test_misuse_is_refused_and_told(sqlite_uri: str) -> None:
    settings = scan(sqlite_uri)
    with pytest.raises(SweepError, match="metric and direction together"):
        Sweep("s", settings, metric="train/loss")
    with pytest.raises(SweepError, match="'higher' or 'lower'"):
        Sweep("s", settings, metric="train/loss", direction="best")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="run_name"):
        Sweep("", settings)
    with pytest.raises(SweepError, match="stays in the process that opened it"):
        pickle.dumps(Sweep("s", settings))
    sweep = Sweep("s", settings)
    with pytest.raises(SweepError, match="inside its `with` block"):
        sweep.settings()
    with sweep:
        pass
    with pytest.raises(SweepError, match="inside its `with` block"):
        sweep.environment()


# -- resumed sweeps --------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "run_id"])
def test_a_resumed_sweep_adds_to_its_parent_and_counts_the_earlier_children(
    by: str, sqlite_uri: str
) -> None:
    settings = scan(sqlite_uri)
    first = Sweep("s", settings, **LOWER)
    with pytest.raises(RuntimeError, match="preempted"):
        stopped(first, 0.25, 0.5, by=RuntimeError("preempted"))
    assert parent_of(sqlite_uri, first).info.status == "FAILED"
    key = getattr(first, by)
    with Sweep("s", settings, **LOWER, resume=key) as again:
        assert again.counts() == {"FINISHED": 2}
        last = asyncio.run(child(again, 0.75))
    assert again.id == first.id
    parent = parent_of(sqlite_uri, again)
    assert parent.info.status == "FINISHED"
    assert children(sqlite_uri, parent).keys() == {"0.25", "0.5", "0.75"}
    assert counts(parent) == {"FINISHED": 3}
    assert float(parent.data.tags[names.SWEEP_BEST_VALUE]) == 0.25
    assert again.run_id == first.run_id == parent.info.run_id
    # The table of the first life is at the same place, until delivery has sent that of the second.
    whole = lambda: [row[0] for row in table(sqlite_uri, parent)["data"]][2:]  # noqa: E731
    assert eventually(whole) == [last.run_id]


def test_two_sweeps_of_one_name_stay_apart(sqlite_uri: str) -> None:
    sweeps = []
    for _ in range(2):
        with Sweep("s", scan(sqlite_uri)) as sweep:
            asyncio.run(child(sweep, 0.5))
        sweeps.append(sweep)
    parents = [parent_of(sqlite_uri, sweep) for sweep in sweeps]
    assert len({parent.info.run_id for parent in parents}) == 2
    assert [counts(parent) for parent in parents] == [{"FINISHED": 1}, {"FINISHED": 1}]


def test_only_the_same_sweep_can_be_resumed_and_only_once_at_a_time(sqlite_uri: str) -> None:
    settings = scan(sqlite_uri)
    first = Sweep("s", settings)
    with first, pytest.raises(SweepError, match="open in another process"):
        Sweep("s", settings, resume=first.id).__enter__()
    with pytest.raises(SweepError, match="another sweep: its name is 's', not 't'"):
        Sweep("t", settings, resume=first.id).__enter__()
    with pytest.raises(SweepError, match="its metric is None, not 'train/loss'"):
        Sweep("s", settings, **LOWER, resume=first.id).__enter__()
    other = MLflowSettings(tracking_uri=sqlite_uri, experiment="other")
    with pytest.raises(SweepError, match="experiment is 'scan', not 'other'"):
        Sweep("s", other, resume=first.id).__enter__()
    with pytest.raises(SweepError, match=f"there is no sweep 'nowhere' in {default_spool()}"):
        Sweep("s", settings, resume="nowhere").__enter__()
    with Sweep("s", settings, resume=first.id) as again:
        assert again.id == first.id


def sweep_folder(folder: Path) -> SweepFolder:
    return SweepFolder.create(folder, SweepNote("5eed" * 8, "s", "", None, None, None, None))


def test_children_of_several_threads_get_different_numbers(tmp_path: Path) -> None:
    """By its number an objective knows which child's metric is the value of a trial."""
    folder, given = sweep_folder(tmp_path), deque[int]()
    begin = threading.Barrier(8)

    def take() -> None:
        begin.wait()
        for _ in range(200):
            given.append(folder.next_number())

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == list(range(1, 1601))
    assert folder.numbers() == 1600


def test_children_get_different_numbers_on_a_full_disk_and_are_counted_later(
    tmp_path: Path,
) -> None:
    folder = sweep_folder(tmp_path)
    numbers = folder.path / "numbers"
    numbers.unlink()
    numbers.symlink_to("/dev/full")
    assert [folder.next_number(), folder.next_number()] == [1, 2]
    assert folder.numbers() == 0
    numbers.unlink()
    assert folder.next_number() == 3
    assert folder.numbers() == 3


def test_a_note_that_changes_twice_in_a_tick_of_the_clock_is_read_again(tmp_path: Path) -> None:
    folder = sweep_folder(tmp_path)
    note = ChildNote("a" * 32, 1, None, "", HEAD.writer, 0, None, "RUNNING", None, {}, None)
    write_child(folder.path, note)
    at = (folder.path / f"{note.uid}.json").stat().st_mtime_ns
    assert [one.value for one in folder.children()] == [None]
    write_child(folder.path, replace(note, status="FINISHED", value=0.5))
    os.utime(folder.path / f"{note.uid}.json", ns=(at, at))
    assert [one.value for one in folder.children()] == [0.5]


def test_folders_of_sweeps_that_nobody_has_opened_for_long_are_removed(sqlite_uri: str) -> None:
    folders = default_spool() / "sweeps"
    with Sweep("s", scan(sqlite_uri, delivery="offline")) as old:
        os.utime(folders / str(old.id), (0, 0))
        with Sweep("s", scan(sqlite_uri, delivery="offline")):
            assert len([*folders.iterdir()]) == 2  # it is open
    os.utime(folders / str(old.id), (0, 0))
    with Sweep("s", scan(sqlite_uri, delivery="offline")):
        assert not (folders / str(old.id)).exists()
        assert len([*folders.iterdir()]) == 2


# -- offline ---------------------------------------------------------------------------------------


def test_one_sync_delivers_an_offline_sweep_with_all_its_links(sqlite_uri: str) -> None:
    with Sweep("s", scan(sqlite_uri, delivery="offline"), **LOWER) as sweep:
        for rate in (0.5, 0.25, 0.75):
            asyncio.run(child(sweep, rate))
    assert sweep.run_id is None
    code, text = done("sync", "--wait", "0", default_spool())
    assert code == 0, text
    parent = parent_of(sqlite_uri, sweep)
    nested = children(sqlite_uri, parent)
    assert nested.keys() == {"0.5", "0.25", "0.75"}
    assert parent.data.tags[names.SWEEP_BEST] == nested["0.25"].info.run_id
    assert [row[0] for row in table(sqlite_uri, parent)["data"]] == [
        nested[rate].info.run_id for rate in ("0.25", "0.5", "0.75")
    ]


# -- counting, without a store ---------------------------------------------------------------------


def note(number: int, **fields: Any) -> ChildNote:
    start = ChildNote(
        *(f"{number:032x}", number, f"s-{number}", "j", HEAD.writer, number),
        *(None, "FINISHED", None, {}, None),
    )
    return replace(start, **fields)


def test_only_a_finished_child_with_a_finite_value_is_the_best() -> None:
    found = [
        note(1, value=9.0, status="KILLED", ended_by="optuna.TrialPruned"),
        note(2, value=math.inf),
        note(3, value=math.nan),
        note(4),
        note(5, value=1.0),
        note(6, value=2.0),
    ]
    ranking = Ranking("m", "higher")
    summary = summary_of(found, 8, ranking)
    assert summary.best == found[5]
    assert [child.number for child in summary.children] == [6, 5, 1, 2, 3, 4]
    assert summary.counts == {"FINISHED": 5, "KILLED": 1, "not seen": 2}
    shown = summary.table(ranking)
    assert shown["columns"] == ["run_id", "name", "status", "ended_by", "m"]
    assert [row[4] for row in shown["data"]] == [2.0, 1.0, 9.0, "inf", "nan", None]
    assert summary_of(found, 8, Ranking("m", "lower")).best == found[4]
    assert summary_of(found, 8, None).best is None


def test_a_child_that_was_continued_counts_once_as_it_ended_last() -> None:
    found = [
        note(1, run_id="r", status="KILLED", start_time=1),
        note(2, run_id="r", start_time=2, value=1.0),
    ]
    summary = summary_of(found, 2, Ranking("m", "lower"))
    assert summary.counts == {"FINISHED": 1}
    assert summary.best == found[1]
