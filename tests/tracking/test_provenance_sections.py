"""Command line, machine, packages and seeds of a run, each switched off, and each failing."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from pydantic import ValidationError

from journals import HEAD, entries
from orbiter.train import TrainConfig
from orbiter_mlflow import MLflowSettings, names
from orbiter_mlflow.config.tags import seed_tags
from orbiter_mlflow.delivery.hosts.base import OfflineHost
from orbiter_mlflow.delivery.kept_files import verified
from orbiter_mlflow.delivery.records import Artifact, Tags
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.errors import GpuError
from orbiter_mlflow.provenance.machine import gpus, machine_tags
from orbiter_mlflow.provenance.packages import requirements
from orbiter_mlflow.redaction.redactor import REDACTED, Redactor
from orbiter_mlflow.text.packed_tags import unpacked
from orbiter_mlflow.tracking.provenance_collector import Collector
from trainers import only_journal, recorded, tracked, wait_for_provenance
from waiting import eventually


def gathered(journal: Path) -> dict[str, str]:
    """The tags of a journal."""
    tags: dict[str, str] = {}
    for record in entries(journal):
        if isinstance(record, Tags):
            tags |= unpacked(record.values)
    return tags


# -- as a run tells them -------------------------------------------------------------------------

OF_PART = {
    "git": {names.GIT_COMMIT, names.GIT_DIRTY, names.GIT_BRANCH, names.GIT_DIFF},
    "diff": {names.GIT_DIFF},
    "command": {names.COMMAND},
    "machine": {names.PYTHON, names.PLATFORM, names.CPU},
    "packages": {names.PACKAGES},
    "seeds": {names.SEEDS},
}
FILES = {
    "git": {names.DIFF_FILE, names.UNTRACKED_FILE},
    "diff": {names.DIFF_FILE, names.UNTRACKED_FILE},
    "packages": {names.REQUIREMENTS_FILE},
}


@pytest.mark.parametrize("skipped", [(), *[(part,) for part in OF_PART], tuple(OF_PART)])
def test_each_part_can_be_left_out(
    skipped: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "project" / "train.py"
    script.parent.mkdir()
    script.touch()
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "-q", "-b", "work"), ("add", "."), (*author, "commit", "-qm", "one")):
        subprocess.run(["git", *command], cwd=script.parent, check=True)
    script.write_text("changed\n")
    (script.parent / "untracked").touch()
    monkeypatch.setattr(sys, "argv", [str(script)])
    trainer = tracked(
        "sqlite:///nowhere.db",
        TrainConfig(extra={"seed": 7}),
        delivery="offline",
        skip_provenance=skipped,
    )
    trainer.mark_validated()
    wait_for_provenance()
    expected = set().union(*OF_PART.values())
    files = set().union(*FILES.values())
    for part in skipped:
        expected -= OF_PART[part]
        files -= FILES.get(part, set())
    tags = gathered(only_journal())
    assert tags.keys() & (set().union(*OF_PART.values()) | {names.PROVENANCE_FAILED}) == expected
    assert {artifact.name for artifact in recorded(Artifact)} == files
    assert tags[names.SOURCE_NAME] == str(script)


def test_a_part_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="skip_provenance"):
        MLflowSettings(skip_provenance=("hardware",))  # type: ignore[arg-type]  # as a user may


PROGRAM = """
from orbiter.train.policy_gradient import PolicyGradientTrainer
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin
from orbiter_mlflow.text.packed_tags import unpacked

class Tracked(MLflowTrainerMixin, PolicyGradientTrainer): ...

Tracked(mlflow=MLflowSettings(delivery="offline")).mark_validated()
"""


def test_a_short_program_tells_all_of_it(tmp_path: Path) -> None:
    program = tmp_path / "a program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), "--api-key", "s3cret", "--hf-token=s3cret2", "-v"]
    subprocess.run(command, check=True, timeout=60)
    tags = gathered(only_journal())
    assert tags[names.COMMAND] == (
        f"{sys.executable} '{program}' --api-key '{REDACTED}' '--hf-token={REDACTED}' -v"
    )
    assert tags[names.PYTHON] == platform.python_version()
    assert tags[names.PLATFORM] == platform.platform()
    assert str(os.cpu_count()) in tags[names.CPU]
    assert names.PROVENANCE_FAILED not in tags
    (artifact,) = recorded(Artifact)
    text = verified(only_journal(), artifact).read_text()
    assert tags[names.PACKAGES] == hashlib.sha256(text.encode()).hexdigest() == artifact.sha256
    lines = text.splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    assert {"mlflow", "pydantic", "typing-extensions"} <= {found.name for found in pinned}
    assert [found.name for found in pinned] == sorted(found.name for found in pinned)


def test_what_is_not_known_at_the_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\nwhile ! test -e {tmp_path}/go; do sleep 0.05; done\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    uri = "sqlite:///nowhere.db"
    writer = RunWriter(tmp_path, HEAD, OfflineHost(), tracking_uri=uri, flush_timeout=0)
    gathers = Collector(writer, Redactor(), ("machine",))
    eventually(lambda: names.COMMAND in gathered(writer.path))
    gathers.finish(0.01)
    reason = "the run ended before it was found out"
    failed = json.loads(gathered(writer.path)[names.PROVENANCE_FAILED])
    assert failed == dict.fromkeys(("git", "packages", "diff"), reason)
    size = writer.path.stat().st_size
    writer.close()
    (tmp_path / "go").touch()
    wait_for_provenance()
    assert writer.path.stat().st_size == size
    assert writer._journal.lost == 0
    assert not writer.path.with_suffix(".files").exists()


# -- the parts -----------------------------------------------------------------------------------


def install(folder: Path, name: str, version: str, **files: str) -> None:
    """A package as an installer leaves it."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\n")
    for file, text in files.items():
        (info / f"{file}.json").write_text(text)


