"""A change that edits its own policy: the stricter of both policies decides."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gate_runs import BLESSED, Shelf
from gate_seeds import judged, seeds
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.gate.model import GateReport, Outcome, Severity, Verdict
from orbiter_mlflow.gate.policy import parse_policy
from orbiter_mlflow.gate.stricter import MAX_DIFF_LINES, policy_diff, stricter, with_problem

POLICY = """[gate]
schema = 1
candidate_runs = 1
[baseline]
filter = "tags.baseline = 'main'"
[metrics."eval/accuracy"]
direction = "higher"
max_drop = 0.01
"""
LOSS = '[metrics."eval/loss"]\ndirection = "lower"\nmax_drop = 0.1\n'

Check = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def shelf(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    made = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    for seed in range(3):
        values = {"eval/accuracy": 0.9, "eval/loss": 0.5}
        made.add(f"old {seed}", values, params={"seed": str(seed)}, tags=BLESSED)
    made.add("worse", {"eval/accuracy": 0.8, "eval/loss": 0.5})
    made.add("more loss", {"eval/accuracy": 0.9, "eval/loss": 0.9})
    return made


@pytest.fixture
def check(shelf: Shelf) -> Check:
    def invoke(candidate: str, *more: str) -> tuple[int, str]:
        given = ("--baseline-ref", "main", "--candidate", candidate, "--json", "r.json")
        return shelf.call("check", "gate.toml", *given, *more)

    return invoke


def commit(text: str | bytes) -> None:
    """Make a repository whose branch main has this policy."""
    Path("gate.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for arguments in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "gate.toml"),
        ("commit", "--quiet", "--message=policy"),
    ):
        subprocess.run(["git", *identity, *arguments], check=True, timeout=60)


def written() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("r.json").read_text())
    return found


def test_looser_limits_do_not_let_a_regression_through(check: Check) -> None:
    commit(POLICY)
    Path("gate.toml").write_text(POLICY.replace("0.01", "0.5"))
    code, out = check("worse", "--markdown", "r.md")
    assert (code, "the stricter of both decides" in out) == (1, True)
    assert "decides; by the one here, the verdict is pass" in " ".join(out.split())
    change = written()["policy_change"]
    assert change["accepted"] is False
    assert {"-max_drop = 0.01", "+max_drop = 0.5"} <= set(change["diff"])
    for line in ("-max_drop = 0.01", "+max_drop = 0.5"):
        assert line in out
    assert "max_drop = 0.5" in Path("r.md").read_text()


def test_an_accepted_change_decides_alone_and_the_report_says_so(check: Check) -> None:
    commit(POLICY)
    Path("gate.toml").write_text(POLICY.replace("0.01", "0.5"))
    code, out = check("worse", "--accept-policy-change")
    assert (code, "the one here decides alone (--accept-policy-change)" in out) == (0, True)
    assert "+max_drop = 0.5" in out


def test_stricter_limits_count_at_once(check: Check) -> None:
    commit(POLICY.replace("0.01", "0.5"))
    Path("gate.toml").write_text(POLICY)
    assert check("worse")[0] == 1


def test_a_metric_that_the_change_removed_is_judged(check: Check) -> None:
    commit(POLICY + LOSS)
    Path("gate.toml").write_text(POLICY)
    code, out = check("more loss")
    assert (code, "only the policy at main" in out) == (1, True)


def test_each_policy_judges_with_its_own_baseline(check: Check) -> None:
    commit(POLICY)
    Path("gate.toml").write_text(
        POLICY.replace("filter = \"tags.baseline = 'main'\"", 'run = "more loss"').replace(
            "max_drop = 0.01", "max_drop = 0.3"
        )
    )
    code, out = check("worse")
    assert (code, "compares with another baseline: filter tags.baseline" in out) == (1, True)


def test_the_same_policy_is_not_mentioned(check: Check) -> None:
    commit(POLICY)
    Path("gate.toml").write_bytes(POLICY.replace("\n", "\r\n").encode())
    code, out = check("more loss")
    assert (code, "differs" in out, written()["policy_change"]) == (0, False, None)


def test_a_policy_that_the_ref_lacks_decides_alone_and_the_report_says_so(check: Check) -> None:
    commit(POLICY)
    Path("new.toml").write_text(POLICY.replace("0.01", "0.5"))
    subprocess.run(["git", "rm", "--quiet", "--cached", "gate.toml"], check=True)
    commit_again = ("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "no")
    subprocess.run(["git", *commit_again], check=True)
    code, out = check("more loss")
    assert (code, "is not at main" in out, "decides alone" in out) == (0, True, True)


@pytest.mark.parametrize(
    "there",
    [
        b"",
        b"nonsense [",
        b"\xff\xfe",
        POLICY.replace("eval/accuracy", "eval/gone").encode(),
        POLICY.replace("eval/accuracy", "gone*").encode(),
        POLICY.replace("tags.baseline = 'main'", "no filter at all").encode(),
    ],
)
def test_a_policy_at_the_ref_that_cannot_judge_names_the_way_out(
    check: Check, there: bytes
) -> None:
    commit(there)
    Path("gate.toml").write_text(POLICY)
    code, out = check("more loss")
    assert (code, "cannot judge: " in out) == (3, True)
    assert "pass --accept-policy-change" in out
    assert check("worse")[0] == 1, "a regression by the policy here stays one"
    assert check("more loss", "--accept-policy-change")[0] == 0


def test_an_acceptance_that_the_change_adds_does_not_count_until_it_is_merged(
    check: Check,
) -> None:
    commit(POLICY)
    accept = '[[accept]]\nmetric = "eval/accuracy"\nuntil = 9999-12-31\nreason = "r"\nby = "b"\n'
    Path("gate.toml").write_text(POLICY + accept)
    assert check("worse")[0] == 1
    code, out = check("worse", "--accept-policy-change")
    assert (code, "accepted until 9999-12-31 by b: r" in out) == (0, True)


def test_the_option_alone_is_wrong_usage(shelf: Shelf) -> None:
    Path("gate.toml").write_text(POLICY)
    given = ["check", "gate.toml", "--candidate", "worse", "--accept-policy-change"]
    result = CliRunner(env={"MLFLOW_TRACKING_URI": shelf.uri}).invoke(commands, given)
    assert (result.exit_code, "--accept-policy-change needs --baseline-ref" in result.output) == (
        2,
        True,
    )


# -- without a store -------------------------------------------------------------------------------

RUNS = seeds("c", {0: 0.7, 1: 0.7, 2: 0.7})
OLD = seeds("b", {0: 0.8, 1: 0.8, 2: 0.8})


def report(limits: str = "max_drop = 0.01", severity: Severity = "fail") -> GateReport:
    text = (
        "[gate]\nschema = 1\n[baseline]\nfilter = 'f'\n[metrics.m]\ndirection = 'higher'\n"
        f"severity = '{severity}'\n{limits}\n"
    )
    return judged(RUNS, OLD, parse_policy(text.encode(), "gate.toml"))


FAILS, PASSES, WARNS = report(), report("max_drop = 0.5"), report(severity="warn")
INFORMS = report(severity="info")
BROKEN = with_problem(PASSES, "no store")


@pytest.mark.parametrize("other", [FAILS, PASSES, WARNS, INFORMS, BROKEN])
@pytest.mark.parametrize("first", [FAILS, PASSES, WARNS, INFORMS, BROKEN])
def test_the_stricter_report_never_passes_where_one_of_the_two_does_not(
    first: GateReport, other: GateReport
) -> None:
    both = stricter(first, other, "main")
    order = [
        *(Outcome.PASS, Outcome.WARN, Outcome.INCONCLUSIVE),
        *(Outcome.CANNOT_COMPARE, Outcome.REGRESSION),
    ]
    assert both.outcome is order[max(order.index(first.outcome), order.index(other.outcome))]
    assert {run.run_id for run in both.baseline} == {run.run_id for run in OLD}


def test_of_two_results_the_one_that_fails_the_build_is_shown() -> None:
    assert stricter(WARNS, FAILS, "main").metrics[0].severity == "fail"
    assert stricter(PASSES, WARNS, "main").metrics[0].verdict is Verdict.FAIL
    assert stricter(FAILS, WARNS, "main").metrics == FAILS.metrics


def test_a_long_difference_is_cut_and_says_so() -> None:
    lines = policy_diff("", "\n".join("x" * 1000 for _ in range(5000)), "main")
    assert len(lines) == MAX_DIFF_LINES + 1
    assert lines[-1].endswith(" more lines")
    assert max(map(len, lines)) < 500
