"""`orbiter-mlflow check` and the past of a baseline: slow decline, history and age, end to end."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gate_runs import Shelf
from orbiter_mlflow import names

POLICY = """
[gate]
schema = 1
[baseline]
{baseline}
[metrics."eval/accuracy"]
direction = "higher"
max_drop = 0.02
{metric}
"""
BY_TAG = "filter = \"tags.baseline = 'main'\"\n"
BY_FILE = 'file = "b.json"\n'
STEPS = (0.90, 0.894, 0.889, 0.882, 0.877, 0.87)

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def shelf(empty_store: Path, tmp_path: Path) -> Shelf:
    return Shelf.fresh(empty_store, tmp_path)


@pytest.fixture
def run(shelf: Shelf) -> Run:
    return shelf.call


def seeds(shelf: Shelf, name: str, mean: float, **more: Any) -> list[str]:
    made = [f"{name}-{seed}" for seed in range(3)]
    for seed, run_name in enumerate(made):
        value = mean + (seed - 1) * 0.003
        best = [value, 0.5]  # the best is not the last
        metrics: dict[str, float | Sequence[float]] = {"eval/accuracy": value, "eval/best": best}
        shelf.add(run_name, metrics, params={"seed": str(seed)}, **more)
    return made


def write_policy(baseline: str, metric: str = "") -> Path:
    Path("gate.toml").write_text(POLICY.format(baseline=baseline, metric=metric))
    return Path("gate.toml")


def check(run: Run, candidates: list[str]) -> tuple[int, str, dict[str, Any]]:
    given = ("check", "gate.toml", "--json", "r.json", "--html", "r.html", "--candidate")
    code, out = run(*given, *candidates)
    return code, out, json.loads(Path("r.json").read_text())


def bless(run: Run, runs: list[str], *more: str) -> None:
    code, out = run("bless", *runs, "--reason", "release", *more)
    assert code == 0, out


# -- drift and history -----------------------------------------------------------------------------


@pytest.mark.parametrize(("baseline", "more"), [(BY_TAG, ()), (BY_FILE, ("--file", "b.json"))])
def test_a_slow_decline_over_blessings_fails_the_build(
    shelf: Shelf, run: Run, baseline: str, more: tuple[str, ...]
) -> None:
    for release, mean in enumerate(STEPS):
        bless(run, seeds(shelf, f"release-{release}", mean), *more)
    candidates = seeds(shelf, "change", 0.866)
    write_policy(baseline)
    code, _, report = check(run, candidates)
    assert (code, report["drift"]) == (0, [])
    means = [one["metrics"]["eval/accuracy"]["mean"] for one in report["history"]]
    assert means == pytest.approx(STEPS)
    assert report["history"][0]["metrics"]["eval/accuracy"]["sd"] == pytest.approx(0.003)
    assert '<svg class="spark"' in Path("r.html").read_text()

    write_policy(f"{baseline}drift = true\n")
    code, out, report = check(run, candidates)
    assert (code, "has declined by" in out.splitlines()[0]) == (1, True), out
    (drift,) = report["drift"]
    assert (drift["verdict"], drift["points"]) == ("fail", 7)
    assert "Slow decline over the last blessings: 1 of 1 metric" in out


def test_an_accepted_loss_is_no_decline(shelf: Shelf, run: Run) -> None:
    policy = write_policy(f"{BY_TAG}drift = true\n")
    for release, mean in enumerate((0.95, 0.95, 0.95, 0.90, 0.9, 0.9, 0.9)):
        accepted = ("--accept-lower", "eval/accuracy") if release == 3 else ()
        bless(run, seeds(shelf, f"release-{release}", mean), "--policy", str(policy), *accepted)
    code, _, report = check(run, seeds(shelf, "change", 0.9))
    assert (code, [one["points"] for one in report["drift"]]) == (0, [5])


def test_blessings_on_other_data_are_no_part_of_a_trend(shelf: Shelf, run: Run) -> None:
    write_policy(f"{BY_TAG}drift = true\n")
    for release, mean in enumerate((0.95, 0.95, 0.95, 0.90, 0.9, 0.9, 0.9)):
        data = {"eval": ("test_data", "old" if release < 3 else "new")}
        bless(run, seeds(shelf, f"release-{release}", mean, data=data))
    new = {"eval": ("test_data", "new")}
    code, _, report = check(run, seeds(shelf, "change", 0.9, data=new))
    assert (code, [one["points"] for one in report["drift"]]) == (0, [5])
    assert len(report["history"]) == 7


def test_a_best_value_has_a_trend_but_costs_no_requests_without_one(shelf: Shelf, run: Run) -> None:
    for release, mean in enumerate(STEPS):
        bless(run, seeds(shelf, f"release-{release}", mean))
    candidates = seeds(shelf, "change", 0.866)
    best = '[metrics."eval/best"]\ndirection = "higher"\nmax_drop = 0.02\nat = "best"'
    write_policy(BY_TAG, best)
    _, _, report = check(run, candidates)
    assert [len(one["metrics"]) for one in report["history"]] == [1, 1, 1, 1, 1, 2]
    write_policy(f"{BY_TAG}drift = true\n", best)
    code, _, report = check(run, candidates)
    assert (code, [one["verdict"] for one in report["drift"]]) == (1, ["fail", "fail"])
    assert [len(one["metrics"]) for one in report["history"]] == [2] * 6


def test_a_decline_that_the_policy_accepts_passes(shelf: Shelf, run: Run) -> None:
    for release, mean in enumerate(STEPS):
        bless(run, seeds(shelf, f"release-{release}", mean))
    path = write_policy(
        f"{BY_TAG}drift = true\n",
        '[[accept]]\nmetric = "eval/accuracy"\nuntil = 2999-01-01\n'
        'reason = "a smaller model"\nby = "somebody"\n',
    )
    assert path.exists()
    code, _, report = check(run, seeds(shelf, "change", 0.866))
    assert (code, report["drift"][0]["verdict"]) == (0, "accepted")
    assert report["approvals"][0]["status"] == "used"


# -- age -------------------------------------------------------------------------------------------


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(
        ["git", *identity, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_an_old_baseline_is_a_warning_and_changes_no_exit_code(shelf: Shelf, run: Run) -> None:
    old = {names.BASELINE: "main", names.BLESSED_AT: "2020-01-01T00:00:00.000+00:00"}
    seeds(shelf, "release", 0.9, tags=old)
    candidates = seeds(shelf, "change", 0.9)
    write_policy(f"{BY_TAG}max_age_days = 365\n")
    code, out, report = check(run, candidates)
    assert (code, "days old, more than max_age_days = 365: bless a newer one" in out) == (0, True)
    assert report["age"]["days"] > 2000
    assert report["age"]["commits"] is None
    write_policy(f"{BY_TAG}max_age_days = 1e9\n")
    code, out, report = check(run, candidates)
    assert (code, report["age"]["warnings"], "days old" in out) == (0, [], True)


def test_the_age_in_commits_is_counted_where_git_knows_both(shelf: Shelf, run: Run) -> None:
    git("init", "--quiet")
    commits = []
    for number in range(4):
        git("commit", "--quiet", "--allow-empty", f"--message={number}")
        commits.append(git("rev-parse", "HEAD"))
    bless(run, seeds(shelf, "release", 0.9, tags={names.GIT_COMMIT: commits[0]}))
    candidates = seeds(shelf, "change", 0.9, tags={names.GIT_COMMIT: commits[3]})
    write_policy(f"{BY_TAG}max_age_commits = 3\n")
    code, out, report = check(run, candidates)
    assert (code, report["age"]["commits"], report["age"]["warnings"]) == (0, 3, [])
    assert "and 3 commits old" in out
    write_policy(f"{BY_TAG}max_age_commits = 2\n")
    code, out, _ = check(run, candidates)
    assert (code, "is 3 commits old, more than max_age_commits = 2" in out) == (0, True)
    unknown = seeds(shelf, "other", 0.9, tags={names.GIT_COMMIT: "f" * 40})
    code, out, report = check(run, unknown)
    assert (code, report["age"]["commits"]) == (0, None)
    assert "max_age_commits was not checked" in out
