"""`orbiter-mlflow reproduce`: the config of a real run, and the steps that restore its code."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from configs import Lora
from logged import as_stored, log_to, params_and_tags
from orbiter.train import TrainConfig
from orbiter_mlflow import config_from_text, load_config, names
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.runs.diff import Difference
from orbiter_mlflow.runs.model import DatasetInput, StoredRun
from orbiter_mlflow.runs.reproduction import Machine, check, steps, this_machine
from orbiter_mlflow.text.escaping import plain
from paths import ROOT

COMMAND = Path(sys.executable).with_name("orbiter-mlflow")
HOSTILE = "\x1b[31m[red]x\nrm -rf /; $(id) `id` \u202e'\"\x1b["
CONFIG = TrainConfig(
    learning_rate=0.1 + 0.2,
    extra={"lora": Lora(r=3, targets=("q",)), "größe": [1.0, None], "hf_token": "hf_" + "Ab1" * 9},
)
PROGRAM = """\
import asyncio, sys
sys.path.insert(0, {tests!r})
from configs import Lora
from orbiter.train import TrainConfig
from trainers import tracked, trained
from waiting import eventually

trainer = tracked(sys.argv[1], TrainConfig(epochs=3, extra={{"lora": Lora(), "seed": 5}}))
trainer.check_dataset(["a", "b"])
asyncio.run(trained(trainer))
eventually(lambda: trainer.delivered)
print(trainer.run_id)
"""


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["reproduce", *arguments])


def as_typed(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "reproduce", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


@dataclass(frozen=True)
class Project:
    folder: Path
    uri: str
    run_id: str


@pytest.fixture
def project(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run of a program whose repository has a change and a new file that are not committed."""
    folder = tmp_path_factory.mktemp("project")
    origin, clone = folder / "origin", folder / "clone"
    origin.mkdir()
    program = PROGRAM.format(tests=str(ROOT / "tests/support"))
    (origin / "train.py").write_text(program)
    git(origin, "init", "-q")
    git(origin, "add", ".")
    git(origin, "commit", "-q", "-m", "first")
    git(folder, "clone", "-q", str(origin), "clone")
    (clone / "train.py").write_text(program.replace("epochs=3", "epochs=4"))
    (clone / "new file.py").write_text("")
    (clone / "added.py").write_text("added = 1\n")
    git(clone, "add", "added.py")
    store = folder / "store.db"
    store.write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{store}"
    ended = subprocess.run(
        [sys.executable, str(clone / "train.py"), uri],
        cwd=clone,
        env=os.environ | {"XDG_STATE_HOME": str(folder / "state")},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return Project(clone, uri, ended.stdout.split()[-1])


def test_the_way_back_and_whether_one_is_there(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _assert_steps_lead_back(project, tmp_path)
    _assert_check_tells(project, monkeypatch)


def _assert_steps_lead_back(project: Project, tmp_path: Path) -> None:
    ended = as_typed(project.run_id[:8], "--tracking-uri", project.uri, "--format", "json")
    assert ended.returncode == 0, ended.stderr
    assert "Downloading" not in ended.stderr
    config = config_from_text(ended.stdout, TrainConfig)
    assert config == TrainConfig(epochs=4, extra={"lora": Lora(), "seed": 5})
    assert config == load_config(project.run_id, TrainConfig, tracking_uri=project.uri)

    assert re.search(r"^#   new file.py$", ended.stderr, re.MULTILINE)
    assert f"# {sys.executable} " in ended.stderr
    assert re.search(r"^# seeds: extra.seed = 5$", ended.stderr, re.MULTILINE)
    assert re.search(r"^# dataset: .* \(train\), digest \w+$", ended.stderr, re.MULTILINE)
    # To install takes a network: the file is looked at in its place.
    script = ended.stderr.replace("pip install -r", "cat")
    assert script != ended.stderr
    done = subprocess.run(
        ["bash", "-e"], input=script, cwd=tmp_path, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    back = tmp_path / f"run-{project.run_id[:8]}"
    assert git(back, "diff", "HEAD") == git(project.folder, "diff", "HEAD") != ""
    assert git(back, "status", "--porcelain") == "A  added.py\nM  train.py\n"
    (back / "new file.py").write_text("")  # the one thing that was not kept
    there = as_typed(project.run_id, "--tracking-uri", project.uri, "--check", cwd=back)
    assert there.returncode == 0, there.stdout
    assert "\nmlflow==" in done.stdout


def _assert_check_tells(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ("--tracking-uri", project.uri, "--check")
    same = as_typed(project.run_id, *store, cwd=project.folder)
    assert (same.returncode, same.stderr) == (0, ""), same.stdout
    assert same.stdout.startswith(f"same as in run {project.run_id}: ")
    assert "not compared: the content of untracked files" in same.stdout

    monkeypatch.chdir(project.folder.parent / "origin")
    other = reproduce(project.run_id, *store)
    assert other.exit_code == 1
    assert re.match(r"uncommitted diff: run [0-9a-f]{64}, here none\n", other.stdout)


def test_each_format_comes_from_a_store(sqlite_uri: str) -> None:
    params, tags = params_and_tags(CONFIG)
    run_id = log_to(sqlite_uri, params, {**tags, names.RUN_NAME: "a 'quoted' name"})
    named = ("a 'quoted' name", "--experiment", "Default", "--tracking-uri", sqlite_uri)
    secret = {**CONFIG.extra, "hf_token": "mine"}
    as_yaml = reproduce(*named)
    assert as_yaml.exit_code == 0, as_yaml.stderr
    filled = re.sub(r"hf_token:\n +\$redacted: null", "hf_token: mine", as_yaml.stdout)
    assert config_from_text(filled, TrainConfig, format="yaml") == replace(CONFIG, extra=secret)
    assert "Secrets in the config were redacted" in as_yaml.stderr
    assert "#   extra.hf_token\n" in as_yaml.stderr
    assert "# The code: the run recorded no commit." in as_yaml.stderr

    as_python = reproduce(run_id, "--format", "python", "--tracking-uri", sqlite_uri)
    program = as_python.stdout.replace('{"$redacted": null}', '"mine"')
    found: dict[str, object] = {"__name__": "printed"}
    exec(program, found)
    assert found["config"] == replace(CONFIG, extra=secret)

    # A param that was changed since: no config, but why, and still the way back.
    changed = log_to(sqlite_uri, {**params, "epochs": "9"}, tags)
    ended = reproduce(changed, "--tracking-uri", sqlite_uri)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "epochs: was changed" in ended.stderr
    assert "Restore run" in ended.stderr


def test_a_run_of_another_tool_has_steps_but_no_config(sqlite_uri: str) -> None:
    run_id = MlflowClient(sqlite_uri).create_run("0", run_name="other").info.run_id
    ended = reproduce(run_id, "--tracking-uri", sqlite_uri)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "not logged by a tracked trainer" in ended.stderr
    assert "Restore run" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ([], 2, "RUN"),
        (["x", "--format", "xml"], 2, "xml"),
        (["\x1b[31mx\n"], 2, "no run of"),
        (["x", "--tracking-uri", "sqlite:///none.db"], 1, "none.db"),
    ],
)
def test_wrong_usage_is_reported(
    arguments: list[str], code: int, named: str, sqlite_uri: str
) -> None:
    given = [*arguments, *([] if "--tracking-uri" in arguments else ["--tracking-uri", sqlite_uri])]
    ended = reproduce(*given)
    assert (ended.exit_code, ended.stdout) == (code, "")
    assert named in ended.stderr
    assert "\x1b" not in ended.stderr


# -- what is decided -------------------------------------------------------------------------------

HERE = Machine(
    {
        names.GIT_COMMIT: "a" * 40,
        names.GIT_DIRTY: "false",
        names.PYTHON: "3.11.1",
        names.PACKAGES: "p",
    },
    "numpy==1\n",
)


def run_of(**changed: str | None) -> StoredRun:
    """A run that was made on `HERE`, but for some tags."""
    other = {getattr(names, name): text for name, text in changed.items()}
    tags = {**HERE.tags, **other}
    return as_stored({}, {key: text for key, text in tags.items() if text is not None})


def test_check_on_the_same_machine_finds_nothing() -> None:
    assert check(run_of(), HERE, None) == ()
    dirty = {names.GIT_DIRTY: "true", names.GIT_DIFF: "d"}
    there = replace(HERE, tags={**HERE.tags, **dirty})
    assert check(run_of(GIT_DIRTY="true", GIT_DIFF="d"), there, None) == ()


@pytest.mark.parametrize(
    ("changed", "name", "values"),
    [
        ({"GIT_COMMIT": "b" * 40}, "commit", ("b" * 40, "a" * 40)),
        ({"GIT_COMMIT": None}, "commit", (None, "a" * 40)),
        ({"GIT_DIRTY": "true", "GIT_DIFF": "d"}, "uncommitted diff", ("d", "none")),
        ({"GIT_DIRTY": "true"}, "uncommitted diff", (None, "none")),
        ({"GIT_DIRTY": None}, "uncommitted diff", (None, "none")),
        ({"PYTHON": "3.11.2"}, "Python", ("3.11.2", "3.11.1")),
        ({"PYTHON": None}, "Python", (None, "3.11.1")),
        ({"PACKAGES": "q"}, "packages", ("q", "p")),
        ({"PACKAGES": None}, "packages", (None, "p")),
    ],
)
def test_check_finds_differences_and_unrecorded_facts(
    changed: dict[str, str | None], name: str, values: tuple[str | None, str | None]
) -> None:
    assert check(run_of(**changed), HERE, None) == (Difference(name, values),)


def test_changes_inside_submodules_are_never_the_same() -> None:
    inside = {names.GIT_DIRTY: "true", names.GIT_DIFF: "d", names.GIT_SUBMODULES: "lib"}
    there = replace(HERE, tags={**HERE.tags, **inside})
    run = run_of(GIT_DIRTY="true", GIT_DIFF="d", GIT_SUBMODULES="lib")
    assert check(run, there, None) == (Difference("changed submodules", ("lib", "lib")),)
    run = run_of(GIT_DIRTY="true", GIT_DIFF="d")
    assert check(run, there, None) == (Difference("changed submodules", ("none", "lib")),)


def test_steps_that_fail_change_no_other_folder(tmp_path: Path) -> None:
    """Pasted into a folder of somebody's own checkout."""
    root = tmp_path / "mine"
    (root / "below").mkdir(parents=True)
    (root / "a.txt").write_text("1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    commit = git(root, "rev-parse", "HEAD").strip()
    (root / "a.txt").write_text("2\n")
    diff = git(root, "diff", "HEAD")
    git(root, "checkout", "-q", ".")
    branch = git(root, "branch", "--show-current")
    kept = tmp_path / "provenance"
    kept.mkdir()
    (kept / "uncommitted.diff").write_text(diff)

    def paste(**changed: str) -> None:
        run = run_of(GIT_COMMIT=commit, GIT_DIRTY="true", GIT_DIFF="d", **changed)
        lines = steps(run, {names.DIFF_FILE: diff.encode()}, "uri", "true")
        script = "\n".join(lines).replace("$(mktemp -d)", str(tmp_path))
        subprocess.run(["bash"], input=script, cwd=root / "below", capture_output=True, text=True)

    paste(GIT_REPO_URL=str(tmp_path / "nowhere"))
    assert git(root, "branch", "--show-current") == branch
    assert git(root, "status", "--porcelain") == ""
    paste()
    assert git(root, "branch", "--show-current") == ""
    assert (root / "a.txt").read_text() == "2\n"


def test_check_names_the_packages_where_the_run_lists_them() -> None:
    found = check(run_of(PACKAGES="q"), HERE, "numpy==2\nscipy==1\n")
    assert found == (Difference("numpy", ("2", "1")), Difference("scipy", ("1", None)))


def test_unknown_values_never_count_as_equal() -> None:
    here = Machine({}, "")
    nothing = as_stored({})
    names_found = [row.name for row in check(nothing, here, None)]
    assert names_found == ["commit", "uncommitted diff", "Python", "packages"]


def test_check_compares_each_life_of_a_run() -> None:
    again = {
        names.in_life(tag, 2): HERE.tags[tag]
        for tag in (names.GIT_COMMIT, names.GIT_DIRTY, names.PYTHON, names.PACKAGES)
    }
    life = {f"{names.LIFE}.2": "{}"}
    run = as_stored({}, {**HERE.tags, **again, **life})
    assert check(run, HERE, None) == ()
    run = as_stored({}, {**run.tags, names.in_life(names.GIT_COMMIT, 2): "b" * 40})
    assert check(run, HERE, None) == (Difference("commit, life 2", ("b" * 40, "a" * 40)),)
    unrecorded = as_stored({}, {**HERE.tags, **life})
    assert len(check(unrecorded, HERE, None)) == 4


def test_this_machine_outside_of_any_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    here = this_machine(tmp_path)
    assert names.GIT_COMMIT not in here.tags
    assert here.tags[names.PYTHON] == ".".join(map(str, sys.version_info[:3]))
    assert "numpy==" in here.requirements


def test_the_steps_say_what_a_run_did_not_record() -> None:
    tags = {
        names.GIT_COMMIT: "a" * 40,
        names.GIT_DIRTY: "true",
        names.GIT_DIFF_CUT: "1 of 2 bytes",
        names.GIT_SUBMODULES: "lib",
        f"{names.LIFE}.2": "{}",
    }
    text = "\n".join(steps(as_stored({}, tags), {}, "uri", "mlflow"))
    for said in (
        "resumed (lives: 2)",
        "go to a clone",
        "uncommitted changes that it did not record",
        "changes inside submodules, which it did not record: lib",
        "did not record its Python version",
        "the run recorded none",
        "not recorded; the program was ?",
        "dataset: none was recorded",
    ):
        assert said in text, said
    kept = {names.DIFF_FILE: b"+key = [redacted]\n", names.REQUIREMENTS_FILE: b"# a==1 from x\n"}
    text = "\n".join(steps(as_stored({}, tags), kept, "sqlite:///a b.db", "mlflow"))
    assert "\nMLFLOW_TRACKING_URI='sqlite:///a b.db' mlflow artifacts download " in text
    assert "Only the start of the uncommitted diff was recorded, 1 of 2 bytes" in text
    assert "Secrets in the diff were replaced" in text
    assert "# not from an index: a==1 from x\n" in text


def test_nothing_in_a_run_acts_in_a_shell_or_a_terminal() -> None:
    tags = {
        getattr(names, name): HOSTILE
        for name in (
            *("GIT_REPO_URL", "GIT_BRANCH", "COMMAND", "PYTHON", "PLATFORM", "GPU", "SOURCE_NAME"),
            "GIT_DIFF_CUT",
        )
    } | {names.GIT_COMMIT: "a" * 40, names.SEEDS: json.dumps({HOSTILE: HOSTILE})}
    run = replace(
        as_stored({}, tags),
        name=HOSTILE,
        run_id=HOSTILE,
        datasets=(DatasetInput(HOSTILE, HOSTILE, HOSTILE),),
    )
    hostile = HOSTILE.encode("utf-8", "replace")
    files = dict.fromkeys((names.DIFF_FILE, names.UNTRACKED_FILE, names.REQUIREMENTS_FILE), hostile)
    lines = steps(run, files, HOSTILE, HOSTILE)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", "".join(lines))
    quoted = plain(HOSTILE)
    uri = f"MLFLOW_TRACKING_URI={quoted}"
    for line in lines:
        if not line.startswith(("#", "kept=")):
            words = shlex.shlex(line, posix=True, punctuation_chars=True)
            assert {word for word in words if "(" in word or ";" in word} <= {quoted, uri}, line
    assert not [line for line in steps(run_of(GIT_COMMIT="-x; id"), {}, "", "") if "-x" in line]
