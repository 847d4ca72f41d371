"""Names near to one that nothing goes by: `did you mean ...`, in every message that needs it."""

from collections.abc import Mapping
from difflib import get_close_matches

__all__ = ["did_you_mean"]

_MOST = 3
_ALIKE = 0.6
"""Of 1; difflib's own default, by which `acuracy` is near to `accuracy` and `loss` is not."""


def did_you_mean(name: str, known: Mapping[str, str]) -> str:
    """The end of a sentence that shows what is near to `name`; empty where nothing is.

    Letter case does not matter; what begins with the given name is near as well.

    Args:
        name: what was given.
        known: name -> how it is shown.
    """
    lower = {one.lower(): shown for one, shown in known.items()}
    near = get_close_matches(name.lower(), lower, n=_MOST, cutoff=_ALIKE)
    longer = (one for one in sorted(lower) if name and one.startswith(name.lower()))
    found = [lower[one] for one in dict.fromkeys((*near, *longer))][:_MOST]
    return f"; did you mean {' or '.join(found)}?" if found else ""
