"""What is known of one type of value: its marker, how it is written, read, compared and shown."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Json", "Kind", "NotWholeError", "call", "no_names"]

Json: TypeAlias = Any


class NotWholeError(Exception):
    """This value would not come back whole: it is kept as text.

    Args:
        why: a key of `text_only.ADVICE`.
        shown: what is shown of it instead, as a value that is marked in turn.
    """

    def __init__(self, why: str, shown: Any = None) -> None:
        super().__init__(why)
        self.why = why
        self.shown = shown


def no_names(payload: Json) -> Iterable[str]:
    """Reading the payload needs no module that may not be there."""
    return ()


def call(payload: Json, show: Callable[[Json], str]) -> str:
    """The arguments of a function that is called as the marker is."""
    return ", ".join(map(show, payload)) if type(payload) is list else show(payload)


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of value.

    Attributes:
        marker: the key that its JSON has.
        write: its payload, whose parts are marked in turn. May raise `NotWholeError`. Two values
            of the type are the same if their payloads are.
        read: the value of a payload whose markers are resolved; may raise anything.
        show: the payload as Python would show the value; None for `marker(payload)`.
        names: classes, as `module:qualname`, and modules, as `module:`, that reading needs.
        hidden: the text inside a payload that does not show it, to be searched for secrets.
        items: a mapping, or a list, of what the value holds, written beside its payload under
            `$items`; those of a mapping are shown as params of their own. None for a type that
            holds nothing. `read` is then given both.
    """

    marker: str
    write: Callable[[Any], Any]
    read: Callable[..., Any]
    show: Callable[[Json, Callable[[Json], str]], str] | None = None
    names: Callable[[Json], Iterable[str]] = no_names
    hidden: Callable[[Json], str] | None = None
    items: Callable[[Any], Mapping[Any, Any] | list[Any]] | None = None