def test_packages_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "packages"
    commit = {"vcs": "git", "commit_id": "abc123"}
    origins = {
        "a_repository": {"url": "https://u:s3cret@example.org/a.git", "vcs_info": commit},
        "by.ssh": {"url": "ssh://git@example.org/b.git", "vcs_info": commit, "subdirectory": "py"},
        "an-archive": {"url": "https://s3cret@example.org/c-1.0.zip", "archive_info": {}},
        "in_work": {"url": f"file://{tmp_path}", "dir_info": {"editable": True}},
        "built": {"url": f"file://{tmp_path}/built-1.0.whl", "archive_info": {}},
    }
    for name, origin in origins.items():
        install(folder, name, "1.0", direct_url=json.dumps(origin))
    install(folder, "Plain.Name", "2.0+cu121")
    (folder / "broken-1.0.dist-info").mkdir()
    egg = folder / "old.egg-info"
    egg.write_text("Metadata-Version: 1.0\nName: old\nVersion: 3\n")
    monkeypatch.setattr(sys, "path", [str(folder)])
    found = requirements(Redactor(("only-of-this-test",)))
    assert found.unreadable == 1
    assert found.text.splitlines() == [
        "a-repository @ git+https://example.org/a.git@abc123",
        "an-archive @ https://example.org/c-1.0.zip",
        "# built==1.0 from a file of this machine",
        "by-ssh @ git+ssh://git@example.org/b.git@abc123#subdirectory=py",
        "# in-work==1.0 from a folder of this machine, editable",
        "old==3",
        "plain-name==2.0+cu121",
    ]
    for line in found.text.splitlines():
        if not line.startswith("#"):
            assert Requirement(line)


def test_packages_that_cannot_be_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "packages"
    install(folder, "fine", "1.0")
    install(folder, "odd", "1.0", direct_url="{")
    install(folder, "other", "1.0", direct_url='{"url": 7}')
    (folder / "broken-1.0.dist-info").mkdir()
    writer = RunWriter(
        tmp_path, HEAD, OfflineHost(), tracking_uri="sqlite:///n.db", flush_timeout=0
    )
    skip = ("git", "machine", "command")
    monkeypatch.setattr(sys, "path", [str(folder)])
    Collector(writer, Redactor(("another-of-this-test",)), skip).finish(60)
    writer.close()
    tags = gathered(writer.path)
    assert json.loads(tags[names.PROVENANCE_FAILED]) == {
        "packages": "3 installed packages could not be read"
    }
    (artifact,) = [record for record in entries(writer.path) if isinstance(record, Artifact)]
    assert verified(writer.path, artifact).read_text() == "fine==1.0\n"


def test_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/proc/driver/nvidia/gpus").exists():
        assert gpus.__wrapped__()
        return
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.__wrapped__() == ""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA H100\necho NVIDIA A10\necho NVIDIA H100\n")
    tool.chmod(0o755)
    assert gpus.__wrapped__() == "1 x NVIDIA A10, 2 x NVIDIA H100"
    tool.write_text("#!/bin/sh\necho no driver\nexit 9\n")
    assert gpus.__wrapped__() == ""
    tool.write_text("#!/bin/sh\n/bin/sleep 60\n")
    with pytest.raises(GpuError, match=r"nvidia-smi took longer than 0\.2 s"):
        gpus.__wrapped__(timeout=0.2)


def test_the_machine_is_asked_once() -> None:
    assert machine_tags() is machine_tags()
    assert requirements(Redactor()) is requirements(Redactor())


def test_seeds() -> None:
    params = {
        "seed": "7",
        "extra.data.shuffle_seed": '"7"',
        "extra.Seed": "from-clock",
        "extra.random_seed": "null",
        "extra.seeds": "1",
        "extra.seed.kind": "fixed",
        "extra.secret_seed": '{"$redacted":null}',
    }
    found = seed_tags(params)
    assert json.loads(found[names.SEEDS]) == {
        "seed": 7,
        "extra.data.shuffle_seed": "7",
        "extra.Seed": "from-clock",
        "extra.random_seed": None,
        "extra.secret_seed": {"$redacted": None},
    }
    assert seed_tags({"extra.seeds": "1"}) == {}
