"""A metric over the blessings: change points, the command, and the line in the HTML report."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import gate_reports as examples
from gate_runs import Shelf
from orbiter_mlflow import names
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.gate.history import history_of
from orbiter_mlflow.gate.lineage import PastBlessing, Summary
from orbiter_mlflow.gate.reports import html
from orbiter_mlflow.gate.reports.sparkline import blocks

POLICY = """
[gate]
schema = 1
[baseline]
{baseline}
[metrics."eval/*"]
direction = "higher"
max_drop = 0.03
at = "best"
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def uri(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with six blessings; the fourth is much better."""
    shelf = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    runner = CliRunner(env={"MLFLOW_TRACKING_URI": shelf.uri})
    for release, mean in enumerate((0.80, 0.81, 0.80, 0.90, 0.90, 0.91)):
        names_ = [f"{release}-{seed}" for seed in range(3)]
        for seed, name in enumerate(names_):
            value = mean + (seed - 1) * 0.01
            code = {names.GIT_COMMIT: f"{release}" * 40}
            shelf.add(name, {"eval/accuracy": [0.95, value]}, tags=code)
        reason = ("--reason", f"release {release}")
        for given in (names_, [*names_, "--file", str(Path(shelf.uri[10:]).parent / "b.json")]):
            done = runner.invoke(commands, ["bless", *given, *reason])
            assert done.exit_code == 0, done.output
    return shelf.uri


@pytest.fixture
def history(uri: str) -> Run:
    def invoke(*arguments: object) -> tuple[int, str]:
        environment = {"MLFLOW_TRACKING_URI": uri, "COLUMNS": "200"}
        command = ["history", *map(str, arguments)]
        result = CliRunner(env=environment).invoke(commands, command)
        assert isinstance(result.exception, SystemExit | None), result.exc_info
        return result.exit_code, result.output

    return invoke


def past(*summaries: Summary) -> list[PastBlessing]:
    return [PastBlessing(f"{n}", {"m": summary}) for n, summary in enumerate(summaries)]


# -- change points ---------------------------------------------------------------------------------


def test_a_step_beyond_chance_is_a_change_point() -> None:
    means = (0.80, 0.81, 0.80, 0.90, 0.90, 0.91)
    points = history_of("m", past(*(Summary(3, mean, 0.01) for mean in means)))
    assert [point.is_change for point in points] == [False, False, False, True, False, False]
    assert points[0].change is None
    assert points[3].change == pytest.approx(0.1)


def test_without_any_spread_nothing_is_marked_and_without_noise_every_difference_is() -> None:
    single = history_of("m", past(Summary(1, 0.5), Summary(1, 0.9)))
    assert [(point.p_value, point.is_change) for point in single] == [(None, False)] * 2
    exact = history_of("m", past(*(Summary(3, mean, 0.0) for mean in (0.5, 0.5, 0.6))))
    assert [point.is_change for point in exact] == [False, False, True]


def test_a_history_without_changes_is_seldom_marked() -> None:
    random = np.random.default_rng(3)
    marked = 0
    for _ in range(400):
        values = random.normal(size=(10, 3))
        summaries = (Summary(3, float(v.mean()), float(v.std(ddof=1))) for v in values)
        marked += any(point.is_change for point in history_of("m", past(*summaries)))
    assert marked / 400 < 0.08


def test_blocks_span_the_values() -> None:
    assert blocks([0.0, 0.5, 1.0]) == "▁▅█"
    assert blocks([0.7, 0.7]) == "▅▅"
    assert blocks([1e150, -1e150]) == "█▁"
    assert blocks([]) == ""


# -- the command -----------------------------------------------------------------------------------


def test_the_command_shows_a_line_and_a_table_with_the_change_point(history: Run) -> None:
    code, out = history("eval/accuracy")
    assert code == 0, out
    lines = out.splitlines()
    assert lines[0].split() == ["eval/accuracy", "▁▂▁▇▇█"]
    (changed,) = [line for line in lines if "change  " in f"{line}  " and "release" in line]
    assert "release 3" in changed
    assert "333333333333" in changed
    assert "+0.1" in changed
    assert "6 blessings, 1 change point" in out
    code, out = history("eval/accuracy", "--last", 2)
    assert (code, out.splitlines()[0].split()[1]) == (0, "▁█")


def test_a_file_and_a_policy_name_the_blessings_too(history: Run, uri: str) -> None:
    file = Path(uri[10:]).parent / "b.json"
    code, out = history("eval/accuracy", "--file", file)
    assert (code, out.splitlines()[0].split()[1]) == (0, "▁▂▁▇▇█")
    Path("gate.toml").write_text(POLICY.format(baseline="filter = \"tags.baseline = 'main'\""))
    code, out = history("eval/accuracy", "--policy", "gate.toml", "--format", "json")
    assert code == 0, out
    report = json.loads(out)
    assert [round(one["summary"]["mean"], 6) for one in report["points"]] == [0.95] * 6, "the best"
    assert report["points"][0]["blessing"]["commit"] == "0" * 40
    Path("gate.toml").write_text(POLICY.format(baseline=f'file = "{file}"'))
    code, out = history("eval/accuracy", "--policy", "gate.toml")
    assert (code, "no blessing of file" in out) == (1, True), "the file has the last values"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["eval/acuracy"], 1, "did you mean 'eval/accuracy'?"),
        (["m", "--filter", "tags.x = 'y'"], 1, "there is no blessing: filter tags.x = 'y'"),
        (["m", "--filter", "drop table"], 2, "the filter 'drop table'"),
        (["m", "--filter", "tags.x = 'y'", "--file", "b.json"], 2, "use one of them"),
        (["m", "--file", "b.json"], 1, "there is no file b.json"),
        (["m", "--policy", "none.toml"], 2, "none.toml: cannot be read"),
        (["m", "--policy", "run.toml"], 2, "baseline.run is a single run"),
        (["m", "--policy", "gate.toml"], 2, "gate.toml: has no metric m"),
        (["m", "--last", "0"], 2, "--last"),
        (["m", "--experiment", "none"], 1, "there is no experiment 'none'"),
    ],
)
def test_what_cannot_be_shown_is_explained(
    history: Run, arguments: list[str], code: int, said: str
) -> None:
    Path("gate.toml").write_text(POLICY.format(baseline='filter = "x"'))
    Path("run.toml").write_text(POLICY.format(baseline='run = "x"'))
    got, out = history(*arguments)
    assert (got, said in out) == (code, True), out


# -- in the HTML report ----------------------------------------------------------------------------


def test_the_page_has_a_small_line_for_a_metric_with_several_blessings() -> None:
    metric = examples.REGRESSION.metrics[0].metric
    blessings = tuple(
        PastBlessing(f"{n}", {metric: Summary(3, mean, 0.01)})
        for n, mean in enumerate((0.8, 0.8, 0.9))
    )
    page = html.render(replace(examples.REGRESSION, history=blessings))
    assert page.count('<svg class="spark"') == 1
    assert "The last 3 blessings: 0.8 to 0.9, 1 change point" in page
    one = html.render(replace(examples.REGRESSION, history=blessings[:1]))
    assert '<svg class="spark"' not in one
