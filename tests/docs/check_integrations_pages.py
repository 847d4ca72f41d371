"""`make test-integrations`: the pages about large libraries, with these libraries.

`make test` does not collect this file, because of its name; it only checks the commands of these
pages.
"""

from pathlib import Path

import pytest

from pages import ROOT, act, blocks, opened

PAGES = [
    pytest.param(page, id=page.stem)
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if any(block.word == "integrations" for block in blocks(page))
]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs_from_top_to_bottom(
    page: Path, own_folder: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(own_folder, empty_store, monkeypatch, integrations=True)
    for block in blocks(page):
        try:
            act(session, block)
        except Exception as error:
            raise AssertionError(f"{page}, line {block.line}: {error}") from error


def test_each_library_has_a_page() -> None:
    assert len(PAGES) == 5
