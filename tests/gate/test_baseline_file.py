"""Baseline files: validated strictly, and read at a git ref so that no change judges itself."""

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gate_runs import Shelf
from orbiter_mlflow.errors import CannotCompareError
from orbiter_mlflow.gate import baseline_file
from orbiter_mlflow.gate.model import GateRun

POLICY = """
[gate]
schema = 1
candidate_runs = 1
[baseline]
file = "base/baseline.json"
[metrics."eval/accuracy"]
direction = "higher"
max_drop = 0.01
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def shelf(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    made = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    for seed in range(3):
        made.add(f"good {seed}", {"eval/accuracy": 0.9}, params={"seed": str(seed)})
        made.add(f"bad {seed}", {"eval/accuracy": 0.5}, params={"seed": str(seed)})
    return made


@pytest.fixture
def run(shelf: Shelf) -> Run:
    return shelf.call


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(
        ["git", *identity, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


GOOD, BAD = ("good 0", "good 1", "good 2"), ("bad 0", "bad 1", "bad 2")


@pytest.fixture
def repository(run: Run, tmp_path: Path) -> Path:
    """A repository, present folder, whose branch main has a baseline of the good runs."""
    git("init", "--quiet", "--initial-branch=main")
    (tmp_path / "base").mkdir()
    Path("gate.toml").write_text(POLICY)
    code, out = run("bless", *GOOD, "--reason", "first", "--file", "base/baseline.json")
    assert code == 0, out
    git("add", "gate.toml", "base")
    git("commit", "--quiet", "--message=baseline")
    return tmp_path


def rewrite(run: Run) -> None:
    assert run("bless", *BAD, "--reason", "hm", "--file", "base/baseline.json")[0] == 0


# -- at a git ref ----------------------------------------------------------------------------------


def test_a_file_here_is_a_baseline(repository: Path, run: Run, tmp_path: Path) -> None:
    assert run("check", "gate.toml", "--candidate", *GOOD)[0] == 3, "candidates are the baseline"
    code, out = run("check", "gate.toml", "--candidate", *BAD)
    assert (code, ": first" in out) == (1, True)
    (tmp_path / "elsewhere").mkdir()
    assert run("check", repository / "gate.toml", "--candidate", "bad 0")[0] == 1


def test_a_change_is_not_judged_by_the_baseline_it_rewrote(repository: Path, run: Run) -> None:
    rewrite(run)
    git("commit", "--quiet", "--all", "--message=make it pass")
    assert run("check", "gate.toml", "--candidate", "bad 0")[0] == 3, "now part of it"
    code, out = run("check", "gate.toml", "--baseline-ref", "HEAD~1", "--candidate", *BAD)
    assert code == 1
    assert "baseline.json differs from the one at HEAD~1" in out
    assert "eval/accuracy 0.9 (n = 3, last) there, 0.5 (n = 3, last) here" in out
    assert "3 runs added, 3 removed" in out


def test_a_file_that_is_the_same_is_not_flagged(repository: Path, run: Run) -> None:
    code, out = run("check", "gate.toml", "--baseline-ref", "main", "--candidate", "bad 0")
    assert (code, "differs" in out) == (1, False)
    assert f"at main ({git('rev-parse', 'main')[:8]})" in out


def test_a_file_that_was_removed_or_broken_here_is_flagged(repository: Path, run: Run) -> None:
    given = ("check", "gate.toml", "--baseline-ref", "main", "--candidate", "bad 0")
    Path("base/baseline.json").write_text("{}")
    code, out = run(*given)
    assert (code, "is not a baseline file" in out) == (1, True)
    Path("base/baseline.json").unlink()
    Path("base").rmdir()
    code, out = run(*given)
    assert (code, "baseline.json is not here" in out) == (1, True)


def test_limits_that_were_relaxed_here_are_flagged(repository: Path, run: Run) -> None:
    Path("gate.toml").write_text(POLICY.replace("0.01", "0.9"))
    code, out = run("check", "gate.toml", "--baseline-ref", "main", "--candidate", "bad 0")
    assert (code, "the policy gate.toml differs from the one at main" in out) == (1, True)
    by_tag = POLICY.replace('file = "base/baseline.json"', 'run = "good 0"')
    Path("new.toml").write_text(by_tag)
    code, out = run("check", "new.toml", "--baseline-ref", "main", "--candidate", "bad 0")
    assert (code, "the policy new.toml is not at main" in out) == (1, True)
    assert "as they are in the store now, not at main" in " ".join(out.split())


def test_a_new_baseline_file_does_not_exist_at_the_ref(repository: Path, run: Run) -> None:
    Path("gate.toml").write_text(POLICY.replace("baseline.json", "other.json"))
    run("bless", *BAD, "--reason", "other", "--file", "base/other.json")
    given = ("check", "gate.toml", "--baseline-ref", "main", "--candidate", "bad 0")
    code, out = run(*given)
    assert (code, "there is no file base/other.json at main" in out) == (1, True), "by the old one"
    code, out = run(*given, "--bootstrap", "--accept-policy-change")
    assert (code, "other.json is here, but not at main" in out) == (0, True)


@pytest.mark.parametrize(
    "ref", ["nowhere", "--output=stolen", "-h", "main..HEAD", "main:gate.toml", ""]
)
def test_an_unknown_ref_cannot_be_compared(repository: Path, run: Run, ref: str) -> None:
    code, out = run(
        "check", "gate.toml", f"--baseline-ref={ref}", "--bootstrap", "--candidate", "bad 0"
    )
    assert code == 3
    assert "git ref" in out or "fetch-depth: 0" in out
    assert not Path("stolen").exists()


def test_in_a_shallow_clone_the_message_says_how_to_fetch_the_rest(
    repository: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("checkout", "--quiet", "-b", "change")
    git("commit", "--quiet", "--allow-empty", "--message=change")
    git("clone", "--quiet", "--depth=1", f"file://{repository}", "clone")
    monkeypatch.chdir("clone")
    code, out = run("check", "gate.toml", "--baseline-ref", "origin/main", "--candidate", "bad 0")
    assert (code, "fetch-depth: 0" in out) == (3, True)


def test_bounds_are_checked_even_if_the_ref_is_unknown(repository: Path, run: Run) -> None:
    Path("gate.toml").write_text(POLICY + "min = 0.8\n")
    code, out = run("check", "gate.toml", "--baseline-ref=nowhere", "--candidate", "bad 0")
    assert (code, "fetch-depth: 0" in out, "below min = 0.8" in out) == (1, True, True)


def test_no_report_overwrites_the_baseline(repository: Path, run: Run) -> None:
    before = Path("base/baseline.json").read_bytes()
    code, out = run("check", "gate.toml", "--candidate", "bad 0", "--json", "base/baseline.json")
    assert (code, "is an input of the gate" in out) == (2, True)
    assert Path("base/baseline.json").read_bytes() == before


def test_a_baseline_that_is_a_circle_of_links_cannot_be_read(run: Run) -> None:
    Path("gate.toml").write_text(POLICY)
    Path("base").mkdir()
    Path("base/baseline.json").symlink_to("baseline.json")
    code, out = run("check", "gate.toml", "--candidate", "bad 0", "--json", "r.json")
    assert (code, "baseline.json cannot be read" in out) == (3, True)


def test_a_ref_outside_a_repository_cannot_be_compared(run: Run) -> None:
    Path("gate.toml").write_text(POLICY)
    code, out = run("check", "gate.toml", "--baseline-ref", "main", "--candidate", "bad 0")
    assert (code, "is not in a readable git repository" in out) == (3, True)


# -- what is in it ---------------------------------------------------------------------------------


def test_a_file_of_another_point_is_not_compared_with(repository: Path, run: Run) -> None:
    Path("gate.toml").write_text(POLICY + 'at = "best"\n')
    code, out = run("check", "gate.toml", "--candidate", "bad 0")
    assert code == 3
    assert "has the last value of eval/accuracy, but the policy uses best (higher)" in out


def edited(**changes: Any) -> bytes:
    content: dict[str, Any] = {
        "schema": 1,
        "blessed": {"at": "2026-01-01", "by": "a", "reason": "b", "policy": None},
        "runs": {
            "seed 0": {"run_id": "a", "name": "", "start_time": 0, "params": {}, "datasets": {}},
            "seed 1": {"run_id": "b", "name": "", "start_time": 0, "params": {}, "datasets": {}},
        },
        "metrics": {
            "m": {"point": "last", "n": 2, "mean": 1.5, "values": {"seed 0": 1, "seed 1": 2.0}}
        },
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        table = content
        for parent in parents:
            table = table[parent.replace("_", " ")]
        table[last.replace("_", " ") if last.startswith("seed") else last] = value
    return json.dumps(content).encode()


def test_a_file_is_read_back_as_runs() -> None:
    first, second = baseline_file.parse_baseline(edited(), "b.json").gate_runs()
    assert (first.run_id, first.status, first.metrics) == ("a", "FINISHED", {"m": 1.0})
    assert second.metrics == {"m": 2.0}


@pytest.mark.parametrize("values", [(0.1, 0.2, 0.3, -0.6), (1e149, 1e150, -1e150, 1e3)])
def test_a_written_file_is_read_back_in_any_order_of_the_runs(values: tuple[float, ...]) -> None:
    blessing = baseline_file.Blessing(at="2026-01-01", by="a", reason="b")
    for order in itertools.permutations(values):
        runs = [
            GateRun(str(at), "", "FINISHED", {"seed": str(seed)}, {}, {"m": value})
            for at, (seed, value) in enumerate(zip((8, 9, 10, 11), order, strict=True))
        ]
        made = baseline_file.make_baseline(runs, {"m": None}, blessing)
        assert baseline_file.parse_baseline(made.text().encode(), "b.json") == made


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a baseline file"),
        (b"\xff\xfe", "is not a baseline file"),
        (b"[]", "is not a baseline file"),
        (edited(schema=2), "schema"),
        (edited(extra=1), "extra"),
        (edited(runs={}), "runs"),
        (edited(metrics__m__mean=1.4), "was edited"),
        (edited(metrics__m__n=3), "was edited"),
        (edited(metrics__m__values={"seed 0": 1.5, "seed 7": 1.5}), "which are not in runs"),
        (edited(metrics__m__values={}), "has no values"),
        (edited(metrics__m__values={"seed 0": "1", "seed 1": 2}), "metrics.m.values.seed 0"),
        (edited(metrics__m__values={"seed 0": float("nan"), "seed 1": 2}), "finite"),
        (edited(metrics__m__values={"seed 0": True, "seed 1": 2}), "metrics.m.values.seed 0"),
        (edited(metrics__m__values={"seed 0": 2e150, "seed 1": 2}), "is beyond 1e+150"),
        (edited(runs__seed_1__run_id="a"), "has the same run twice"),
        (edited(blessed__reason=""), "blessed.reason"),
    ],
)
def test_a_file_that_does_not_add_up_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(CannotCompareError) as told:
        baseline_file.parse_baseline(content, "b.json")
    assert str(told.value).startswith("b.json is not a baseline file: ")
    assert said in str(told.value)
    assert "\n" not in str(told.value)
