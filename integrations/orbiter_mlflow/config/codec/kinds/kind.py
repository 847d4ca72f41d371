"""`Kind`: one type of value that JSON lacks, with its marker and how to write, read and show it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from orbiter_mlflow.errors import UnreadableError

__all__ = ["Json", "Kind", "NotWholeError", "never_read", "no_names"]

Json: TypeAlias = Any


class NotWholeError(Exception):
    """This value would not come back whole: it is kept as text.

    Args:
        why: a key of `unencodable.ADVICE`.
        shown: the value to show instead; None shows the attributes of the value itself.
    """

    def __init__(self, why: str, shown: Any = None) -> None:
        super().__init__(why)
        self.why = why
        self.shown = shown


def no_names(payload: Json) -> Iterable[str]:
    """For a payload that can be read whatever modules are imported."""
    return ()


def never_read(payload: Json) -> Any:
    """For a type that is always kept as text."""
    raise UnreadableError("holds what is never written")


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of value.

    Attributes:
        marker: the key of its JSON object.
        write: makes the payload; its parts are marked in turn. May raise `NotWholeError`. Two
            values of the type are the same if their payloads are.
        read: makes the value from a payload whose markers are resolved; may raise anything.
        show: the payload as Python would show the value; None for `marker(payload)`.
        names: the classes, as `module:qualname`, and modules, as `module:`, that reading needs.
        hidden: the text that the payload encodes, to be searched for secrets.
        items: what the value holds, written under `$items` beside the payload; the items of a
            mapping become params of their own. None for a type that holds nothing. `read` takes
            the payload and the items.
        plain: whether pydantic writes and reads the type as one string or number, running no user
            code, so that a field annotated with it needs no marker.
        collection: the payload is a plain list of items, each with a path of its own; a "set" is
            written sorted. Empty for every other type.
    """

    marker: str
    write: Callable[[Any], Any]
    read: Callable[..., Any]
    show: Callable[[Json, Callable[[Json], str]], str] | None = None
    names: Callable[[Json], Iterable[str]] = no_names
    hidden: Callable[[Json], str] | None = None
    items: Callable[[Any], Mapping[Any, Any] | list[Any]] | None = None
    plain: bool = False
    collection: Literal["", "sequence", "set"] = ""
