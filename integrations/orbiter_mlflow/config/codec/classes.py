"""Classes and functions by name, looked up only in modules that are already imported.

Reading params runs no import: a name in a store must not decide which code is loaded.
"""

import sys
from enum import Enum
from types import BuiltinFunctionType, FunctionType
from typing import Any

from orbiter_mlflow.errors import UnreadableError

__all__ = ["ATOMS", "NUMPY_FUNCTIONS", "class_name", "find_class", "find_reference"]
__all__ += ["is_dataclass_class", "is_findable", "is_reference", "reference_name"]

ATOMS = frozenset({str, int, float, bool, type(None)})
"""Types whose values are plain and immutable."""

NUMPY_FUNCTIONS = frozenset({"numpy:ufunc", "numpy:_ArrayFunctionDispatcher"})
"""Names of the types of numpy's functions, such as `np.exp` and `np.mean`."""


def class_name(cls: type) -> str:
    """`module:qualname`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _find(name: object) -> Any:
    if not isinstance(name, str):
        raise UnreadableError("the name of a class must be a string")
    module, _, qualname = name.partition(":")
    if module not in sys.modules:
        raise UnreadableError(f"needs {name}: import {module} first")
    found: Any = sys.modules[module]
    for part in qualname.split("."):
        # Not `getattr`: for a lazy module that runs an import.
        found = getattr(found, "__dict__", {}).get(part)
    return found


def find_class(name: object) -> type:
    """The class of that name.

    Raises:
        UnreadableError: its module is not imported, or has no such class.
    """
    found = _find(name)
    if not isinstance(found, type):
        module = str(name).partition(":")[0]
        raise UnreadableError(f"needs {name}, but {module} has no such class")
    return found


def is_reference(value: object) -> bool:
    """Whether the value is a class or a function, which a module defines under a name."""
    kind = type(value)
    return (
        issubclass(kind, type | FunctionType | BuiltinFunctionType)
        or class_name(kind) in NUMPY_FUNCTIONS
    )


def find_reference(name: object) -> Any:
    """The class or function of that name.

    Raises:
        UnreadableError: its module is not imported, or has no such class or function.
    """
    found = _find(name)
    if not is_reference(found):
        module = str(name).partition(":")[0]
        raise UnreadableError(f"needs {name}, but {module} has no such class or function")
    return found


def reference_name(value: Any) -> str | None:
    """The name under which `find_reference` finds this very class or function, or None."""
    # Functions of numpy 1 have no module of their own, but their type has.
    module = getattr(value, "__module__", None) or type(value).__module__
    own_names = (getattr(value, "__qualname__", None), getattr(value, "__name__", None))
    # `torch.relu` is a method that the module exports under its `__name__`.
    names = [f"{module}:{name}" for name in own_names if name]
    for name in names:
        try:
            if _find(name) is value:
                return name
        except UnreadableError:
            continue
    return None


def is_findable(cls: type) -> bool:
    """Whether `find_class` finds this very class by its name; not if a function defines it."""
    try:
        return find_class(class_name(cls)) is cls
    except UnreadableError:
        return False


def is_dataclass_class(cls: type) -> bool:
    """Whether the class is a dataclass, or inherits the fields of one."""
    return hasattr(cls, "__dataclass_fields__") and not issubclass(cls, Enum)
