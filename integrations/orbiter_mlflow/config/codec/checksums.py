"""A short checksum of each param, all in one text: which one is not as it was logged.

The digest over all params says that something has changed; these say what, also of a param that is
gone. The text is base64 of zlib of the JSON `{key: first 8 hex digits of its value's SHA-256}`.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping

from orbiter_mlflow.config.codec.json_text import canonical

__all__ = ["differences", "write_checksums"]

_DIGITS = 8
_LARGEST = 1 << 26
"""Bytes that a text is unpacked to, at most: anyone who may set tags can write one."""


def write_checksums(params: Mapping[str, str]) -> str:
    """The checksums of these params."""
    sums = {key: _checksum(text) for key, text in params.items()}
    return base64.b64encode(zlib.compress(canonical(sums).encode(), 9)).decode()


def differences(params: Mapping[str, str], checksums: str) -> dict[str, str]:
    """What differs from the params that the checksums were made of: key -> in what way.

    Raises:
        ValueError: this is no text that `write_checksums` wrote.
    """
    logged = _read(checksums)
    found = {}
    for key in sorted(logged.keys() | params.keys()):
        if key not in params:
            found[key] = "is missing"
        elif key not in logged:
            found[key] = "was not logged with the config, but added to the run"
        elif logged[key] != _checksum(params[key]):
            found[key] = "was changed after it was logged"
    return found


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _read(text: str) -> dict[str, str]:
    try:
        packed = base64.b64decode(text, validate=True)
        sums = json.loads(zlib.decompressobj().decompress(packed, _LARGEST))
    except (ValueError, zlib.error, RecursionError) as error:
        raise ValueError("no checksums") from error
    if type(sums) is not dict:
        raise ValueError("no checksums")
    return sums
