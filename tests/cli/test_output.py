"""No output of a command acts on a CI log, whatever names runs have and wherever lines wrap."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gate_reports import named
from gate_runs import Shelf
from journals import HEAD, journal_of
from orbiter.train import TrainConfig
from orbiter_mlflow import config_from_text
from orbiter_mlflow.cli.main import main
from orbiter_mlflow.delivery.records import Artifact, Close, Status, Tags
from orbiter_mlflow.gate.reports.json import render as to_json
from orbiter_mlflow.gate.reports.junit import render as junit
from orbiter_mlflow.gate.reports.markdown import render as markdown
from orbiter_mlflow.gate.reports.terminal import render as terminal_text
from trainers import stored, tracked, trained

ACTS = re.compile(r"::(?=\S)|##[\w.]*\[|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
PAYLOAD = "::error::x\n::stop-commands::y\r##[error]z ##vso[task.x]##teamcity[x 'y']\x1b[31m[red] :"
HOSTILE = f"{PAYLOAD} {'a' * 30}{PAYLOAD}{':' * 40}{' ::add-mask::b' * 8}"
KEY = "k::error::x"
"""As a metric may be called: MLflow takes no other characters."""
POLICY = """
[gate]
schema = 1
[baseline]
filter = "tags.baseline = 'main'"
[metrics."*"]
direction = "higher"
max_drop = 0.01
"""

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Exit code and output of the command, run as its script runs it."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["orbiter-mlflow", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        assert isinstance(code, int | None)
        return code or 0, out + err

    return call


@pytest.fixture
def shelf(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Runs, all of whose texts are hostile, and a trainer's own among them."""
    made = Shelf.fresh(empty_store, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", HOSTILE)
    for run, value, baseline in ((f"1{HOSTILE}", 0.9, "main"), (f"2{HOSTILE}", 0.5, "none")):
        texts = {"mlflow.source.git.branch": HOSTILE, "baseline": baseline}
        data = {"eval": (f"{value}{HOSTILE}", "0123")}
        params = {KEY: HOSTILE + str(value)}
        made.add(run, {KEY: value}, experiment=HOSTILE, tags=texts, params=params, data=data)
    return made


def test_no_warning_of_a_command_acts_on_a_log(tmp_path: Path, sqlite_uri: str) -> None:
    journal = tmp_path / f"{PAYLOAD}.jsonl".replace("/", "")
    gone = Artifact("0" * 16, PAYLOAD, None, 1, "0" * 64)
    journal_of(journal, [gone, Status("FINISHED", 1), Close()])
    done = subprocess.run(  # as a program: pytest has handlers of its own
        [sys.executable, "-m", "orbiter_mlflow", "sync", "--tracking-uri", sqlite_uri, journal],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "MLflow refused" in done.stderr, done
    for line in (done.stdout + done.stderr).splitlines():
        assert not ACTS.search(line), line


@pytest.mark.parametrize("width", [40, 80, 119, 120])
def test_no_line_of_a_command_acts_on_a_log(
    width: int, shelf: Shelf, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    spool = tmp_path / "spool"
    spool.mkdir()
    for at in (0, 1):
        name = f"{at}{HOSTILE[:60]}.jsonl".replace("/", "")
        journal_of(spool / name, [Tags({})], replace(HEAD, tracking_uri=f"sqlite:///{HOSTILE}.db"))
    Path("gate.toml").write_text(POLICY)
    one, two = shelf.ids.values()
    files = [word for kind in ("markdown", "junit", "json") for word in (f"--{kind}", f"r.{kind}")]
    best = ("best", "--metric", KEY, "--direction", "lower")
    asked: list[tuple[object, ...]] = [
        *(("diff", one, two, "--format", form) for form in ("table", "markdown", "json")),
        ("diff", *shelf.ids),
        *(("runs", "--format", form) for form in ("table", "json")),
        ("runs", "--filter", HOSTILE),
        *((*best, "--format", form) for form in ("table", "json")),
        (*best, "--metric", HOSTILE),
        (*best, "--group-by", HOSTILE),
        ("diff", one, HOSTILE),
        ("reproduce", one),
        ("reproduce", f"1{HOSTILE}", "--check"),
        ("reproduce", one, "--tracking-uri", f"sqlite:///{HOSTILE}"),
        ("check", "gate.toml", "--candidate", f"2{HOSTILE}", *files),
        ("check", "gate.toml", "--candidate", HOSTILE),
        ("check", HOSTILE, "--candidate", one),
        ("check", "gate.toml", "--candidate", one, "--junit", f"{HOSTILE}/x"),
        ("bless", one, "--reason", HOSTILE),
        ("bless", HOSTILE, "--reason", "r"),
        ("ui",),
        ("ui", "--experiment", f"{HOSTILE}x"),
        ("status", spool),
        ("sync", spool, "--wait", 0),
        ("sync", HOSTILE),
        (HOSTILE,),
        ("demo", f"--{HOSTILE}"),
    ]
    for arguments in asked:
        _, out = command(*arguments)
        assert out.strip(), arguments
        for line in out.splitlines():
            assert not ACTS.search(line), (arguments, line)
    for report in Path().glob("r.*"):
        assert not ACTS.search(report.read_text().replace("\n", "")), report


@pytest.mark.parametrize("text", [HOSTILE, "::error::x", ":error:", ":", "error:"])
def test_no_line_of_a_report_acts_on_a_log(text: str) -> None:
    report = named(text, text[::-1])
    shown = [terminal_text(report, width) for width in (*range(40, 130, 7), 100, 120)]
    for whole in (*shown, markdown(report), junit(report), to_json(report)):
        for line in whole.splitlines():
            assert not ACTS.search(line), line


def test_a_config_is_the_same_though_its_text_is_harmless(
    sqlite_uri: str, command: Command
) -> None:
    config = TrainConfig(
        extra={"a": HOSTILE, "b": ["::error::x", "##[x]"], "::k": "c::d", "e": ":"}
    )
    trainer = asyncio.run(trained(tracked(sqlite_uri, config, delivery="thread")))
    run_id = stored(sqlite_uri, trainer).info.run_id
    for form in ("json", "yaml", "python"):
        code, out = command("reproduce", run_id, "--format", form, "--tracking-uri", sqlite_uri)
        assert code == 0
        for line in out.splitlines():
            assert not ACTS.search(line), line
        text = out[: out.index("\n\n#")] if form != "python" else ""
        if form != "python":
            assert config_from_text(text, TrainConfig, format=form) == config  # type: ignore[arg-type]
        else:
            scope: dict[str, object] = {}
            exec(out[: out.index("\n\n# Restore run")], scope)
            assert scope["config"] == config


def test_an_unexpected_error_is_never_an_answer(
    command: Command, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault,\n::error::x of https://me:pw@host")

    Path("gate.toml").write_text(POLICY)
    for target, arguments in {
        "orbiter_mlflow.gate.policy.load_policy": ("check", "gate.toml", "--candidate", "a"),
        "orbiter_mlflow.gate.reports.formats.require_writable": (
            *("check", "gate.toml", "--candidate", "a"),
        ),
        "orbiter_mlflow.gate.reports.terminal.renderable": (
            "check",
            "gate.toml",
            "--candidate",
            "a",
        ),
        "orbiter_mlflow.runs.reproduction.this_machine": ("reproduce", "run", "--check"),
        "orbiter_mlflow.runs.diff.diff_runs": ("diff", "run", "run"),
        "orbiter_mlflow.runs.store.RunStore": ("bless", "run", "--reason", "r"),
        "orbiter_mlflow.delivery.sync.find_journals": ("status", "."),
    }.items():
        with monkeypatch.context() as patched:
            patched.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
            patched.setenv("MLFLOW_EXPERIMENT_NAME", "Default")
            patched.setattr(target, broken)
            code, out = command(*arguments)
        if "RunNotFound" in out or "no run of experiment" in out:
            continue
        assert code == 3, (target, out)
        assert "Traceback" not in out
        assert "pw@" not in out


def test_the_traceback_of_an_unexpected_error_is_shown_on_request(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    Path("gate.toml").write_text(POLICY)
    monkeypatch.setattr("orbiter_mlflow.gate.policy.load_policy", broken)
    asked = ("check", "gate.toml", "--candidate", "a")
    hint = "(unexpected error; set ORBITER_MLFLOW_DEBUG=1 to see the traceback)"
    code, out = command(*asked)
    assert (code, out.startswith("CANNOT COMPARE: ")) == (3, True)
    assert f"the gate itself failed: ZeroDivisionError: a fault {hint}" in " ".join(out.split())
    monkeypatch.setenv("ORBITER_MLFLOW_DEBUG", "1")
    code, out = command(*asked)
    assert code == 3
    assert "in broken" in out


def test_the_bare_command_shows_its_help(command: Command) -> None:
    code, out = command()
    assert code == 2
    assert out.startswith("Usage: ")
    assert "Judge runs by a policy file" in out
    assert command("--help")[0] == 0


def test_the_json_of_a_comparison_reads_as_it_was(shelf: Shelf, command: Command) -> None:
    one, two = shelf.ids.values()
    code, out = command("diff", one, two, "--format", "json")
    assert code == 0
    assert [run["name"] for run in json.loads(out)["runs"]] == list(shelf.ids)
