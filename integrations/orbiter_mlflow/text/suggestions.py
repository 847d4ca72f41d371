"""Suggest names that are similar to an unknown one: `did you mean ...`."""

from collections.abc import Mapping
from difflib import get_close_matches

__all__ = ["did_you_mean"]

_MOST = 3
_ALIKE = 0.6
"""Similarity from 0 to 1, difflib's default: `acuracy` is close to `accuracy`, `loss` is not."""


def did_you_mean(name: str, known: Mapping[str, str]) -> str:
    """The end of an error message that suggests names close to `name`; empty if none is.

    Case does not matter; names that begin with `name` count as close.

    Args:
        name: the unknown name.
        known: known name -> the text to show for it.
    """
    lower = {one.lower(): shown for one, shown in known.items()}
    near = get_close_matches(name.lower(), lower, n=_MOST, cutoff=_ALIKE)
    longer = (one for one in sorted(lower) if name and one.startswith(name.lower()))
    found = [lower[one] for one in dict.fromkeys((*near, *longer))][:_MOST]
    return f"; did you mean {' or '.join(found)}?" if found else ""
