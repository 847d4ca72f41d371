"""Let MkDocs read the fences that the tests read: `python my_trainer.py`, `sh elsewhere`."""

import re
from typing import Any

_FENCE = re.compile(r"^(```\w+) (\S+)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A file's name becomes the title of its block; other words are for the tests alone."""
    return _FENCE.sub(lambda found: f"{found[1]}{_title(found[2])}", markdown)


def _title(word: str) -> str:
    return f' title="{word}"' if "." in word else ""
