"""Where a run comes from: MLflow's own source tags, and git's answers from real repositories."""

import getpass
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orbiter_mlflow import MLflowTrainerMixin, names
from orbiter_mlflow.provenance.git import GIT_TIMEOUT
from orbiter_mlflow.provenance.program import source_tags
from orbiter_mlflow.provenance.sections import Sections
from orbiter_mlflow.redaction.redactor import Redactor


def same(text: str) -> str:
    return text


def redactor(redact: Callable[[str], str]) -> Redactor:
    class Given(Redactor):
        def text(self, text: str) -> str:
            return redact(text)

    return Given()


def git_tags(
    redact: Callable[[str], str], trainer: type = object, *, timeout: float = GIT_TIMEOUT
) -> dict[str, str]:
    parts = Sections(redactor(redact), trainer, git_timeout=timeout)
    return {key: text for found in parts.git() for key, text in found.tags.items()}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No IPython, no configuration of whoever runs the tests, no repository above the folder."""
    for variable in ("MLFLOW_RUN_CONTEXT", "MLFLOW_TRACKING_USERNAME", "GIT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delitem(sys.modules, "IPython", raising=False)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean repository with one commit, whose script is the program."""
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "src" / "train.py").write_text("pass\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.setattr(sys, "argv", [str(root / "src" / "train.py")])
    monkeypatch.chdir(tmp_path)
    return root


# -- source_tags ---------------------------------------------------------------------------------


def test_a_script_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs/train.py", "--epochs", "3"])
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    assert source_tags(redactor(same)) == {
        names.USER: "ada",
        names.SOURCE_NAME: "jobs/train.py",
        names.SOURCE_TYPE: "LOCAL",
    }


@pytest.mark.parametrize("argv", [[], [""]])
def test_a_console_has_no_script(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert source_tags(redactor(same))[names.SOURCE_NAME] == "<console>"


@pytest.mark.parametrize("error", [KeyError, OSError, ImportError])
def test_a_user_without_a_name_is_unknown(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", fail)
    assert source_tags(redactor(same))[names.USER] == "unknown"


class ZMQInteractiveShell:
    user_ns: dict[str, Any] = {}  # noqa: RUF012  as IPython


def enter_notebook(monkeypatch: pytest.MonkeyPatch, shell: Any) -> None:
    fake: Any = ModuleType("IPython")
    fake.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setattr(sys, "argv", [__file__])


def test_a_notebook_is_named_by_its_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = ZMQInteractiveShell()
    enter_notebook(monkeypatch, shell)
    assert source_tags(redactor(same))[names.SOURCE_TYPE] == "NOTEBOOK"
    assert source_tags(redactor(same))[names.SOURCE_NAME] == __file__
    monkeypatch.setenv("IPYNB_FILE", "/somewhere/tune.ipynb")
    assert source_tags(redactor(same))[names.SOURCE_NAME] == "tune.ipynb"
    shell.user_ns = {"__vsc_ipynb_file__": "/somewhere/other.ipynb"}
    assert source_tags(redactor(same))[names.SOURCE_NAME] == "other.ipynb"


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    enter_notebook(monkeypatch, object())
    assert source_tags(redactor(same))[names.SOURCE_TYPE] == "LOCAL"


def test_the_run_context_of_the_environment_has_the_last_word(
    monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    context = {names.USER: "ci", names.GIT_COMMIT: "abc", "ci.job": "7", "ci.number": 7}
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", json.dumps(context))
    tags = source_tags(redactor(same))
    assert (tags[names.USER], tags[names.GIT_COMMIT], tags["ci.job"]) == ("ci", "abc", "7")
    assert "ci.number" not in tags
    assert names.GIT_COMMIT not in git_tags(same)
    assert git_tags(same)[names.GIT_BRANCH] == "main"


@pytest.mark.parametrize("text", ["{", "[1]", "null", "7"])
def test_a_broken_run_context_is_ignored(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", text)
    assert source_tags(redactor(same)).keys() == {names.USER, names.SOURCE_NAME, names.SOURCE_TYPE}


def test_tags_are_redacted_and_storable(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["a\x00b"])
    assert source_tags(redactor(same))[names.SOURCE_NAME] == "a\\x00b"
    assert set(source_tags(redactor(lambda text: "***")).values()) == {"***"}

    def fail(text: str) -> str:
        raise ValueError

    assert source_tags(redactor(fail)) == git_tags(fail) == {}


# -- git_tags ------------------------------------------------------------------------------------


def test_a_clean_repository(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "git@example.org:team/project.git")
    assert git_tags(same) == {
        names.GIT_COMMIT: git(repository, "rev-parse", "HEAD"),
        names.GIT_BRANCH: "main",
        names.GIT_REPO_URL: "git@example.org:team/project.git",
        names.GIT_DIRTY: "false",
    }


@pytest.mark.parametrize("file", ["src/train.py", "new.py"])
def test_a_changed_or_new_file_makes_it_dirty(file: str, repository: Path) -> None:
    (repository / file).write_text("changed\n")
    assert git_tags(same)[names.GIT_DIRTY] == "true"


def test_very_many_new_files_do_not_hurt(repository: Path) -> None:
    for number in range(700):
        (repository / f"{'long-name-' * 12}{number}").touch()
    assert git_tags(same)[names.GIT_DIRTY] == "true"


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    tags = git_tags(same)
    assert tags[names.GIT_COMMIT]
    assert names.GIT_BRANCH not in tags


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ada:hf_secret@example.org/p.git", "https://example.org/p.git"),
        ("https://ada:se#c?r@et@example.org/p@2.git", "https://example.org/p@2.git"),
        ("ssh://git@example.org/p.git", "ssh://git@example.org/p.git"),
        ("ssh://git:pw@example.org/p.git", "ssh://git@example.org/p.git"),
        ("https://example.org/@scope/p.git", "https://example.org/@scope/p.git"),
    ],
)
def test_the_userinfo_of_the_origin_is_left_out(url: str, shown: str, repository: Path) -> None:
    git(repository, "remote", "add", "origin", url)
    git(repository, "config", "url.https://token@example.org/.insteadOf", "https://example.org/")
    assert git_tags(same)[names.GIT_REPO_URL] == shown


def test_without_a_repository_there_are_no_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [""])
    monkeypatch.chdir(tmp_path)
    assert git_tags(same) == {}


def test_without_a_commit_there_are_no_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.chdir(tmp_path)
    assert git_tags(same) == {}


def test_a_console_belongs_to_the_working_directory(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert git_tags(same) == {}
    monkeypatch.chdir(repository / "src")
    assert git_tags(same)[names.GIT_BRANCH] == "main"
    enter_notebook(monkeypatch, ZMQInteractiveShell())
    assert git_tags(same)[names.GIT_BRANCH] == "main"


def test_a_program_may_leave_the_folder_it_was_started_in(repository: Path, tmp_path: Path) -> None:
    """As launchers do that give each run a folder of its own for what it writes."""
    other = tmp_path / "other"
    (other / "src").mkdir(parents=True)
    (other / "src" / "train.py").touch()
    train = repository / "src" / "train.py"
    train.write_text(
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "from orbiter_mlflow.provenance.program import origins\n"
        "print(*next(origins(object)))\n"
    )
    for there in (other, tmp_path):
        done = subprocess.run(
            [sys.executable, "src/train.py", str(there)],
            cwd=repository,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{train.parent} train.py\n"


def test_an_ignored_script_does_not_come_from_the_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = repository / ".venv" / "bin" / "tune"
    command.parent.mkdir(parents=True)
    command.touch()
    (repository / ".gitignore").write_text(".venv\n")
    monkeypatch.setattr(sys, "argv", [str(command)])
    assert git_tags(same) == {}
    git(repository, "add", "--force", str(command))
    assert git_tags(same)[names.GIT_DIRTY] == "true"


def trainer_of(file: Path, monkeypatch: pytest.MonkeyPatch, *, base: type = object) -> type:
    """A class from that file."""
    module = ModuleType(f"made_from_{abs(hash(file))}")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return type("Made", (base,), {"__module__": module.__name__})


def test_an_installed_command_comes_from_where_its_trainer_does(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(Path(sys.executable).with_name("orbiter-mlflow"))])
    own = trainer_of(repository / "src" / "train.py", monkeypatch)
    assert git_tags(same, own)[names.GIT_COMMIT] == git(repository, "rev-parse", "HEAD")
    library = tmp_path / "lib" / "site-packages" / "backend.py"
    assert git_tags(same, trainer_of(library, monkeypatch, base=own)).keys() >= {names.GIT_COMMIT}
    assert git_tags(same, trainer_of(library, monkeypatch)) == {}
    monkeypatch.chdir(repository / "src")
    assert git_tags(same, trainer_of(library, monkeypatch)).keys() >= {names.GIT_COMMIT}
    assert git_tags(same, MLflowTrainerMixin).keys() >= {names.GIT_COMMIT}


def test_a_command_in_an_ignored_environment_comes_from_the_working_folder(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = repository / ".venv" / "bin" / "tune"
    command.parent.mkdir(parents=True)
    command.touch()
    (repository / ".gitignore").write_text(".venv\n")
    monkeypatch.setattr(sys, "argv", [str(command)])
    monkeypatch.chdir(repository)
    assert git_tags(same)[names.GIT_COMMIT] == git(repository, "rev-parse", "HEAD")


def test_a_script_from_elsewhere_is_not_of_the_repository_it_runs_in(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "elsewhere.py"
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.chdir(repository)
    assert git_tags(same) == {}


def test_a_hook_does_not_point_elsewhere(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert git_tags(same)[names.GIT_BRANCH] == "main"


def test_git_writes_nothing(repository: Path) -> None:
    index = repository / ".git" / "index"
    os.utime(repository / "src" / "train.py", (1, 1))  # git would refresh its index
    before = index.read_bytes()
    assert git_tags(same)[names.GIT_DIRTY] == "false"
    assert index.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_repository_of_someone_else_gives_no_tags(repository: Path) -> None:
    for path in (repository, repository / ".git"):
        os.chown(path, 12345, 12345)
    assert git_tags(same) == {}


@pytest.fixture
def replace_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def replace(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        fake = folder / "git"
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return replace


@pytest.mark.parametrize("script", ["sleep 60", "sleep 60 & exit 1"])
def test_a_git_that_hangs_is_killed_with_its_children(
    script: str, repository: Path, replace_git: Callable[[str], None]
) -> None:
    replace_git(script)
    started = time.monotonic()
    assert git_tags(same, timeout=0.3) == {}
    assert time.monotonic() - started < 10


def test_a_status_that_hangs_costs_its_tag_only(
    repository: Path, replace_git: Callable[[str], None]
) -> None:
    replace_git('case "$3" in check-ignore) exit 1;; status) sleep 60;; *) echo x;; esac')
    assert git_tags(same, timeout=5.0) == {
        names.GIT_COMMIT: "x",
        names.GIT_BRANCH: "x",
        names.GIT_REPO_URL: "x",
    }


def test_without_git_there_are_no_tags(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_tags(same) == {}


def test_without_a_working_directory_there_are_no_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setattr(sys, "argv", ["relative.py"])
    with monkeypatch.context() as patch:
        patch.chdir(gone)
        gone.rmdir()
        assert git_tags(same) == {}
        assert source_tags(redactor(same))[names.SOURCE_NAME] == "relative.py"
