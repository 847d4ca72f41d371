"""What nobody foresaw ends with exit code 3 and a report; what no run has ends with 2."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from gate_runs import BLESSED, Shelf
from gate_seeds import judged, seeds
from orbiter_mlflow.cli import gate as command
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.gate import check as gate_check
from orbiter_mlflow.gate import policy as policies
from orbiter_mlflow.gate.model import Outcome
from orbiter_mlflow.gate.policy import parse_policy
from orbiter_mlflow.gate.reports import html, terminal

POLICY = """[gate]
schema = 1
candidate_runs = 1
[baseline]
filter = "tags.baseline = 'main'"
[metrics."{metric}"]
direction = "higher"
max_drop = 0.01
"""
REPORTS = ("--json", "r.json", "--html", "r.html", "--markdown", "r.md", "--junit", "r.xml")

Check = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def shelf(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    made = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    for seed in range(3):
        values = {"eval/accuracy": 0.9, "eval/gone": 0.9}
        made.add(f"old {seed}", values, params={"seed": str(seed)}, tags=BLESSED)
    made.add("good", {"eval/accuracy": 0.9})
    made.add("died", {"eval/accuracy": 0.9}, status="KILLED")
    return made


@pytest.fixture
def check(shelf: Shelf) -> Check:
    def invoke(candidate: str = "good", metric: str = "eval/accuracy") -> tuple[int, str]:
        Path("gate.toml").write_text(POLICY.format(metric=metric))
        return shelf.call("check", "gate.toml", "--candidate", candidate, *REPORTS, width=400)

    return invoke


class Panic(BaseException):
    """Libraries in Rust raise what is no `Exception`."""


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error", [RuntimeError("odd"), SystemExit(1), SystemExit(0), Panic("odd"), MemoryError()]
)
@pytest.mark.parametrize("where", ["run_check", "load_policy"])
def test_what_nobody_foresaw_cannot_be_compared(
    check: Check, monkeypatch: pytest.MonkeyPatch, error: BaseException, where: str
) -> None:
    module = gate_check if where == "run_check" else policies
    monkeypatch.setattr(module, where, failing(error))
    code, out = check()
    assert (code, "the gate itself failed" in out) == (3, True)
    written = where == "run_check"  # until the policy is read, no file is known to be no input
    assert [Path(name).exists() for name in REPORTS[1::2]] == [written] * 4
    if written:
        assert json.loads(Path("r.json").read_text())["exit_code"] == 3


def test_a_report_that_cannot_be_made_fails_the_check_and_costs_no_other(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "render", failing(KeyError("odd")))
    code, out = check()
    assert (code, "--html r.html was not written" in out) == (3, True)
    assert [Path(name).exists() for name in ("r.json", "r.html", "r.md", "r.xml")] == [
        *(True, False, True, True)
    ]


def test_a_report_that_cannot_be_printed_is_no_pass(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "renderable", failing(ValueError("odd")))
    code, out = check()
    assert (code, "not printed" in out) == (3, True)


def test_an_interrupt_stays_one(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_judge", failing(KeyboardInterrupt()))
    result = CliRunner().invoke(commands, ["check", "gate.toml", "--candidate", "x"])
    assert "Aborted" in result.output


def test_a_command_that_cannot_be_loaded_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ImportError('broken installation')\n")
    ended = subprocess.run(
        [sys.executable, "-m", "orbiter_mlflow", "check", "gate.toml"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, "broken installation" in ended.stderr) == (3, True)


# -- a metric that no run has ----------------------------------------------------------------------


def test_a_metric_that_no_run_has_is_wrong_usage_and_similar_ones_are_named(check: Check) -> None:
    code, out = check(metric="eval/acuracy")
    assert (code, 'did you mean "eval/accuracy"?' in out) == (2, True)


def test_a_metric_that_the_baseline_alone_has_is_a_regression(check: Check) -> None:
    code, out = check(metric="eval/gone")
    assert (code, "have no value of it" in out) == (1, True)


def test_an_incomplete_candidate_may_still_log_the_metric(check: Check) -> None:
    code, out = check("died", metric="eval/late")
    assert (code, "died is incomplete" in out) == (3, True)


# -- datasets in any context -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "metric", "outcome"),
    [
        ("eval", "eval/accuracy", Outcome.CANNOT_COMPARE),
        ("validation", "eval/accuracy", Outcome.CANNOT_COMPARE),
        ("my set", "score", Outcome.CANNOT_COMPARE),
        ("train", "eval/accuracy", Outcome.PASS),
        ("training", "eval/accuracy", Outcome.PASS),
        ("train", "train/loss", Outcome.CANNOT_COMPARE),
        ("training", "train/loss", Outcome.CANNOT_COMPARE),
    ],
)
@pytest.mark.parametrize("comparable", ["", "[comparable]\nallow_differ = ['datasets.*']\n"])
def test_datasets_must_be_equal_in_any_context_that_a_metric_may_come_from(
    context: str, metric: str, outcome: Outcome, comparable: str
) -> None:
    values = dict.fromkeys(range(3), 0.0)
    old, new = (
        seeds(side, values, metrics={metric: 0.5}, datasets={context: f"d:{side}"})
        for side in ("old", "new")
    )
    text = f"{comparable}{POLICY.format(metric=metric)}"
    report = judged(new, old, parse_policy(text.encode(), "gate.toml"))
    assert report.outcome is (Outcome.PASS if comparable else outcome)
