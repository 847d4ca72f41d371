"""The example store: its journals replay into a fresh store, figure for figure.

The journals are read here as plain JSON, by none of the code that delivers them: a change of the
format that would misread old journals is seen.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from example_store import EXAMPLE, JOURNALS, NAMES, ExampleStore, replay
from orbiter_mlflow import names


@dataclass(frozen=True)
class Replayed(ExampleStore):
    """The store after the replay."""

    client: MlflowClient
    runs: dict[str, Run]


@pytest.fixture(scope="module")
def replayed(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    store = replay(empty_store, tmp_path_factory.mktemp("example"))
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("example")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    return Replayed(store.uri, store.folder, client, runs)


def lines(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["r"] for line in journal.read_text("utf-8").splitlines()]


def test_it_is_small_text_and_says_nothing_of_the_machine_that_made_it() -> None:
    files = [path for path in EXAMPLE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    for path in files:
        text = path.read_text("utf-8")
        assert not re.search(r'["\s](/[a-z]+){2,}|/home/|/root|[A-Z]:\\\\', text), path
    heads = [lines(journal)[0] for journal in JOURNALS]
    assert {head["user"] for head in heads} == {"example"}
    assert {head["writer"]["host"] for head in heads} == {"example"}


def test_it_holds_every_ending(replayed: Replayed) -> None:
    assert sorted(replayed.runs) == sorted(NAMES)
    ends = [replayed.runs[name].info.status for name in NAMES]
    assert (ends.count("FINISHED"), ends.count("FAILED"), ends.count("KILLED")) == (9, 1, 1)


def test_every_figure_of_the_journals_is_in_the_store(replayed: Replayed) -> None:
    for journal in JOURNALS:
        assert_in_store(replayed, journal)


def assert_in_store(replayed: Replayed, journal: Path) -> None:
    records = lines(journal)
    head = records[0]
    run = replayed.runs[head["run_name"]]
    points: dict[str, list[tuple[int, int, str]]] = {}
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    status: dict[str, Any] = {}
    datasets = []
    for record in records[1:]:
        kind = record["kind"]
        if kind == "metrics":
            for key, value in record["values"].items():
                # NaN is written as a string; `repr` makes it equal to itself
                points.setdefault(key, []).append(
                    (record["step"], record["time"], repr(float(value)))
                )
        elif kind == "params":
            params |= record["values"]
        elif kind == "tags":
            tags |= record["values"]
        elif kind == "status":
            status = record
        elif kind == "dataset":
            datasets.append((record["name"], record["digest"], record["context"]))
    assert run.info.start_time == head["start_time"]
    assert run.data.params == params
    for key, expected in points.items():
        found = replayed.client.get_metric_history(run.info.run_id, key)
        assert [(m.step, m.timestamp, repr(m.value)) for m in found] == expected
    assert run.data.metrics.keys() == points.keys()
    killed = head["run_name"] == "killed"
    last = max(time for history in points.values() for _, time, _ in history)
    assert run.info.status == ("KILLED" if killed else status["status"])
    assert run.info.end_time == (last if killed else status["end_time"])
    if not killed:
        tags.pop(names.DESCRIBED, None)  # stays in the journal
        description = tags.pop(names.DESCRIPTION).replace("{run_id}", run.info.run_id)
        assert run.data.tags[names.DESCRIPTION].startswith(f"{description}\n\n[//]: # (orbiter")
        assert {key: run.data.tags[key] for key in tags} == tags
    inputs = run.inputs.dataset_inputs
    assert sorted(
        (one.dataset.name, one.dataset.digest, one.tags[0].value) for one in inputs
    ) == sorted(datasets)


def test_the_table_in_its_readme_is_what_the_store_says(replayed: Replayed) -> None:
    text = (EXAMPLE / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w.-]+)` \| (\w+) \| ([^|]*) \|", text, re.MULTILINE)
    assert [name for name, _, _ in rows] == NAMES
    for name, status, accuracy in rows:
        run = replayed.runs[name]
        assert run.info.status == status, name
        assert f"{run.data.metrics['eval/accuracy']:.1%}" == accuracy.strip(), name


def test_the_gate_passes_on_one_set_and_fails_on_another(replayed: Replayed) -> None:
    policy = str(EXAMPLE / "gate.toml")
    without = replayed.command("check", policy, "--candidate", "lr-0.1-seed-0")
    assert without.exit_code == 3, without.stdout
    runs = [name for name in NAMES if name.startswith("lr-0.5-seed")]
    blessed = replayed.command("bless", *runs, "--reason", "the best of three configs")
    assert blessed.exit_code == 0, blessed.output
    good = replayed.command(
        "check", policy, "--candidate", "attributes.run_name LIKE 'lr-0.5-less-entropy%'"
    )
    assert good.exit_code == 0, good.output
    assert good.stdout.startswith("PASS")
    bad = replayed.command("check", policy, "--candidate", "attributes.run_name LIKE 'lr-0.1%'")
    assert bad.exit_code == 1, bad.output
    assert bad.stdout.startswith("REGRESSION")
    for name in ("diverged", "killed"):
        odd = replayed.command("check", policy, "--candidate", name)
        assert odd.exit_code == 3, odd.stdout
