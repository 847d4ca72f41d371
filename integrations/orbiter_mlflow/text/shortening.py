"""Cut a text or an object that is too long, and say how much there was: one notation for all."""

import json
from collections.abc import Mapping

__all__ = ["ROOM", "cut_note", "json_within", "shortened", "without_middle"]

ROOM = 32
"""Characters: more than the note needs, so that no text is cut twice."""


def shortened(text: str, length: int) -> str:
    """Cut a text that is much longer than `length` characters, and append how long it was."""
    return text if len(text) <= length + ROOM else text[:length] + cut_note(len(text))


def cut_note(characters: int | str) -> str:
    """The end of a text that was cut: how many characters it had."""
    return f"... ({characters} characters)"


def without_middle(text: str, length: int, what: str) -> str:
    """Cut the middle of a text longer than `length` characters, and say how many were there.

    Args:
        what: stands behind the number: "characters", and what may be said of them.
    """
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]}\n... ({len(text) - 2 * half} {what}) ...\n{text[-half:]}"


def json_within(entries: Mapping[str, object], limit: int, *, at_most: int | None = None) -> str:
    """A JSON object of as many entries as fit; under the key `...` stands how many are left out.

    Args:
        entries: in the order in which they are kept.
        limit: characters of the JSON text.
        at_most: entries that are kept at most; without it, as many as fit.
    """
    kept = list(entries.items())[:at_most]
    while True:
        shown = dict(kept)
        if len(kept) < len(entries):
            shown["..."] = f"{len(entries) - len(kept)} more"
        text = json.dumps(shown, ensure_ascii=False)
        if len(text) <= limit or not kept:
            return text
        kept.pop()
