"""Pack bookkeeping tags into few, so that a run's page shows the user's own.

A packed tag is a JSON object: name without `orbiter.` -> value. This is the only place that knows
the form. What reads tags calls `unpacked` and finds every tag under its own name, also in runs of
versions that packed nothing.
"""

import json
import re
from collections.abc import Mapping

from orbiter_mlflow import names

__all__ = ["PackedTags", "unpacked"]

_PREFIX = f"{names.ORBITER}."
_PACK = re.compile(rf"({'|'.join(map(re.escape, names.PACKS))})(?:\.([1-9][0-9]*))?")
"""The name of a packed tag, and the number of the life of the run that it is about."""


class PackedTags:
    """The packed tags of one run, which grow as more becomes known."""

    def __init__(self) -> None:
        self._packed: dict[str, dict[str, str]] = {}
        self._alone: set[str] = set()

    def add(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Take in some tags.

        Returns:
            The tags to write: packed tags that have changed, and those of `tags` that belong into
            none. One that would make a packed tag longer than `names.MAX_DATA_TAG` stays by
            itself from then on.
        """
        written: dict[str, str] = {}
        for name, text in tags.items():
            pack = _pack_of(name)
            if pack is None:
                written[name] = text
                continue
            packed = self._packed.setdefault(pack, {})
            if name in self._alone or len(_json(packed | {name: text})) > names.MAX_DATA_TAG:
                self._alone.add(name)
                packed.pop(name, None)
                written[name] = text
            else:
                packed[name] = text
            if packed:
                written[pack] = _json(packed)
        return written


def unpacked(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run with each under its own name, whatever version wrote them.

    A packed tag that somebody has edited into something else stays as it is. A tag that is there by
    itself takes precedence over one in a packed tag.
    """
    found: dict[str, str] = {}
    for name, text in tags.items():
        match = _PACK.fullmatch(name)
        values = _values(text) if match else None
        if match is None or values is None:
            found[name] = text
        else:
            life = match[2]
            for short, value in values.items():
                whole = _PREFIX + short
                found.setdefault(names.in_life(whole, int(life)) if life else whole, value)
    return found


def _pack_of(name: str) -> str | None:
    return next((pack for pack, parts in names.PACKS.items() if name.startswith(parts)), None)


def _json(values: Mapping[str, str]) -> str:
    short = {name.removeprefix(_PREFIX): text for name, text in values.items()}
    return json.dumps(short, ensure_ascii=False)


def _values(text: str) -> dict[str, str] | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not all(isinstance(one, str) for one in values.values()):
        return None
    return values
