"""What is not committed: real repositories, as they land in a run and as `git apply` takes them."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from orbiter_mlflow import names
from orbiter_mlflow.delivery.kept_files import verified
from orbiter_mlflow.delivery.records import Artifact, Tags
from orbiter_mlflow.errors import GitError
from orbiter_mlflow.provenance.diff_redaction import redact_diff
from orbiter_mlflow.provenance.git import MAX_DIFF, checkout, uncommitted
from orbiter_mlflow.provenance.sections import Finding, Sections
from orbiter_mlflow.redaction.redactor import REDACTED, Redactor
from orbiter_mlflow.text.packed_tags import unpacked
from trainers import only_journal, recorded, stored, tracked, wait_for_provenance

SECRET = "hf_AbCdEfGhIjKlMnOpQrStUvWx"


def git(folder: Path, *arguments: str) -> bytes:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean repository with one commit, whose script is the program."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("MLFLOW_RUN_CONTEXT", raising=False)
    root = tmp_path / "project"
    root.mkdir()
    (root / "train.py").write_text("".join(f"line {number}\n" for number in range(40)))
    (root / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    (root / "weights.bin").write_bytes(bytes(range(256)))
    (root / "gone.txt").write_text("gone\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.setattr(sys, "argv", [str(root / "train.py")])
    return root


def change(root: Path) -> None:
    """A change of each kind but in a binary file."""
    lines = (root / "train.py").read_text().splitlines(keepends=True)
    lines[3], lines[30] = "changed\n", "changed, too, without an end"
    (root / "train.py").write_text("".join(lines[:31]))
    (root / "latin.txt").write_bytes("caf\xe9s\r\n".encode("latin-1"))
    (root / "gone.txt").unlink()
    (root / "added.py").write_text("new = 1\n")
    git(root, "add", "added.py")
    (root / "notes").mkdir()
    (root / "notes" / "f\u00fcr mich.txt").write_text("untracked")


class Found:
    """The provenance in the journal of a run that nobody delivers."""

    def __init__(self, **settings: Any) -> None:
        trainer = tracked("sqlite:///nowhere.db", delivery="offline", **settings)
        trainer.mark_validated()
        wait_for_provenance()
        self.tags: dict[str, str] = {}
        for record in recorded(Tags):
            self.tags |= unpacked(record.values)
        self.files: dict[str, bytes] = {}
        for artifact in recorded(Artifact):
            assert artifact.folder == names.PROVENANCE
            path = verified(only_journal(), artifact)
            assert path.stat().st_size == artifact.size
            self.files[artifact.name] = path.read_bytes()

    @property
    def failed(self) -> dict[str, str]:
        failed: dict[str, str] = json.loads(self.tags.get(names.PROVENANCE_FAILED, "{}"))
        return failed


CODE = ("command", "machine", "packages", "seeds")
"""What is skipped where only the code matters."""


def test_a_clean_tree_has_no_diff(repository: Path) -> None:
    found = Found(skip_provenance=CODE)
    assert found.tags[names.GIT_DIRTY] == "false"
    assert names.GIT_DIFF not in found.tags
    assert not found.files
    assert not found.failed


def test_the_diff_restores_the_tree(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(repository)
    told = git(repository, "diff", "HEAD", "--full-index", "--no-renames")
    for setting in ("diff.noprefix", "diff.mnemonicPrefix", "diff.relative", "core.quotePath"):
        git(repository, "config", setting, "true")  # none of which may matter
    git(repository, "config", "diff.algorithm", "patience")
    git(repository, "config", "diff.external", "false")
    monkeypatch.setenv("GIT_DIFF_OPTS", "-u0")
    found = Found(skip_provenance=CODE)
    assert found.tags[names.GIT_DIRTY] == "true"
    diff, untracked = found.files[names.DIFF_FILE], found.files[names.UNTRACKED_FILE]
    assert diff == told
    assert untracked.decode() == "notes/f\u00fcr mich.txt\n"
    assert found.tags[names.GIT_DIFF] == hashlib.sha256(told + b"\0" + untracked).hexdigest()

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    (tmp_path / "kept.diff").write_bytes(diff)
    git(clone, "apply", "--index", str(tmp_path / "kept.diff"))
    for name in ("train.py", "latin.txt", "added.py"):
        assert (clone / name).read_bytes() == (repository / name).read_bytes()
    assert not (clone / "gone.txt").exists()
    assert uncommitted(clone).digest != found.tags[names.GIT_DIFF]
    (clone / "notes").mkdir()
    (clone / "notes" / "f\u00fcr mich.txt").write_text("whatever it holds")
    assert uncommitted(clone / "notes").digest == found.tags[names.GIT_DIFF]


def test_changes_inside_a_submodule_are_told(repository: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "code.py").write_text("")
    git(library, "init", "-q")
    git(library, "add", ".")
    git(library, "commit", "-q", "-m", "first")
    allowed = ("-c", "protocol.file.allow=always", "submodule", "add", "-q")
    git(repository, *allowed, str(library), "a library")
    git(repository, "commit", "-q", "-m", "with a library")
    assert names.GIT_SUBMODULES not in checkout(repository).tags
    (repository / "a library" / "code.py").write_text("changed = 1")
    found = Found(skip_provenance=CODE)
    assert found.tags[names.GIT_DIRTY] == "true"
    assert found.tags[names.GIT_SUBMODULES] == "a library"
    assert not found.files


def test_binary_files_are_told_and_the_rest_applies(repository: Path, tmp_path: Path) -> None:
    (repository / "weights.bin").write_bytes(bytes(range(255, -1, -1)))
    (repository / "train.py").write_text("changed\n")
    (repository / "a.bin").write_bytes(b"\0")
    git(repository, "add", "a.bin")
    found = Found(skip_provenance=CODE)
    diff = found.files[names.DIFF_FILE]
    assert b"# Binary files a/weights.bin and b/weights.bin differ: what they" in diff
    (tmp_path / "kept.diff").write_bytes(diff)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    git(clone, "apply", str(tmp_path / "kept.diff"))
    assert (clone / "train.py").read_text() == "changed\n"
    before = found.tags[names.GIT_DIFF]
    (repository / "weights.bin").write_bytes(bytes(range(255, 0, -1)))
    assert uncommitted(repository).digest != before


def test_a_secret_leaves_the_diff_but_no_line(repository: Path) -> None:
    (repository / "train.py").write_text(f'token = "{SECRET}"\nname = "fine"\nmy_own = "abc"\n')
    (repository / SECRET).touch()
    found = Found(skip_provenance=CODE, redact=("my_own",))
    diff = found.files[names.DIFF_FILE].decode()
    assert SECRET not in diff
    assert "abc" not in diff
    assert '+name = "fine"\n' in diff
    told = git(repository, "diff", "HEAD")
    assert diff.count("\n") == told.count(b"\n")
    assert found.files[names.UNTRACKED_FILE].decode() == f"{REDACTED}\n"
    assert SECRET not in only_journal().read_text()
    assert found.tags[names.GIT_DIFF] == uncommitted(repository).digest


def test_a_long_diff_is_cut_and_says_so(repository: Path, tmp_path: Path) -> None:
    (repository / "train.py").write_text("data of some length\n" * 60_000)
    found = Found(skip_provenance=CODE)
    diff = found.files[names.DIFF_FILE]
    size = len(git(repository, "diff", "HEAD", "--full-index"))
    assert found.tags[names.GIT_DIFF_CUT] == f"{MAX_DIFF} of {size} bytes"
    assert len(diff) < MAX_DIFF + 100
    *_, last, empty = diff.decode().split("\n")
    assert not empty
    assert last.startswith("# cut here: ")
    digest = found.tags[names.GIT_DIFF]
    (repository / "train.py").write_text("data of some length\n" * 60_001)
    assert uncommitted(repository).digest != digest
    # rather nothing than a part of it
    (tmp_path / "kept.diff").write_bytes(diff)
    git(repository, "checkout", "-q", ".")
    refused = subprocess.run(["git", "apply", tmp_path / "kept.diff"], cwd=repository)
    assert refused.returncode != 0


def test_a_repository_without_a_commit_has_nothing_to_tell(repository: Path) -> None:
    git(repository, "update-ref", "-d", "HEAD")
    parts = Sections(Redactor())
    assert [*parts.git(), *parts.diff()] == [Finding()]


@pytest.fixture
def replace_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A git that does otherwise for one command, and as the real one for all others."""

    def replace(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        fake = folder / "git"
        path = os.environ["PATH"]
        fake.write_text(f'#!/bin/sh\nPATH="{path}"\n{script}\nexec git "$@"\n')
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{path}")

    return replace


def test_a_diff_that_fails_costs_nothing_else(
    repository: Path, replace_git: Callable[[str], None]
) -> None:
    (repository / "train.py").write_text("changed\n")
    replace_git('case "$*" in *full-index*) exit 3;; esac')
    found = Found(skip_provenance=("machine",))
    assert found.failed == {"diff": "GitError: git diff failed with exit status 3"}
    assert found.tags[names.GIT_DIRTY] == "true"
    assert list(found.files) == [names.REQUIREMENTS_FILE]


def test_a_git_that_hangs_is_told(repository: Path, replace_git: Callable[[str], None]) -> None:
    replace_git('case "$*" in *full-index*|*status*) sleep 60;; esac')
    with pytest.raises(GitError, match=r"git diff took longer than 0\.3 s"):
        uncommitted(repository, timeout=0.3)
    found = checkout(repository, timeout=0.3)
    assert found.problem == "git status took longer than 0.3 s"
    assert names.GIT_COMMIT in found.tags
    assert not found.dirty


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_repository_that_git_does_not_trust_is_told(repository: Path) -> None:
    for path in (repository, repository / ".git"):
        os.chown(path, 12345, 12345)
    assert "dubious ownership" in Found(skip_provenance=CODE).failed["git"]


def test_it_lands_in_the_store(repository: Path, sqlite_uri: str) -> None:
    change(repository)
    told = git(repository, "diff", "HEAD", "--full-index", "--no-renames")
    trainer = tracked(sqlite_uri, experiment="provenance")
    trainer.mark_validated()
    wait_for_provenance()
    run = stored(sqlite_uri, trainer)
    client = MlflowClient(sqlite_uri)
    listed = client.list_artifacts(run.info.run_id, names.PROVENANCE)
    texts = {
        Path(entry.path).name: Path(
            client.download_artifacts(run.info.run_id, entry.path)
        ).read_bytes()
        for entry in listed
    }
    assert texts.keys() == {names.DIFF_FILE, names.UNTRACKED_FILE, names.REQUIREMENTS_FILE}
    assert texts[names.DIFF_FILE] == told
    requirements = texts[names.REQUIREMENTS_FILE]
    assert unpacked(run.data.tags)[names.PACKAGES] == hashlib.sha256(requirements).hexdigest()
    assert names.PROVENANCE_FAILED not in unpacked(run.data.tags)


# -- redaction of a diff -------------------------------------------------------------------------

PEM = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj"


def hunk(*lines: str) -> str:
    old = sum(line[0] in " -" for line in lines)
    new = sum(line[0] in " +" for line in lines)
    head = ("diff --git a/f b/f", "--- a/f", "+++ b/f", f"@@ -1,{old} +1,{new} @@ def f():")
    return "\n".join((*head, *lines, ""))


@pytest.mark.parametrize(
    ("lines", "hidden"),
    [
        ([' api_key = """', " s3cret-one", " s3cret-two", ' """', "-a", "+b"], ["s3cret"]),
        (['-api_key = """', '+api_key = get("""', " s3cret-one", ' """'], ["s3cret"]),
        ([" -----BEGIN PRIVATE KEY-----", f" {PEM}", "-x", f"+{PEM}"], [PEM]),
        ([f" {PEM}", f" {PEM}=", " -----END RSA PRIVATE KEY-----", "-a", "+b"], [PEM]),
        (['-  "password":', '+  "hf_token":', '   "s3cret"'], ["s3cret"]),
        (["-password is nice", f"+url = 'https://u:{SECRET}@h/'"], [SECRET]),
        (["+x" * 30 + f" --api-key {SECRET[:9]}!"], [SECRET[:9]]),
    ],
    ids=["quoted", "changed-key", "begin", "end", "next-line", "url", "flag"],
)
def test_a_diff_without_its_secrets_is_a_diff(lines: list[str], hidden: list[str]) -> None:
    diff = hunk(*lines)
    shown, left_out = redact_diff(diff, Redactor())
    assert left_out == 0
    assert not [text for text in hidden if text in shown]
    assert shown.split("\n")[:4] == diff.split("\n")[:4]
    signs = [line[:1] for line in shown.split("\n")]
    assert signs == [line[:1] for line in diff.split("\n")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        hunk(" a", "-b", "\\ No newline at end of file", "+b", "\\ No newline at end of file"),
        hunk("-password is nice", "+passwords are nice", " --- a", " @@ -1 +1 @@"),
        hunk(" a", "+b")[:-6],  # cut
        hunk(" a", "+b").replace("@@ -1,1", "@@ -1,9"),
        "@@ -1 +1 @@\n-a\n+b\n@@ -9,0 +9 @@\n+c\n",
    ],
)
def test_a_diff_without_secrets_stays_as_it_is(text: str) -> None:
    assert redact_diff(text, Redactor()) == (text, 0)


