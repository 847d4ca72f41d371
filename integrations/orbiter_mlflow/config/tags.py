"""Tags made from a config's params: their digest, their checksums, the seeds among them.

The digest over all params shows that something has changed; the checksums show which param, even
one that is gone. They are base64 of zlib of the JSON `{key: first 8 hex digits of the value's
SHA-256}`.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.json_text import canonical, is_json, parse
from orbiter_mlflow.config.codec.splitting import join_values, split_value

__all__ = ["differences", "params_digest", "seed_tags", "write_checksums"]

_DIGITS = 8
_LARGEST = 1 << 26
"""Bytes to unpack at most: anyone who may set tags can write this one."""


def params_digest(params: Mapping[str, str]) -> str:
    """SHA-256, in hex, of the params as canonical JSON; their order does not matter."""
    return hashlib.sha256(canonical(dict(params)).encode()).hexdigest()


def write_checksums(params: Mapping[str, str]) -> str:
    """The checksums of these params."""
    sums = {key: _checksum(text) for key, text in params.items()}
    return base64.b64encode(zlib.compress(canonical(sums).encode(), 9)).decode()


def differences(params: Mapping[str, str], checksums: str) -> dict[str, str]:
    """How the params differ from those that the checksums were made from: key -> difference.

    Raises:
        ValueError: `write_checksums` did not write this text.
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
        raise ValueError("not checksums") from error
    if type(sums) is not dict:
        raise ValueError("not checksums")
    return sums


def seed_tags(params: Mapping[str, str]) -> dict[str, str]:
    """The tag with all params named `seed` or `..._seed`; empty if there are none.

    Args:
        params: the redacted params of the config.
    """
    found = {}
    for path, text in join_values(params).items():
        if names.is_seed(path):
            found[path] = parse(text) if is_json(text) else text
    return split_value(names.SEEDS, canonical(found), names.MAX_DATA_TAG) if found else {}
