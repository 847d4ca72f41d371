"""The reward function as a file that verl can load in its own processes."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orbiter.train.states import TrainerError
from orbiter.train.verl.fields import REWARD_NAME
from orbiter.train.verl.reward import RewardSpec

_CALL = "(data_source, solution_str, ground_truth, extra_info)"
_WAY_OUT = (
    "verl runs rewards in processes of its own: define it at the top of a module, or give "
    "RewardSpec(module_path=..., func_name=...)"
)
_SCRIPT = "orbiter_reward_script"
"""The name of a script's module in the processes of verl."""


def reward_source(spec: RewardSpec) -> str:
    """The text of a module that has the reward function under the name `reward`.

    Raises:
        TrainerError: the function cannot be imported, such as a lambda or a local function, or does
            not take what verl passes.
    """
    function = spec.resolve()
    module, name = _place(spec)
    _require_signature(function, name)
    lines = ["import sys", f"sys.path += [p for p in {_search_path()!r} if p not in sys.path]"]
    if Path(module).is_absolute():
        lines += [
            "from importlib.util import module_from_spec, spec_from_file_location",
            f"spec = spec_from_file_location({_SCRIPT!r}, {module!r})",
            "module = sys.modules[spec.name] = module_from_spec(spec)",  # as dataclasses need it
            "spec.loader.exec_module(module)",
        ]
    else:
        lines += ["from importlib import import_module", f"module = import_module({module!r})"]
    return "\n".join([*lines, f"{REWARD_NAME} = module.{name}", ""])


def _place(spec: RewardSpec) -> tuple[str, str]:
    """The function's module, by name, or by file for that of a script, and its name there."""
    if spec.callable is None:
        return spec.module_path, spec.func_name
    function: Any = spec.callable
    shown = f"the reward {getattr(function, '__qualname__', function)!r}"
    name = getattr(function, "__qualname__", "")
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if module is None or found is not function:
        raise TrainerError(f"{shown} cannot be imported by its name. {_WAY_OUT}")
    if module.__name__ != "__main__":
        return module.__name__, name
    if module.__spec__ is not None:  # python -m
        return module.__spec__.name, name
    file = getattr(module, "__file__", None)
    if file is None:
        raise TrainerError(f"{shown} is defined in a notebook or prompt. {_WAY_OUT}")
    return str(Path(file).resolve()), name


def _require_signature(function: Callable[..., Any], name: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in
        return
    try:
        signature.bind(data_source="", solution_str="", ground_truth="", extra_info={})
    except TypeError as error:
        raise TrainerError(
            f"the reward {name}{signature} cannot be called as verl does, with the keywords "
            f"{_CALL}: {error}"
        ) from error


def _search_path() -> list[str]:
    return [str(Path(entry).resolve()) for entry in sys.path]
