"""Classes that are in another module than when they were logged, or in none that is imported."""

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orbiter_mlflow.config.codec.classes import find_class, find_reference
from orbiter_mlflow.config.codec.json_text import Json, parse
from orbiter_mlflow.config.codec.kinds.containers import NAMESPACE, REFERENCE
from orbiter_mlflow.config.codec.kinds.scalars import ENUM
from orbiter_mlflow.config.codec.markers import NAMEDTUPLE, TYPE
from orbiter_mlflow.config.codec.unmarking import named_in
from orbiter_mlflow.errors import UnreadableError

__all__ = ["Moved", "import_named", "missing_modules"]

_NAMED = frozenset({TYPE, NAMEDTUPLE, REFERENCE.marker, NAMESPACE.marker})


@dataclass(frozen=True, slots=True)
class Moved:
    """Renames classes of a module that are not found there, but in another one.

    Attributes:
        old: the module that the config's class was in.
        new: the one that it is in now.
    """

    old: str
    new: str

    def renamed(self, value: Json) -> Json:
        """The JSON with the names by which its classes are found."""
        if type(value) is list:
            return [self.renamed(item) for item in value]
        if type(value) is not dict:
            return value
        out = {}
        for key, item in value.items():
            if key in _NAMED:
                out[key] = self._name(item)
            elif key == ENUM.marker and type(item) is list and item:
                out[key] = [self._name(item[0]), *item[1:]]
            else:
                out[key] = self.renamed(item)
        return out

    def _name(self, name: Json) -> Json:
        module, _, qualname = str(name).partition(":")
        # What is in `__main__` now is another script's, unless the class itself is there.
        if module != self.old or (self.old != "__main__" and _is_there(str(name))):
            return name
        moved = f"{self.new}:{qualname}"
        return moved if _is_there(moved) else name


def _is_there(name: str) -> bool:
    for find in (find_class, find_reference):
        try:
            find(name)
        except UnreadableError:
            continue
        return True
    return False


def missing_modules(params: Mapping[str, str], moved: Moved | None = None) -> list[str]:
    """The modules that must be imported before these params, joined, can be read; sorted."""
    names = {name for text in params.values() if '"$' in text for name in _named(text, moved)}
    modules = {name.partition(":")[0] for name in names}
    return sorted(module for module in modules if module not in sys.modules)


def _named(text: str, moved: Moved | None) -> Iterable[str]:
    try:
        found = parse(text)
    except (UnreadableError, RecursionError):
        return []  # as will be said when it is read
    return named_in(found if moved is None else moved.renamed(found))


def import_named(needed: Iterable[str], packages: Iterable[str]) -> dict[str, str]:
    """Import those of the needed modules that are in one of these packages.

    The packages come first; a lazy one has not loaded its modules by that.

    Returns:
        Module -> why it could not be imported.
    """
    allowed = list(packages)
    wanted = [m for m in needed if any(m == p or m.startswith(f"{p}.") for p in allowed)]
    failed = {}
    for module in (*allowed, *wanted):
        try:
            importlib.import_module(module)
        except Exception as error:
            failed[module] = f"{type(error).__name__}: {error}"
    return failed
