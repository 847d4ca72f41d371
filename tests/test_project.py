"""The project's own files agree: versions, bounds, workflows, hooks."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from orbiter import __version__
from pages import check_commands, scripts
from paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = re.findall(r":: Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())


def loaded(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


# -- version and release notes ---------------------------------------------------------------------


def test_the_changelog_begins_with_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search("^## (.*)$", changelog, re.MULTILINE)
    assert heading is not None
    dated = rf"\[{re.escape(__version__)}\] - (unreleased|\d{{4}}-\d\d-\d\d)"
    assert re.fullmatch(dated, heading[1]), heading[1]


def release_notes(folder: Path, version: str, changelog: str) -> subprocess.CompletedProcess[str]:
    """What `.ci/release-notes` says in a copy of the project that has this changelog."""
    for name in (".ci/release-notes", "orbiter/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    command = [str(folder / ".ci" / "release-notes"), version]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_release_notes_are_the_section_of_the_version(tmp_path: Path) -> None:
    section = "\n### Added\n- A thing.\n\n"
    changelog = (
        f"# Changelog\n\n## [{__version__}] - 2026-01-31\n{section}## [0.0.1] - 2025-01-31\nOld.\n"
    )
    done = release_notes(tmp_path, __version__, changelog)
    assert (done.stdout, done.stderr, done.returncode) == (section, "", 0)


@pytest.mark.parametrize(
    ("version", "heading", "message"),
    [
        ("9.9.9", "[9.9.9] - 2026-01-31", "orbiter/__init__.py has another __version__ than 9.9.9"),
        (__version__, f"[{__version__}] - unreleased", "not with `## [0.1.0] - YYYY-MM-DD`"),
        (__version__, "[0.0.1] - 2025-01-31", "not with `## [0.1.0] - YYYY-MM-DD`"),
    ],
)
def test_nothing_is_released_under_a_version_it_does_not_have(
    tmp_path: Path, version: str, heading: str, message: str
) -> None:
    done = release_notes(tmp_path, version, f"# Changelog\n\n## {heading}\nText.\n")
    assert (done.stdout, done.returncode) == ("", 1)
    assert message.replace("0.1.0", __version__) in done.stderr


# -- what is tested: Pythons, lowest versions, systems ---------------------------------------------


def test_the_lowest_versions_are_the_bounds() -> None:
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    extras = PROJECT["optional-dependencies"]
    needs = [*PROJECT["dependencies"], *extras["system"], *extras["optuna"]]
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", need) for need in needs]
    pins = [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]
    assert [line for line in lines if not line.startswith("#")] == pins
    assert len(pins) == len(needs)


def test_each_python_is_tested_by_ci_and_by_the_script() -> None:
    jobs = loaded(".github/workflows/ci.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == PYTHONS
    steps = (ROOT / ".ci" / "run").read_text()
    assert f"{{ interpreter {PYTHONS[-1]} ||" in steps
    assert f"for version in {' '.join(PYTHONS[1:])}; do" in steps
    assert f"python=$(interpreter {PYTHONS[0]}) && step make OLDEST_PYTHON" in steps
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert jobs["lowest"]["steps"][1]["with"]["python-version"] == PYTHONS[0]


def test_workflows_call_targets_of_make() -> None:
    commands = [run for path in WORKFLOWS for run in scripts(loaded(str(path)))]
    made = [command for command in commands if command.startswith("make ")]
    for command in made:
        check_commands(command)
    called = {word for command in made for word in command.split()}
    assert called >= {"lint", "types", "test", "test-lowest", "demo", "faults"}
    assert called >= {"test-integrations", "test-verl"}


def test_the_portable_tests_exist() -> None:
    steps = loaded(".github/workflows/ci.yml")["jobs"]["smoke"]["steps"]
    patterns = re.findall(r"tests/\S+", steps[-1]["run"])
    assert patterns
    assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []


def test_a_hook_runs_what_make_lint_runs() -> None:
    (repository,) = loaded(".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]
    assert (repository["repo"], hook["entry"], hook["language"]) == ("local", "make lint", "system")
    assert hook["pass_filenames"] is False
