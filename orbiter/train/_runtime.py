"""State that belongs to one trainer object and must not travel with a copy of it.

Copies are made by `copy`, `deepcopy`, `pickle` and by `__getstate__` methods that users write. A
`Runtime` knows its owner, so a copy notices that the one it holds is another's and makes its own.
"""

import os
import threading
import weakref
from typing import Any

_making = threading.RLock()


def _renew_lock() -> None:
    global _making
    _making = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # a thread of the parent may have held it


class Runtime:
    """The transient state of one trainer.

    Attributes:
        training: whether the outermost `train` is running.
        attached: objects that integrations keep with this trainer, each under its own name.
    """

    def __init__(self, owner: object | None = None) -> None:
        self._owner = None if owner is None else weakref.ref(owner)
        self._admissions: dict[str, object] = {}
        self.training = False
        self.attached: dict[str, Any] = {}

    def belongs_to(self, owner: object) -> bool:
        """Whether this was made for `owner`, not copied from another object."""
        return self._owner is not None and self._owner() is owner

    def admit_train(self) -> bool:
        """Admit the one `train` of this trainer: True for exactly one of any racing threads."""
        ticket = object()
        if self._admissions.setdefault("train", ticket) is not ticket:  # setdefault is atomic
            return False
        self.training = True
        return True

    def __reduce__(self) -> tuple[type["Runtime"], tuple[()]]:
        return (Runtime, ())


def runtime_of(owner: object) -> Runtime:
    """The `Runtime` of this object, made at the first call."""
    held: Runtime | None = owner.__dict__.get("_orbiter_runtime")
    if held is not None and held.belongs_to(owner):
        return held
    with _making:  # threads that race for the first `train` of a copy must get the same one
        held = owner.__dict__.get("_orbiter_runtime")
        if held is None or not held.belongs_to(owner):
            held = owner.__dict__["_orbiter_runtime"] = Runtime(owner)
        return held
