"""The wheel, built from the tree and from the sdist, and the pinned versions."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from orbiter import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = {"orbiter": ROOT / "orbiter", "orbiter_mlflow": ROOT / "integrations/orbiter_mlflow"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INFO = f"{PROJECT['name']}-{__version__}.dist-info"


def build(project: Path, target: str, folder: Path, **environ: str) -> Path:
    """Build with the installed backend, which needs no network and no isolated environment."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "-d", str(folder)]
    ended = subprocess.run(
        command,
        cwd=project,
        env={name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
        | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (built,) = folder.iterdir()
    return built


def shipped() -> set[str]:
    """The files of the packages, named as in the wheel."""
    return {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.suffix in (".py", ".jinja") or path.name == "py.typed"
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{INFO}/METADATA").decode())


def test_the_wheel_holds_both_packages_and_nothing_else(wheel: Path) -> None:
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert names == shipped() | {f"{INFO}/{name}" for name in about}
    assert {"orbiter/py.typed", "orbiter_mlflow/py.typed"} <= names
    assert "orbiter_mlflow/gate/reports/report.html.jinja" in names


def test_the_wheel_is_for_any_system(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_brings_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"{INFO}/entry_points.txt").decode()
    assert "[console_scripts]\norbiter-mlflow = orbiter_mlflow.__main__:main\n" in entry_points


def test_the_metadata_list_the_requirements(metadata: Message) -> None:
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    extras = {"bench", "demo", "dev", "docs", "integrations", "optuna", "servers", "system"}
    extras |= {"trl", "verl"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    needs = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert {re.split(r"[<>=]", need)[0] for need in needs} == {
        *("click", "jinja2", "mlflow", "numpy", "pydantic", "pyyaml", "rich", "scipy"),
    }


def test_every_requirement_has_both_bounds(metadata: Message) -> None:
    needs = metadata.get_all("Requires-Dist", [])
    loose = [need for need in needs if not ("<" in need and ">=" in need)]
    assert loose == []


def test_the_license_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_sdist_makes_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob(f"{PROJECT['name']}-*")
    again = build(unpacked, "wheel", tmp_path / "again")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert {i.filename: i.CRC for i in first.infolist()} == {
            i.filename: i.CRC for i in second.infolist()
        }


def test_the_sdist_has_everything_that_the_checks_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    own = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    assert own <= names
    top = {name for name in names if "/" not in name}
    assert top == {
        *(".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
        *("Makefile", "PKG-INFO", "README.md", "SECURITY.md", "constraints-lowest.txt"),
        *("constraints.txt", "constraints-verl.txt", "hatch_build.py", "mkdocs.yml"),
        "pyproject.toml",
    }
    assert ".ci/run" in names


# -- the pinned versions ---------------------------------------------------------------------------


def pins(file: str = "constraints.txt") -> dict[str, str]:
    """Name, normalized, -> version."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pinned = [line.split("==") for line in lines if not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned}


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-verl.txt"])
def test_constraints_are_versions_only(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)]
    assert wrong == []
    assert len(pins(file)) == len(lines), "a name is pinned twice"
    assert "://" not in text


def test_every_requirement_of_the_checks_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"]
    parts = ("demo", "dev", "docs", "optuna", "system")
    needs = [*PROJECT["dependencies"], *(need for part in parts for need in extras[part])]
    names = {re.split(r"[<>=\[]", need)[0] for need in needs} - {PROJECT["name"]}
    assert names <= set(pins())
    assert len({pins()[f"mlflow{part}"] for part in ("", "-skinny", "-tracing")}) == 1


def test_a_release_links_its_readme_to_the_repository(metadata: Message, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert str(metadata.get_payload()).strip() == readme.strip()
    at = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "o/r", "GITHUB_SHA": "c0"}
    with zipfile.ZipFile(build(ROOT, "wheel", tmp_path, **at)) as archive:
        shown = archive.read(f"{INFO}/METADATA").decode()
    assert "](https://github.com/o/r/raw/c0/docs/images/runs.png)" in shown
    assert "](https://github.com/o/r/blob/c0/docs/tutorial.md)" in shown
    assert not re.search(r"\]\((?!https://|#)", shown)
