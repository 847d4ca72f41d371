"""Reward functions: take both signatures, try them on a sample, name what was rewarded."""

import asyncio
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Real
from reprlib import repr as shortened
from typing import Any

from orbiter.train.source_digest import source_digest
from orbiter.train.states import TrainerError

__all__ = ["NOT_OF_A_ROW", "Reward", "rewards_of", "try_reward"]

NOT_OF_A_ROW = frozenset(
    {"completion_ids", "environments", "log_extra", "log_metric", "trainer_state"}
)
"""What TRL gives to a reward function besides the columns of the data."""
_SAMPLE = "sample"


@dataclass(frozen=True)
class Reward:
    """One reward.

    Attributes:
        name: under which TRL reports it.
        digest: of its source; of a reward model, its name or path.
        given: what TRL gets: a function with TRL's signature, a model, or its name.
    """

    name: str
    digest: str
    given: Any

    @property
    def is_function(self) -> bool:
        """Whether it is a function, not a model."""
        return callable(self.given) and not hasattr(self.given, "parameters")

    @property
    def is_async(self) -> bool:
        """Whether a call returns something to await."""
        return _is_async(self.given)


def rewards_of(reward_fn: Any) -> tuple[Reward, ...]:
    """The rewards in an argument of `check_reward`; none for None.

    Raises:
        TrainerError: something is neither a function nor a reward model, or two have one name.
    """
    if reward_fn is None:
        return ()
    given = reward_fn if isinstance(reward_fn, list | tuple) else [reward_fn]
    if not given:
        raise TrainerError("reward_fn is an empty list: expected at least one function")
    rewards = tuple(_reward(one) for one in given)
    names = [reward.name for reward in rewards]
    for name in names:
        if names.count(name) > 1:
            raise TrainerError(f"two reward functions have the name {name!r}: rename one")
    return rewards


def _reward(given: Any) -> Reward:
    if isinstance(given, str):
        return Reward(given.rstrip("/").rpartition("/")[2], f"model {given}", given)
    config = getattr(given, "config", None)
    if config is not None and hasattr(given, "parameters"):  # a model
        path = str(getattr(config, "_name_or_path", "") or type(given).__name__)
        return Reward(path.rstrip("/").rpartition("/")[2], f"model {path}", given)
    if not callable(given):
        raise TrainerError(
            f"reward_fn={shortened(given)} ({type(given).__name__}): expected a function "
            "(completion, row) -> float, one with TRL's signature, a reward model or its name"
        )
    name = _name_of(given)
    return Reward(name, source_digest(given), _with_trl_signature(given, name))


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  not whether it can be called
    )


# -- both signatures -------------------------------------------------------------------------------


def _with_trl_signature(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function that TRL can call; `(completion, row)` is called for each completion."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin
        return function
    plain = [one for one in parameters.values() if one.kind is not one.VAR_KEYWORD]
    if "completions" in parameters or (parameters and not plain):
        return function
    if _is_async(function):
        raise TrainerError(
            f"reward function {name!r} is async: expected TRL's signature, with a parameter "
            "`completions`, for an async function"
        )
    positional = [
        one
        for one in plain
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL)
    ]
    required = [one for one in positional if one.default is one.empty]
    if len(positional) < 2 or len(required) > 2:
        raise TrainerError(
            f"reward function {name!r} takes ({', '.join(parameters)}): expected "
            "(completion, row), or TRL's (prompts, completions, **columns)"
        )

    def reward(*, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[Any]:
        rows = {key: value for key, value in columns.items() if key not in NOT_OF_A_ROW}
        return [
            function(
                _text_of(completion),
                {"prompt": prompts[at], **{key: values[at] for key, values in rows.items()}},
            )
            for at, completion in enumerate(completions)
        ]

    reward.__name__ = name
    return reward


def _text_of(completion: Any) -> str:
    """A completion as text: of messages the last one's content."""
    if isinstance(completion, str):
        return completion
    return str(completion[-1].get("content") or "") if completion else ""


# -- a try -----------------------------------------------------------------------------------------


def try_reward(reward: Reward, row: Mapping[str, Any]) -> None:
    """Call a reward function as TRL does, on a row of the data and a made-up completion.

    Raises:
        TrainerError: it raises, or does not return one number.
    """
    if not reward.is_function:
        return
    prompt = row["prompt"]
    completion: Any = _SAMPLE
    if not isinstance(prompt, str):
        completion = [{"role": "assistant", "content": _SAMPLE}]
    given: dict[str, Any] = {
        "prompts": [prompt],
        "completions": [completion],
        "completion_ids": [[0]],
        "trainer_state": _Start(),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
        **{key: [row[key]] for key in row if key not in ("prompt", "completion")},
    }
    try:
        result = reward.given(**given)
        if inspect.isawaitable(result):
            result = _awaited(result)
        values = list(result)
    except Exception as error:
        raise TrainerError(
            f"reward function {reward.name!r} failed on a sample of one completion "
            f"({_SAMPLE!r}): {type(error).__name__}: {error}"
        ) from error
    if len(values) != 1 or not (values[0] is None or _is_number(values[0])):
        raise TrainerError(
            f"reward function {reward.name!r} returned {shortened(values)} for a sample of one "
            "completion: expected one finite number, or None, for each"
        )


class _Start:
    """What TRL's functions may ask of the state of a training, before its first step."""

    global_step = 0
    epoch = 0.0
    max_steps = 1


def _is_number(value: Any) -> bool:
    return (isinstance(value, Real) or hasattr(value, "__float__")) and math.isfinite(float(value))


def _awaited(awaitable: Any) -> Any:
    """The result of an awaitable, whether or not an event loop runs here."""

    async def finish() -> Any:
        return await awaitable

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, finish()).result()
