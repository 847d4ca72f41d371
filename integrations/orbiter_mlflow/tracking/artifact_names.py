"""Names of artifacts that any artifact store keeps as they are, one for each name given.

MLflow's client puts names into URLs as they are: a server reads `a%20b` as `a b` and ends a name at
`#` or `?`, and files meet on one name without a word. Windows and object stores refuse more.
"""

import re
from collections.abc import Callable, Iterable
from hashlib import sha256

__all__ = ["ArtifactNames", "safe_path"]

MAX_PART = 255
"""Bytes in a name or the name of a folder: the limit of most file systems."""
MAX_PATH = 800
"""Bytes in a path: an object store takes 1024, of which some are the run's own."""

_ODD = (
    "\x00-\x1f\x7f-\x9f"  # control characters: dropped, decoded, or a 404
    "%#?"  # read by the server as parts of the URL
    ':<>"|*\\\\'  # `file:x` and `C:x` are taken for URLs; Windows refuses them all
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff"  # unseen, or turn text around
    "\ud800-\udfff"  # names that are no text
)
_OFFENDERS = re.compile(
    rf"[{_ODD}]"
    r"|^\s|\s\Z"  # stripped on the way
    r"|^\.(?=\.)|^\.\Z|\.\Z"  # `..` leads out; Windows drops a dot at the end
    # What could be read as an escape, alone or together with one that follows it.
    rf"|_(?=x[0-9a-f]+(?:_|[{_ODD}]|[\s.]\Z))"
)
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?=\.|\Z)", re.IGNORECASE | re.ASCII)


def safe_path(path: str) -> str:
    """A path of folders and a name, parted by `/`, as any artifact store takes it.

    What a store could read otherwise becomes `_x<hex code point>_`: `a?b.txt` is `a_x3f_b.txt`.
    Different paths stay different, but for slashes that say nothing (`/a//b/` is `a/b`), and upper
    and lower case on a server that does not tell them apart.
    """
    parts = [_safe_part(part) for part in _parts(path)]
    safe = "/".join(_shortened(part, part) for part in parts)
    if len(safe.encode()) > MAX_PATH:
        *folders, name = parts
        folder = "_".join(folders)
        safe = f"{_shortened(folder + '_' * MAX_PART, '/'.join(folders))}/{_shortened(name, name)}"
    return safe


class ArtifactNames:
    """The names of one run's artifacts: each belongs to one path for the run's life.

    Args:
        redact: takes the secrets out of a text.
        reserved: paths that are not for the user's files.

    Attributes:
        renamed: path of the artifact -> path given, where they differ.
    """

    def __init__(self, redact: Callable[[str], str], reserved: Iterable[str] = ()) -> None:
        self._redact = redact
        self._owners: dict[str, str | None] = dict.fromkeys(reserved)
        self.renamed: dict[str, str] = {}

    def claim(self, path: str) -> str:
        """The artifact's path for a path given; the same at each call.

        A path that another one has got already, since both held a secret or it is one of ours, gets
        `_2`, `_3` and so on before its suffix.
        """
        given = "/".join(_parts(path))
        shown = self._redact(given)
        safe = variant = safe_path(shown)
        number = 1
        while self._owners.setdefault(variant, given) != given:
            number += 1
            variant = _numbered(safe, number)
        if variant != given:
            self.renamed[variant] = shown
        return variant


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")] or ["artifact"]


def _safe_part(part: str) -> str:
    safe = _OFFENDERS.sub(lambda match: f"_x{ord(match[0]):x}_", part)
    device = _DEVICE.match(safe)
    return f"_x{ord(safe[0]):x}_{safe[1:]}" if device else safe


def _shortened(part: str, whole: str) -> str:
    """`part`, where it is too long cut, with the hash of the `whole` and its suffix."""
    if len(part.encode()) <= MAX_PART:
        return part
    stem, dot, suffix = part.rpartition(".")
    if not stem or len(suffix.encode()) > 16:
        stem, dot, suffix = part, "", ""
    end = f"_{sha256(whole.encode()).hexdigest()[:16]}{dot}{suffix}"
    return stem.encode()[: MAX_PART - len(end.encode())].decode(errors="ignore") + end


def _numbered(path: str, number: int) -> str:
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.partition(".")
    if not stem:
        stem, dot, suffix = name, "", ""
    return f"{folder}{slash}{_shortened(f'{stem}_{number}{dot}{suffix}', f'{name} {number}')}"
