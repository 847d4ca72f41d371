"""The code of the pages runs, or at least passes the type checker."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pages import ROOT, Session, act, blocks, opened, pages

PAGES = {page.relative_to(ROOT).as_posix(): page for page in pages()}


@pytest.fixture
def session(own_folder: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    return opened(own_folder, empty_store, monkeypatch)


@pytest.mark.parametrize("name", [name for name in PAGES if name != "README.md"])
def test_the_code_of_a_page_runs_from_top_to_bottom(name: str, session: Session) -> None:
    if name.startswith("examples/"):
        shutil.copytree(PAGES[name].parent, Path.cwd(), dirs_exist_ok=True)
    for block in blocks(PAGES[name]):
        try:
            act(session, block)
        except Exception as error:
            raise AssertionError(f"{name}, line {block.line}: {error}") from error


UNTYPED = """# mypy: check-untyped-defs, allow-any-generics, allow-subclassing-any
# mypy: allow-untyped-calls, allow-untyped-decorators, allow-untyped-defs
"""
"""What strict mode asks for, and examples leave out."""


def test_code_that_is_only_shown_passes_the_type_checker(own_folder: Path) -> None:
    files: list[Path] = []
    for page in PAGES.values():
        code = [block for block in blocks(page) if block.language == "python"]
        if any(block.word == "elsewhere" for block in code):
            text = "\n".join([UNTYPED, *(block.text for block in code)])
            files.append(own_folder / f"page_{len(files)}.py")
            files[-1].write_text(text, encoding="utf-8")
    assert len(files) > 3
    for block in blocks(ROOT / "docs" / "tutorial.md")[1:2]:
        (own_folder / block.word).write_text(f"# mypy: ignore-errors\n{block.text}")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", *map(str, files)],
        cwd=ROOT,
        env=os.environ | {"MYPYPATH": str(own_folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
