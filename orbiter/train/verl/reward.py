"""The reward function of a training: an object, or where to import it from."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from orbiter.train.source_digest import source_digest
from orbiter.train.states import TrainerError


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """A reward function, as an object or by the names of its module and itself.

    Attributes:
        callable: the function.
        module_path: the dotted name of its module, imported when it is first needed.
        func_name: its name in that module.

    Raises:
        TrainerError: without the callable or both names.
    """

    callable: Callable[..., Any] | None = None
    module_path: str = ""
    func_name: str = ""

    def __post_init__(self) -> None:
        if self.callable is None and not (self.module_path and self.func_name):
            raise TrainerError(
                "RewardSpec requires either a callable or both module_path and func_name"
            )

    def resolve(self) -> Callable[..., Any]:
        """The function itself.

        Raises:
            TrainerError: `module_path` is no dotted name, or has no such function.
            ImportError: of the module.
        """
        if self.callable is not None:
            found: Any = self.callable
        else:
            if not all(part.isidentifier() for part in self.module_path.split(".")):
                raise TrainerError(
                    f"module_path={self.module_path!r}: expected a dotted name, such as my.rewards"
                )
            missing = object()
            found = getattr(import_module(self.module_path), self.func_name, missing)
            if found is missing:
                raise TrainerError(f"Cannot find {self.func_name!r} in module {self.module_path!r}")
        if not callable(found):
            raise TrainerError(f"The reward function {found!r} is not callable")
        function: Callable[..., Any] = found
        return function

    def fingerprint(self) -> dict[str, str]:
        """The function's name with the digest of its source."""
        function = self.resolve()
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return {name: source_digest(function)}

    def described(self) -> dict[str, str]:
        """Its names, for a mapping of settings."""
        if self.callable is not None:
            return {"reward_fn": getattr(self.callable, "__name__", repr(self.callable))}
        return {"reward_module": self.module_path, "reward_func": self.func_name}
