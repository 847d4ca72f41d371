"""List the installed packages as a requirements file."""

import hashlib
import json
import re
import time
from functools import cache
from importlib.metadata import Distribution, distributions
from typing import Any, NamedTuple

from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.text.urls import without_userinfo

__all__ = ["Requirements", "requirements"]

_PAUSE = 0.0002
"""Seconds of pause after each package, so that the training thread gets the interpreter."""

_NAME = re.compile(r"^Name:[ \t]*(\S+)", re.MULTILINE)
_VERSION = re.compile(r"^Version:[ \t]*(\S+)", re.MULTILINE)


class Requirements(NamedTuple):
    """The installed packages.

    Attributes:
        text: the file.
        unreadable: how many packages lack a name, a version, or an origin that makes sense.
    """

    text: str
    unreadable: int

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class _Package(NamedTuple):
    name: str
    line: str


@cache
def requirements(redactor: Redactor) -> Requirements:
    """List the installed packages as `name==version`, sorted by name.

    A package from a repository or an archive is listed as `name @ url`, without userinfo; one from
    a folder or a file of this machine as a comment. Cached for the life of the process.

    Raises:
        OSError: a folder of packages cannot be read.
    """
    found: dict[str, str] = {}
    unreadable = 0
    for distribution in distributions():
        package = _package(distribution, redactor)
        if package is None:
            unreadable += 1
        else:
            found.setdefault(package.name, package.line)  # the first on the path is imported
        time.sleep(_PAUSE)
    text = "".join(f"{found[name]}\n" for name in sorted(found))
    return Requirements(text, unreadable)


def _package(distribution: Distribution, redactor: Redactor) -> _Package | None:
    # not `distribution.metadata`: parsing that as mail takes ten times as long
    head = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")
    head = (head or distribution.read_text("") or "").partition("\n\n")[0]
    name, version = _NAME.search(head), _VERSION.search(head)
    if name is None or version is None:
        return None
    canonical = re.sub(r"[-_.]+", "-", name[1]).lower()
    pinned = f"{canonical}=={version[1]}"
    origin = distribution.read_text("direct_url.json")
    if origin is None:
        return _Package(canonical, pinned)
    try:
        return _Package(canonical, _with_origin(canonical, pinned, json.loads(origin), redactor))
    except (ValueError, TypeError, LookupError, AttributeError):  # whatever an installer left
        return None


def _with_origin(name: str, pinned: str, origin: dict[str, Any], redactor: Redactor) -> str:
    """The line of a package that came from a URL (PEP 610)."""
    url = without_userinfo(origin["url"])
    if url.startswith("file:"):
        editable = origin.get("dir_info", {}).get("editable", False)
        what = "folder" if "dir_info" in origin else "file"
        return f"# {pinned} from a {what} of this machine{', editable' if editable else ''}"
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    if origin.get("subdirectory"):
        url += f"#subdirectory={origin['subdirectory']}"
    return redactor.text(f"{name} @ {url}")
