"""A contextual bandit: rows of features, each with a label, and a reward for the action chosen.

Data that leave this module are checked copies; each refusal names the argument, its value and the
expected one. The agent that plays the bandit, and how it learns, are defined elsewhere.
"""

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from orbiter.train.policy_gradient.policy import Floats, Ints, SoftmaxPolicy
from orbiter.train.states import TrainerError

RewardFn = Callable[[Ints, Ints], Any]
"""`reward_fn(actions, labels)`, both int64 of shape (n,), gives n finite numbers: an array or a
list, bools count as 0 and 1. Row i's reward depends on `actions[i]` and `labels[i]` only."""

_PROBED_ROWS = 8


def match_reward(actions: Ints, labels: Ints) -> Floats:
    """The default reward: 1.0 where the action is the label, else 0.0; shape (n,)."""
    return np.asarray(actions == labels, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class BanditData:
    """Checked data: `features` (rows, columns), finite; `labels` (rows,), none negative."""

    features: Floats
    labels: Ints

    @classmethod
    def parse(cls, name: str, data: Any) -> "BanditData":
        """Check and copy `data`, the tuple `(features, labels)` that the argument `name` was given.

        Raises:
            TrainerError: for another type, shape or element type, no rows, or bad elements.
        """
        if not isinstance(data, tuple) or len(data) != 2:
            raise TrainerError(
                f"{name}={reprlib.repr(data)} ({type(data).__name__}): "
                "expected a tuple (features, labels)"
            )
        features = _numbers(f"{name} features", data[0], "biuf", "a 2-D array of finite numbers")
        if features.ndim != 2 or 0 in features.shape:
            raise TrainerError(
                f"{name} features have shape {features.shape}: expected 2-D (rows, columns), "
                "with at least one of each"
            )
        labels = _numbers(f"{name} labels", data[1], "iu", "a 1-D array of ints")
        if labels.shape != features.shape[:1]:
            raise TrainerError(
                f"{name} labels have shape {labels.shape}: expected one for each row of features, "
                f"shape ({len(features)},)"
            )
        with np.errstate(over="ignore"):  # overflows a float64: refused below as infinite
            features = features.astype(np.float64)
        if not np.isfinite(features).all():
            row, column = np.argwhere(~np.isfinite(features))[0]
            raise TrainerError(
                f"{name} features[{row}, {column}]={features[row, column]}: expected finite numbers"
            )
        _require_labels(name, labels, None)
        return cls(features, labels.astype(np.int64))

    def require_fit(self, name: str, policy: SoftmaxPolicy) -> None:
        """Refuse data that `policy` cannot play.

        Raises:
            TrainerError: for a different number of features, or labels that are not its actions.
        """
        if self.features.shape[1] != policy.n_features:
            raise TrainerError(
                f"{name} features have shape {self.features.shape}: the agent expects "
                f"n_features={policy.n_features} columns"
            )
        _require_labels(name, self.labels, policy.n_actions)


def rewards_of(reward_fn: RewardFn, actions: Ints, labels: Ints) -> Floats:
    """The reward of each action, shape (n,). `reward_fn` gets copies, so it cannot change the data.

    Raises:
        TrainerError: when it raises, or does not return n finite numbers.
    """
    name = f"reward_fn={_named(reward_fn)}"
    expected = f"{len(actions)} finite numbers, one for each action"
    try:
        returned = reward_fn(actions.copy(), labels.copy())
    except Exception as error:
        raise TrainerError(
            f"{name} raised {type(error).__name__}: {error}: expected {expected}"
        ) from error
    rewards = _numbers(f"the result of {name}", returned, "biuf", expected)
    if rewards.shape != actions.shape:
        raise TrainerError(f"{name} returned shape {rewards.shape}: expected {expected}")
    rewards = np.asarray(rewards, dtype=np.float64)
    if not np.isfinite(rewards).all():
        first = np.flatnonzero(~np.isfinite(rewards))[0]
        raise TrainerError(
            f"{name} returned {rewards[first]} for action {actions[first]} "
            f"and label {labels[first]}: expected {expected}"
        )
    return rewards


def probe_reward(reward_fn: Any, data: BanditData | None, policy: SoftmaxPolicy | None) -> None:
    """Try `reward_fn` on a few rows of `data`, or on made-up ones without data.

    Raises:
        TrainerError: when it is not callable, or fails as in `rewards_of`.
    """
    if not callable(reward_fn):
        raise TrainerError(
            f"reward_fn={reprlib.repr(reward_fn)} ({type(reward_fn).__name__}): "
            "expected a function reward_fn(actions, labels), or None for 1 where they are equal"
        )
    # Every policy has the actions 0 and 1, so these rows are valid for any later data.
    labels = np.array([0, 1, 1], dtype=np.int64) if data is None else data.labels[:_PROBED_ROWS]
    n_actions = 2 if policy is None else policy.n_actions
    rewards_of(reward_fn, np.arange(len(labels), dtype=np.int64) % n_actions, labels)


def _named(reward_fn: RewardFn) -> str:
    return str(getattr(reward_fn, "__qualname__", None) or reprlib.repr(reward_fn))


def _numbers(name: str, values: Any, kinds: str, expected: str) -> Any:
    """Copy `values` to an array, and refuse element types that are not of these NumPy `kinds`."""
    try:
        array = np.array(values)
    except Exception as error:  # ragged rows, or any error of a foreign array-like
        raise TrainerError(
            f"{name}={reprlib.repr(values)}: expected {expected} ({error})"
        ) from error
    if array.dtype.kind not in kinds and array.size:
        raise TrainerError(
            f"{name}={reprlib.repr(values)} (elements are {array.dtype}): expected {expected}"
        )
    return array


def _require_labels(name: str, labels: Ints, n_actions: int | None) -> None:
    above = False if n_actions is None else labels >= n_actions
    bad = np.flatnonzero((labels < 0) | above)
    if bad.size:
        largest = "" if n_actions is None else f" to {n_actions - 1}, the agent's last action"
        raise TrainerError(
            f"{name} labels[{bad[0]}]={labels[bad[0]]}: expected ints from 0{largest}"
        )
