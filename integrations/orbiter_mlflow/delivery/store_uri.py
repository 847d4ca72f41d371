"""Interpret tracking URIs: absolute paths, local or remote, the same store or another."""

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

PREFIX = "journal+"
"""Begins the tracking URIs by which MLflow's own clients write through our journals."""

_SQLITE = re.compile(r"sqlite(\+\w+)?://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_PORTS = {"http": 80, "https": 443}


def plain(uri: str) -> str:
    """The URI of the store itself: without our prefix."""
    if uri[: len(PREFIX)].lower() == PREFIX:  # as in any URI, case does not matter in a scheme
        return uri[len(PREFIX) :]
    return uri


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite store; None for any other store."""
    match = _SQLITE.match(uri)
    if match is None:
        return None
    path = uri[match.end() :].removeprefix("/").partition("?")[0]
    if path.startswith("file:"):  # SQLite's own form, with options such as mode=ro
        path = url2pathname(urlsplit(path).path)
    return Path(path)


def absolute(uri: str) -> str:
    """Make a relative path in a URI absolute, from the working folder.

    Raises:
        ValueError: nobody could connect to it.
    """
    if uri == "sqlite://" or _SQLITE.match(uri):
        scheme, _, rest = uri.partition("://")
        path, query, options = rest[1:].partition("?")
        if path in ("", ":memory:", "file::memory:"):
            raise ValueError(f"{uri!r} is a store in memory that nobody else could read")
        file = sqlite_file(uri)
        assert file is not None  # noqa: S101  as the scheme says so
        shown = str(file.absolute())
        if path.startswith("file:"):
            shown = file.absolute().as_uri().replace("file://", "file:", 1)
        return f"{scheme}:///{shown}{query}{options}"
    if uri.startswith("file:"):
        parts = urlsplit(uri)
        if parts.netloc or parts.path.startswith("/"):
            return uri
        return Path(url2pathname(parts.path)).absolute().as_uri()
    if _DRIVE.match(uri) or ("://" not in uri and not uri.startswith("databricks")):
        return Path(uri).absolute().as_uri()
    urlsplit(uri)
    return uri


def is_local(uri: str) -> bool:
    """Whether the store is a file or folder of this machine, which receives no credentials."""
    if sqlite_file(uri) is not None:
        return True
    return uri.startswith("file:") and urlsplit(uri).netloc in ("", "localhost")


def same_store(one: str, other: str) -> bool:
    """Whether two absolute URIs name one store, whatever credentials they hold."""
    return _comparable(one) == _comparable(other)


def _comparable(uri: str) -> tuple[object, ...]:
    if file := sqlite_file(uri):
        return ("sqlite", file)
    parts = urlsplit(uri)
    if parts.scheme not in _PORTS:
        return (urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])),)
    port = parts.port or _PORTS[parts.scheme]
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/"), parts.query
