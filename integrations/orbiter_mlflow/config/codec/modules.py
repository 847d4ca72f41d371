"""The modules that a config's classes are in: which are missing, and which classes have moved."""

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orbiter_mlflow.config.codec.classes import find_class, find_reference
from orbiter_mlflow.config.codec.json_text import Json, parse
from orbiter_mlflow.config.codec.kinds import KINDS
from orbiter_mlflow.config.codec.markers import NAMEDTUPLE, TYPE, may_hold_markers
from orbiter_mlflow.config.codec.marking import named_in
from orbiter_mlflow.errors import UnreadableError

__all__ = ["MovedModule", "import_named", "missing_modules"]


@dataclass(frozen=True, slots=True)
class MovedModule:
    """The config's class has moved: other classes of its module may be in the new one too.

    Attributes:
        old: the module that the config's class was in.
        new: the module that it is in now.
    """

    old: str
    new: str

    def renamed(self, value: Json) -> Json:
        """The JSON with the names under which its classes can be found."""
        if type(value) is list:
            return [self.renamed(item) for item in value]
        if type(value) is not dict:
            return value
        return {key: self._renamed_item(key, item) for key, item in value.items()}

    def _renamed_item(self, key: str, item: Json) -> Json:
        if key in (TYPE, NAMEDTUPLE):
            return self._name(item)
        named = _names(key, item)
        if type(item) is list:
            return [self._name(x) if x in named else self.renamed(x) for x in item]
        return self._name(item) if item in named else self.renamed(item)

    def _name(self, name: Json) -> Json:
        module, _, qualname = str(name).partition(":")
        # `__main__` is another script now, unless the config's class itself was in it.
        if module != self.old or (self.old != "__main__" and _is_there(str(name))):
            return name
        moved = f"{self.new}:{qualname}"
        return moved if _is_there(moved) else name


def _names(marker: str, payload: Json) -> list[Json]:
    """The classes that a payload names."""
    try:
        return [*KINDS[marker].names(payload)] if marker in KINDS else []
    except (TypeError, LookupError):  # malformed: reading it raises the error
        return []


def _is_there(name: str) -> bool:
    for find in (find_class, find_reference):
        try:
            find(name)
        except UnreadableError:
            continue
        return True
    return False


def missing_modules(params: Mapping[str, str], moved: MovedModule | None = None) -> list[str]:
    """The modules that must be imported before these joined params can be read, sorted."""
    texts = filter(may_hold_markers, params.values())
    names = {name for text in texts for name in _named(text, moved)}
    modules = {name.partition(":")[0] for name in names}
    return sorted(module for module in modules if module not in sys.modules)


def _named(text: str, moved: MovedModule | None) -> Iterable[str]:
    try:
        found = parse(text)
    except (UnreadableError, RecursionError):
        return []  # reading it raises the error
    return named_in(found if moved is None else moved.renamed(found))


def import_named(needed: Iterable[str], packages: Iterable[str]) -> dict[str, str]:
    """Import the needed modules that are in one of these packages.

    The packages themselves come first: importing a module of a lazy package may depend on it.

    Returns:
        Module -> why it could not be imported.
    """
    allowed = list(packages)
    inside = [m for m in needed if any(m == p or m.startswith(f"{p}.") for p in allowed)]
    failed = {}
    for module in (*allowed, *inside):
        try:
            importlib.import_module(module)
        except Exception as error:
            failed[module] = f"{type(error).__name__}: {error}"
    return failed
