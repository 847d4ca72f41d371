"""Values that are kept as text, since they cannot be encoded: what to show, why, and advice.

The text holds all that can be read of a value, so that configs that differ in it also differ in
their params. It is never read back.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

from orbiter_mlflow.config.codec.classes import class_name
from orbiter_mlflow.config.codec.json_text import Json
from orbiter_mlflow.config.codec.markers import TEXT, WHY
from orbiter_mlflow.config.codec.objects import is_plain_class

__all__ = ["ADVICE", "Budget", "advice", "as_text", "budget", "contents", "fresh_budget"]
__all__ += ["own_attributes", "safe_repr"]

_LONGEST_REPR = 100_000
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


@dataclass(slots=True)
class Budget:
    """A limit on what is read of live objects in one config; a whole model may be among them.

    Attributes:
        values: attributes and items that may still be read.
        size: bytes of arrays that may still be hashed.
    """

    values: int = 20_000
    size: int = 1 << 25


_budget: ContextVar[Budget] = ContextVar("budget")


@contextmanager
def fresh_budget() -> Iterator[None]:
    """Give the code inside its own budget."""
    token = _budget.set(Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def budget() -> Budget:
    """The current budget; a new one if there is none."""
    return _budget.get(None) or Budget()


_AT_THE_TOP = "define it at the top of a module, under its own name"
ADVICE: Mapping[str, str] = {
    "array": "a large array or a tensor: save it as an artifact, and keep its path in the config",
    "changed": "it does not come back as it was",
    "cycle": "it contains itself",
    "deep": "it nests too deep",
    "function": f"a function or class that its module lacks under its name: {_AT_THE_TOP}",
    "local class": f"its module lacks its class under its name: {_AT_THE_TOP}",
    "object": "its class has no exact encoding: make it a dataclass of plain values",
    "generator": "a random number generator: keep its seed in the config, and make it from that",
    "part": "a part of a larger config that it refers to: keep the whole config",
    "structured": "a structured config: keep OmegaConf.to_container of it",
    "subclass": "its class extends a container: make it a dataclass, or a plain container",
    "unreadable": "reading it raised an error",
    "unset": "it has no value",
}
"""Reason -> what the value is, and what to do instead."""


def advice(why: object) -> str:
    """Tell the user why a value is text only, and what to do instead."""
    return ADVICE.get(str(why), "it has no exact encoding")


def as_text(shown: Json, why: str) -> Json:
    """The JSON of a value that is kept as text; `why` is a key of `ADVICE`."""
    return {TEXT: shown, WHY: why}


def safe_repr(value: object) -> str:
    """The repr, of bounded length and without memory addresses; the type's name if it raises."""
    try:
        shown = repr(value)
    except Exception:
        return f"<{type(value).__qualname__} without a repr>"
    return _ADDRESS.sub("", shown[:_LONGEST_REPR])


def contents(value: Any, mark: Callable[[Any], Json]) -> Json:
    """All that can be read of an object of any class, as JSON."""
    if type(value) is FunctionType:
        return _function(value, mark)
    if type(value) is MethodType:
        return {"method": value.__func__.__qualname__, "of": mark(value.__self__)}
    own = {} if isinstance(value, ModuleType) else own_attributes(value)
    if not own:
        return safe_repr(value)
    shown = {name: mark(own[name]) for name in sorted(own)}
    if not is_plain_class(type(value)):
        shown["repr"] = safe_repr(value)
    return {class_name(type(value)): shown}


def own_attributes(value: Any) -> dict[str, Any]:
    """The `__dict__` and the slots of an object of any class."""
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        own = {}
    found = {str(name): item for name, item in own.items()} if type(own) is dict else {}
    for cls in type(value).__mro__:
        if cls.__module__ == "builtins":  # code, frames
            continue
        for name, member in vars(cls).items():
            if isinstance(member, MemberDescriptorType) and not name.startswith("__"):
                try:
                    found[name] = member.__get__(value)
                except AttributeError:
                    continue
    return found


def _function(value: FunctionType, mark: Callable[[Any], Json]) -> Json:
    shown: dict[str, Json] = {
        "function": f"{value.__module__}:{value.__qualname__}",
        "code": _digest(value.__code__),
    }
    if value.__defaults__ or value.__kwdefaults__:
        shown["defaults"] = mark([*(value.__defaults__ or ()), value.__kwdefaults__ or {}])
    if value.__dict__:
        shown["attributes"] = mark(dict(sorted(value.__dict__.items())))
    if value.__closure__:
        shown["closure"] = {
            name: mark(_cell(cell))
            for name, cell in zip(value.__code__.co_freevars, value.__closure__, strict=True)
        }
    return shown


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "<empty>"


def _digest(code: CodeType) -> str:
    """A digest of a function's code, stable within one version of Python."""
    digest = hashlib.sha256(code.co_code)
    constants = map(_constant, code.co_consts)
    digest.update(repr((*constants, code.co_names, code.co_varnames)).encode())
    return digest.hexdigest()[:16]


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return _digest(value)
    # `x in {"a", "b"}`: each process orders a set of strings differently.
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
