"""`orbiter-mlflow check` on real stores: its exit codes, its reports, and failures."""

import json
import os
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from gate_runs import BLESSED, Shelf
from orbiter.train import TrainMetrics
from orbiter_mlflow import names
from orbiter_mlflow.cli.main import commands
from pages import ROOT, blocks
from trainers import Tracked, stored, tracked, trained

POLICY = """
[gate]
schema = 1
candidate_runs = 1
on_inconclusive = "{inconclusive}"
[baseline]
{baseline}
[metrics."eval/accuracy"]
direction = "higher"
{limits}
"""
BY_TAG = "filter = \"tags.baseline = 'main'\""
BASELINE = "tags.baseline = 'main'"
HOSTILE = "evil|<script>alert(1)</script>\n@everyone [red]x[/red] \x1b[31m"

Check = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def shelf(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    made = Shelf.fresh(empty_store, tmp_path_factory.mktemp("shelf"))
    for seed, value in enumerate((0.90, 0.91, 0.92, 0.89, 0.93)):
        tags = BLESSED
        made.add(f"old {seed}", {"eval/accuracy": value}, tags=tags, params={"seed": f"{seed}"})
    for seed, value in enumerate((0.90, 0.90, 0.92)):
        made.add(f"good {seed}", {"eval/accuracy": value}, tags={"change": "good"})
    for seed, value in enumerate((0.70, 0.71, 0.72)):
        made.add(f"bad {seed}", {"eval/accuracy": value}, tags={"change": "bad"})
    for seed, value in enumerate((0.89, 0.885, 0.89)):
        made.add(f"shaky {seed}", {"eval/accuracy": value}, tags={"change": "shaky"})
    made.add("blind", {"train/loss": 0.5})
    made.add("other data", {"eval/accuracy": 0.9}, data={"eval": ("test_data", "ffff")})
    made.add("died", {"eval/accuracy": 0.9}, status="FAILED")
    made.add(HOSTILE, {"eval/accuracy": 0.9})
    made.add("far", {"eval/accuracy": 0.9}, experiment="elsewhere")
    made.add("far base", {"eval/accuracy": 0.5}, experiment="elsewhere", tags=BLESSED)
    return made


@pytest.fixture
def policy(tmp_path: Path) -> Callable[..., Path]:
    def write(
        baseline: str = BY_TAG, limits: str = "max_drop = 0.01", inconclusive: str = "warn"
    ) -> Path:
        path = tmp_path / "gate.toml"
        path.write_text(POLICY.format(baseline=baseline, limits=limits, inconclusive=inconclusive))
        return path

    return write


@pytest.fixture
def check(shelf: Shelf) -> Check:
    def invoke(*arguments: object, uri: str = shelf.uri) -> tuple[int, str]:
        command = ["check", *map(str, arguments)]
        environment = {"MLFLOW_TRACKING_URI": uri, "COLUMNS": "400"}
        result = CliRunner(env=environment).invoke(commands, command)
        assert isinstance(result.exception, SystemExit | None), result.exc_info
        return result.exit_code, result.output

    return invoke


REPORTS = {"markdown": "r.md", "junit": "r.xml", "json": "r.json", "html": "r.html"}


def asking_for_all() -> list[str]:
    return [part for kind, name in REPORTS.items() for part in (f"--{kind}", name)]


def read_reports() -> dict[str, Any]:
    """All of them, read by what reads such files."""
    texts = {kind: Path(name).read_text(encoding="utf-8") for kind, name in REPORTS.items()}
    return texts | {"json": json.loads(texts["json"]), "junit": ET.fromstring(texts["junit"])}


# -- exit codes, and the reports of each -----------------------------------------------------------

OUTCOMES = {
    "pass": ({}, ["tags.change = 'good'"], 0, "pass"),
    "regression": ({}, ["tags.change = 'bad'"], 1, "regression"),
    "inconclusive, a warning": ({}, ["tags.change = 'shaky'"], 0, "warn"),
    "inconclusive": ({"inconclusive": "fail"}, ["tags.change = 'shaky'"], 4, "inconclusive"),
    "metric missing": ({}, ["good 0", "blind"], 1, "regression"),
    "other data": ({}, ["other data"], 3, "cannot compare"),
    "not finished": ({}, ["died"], 3, "cannot compare"),
    "no baseline": ({"baseline": "filter = \"tags.x = '1'\""}, ["good 0"], 3, "cannot compare"),
    "no such run": ({}, ["nobody"], 3, "cannot compare"),
    "nothing matches": ({}, ["tags.change = 'none'"], 3, "cannot compare"),
    "no such baseline": ({"baseline": 'run = "nobody"'}, ["good 0"], 3, "cannot compare"),
    "no such file": ({"baseline": 'file = "b.json"'}, ["good 0"], 3, "cannot compare"),
    "itself its baseline": ({"baseline": 'run = "good 0"'}, ["good 0"], 3, "cannot compare"),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_the_exit_code_tells_and_all_reports_say_so(
    check: Check, policy: Callable[..., Path], case: str
) -> None:
    given, candidates, code, outcome = OUTCOMES[case]
    got, out = check(policy(**given), "--candidate", *candidates, *asking_for_all())
    assert got == code, out
    headline = out.splitlines()[0]
    assert headline.startswith(outcome.upper())
    reports = read_reports()
    assert reports["json"]["outcome"] == outcome
    assert headline.partition(":")[0] in reports["markdown"]
    assert headline.partition(":")[0] in reports["html"]
    junit = reports["junit"]
    assert bool(list(junit.iter("failure"))) is (code == 1)
    assert bool(list(junit.iter("error"))) is (code == 3)


@pytest.mark.parametrize("baseline", ['file = "b.json"', 'run = "nobody"'])
def test_a_bound_fails_without_the_baseline_too(
    check: Check, policy: Callable[..., Path], baseline: str
) -> None:
    path = policy(baseline, "min = 0.8\nmax_drop = 0.01")
    assert check(path, "--candidate", "good 0")[0] == 3
    code, out = check(path, "--candidate", "bad 0", *asking_for_all())
    assert (code, out.splitlines()[0].startswith("REGRESSION")) == (1, True)
    junit = read_reports()["junit"]
    assert [len(list(junit.iter(kind))) for kind in ("failure", "error")] == [1, 1]


def test_a_pattern_may_match_metrics_of_the_missing_baseline_only(
    check: Check, policy: Callable[..., Path]
) -> None:
    path = policy('file = "b.json"')
    path.write_text(path.read_text().replace("eval/accuracy", "test/*"))
    code, out = check(path, "--candidate", "good 0")
    assert (code, "b.json: write it with" in out) == (3, True)


def test_bootstrap_lets_a_first_run_through_but_not_below_its_bounds(
    check: Check, policy: Callable[..., Path]
) -> None:
    nothing = "filter = \"tags.x = '1'\""
    first = policy(nothing, "min = 0.8\nmax_drop = 0.01")
    code, out = check(first, "--bootstrap", "--candidate", "good 0")
    assert (code, "NOT JUDGED" in out) == (0, True)
    assert check(first, "--bootstrap", "--candidate", "bad 0")[0] == 1
    assert check(policy('file = "b.json"'), "--bootstrap", "--candidate", "good 0")[0] == 0
    # What a person named is no baseline yet to come.
    assert check(policy('run = "nobody"'), "--bootstrap", "--candidate", "good 0")[0] == 3


def test_a_baseline_of_one_run_and_several_ways_to_name_candidates(
    check: Check, policy: Callable[..., Path], shelf: Shelf
) -> None:
    one = policy('run = "old 0"')
    assert check(one, "--candidate", "good 0")[0] == 0
    assert check("--candidate", "bad 0", one, "good 0")[0] == 1
    good = shelf.ids["good 0"]
    code, out = check(one, "--candidate", good, "--candidate", good[:10], "--candidate", "good 0")
    assert (code, "1 run: good 0" in out) == (0, True)


def test_the_baseline_is_searched_in_the_candidates_experiments_by_default(
    check: Check, policy: Callable[..., Path], shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenient = policy(f"{BY_TAG}\nmin_runs = 1")
    code, out = check(lenient, "--candidate", shelf.ids["far"])
    assert (code, "in experiment elsewhere" in out) == (0, True)
    code, out = check(lenient, "--experiment", "Default", "--candidate", shelf.ids["far"])
    assert (code, "5 runs" in out) == (0, True)
    two = shelf.ids["far"], shelf.ids["good 0"]
    assert "6 runs" in check(lenient, "--candidate", *two)[1]
    assert check(lenient, "--experiment", "elsewhere", "--candidate", "far")[0] == 0
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", shelf.experiment("elsewhere"))
    code, out = check(lenient, "--candidate", "far", "--candidate", shelf.ids["good 0"])
    assert (code, "in experiment elsewhere" in out) == (0, True)
    code, out = check(lenient, "--experiment", "nowhere", "--candidate", "far")
    assert (code, "there is no experiment 'nowhere'" in out) == (3, True)


def test_a_deleted_run_is_not_a_baseline(
    check: Check, policy: Callable[..., Path], shelf: Shelf
) -> None:
    gone = shelf.add("gone", {"eval/accuracy": 0.1})
    shelf.client.delete_run(gone)
    code, out = check(policy(f'run = "{gone}"'), "--candidate", "good 0")
    assert (code, "it is deleted: restore it" in out) == (3, True)
    assert check(policy(), "--candidate", gone)[0] == 3


def test_names_from_outside_do_nothing(check: Check, policy: Callable[..., Path]) -> None:
    code, out = check(policy(), *asking_for_all(), "--candidate", HOSTILE)
    assert code == 0
    assert "\x1b" not in out
    reports = read_reports()
    assert "<script" not in reports["html"] + reports["markdown"]
    assert "@everyone" not in reports["markdown"]


# -- used wrongly ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gate.toml"], "there is no candidate"),
        (["gate.toml", "--candidate", " "], "is empty"),
        (["gate.toml", "--candidate", "good 0", ""], "is empty"),
        (["nowhere.toml", "--candidate", "x"], "nowhere.toml: cannot be read"),
        ([".", "--candidate", "x"], "cannot be read"),
        (["latin.toml", "--candidate", "x"], "not UTF-8"),
        (["gate.toml", "--candidate", "tags.a == 'b'"], "tags.a == 'b'"),
        (["gate.toml", "--candidate", "tags.a = 'b' OR tags.c = 'd'"], "the filter"),
        (["wrong.toml", "--candidate", "good 0"], "the filter 'drop table'"),
        (["blank.toml", "--candidate", "good 0"], "no run has a metric that matches"),
        (["gate.toml", "--candidate", "x", "--html", "no/r.html"], "--html no/r.html cannot be"),
        (["gate.toml", "--candidate", "x", "--json", "."], "--json . is a folder"),
        (
            ["gate.toml", "--candidate", "x", "--json", "./gate.toml"],
            "input of the gate: name another",
        ),
        (["gate.toml", "--candidate", "params.lr=0.5"], "looks like a filter, give its id"),
        (["gate.toml", "--candidate", "x", "--json", "r", "--html", "./r"], "also the file of"),
        (["gate.toml", "--candidate", "x", "--tracking-uri", ""], "tracking_uri: is empty"),
        (["gate.toml", "--candidate"], "requires an argument"),
    ],
)
def test_wrong_usage_exits_with_2(
    check: Check, policy: Callable[..., Path], arguments: list[str], said: str
) -> None:
    good = policy().read_text()
    Path("wrong.toml").write_text(good.replace("tags.baseline = 'main'", "drop table"))
    Path("blank.toml").write_text(good.replace("eval/accuracy", "nothing/*"))
    Path("latin.toml").write_bytes(good.encode() + b"# \xe9\n")
    code, out = check(*arguments)
    assert (code, said in out) == (2, True), out
    assert not any(Path(name).exists() for name in REPORTS.values())


# -- in trouble ------------------------------------------------------------------------------------


def test_a_store_that_is_not_there_is_could_not_compare(
    check: Check, policy: Callable[..., Path], tmp_path: Path
) -> None:
    code, out = check(policy(), "--candidate", "x", uri=f"sqlite:///{tmp_path}/no.db")
    assert (code, "there is no store at" in out) == (3, True)
    assert not (tmp_path / "no.db").exists()


def test_a_server_that_is_down_is_reported_within_seconds_and_without_secrets(
    policy: Callable[..., Path],
) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "orbiter_mlflow", "check", str(policy())),
            *("--candidate", "x", *asking_for_all()),
        ],
        env=os.environ
        | {"MLFLOW_TRACKING_URI": "http://me:hunter2@127.0.0.1:9", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    assert "Connection refused" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert len(list(read_reports()["junit"].iter("error"))) == 1
    written = "".join(Path(name).read_text() for name in REPORTS.values())
    assert "hunter2" not in written + ended.stdout + ended.stderr


def test_a_bug_in_the_gate_never_passes(
    check: Check, policy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("orbiter_mlflow.gate.check._judged", broken)
    code, out = check(policy(), "--candidate", "good 0", *asking_for_all())
    assert code == 3
    assert "the gate itself failed: ZeroDivisionError: a fault" in out
    assert read_reports()["json"]["outcome"] == "cannot compare"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_report_that_cannot_be_written_hides_no_verdict(
    check: Check, policy: Callable[..., Path]
) -> None:
    for candidate, expected in (("bad 0", 1), ("good 0", 2)):
        code, out = check(
            policy(), "--candidate", candidate, "--json", "/dev/full", "--html", "r.html"
        )
        assert code == expected
        assert "--json /dev/full was not written" in out
        assert Path("r.html").exists()


def test_the_step_summary_is_added_to_and_any_other_file_replaced(
    check: Check, policy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, kept in (("summary.md", True), ("comment.md", False)):
        Path(name).write_text("of another step\n")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(Path("summary.md").absolute()))
        check(policy(), "--candidate", "good 0", "--markdown", name)
        text = Path(name).read_text()
        assert ("of another step" in text) is kept
        assert "PASS" in text


# -- as the README has it --------------------------------------------------------------------------


def fenced(language: str) -> list[str]:
    return [
        block.text
        for block in blocks(ROOT / "docs/how-to/ci-gate.md")
        if block.language == language
    ]


def strings_in(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from strings_in(part)


def test_the_jobs_of_the_documentation_work(
    check: Check, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = (block for block in fenced("toml") if "baseline.json" in block)
    jobs = [one for block in fenced("yaml") for one in strings_in(yaml.safe_load(block))]
    checks = [one for one in jobs if one.startswith("orbiter-mlflow check")]
    blessings = [one for one in jobs if one.startswith("orbiter-mlflow bless")]
    assert (len(checks), len(blessings)) == (2, 2)
    for seed in range(3):
        shelf.tag(f"good {seed}", attempt="12.2")
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], check=True)
    Path("gate.toml").write_text(text)
    options = ("--reason", "r", "--policy", "gate.toml", "--experiment", "Default")
    bless = ["bless", BASELINE, "--file", "baseline.json", *options]
    blessed = CliRunner(env={"MLFLOW_TRACKING_URI": shelf.uri}).invoke(commands, bless)
    assert blessed.exit_code == 0, blessed.output
    commit = ("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet")
    subprocess.run(["git", "add", "."], check=True)
    subprocess.run(["git", *commit, "--message=policy"], check=True)
    subprocess.run(["git", "update-ref", "refs/remotes/origin/main", "HEAD"], check=True)
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    monkeypatch.setenv("CI_MERGE_REQUEST_DIFF_BASE_SHA", "HEAD")
    for name in ("GITHUB_SHA", "CI_COMMIT_SHA"):
        monkeypatch.setenv(name, "3f2a9c1e")
    for name in ("ATTEMPT", "CI_PIPELINE_ID"):
        monkeypatch.setenv(name, "12.2")
    for one in checks:
        arguments = shlex.split(os.path.expandvars(one))[2:]
        code, out = check(*arguments, "--experiment", "Default")
        assert code == 0, out
        assert "3 runs: good " in out
    assert {"gate.md", "gate.xml", "gate.html"} <= {path.name for path in Path().iterdir()}
    for one in blessings:
        arguments = shlex.split(os.path.expandvars(one))[1:]
        elsewhere = [*arguments, "--experiment", "Default", "--file", "new.json"]
        blessed = CliRunner(env={"MLFLOW_TRACKING_URI": shelf.uri}).invoke(commands, elsewhere)
        assert blessed.exit_code == 0, blessed.output
        assert "main at 3f2a9c1e" in Path("new.json").read_text()


# -- over HTTP -------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_server_gives_the_same_answer_as_a_file(
    check: Check, policy: Callable[..., Path], server_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(server_uri)
    for seed in range(3):
        tags = BLESSED
        shelf.add(f"old {seed}", {"eval/accuracy": 0.9}, experiment="gate", tags=tags)
    shelf.add("bad", {"eval/accuracy": [0.9, 0.5]}, experiment="gate")
    at_best = policy(limits='max_drop = 0.01\nat = "best"')
    given = ("--experiment", "gate", "--candidate")
    assert check(at_best, *given, "bad", uri=server_uri)[0] == 0
    monkeypatch.setenv("CI", "true")
    code, out = check(policy(), *given, "bad", uri=server_uri)
    assert (code, f"{server_uri}/#/compare-runs?" in out) == (1, True)
    code, out = check(policy(), *given, "tags.a == 'b'", uri=server_uri)
    assert (code, "the filter" in out) == (2, True)


def test_a_reader_that_is_gone_changes_no_verdict(
    policy: Callable[..., Path], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "orbiter_mlflow", "check", str(policy()), "--candidate", "x"],
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/no.db"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 3


# -- with real trainers ----------------------------------------------------------------------------


async def scored(uri: str, value: float) -> Tracked:
    trainer = await trained(tracked(uri, delivery="thread"))
    trainer.scores = TrainMetrics(accuracy=value)
    await trainer.evaluate()
    stored(uri, trainer)
    return trainer


async def test_from_training_to_the_verdict(
    check: Check, policy: Callable[..., Path], sqlite_uri: str
) -> None:
    runs = [await scored(sqlite_uri, value) for value in (0.9, 0.91, 0.92, 0.88, 0.9)]
    ids = [trainer.run_id or "" for trainer in runs]
    blessing = ["bless", "--tracking-uri", sqlite_uri, *ids[:4], "--reason", "first release"]
    assert CliRunner().invoke(commands, blessing).exit_code == 0
    assert check(policy(), "--candidate", ids[4], uri=sqlite_uri)[0] == 0
    worse = await scored(sqlite_uri, 0.5)
    code, out = check(policy(), "--candidate", worse.run_id, uri=sqlite_uri)
    assert (code, "4 runs" in out) == (1, True)


async def test_a_candidate_of_which_a_part_still_waits_is_not_judged(
    check: Check, policy: Callable[..., Path], shelf: Shelf
) -> None:
    waiting = tracked(shelf.uri, delivery="offline", run_id=shelf.ids["good 1"])
    waiting.scores = TrainMetrics(accuracy=0.1)
    await waiting.evaluate()
    code, out = check(policy(), "--candidate", "good 0", "good 1")
    assert code == 3
    assert "is incomplete: part of it waits on this machine: orbiter-mlflow sync" in out


def test_the_delivery_tags_of_a_baseline_run_leave_it_out(
    check: Check, policy: Callable[..., Path], shelf: Shelf
) -> None:
    shelf.add("lossy", {"eval/accuracy": 0.1}, tags=BLESSED | {names.LOST: "3"})
    code, out = check(policy(), "--candidate", "good 0")
    assert code == 0
    assert "Left out of the baseline: 1 run" in out
    shelf.client.delete_run(shelf.ids["lossy"])


def test_a_store_without_a_ui_has_a_link_only_where_its_user_can_start_one(
    check: Check, policy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    _, out = check(policy(), "--candidate", "tags.change = 'good'", "--markdown", "gate.md")
    assert "compare in MLflow, while `" in out
    assert "server --backend-store-uri sqlite:" in out
    assert "http://127.0.0.1:5000/#/compare-runs?" in out
    assert "compare-runs" not in Path("gate.md").read_text()
    monkeypatch.setenv("CI", "true")
    assert "compare" not in check(policy(), "--candidate", "tags.change = 'good'")[1]
