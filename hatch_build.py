"""The README as a package index shows it: its links and pictures lead to the repository.

An index has none of the files that the README refers to. GitHub's workflows say where the
repository is; a build elsewhere leaves the links as they are.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(?P<head>!?\[[^\]]*\]\()(?P<path>(?!\w+:|#)[^)\s]+)")


def with_absolute_links(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Make relative links of a Markdown page absolute, if the environment names a repository.

    Args:
        text: the page, at the top of the repository.
        environ: `GITHUB_SERVER_URL`, `GITHUB_REPOSITORY` and `GITHUB_SHA`, as GitHub sets them.
    """
    try:
        server, repository, commit = (
            environ[f"GITHUB_{name}"] for name in ("SERVER_URL", "REPOSITORY", "SHA")
        )
    except KeyError:
        return text

    def absolute(match: re.Match[str]) -> str:
        view = "raw" if match["head"].startswith("!") else "blob"
        return f"{match['head']}{server}/{repository}/{view}/{commit}/{match['path']}"

    return _LINK.sub(absolute, text)


class ReadmeHook(MetadataHookInterface):
    """Fill in the project's `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_absolute_links(text)}
