"""The configs of a sweep, ranked by a metric over their seeds; `orbiter-mlflow best`."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from scipy import stats

from gate_runs import DATA, Shelf
from orbiter_mlflow.errors import CannotCompareError
from orbiter_mlflow.gate.model import GateRun
from orbiter_mlflow.gate.ranking import Ranking, rank
from orbiter_mlflow.gate.reports.ranking import json_report

METRIC = "eval/accuracy"


def a_run(
    rate: str, seed: int | None, value: float | None, status: str = "FINISHED", **more: str
) -> GateRun:
    params = {"learning_rate": rate, **more}
    if seed is not None:
        params["extra.seed"] = str(seed)
    metrics = {"train/loss": 1.0} | ({} if value is None else {METRIC: value})
    run_id = f"{rate}-{seed}-{status}-{value}"
    return GateRun(run_id, f"{rate} {seed}", status, params, {}, metrics)


def ranked(*runs: GateRun, by: tuple[str, ...] = (), better: Literal["higher", "lower"]) -> Ranking:
    return rank(runs, METRIC, better, by)


SWEEP = [
    a_run(rate, seed, mean + (seed - 1) / 100)
    for rate, mean in {"0.01": 0.5, "0.1": 0.9, "0.5": 0.7}.items()
    for seed in range(3)
]

# -- groups and figures --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "rates"), [("higher", ["0.1", "0.5", "0.01"]), ("lower", ["0.01", "0.5", "0.1"])]
)
def test_the_seeds_of_a_config_are_a_group_and_the_best_mean_comes_first(
    better: Literal["higher", "lower"], rates: list[str]
) -> None:
    ranking = ranked(*SWEEP, better=better)
    assert ranking.by == ("params.learning_rate",)
    assert [group.fields["params.learning_rate"] for group in ranking.groups] == rates
    assert all(len(group.runs) == 3 for group in ranking.groups)
    best = ranking.groups[0].runs[0].metrics[METRIC]
    values = [run.metrics[METRIC] for run in ranking.groups[0].runs]
    assert best == (max if better == "higher" else min)(values)


def test_mean_deviation_and_interval_are_those_of_students_distribution() -> None:
    values = [0.71, 0.74, 0.69, 0.78]
    runs = [a_run("0.1", seed, value) for seed, value in enumerate(values)]
    (group,) = ranked(*runs, better="higher").groups
    assert group.summary is not None
    assert group.summary.n == 4
    assert group.summary.mean == pytest.approx(sum(values) / 4)
    error = stats.sem(values)
    expected = stats.t.interval(0.95, 3, loc=group.summary.mean, scale=error)
    assert group.summary.sd == pytest.approx(error * 2)
    assert group.interval == pytest.approx(expected)


def test_a_single_run_and_equal_runs_show_no_spread_and_have_no_interval() -> None:
    single = a_run("0.1", 0, 0.9)
    equal = [a_run("0.5", seed, 0.8) for seed in range(3)]
    one, three = ranked(single, *equal, better="higher").groups
    assert (one.interval, one.summary and one.summary.sd) == (None, None)
    assert three.interval is None
    assert three.summary is not None
    assert three.summary.sd == pytest.approx(0.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -1.797e308])
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_config_of_which_a_seed_diverged_comes_last_without_a_mean(
    better: Literal["higher", "lower"], wrong: float
) -> None:
    ranking = ranked(*SWEEP, a_run("0.1", 7, wrong), better=better)
    last = ranking.groups[-1]
    assert last.fields == {"params.learning_rate": "0.1"}
    assert (len(last.runs), last.summary, last.interval) == (4, None, None)
    shown = json.loads(json_report(ranking))["groups"][-1]
    assert (shown["n"], shown["mean"], shown["interval"]) == (4, None, None)
    values = [run["value"] for run in shown["runs"]]
    assert sum(isinstance(value, str) for value in values) == 1


def test_fields_that_are_named_make_the_groups() -> None:
    runs = [
        a_run("0.1", seed, 0.5 + size / 100, size=str(size)) for seed in range(2) for size in (1, 2)
    ]
    assert len(ranked(*runs, better="higher").groups) == 2
    (group,) = ranked(*runs, by=("params.learning_rate",), better="higher").groups
    assert (len(group.runs), group.fields) == (4, {"params.learning_rate": "0.1"})
    two = ("params.learning_rate", "params.size", "params.learning_rate")
    assert ranked(*runs, by=two, better="higher").by == two[:2]


def test_a_run_without_a_field_is_in_a_group_of_its_own() -> None:
    runs = [a_run("0.1", 0, 0.5), a_run("0.1", 1, 0.6, dropout="0.2")]
    groups = ranked(*runs, better="higher").groups
    assert [group.fields for group in groups] == [
        {"params.dropout": "0.2"},
        {"params.dropout": None},
    ]


def test_output_folders_do_not_part_the_seeds_of_a_config() -> None:
    runs = [a_run("0.1", seed, 0.5 + seed / 10, output_dir=f"runs/{seed}") for seed in range(3)]
    (group,) = ranked(*runs, better="higher").groups
    assert (len(group.runs), dict(group.fields)) == (3, {})


def trained_on(digest: str, seed: int, value: float, commit: str = "c1", **params: str) -> GateRun:
    run = a_run("0.1", seed, value, **params)
    run_id = f"{digest}-{seed}-{commit}-{'-'.join(params.values())}"
    return replace(run, run_id=run_id, datasets={"train": f"train_data:{digest}"}, commit=commit)


@pytest.mark.parametrize("by", [(), ("datasets.train",)])
def test_runs_on_other_data_are_no_attempts_and_have_a_row_of_their_own(
    by: tuple[str, ...],
) -> None:
    runs = [
        trained_on(digest, seed, mean + seed / 100)
        for digest, mean in {"aa": 0.9, "bb": 0.5}.items()
        for seed in range(3)
    ]
    ranking = ranked(*runs, by=by, better="higher")
    assert (ranking.by, ranking.left_out, ranking.notes) == (("datasets.train",), (), ())
    assert [(group.fields["datasets.train"], len(group.runs)) for group in ranking.groups] == [
        ("train_data:aa", 3),
        ("train_data:bb", 3),
    ]


def test_other_seeds_on_other_data_are_not_put_together_by_default() -> None:
    runs = [trained_on("aa" if seed < 3 else "bb", seed, 0.5 + seed / 100) for seed in range(6)]
    assert [len(group.runs) for group in ranked(*runs, better="higher").groups] == [3, 3]
    together = ranked(*runs, by=("params.learning_rate",), better="higher")
    assert [len(group.runs) for group in together.groups] == [6]


def test_output_folders_part_the_runs_where_the_user_groups_by_them() -> None:
    runs = [
        trained_on("aa", seed, 0.5 + seed / 100, output_dir=folder)
        for folder in ("one", "two")
        for seed in range(3)
    ]
    ranking = ranked(*runs, by=("params.output_dir",), better="higher")
    assert [len(group.runs) for group in ranking.groups] == [3, 3]
    (group,) = ranked(*runs, better="higher").groups
    assert len(group.runs) == 3  # attempts of the same seeds


def test_a_seed_that_counts_twice_is_remarked_and_so_are_several_commits() -> None:
    first = [trained_on("aa", seed, 0.5 + seed / 100) for seed in range(3)]
    again = [trained_on("aa", seed, 0.6 + seed / 100, commit="c2") for seed in range(3)]
    ranking = ranked(*first, *again, better="higher")
    (group,) = ranking.groups
    assert len(group.runs) == 6
    seeds, commits = ranking.notes
    assert "1 of 1 row has the same seed more than once (as seed 0 in aa-0-c1-, aa-0-c2-)" in seeds
    assert "the interval is too narrow" in seeds
    assert "1 of 1 row has runs of several commits (as c1, c2)" in commits
    assert json.loads(json_report(ranking))["notes"] == [seeds, commits]
    unlike = [trained_on("aa", seed, 0.6 + seed / 100, commit="c2") for seed in range(3, 6)]
    (note,) = ranked(*first, *unlike, better="higher").notes
    assert "several commits" in note


def test_seeds_that_make_the_groups_are_not_remarked() -> None:
    assert ranked(*SWEEP, by=("params.extra.seed",), better="higher").notes == ()


# -- which runs count ----------------------------------------------------------------------------


def test_runs_that_do_not_count_are_left_out_with_the_reason() -> None:
    again = a_run("0.1", 1, 0.2)
    unlike = [a_run("0.1", 3, 0.1, "FAILED"), a_run("0.1", 4, 0.1, "RUNNING"), a_run("1", 5, None)]
    ranking = ranked(*SWEEP, again, *unlike, better="higher")
    reasons = {one.run_id: one.reason for one in ranking.left_out}
    assert {run.run_id: reasons[run.run_id] for run in unlike} == {
        unlike[0].run_id: "it is FAILED, not FINISHED",
        unlike[1].run_id: "it is RUNNING, not FINISHED",
        unlike[2].run_id: f"it has no {METRIC}",
    }
    assert len(reasons) == 4  # and one of the two attempts of a seed
    assert sum(len(group.runs) for group in ranking.groups) == 9


def test_values_on_different_data_are_remarked() -> None:
    def on(digest: str, seed: int) -> GateRun:
        run = a_run("0.1", seed, 0.5)
        data = {"eval": f"test_data:{digest}"}
        return GateRun(run.run_id, run.name, run.status, run.params, {}, run.metrics, data=data)

    assert ranked(on("aa", 0), on("aa", 1), better="higher").notes == ()
    (note,) = ranked(on("aa", 0), on("bb", 1), better="higher").notes
    assert "measured on different data" in note
    assert "test_data:aa" in note


def test_what_nothing_is_known_of_is_refused_with_what_is_near() -> None:
    with pytest.raises(CannotCompareError, match="there are no runs"):
        ranked(better="higher")
    with pytest.raises(CannotCompareError, match="did you mean eval/accuracy"):
        rank(SWEEP, "eval/acuracy", "higher")
    with pytest.raises(CannotCompareError, match=r"did you mean params\.learning_rate"):
        ranked(*SWEEP, by=("learning_rate",), better="higher")
    with pytest.raises(CannotCompareError, match="none is FINISHED"):
        ranked(a_run("0.1", 0, 0.5, "KILLED"), better="higher")


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    made = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    # The configs differ in a long prompt too, which finds no room in a table.
    for number, (rate, mean) in enumerate({"0.01": 0.5, "0.1": 0.9, "0.5": 0.7}.items()):
        for seed in range(3):
            made.add(
                f"rate-{rate}-{seed}",
                {METRIC: [0.99, mean + (seed - 1) / 100], "eval/loss": 1 - mean},
                experiment="sweep",
                params={"learning_rate": rate, "seed": str(seed), "prompt": "x" * (100 + number)},
            )
    made.add("goes on", {METRIC: 1.0}, experiment="sweep", status="RUNNING")
    made.add("parent", {}, experiment="sweep")
    made.add("diverged", {METRIC: math.nan}, experiment="sweep", params={"learning_rate": "9"})
    return made


def best(shelf: Shelf, *arguments: object, metric: str = METRIC) -> tuple[int, str]:
    given = ("--experiment", "sweep", "--metric", metric, "--direction", "higher")
    return shelf.call("best", *given, *arguments)


def test_the_command_shows_a_table_with_the_best_config_first(shelf: Shelf) -> None:
    code, out = best(shelf)
    assert code == 0, out
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == f"{METRIC}, the higher the better".split()
    assert "in the JSON alone: 1 more param in which they differ" in out
    header, rows = next(
        (line, lines[i + 2 :]) for i, line in enumerate(lines) if line[:1] == ["learning_rate"]
    )
    assert header == ["learning_rate", "n", "mean", "sd", "95%", "interval", "best", "run"]
    run_id = shelf.ids["rate-0.1-2"][:8]
    figures = ["3", "0.9", "0.01", "0.8752", "to", "0.9248"]
    assert rows[0] == ["0.1", *figures, "rate-0.1-2", f"({run_id})"]
    assert [row[0] for row in rows[:4]] == ["0.1", "0.5", "0.01", "9"]
    assert rows[3][1:5] == ["1", "NaN", "-", "-"]
    assert "left out: 1 run: it is RUNNING, not FINISHED" in out
    assert f"left out: 1 run: it has no {METRIC}" in out


def test_the_command_shows_the_datasets_in_which_runs_differ(
    empty_store: Path, tmp_path: Path
) -> None:
    shelf = Shelf.fresh(empty_store, tmp_path)
    for digest in ("aaaa", "bbbb"):
        for seed in range(2):
            shelf.add(
                f"{digest} {seed}",
                {METRIC: 0.5 + seed / 10},
                experiment="sweep",
                params={"seed": str(seed)},
                data={"training": ("texts", digest)},
            )
    code, out = best(shelf)
    assert code == 0, out
    assert "datasets.training" in out
    assert "in the JSON alone" not in out
    rows = [line.split()[:2] for line in out.splitlines() if line.startswith("texts:")]
    assert rows == [["texts:aaaa", "2"], ["texts:bbbb", "2"]]


def test_the_command_groups_by_fields_and_filters(shelf: Shelf) -> None:
    code, out = best(
        shelf,
        *("--group-by", "params.seed", "--group-by", "datasets.eval"),
        *("--filter", "params.learning_rate != '9'", "--format", "json"),
    )
    assert code == 0, out
    content: dict[str, Any] = json.loads(out)
    assert (content["schema"], content["group_by"]) == (1, ["params.seed", "datasets.eval"])
    data = ":".join(DATA["eval"])
    fields = [{"params.seed": seed, "datasets.eval": data} for seed in ("2", "1", "0")]
    assert [group["fields"] for group in content["groups"]] == fields
    assert [group["n"] for group in content["groups"]] == [3, 3, 3]
    first: Mapping[str, Any] = content["groups"][0]
    assert first["mean"] == pytest.approx(0.71)
    assert first["interval"][0] < 0.71 < first["interval"][1]
    assert first["runs"][0] == {
        "run_id": shelf.ids["rate-0.1-2"],
        "name": "rate-0.1-2",
        "value": pytest.approx(0.91),
    }


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--metric", "eval/acuracy"], 1, "did you mean eval/accuracy?"),
        (["--group-by", "params.lerning_rate"], 1, "did you mean params.learning_rate"),
        (["--filter", "nonsense ="], 2, "the filter 'nonsense ='"),
        (["--filter", "params.learning_rate = '7'"], 1, "there are no runs"),
        (["--experiment", "swep"], 1, "did you mean 'sweep'?"),
        (["--direction", "up"], 2, "'up' is not one of"),
    ],
)
def test_the_command_says_what_is_wrong(
    shelf: Shelf, arguments: list[str], code: int, said: str
) -> None:
    got, out = best(shelf, *arguments)
    assert (got, said in out) == (code, True), out