@pytest.mark.parametrize("length", [0, 900, 31_000, 32_000, 47_000, 63_990, 64_010])
def test_a_secret_of_many_lines_is_found_wherever_a_slice_ends(length: int) -> None:
    key = ["+-----BEGIN PRIVATE KEY-----", *[f"+{PEM}"] * 120, "+-----END PRIVATE KEY-----"]
    before = [f"+line {number:03}"[: 9 + length % 2] for number in range(length // 10)]
    after = ["+the end"] * 9000
    shown, left_out = redact_diff(hunk(*before, *key, *after), Redactor())
    assert left_out == 0
    assert PEM not in shown
    assert shown.split("\n")[4:-1] == [*before, *[f"+{REDACTED}"] * len(key), *after]


def test_what_cannot_be_redacted_in_time_is_left_out_and_does_not_apply(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "train.py").write_text("changed\n" * 5000)
    diff = git(repository, "diff", "HEAD", "--full-index").decode()
    shown, left_out = redact_diff(diff, Redactor(), timeout=-1.0)
    assert diff.startswith(shown)
    assert shown.count("\n") + 1 + left_out == diff.count("\n") + 1
    assert "changed" not in shown
    (tmp_path / "kept.diff").write_text(shown)
    git(repository, "checkout", "-q", ".")
    refused = subprocess.run(["git", "apply", tmp_path / "kept.diff"], cwd=repository)
    assert refused.returncode != 0


def test_a_diff_that_is_left_out_says_so_in_the_file_and_in_the_tag(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "train.py").write_text("changed\n" * 5000)
    moments = iter(range(0, 10**9, 1000))
    monkeypatch.setattr("orbiter_mlflow.provenance.diff_redaction.monotonic", lambda: next(moments))
    found = Found(skip_provenance=CODE)
    lines = found.files[names.DIFF_FILE].decode().split("\n")
    assert lines[-2].startswith("# cut here: ")
    assert lines[-2].endswith(" lines are left out, their redaction timed out")
    assert "the redaction of uncommitted.diff timed out" in found.failed["diff"]
