"""A contextual bandit: rows of features, each with a label, and a reward for the action chosen.

Whatever leaves this module is checked and is our own copy; each refusal names the argument, the
value and what was wanted. Which agent plays the bandit, and how it learns, is left to others.
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
            TrainerError: for any other type, shape or element type, no rows, or bad elements.
        """
        if not isinstance(data, tuple) or len(data) != 2:
            raise TrainerError(
                f"{name}={reprlib.repr(data)} ({type(data).__name__}): "
                "wanted a tuple (features, labels)"
            )
        features = _numbers(f"{name} features", data[0], "biuf", "a 2-D array of finite numbers")
        if features.ndim != 2 or 0 in features.shape:
            raise TrainerError(
                f"{name} features have shape {features.shape}: wanted 2-D (rows, columns), "
                "with at least one of each"
            )
        labels = _numbers(f"{name} labels", data[1], "iu", "a 1-D array of ints")
        if labels.shape != features.shape[:1]:
            raise TrainerError(
                f"{name} labels have shape {labels.shape}: wanted one for each row of features, "
                f"shape ({len(features)},)"
            )
        with np.errstate(over="ignore"):  # what a float64 cannot hold is refused as infinite
            features = features.astype(np.float64)
        if not np.isfinite(features).all():
            row, column = np.argwhere(~np.isfinite(features))[0]
            raise TrainerError(
                f"{name} features[{row}, {column}]={features[row, column]}: wanted finite numbers"
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
                f"{name} features have shape {self.features.shape}: the agent wants "
                f"n_features={policy.n_features} columns"
            )
        _require_labels(name, self.labels, policy.n_actions)


def rewards_of(reward_fn: RewardFn, actions: Ints, labels: Ints) -> Floats:
    """The reward of each action, shape (n,). `reward_fn` gets copies, so it can spoil nothing.

    Raises:
        TrainerError: when it raises, or returns anything but n finite numbers.
    """
    name = f"reward_fn={_named(reward_fn)}"
    wanted = f"{len(actions)} finite numbers, one for each action"
    try:
        returned = reward_fn(actions.copy(), labels.copy())
    except Exception as error:
        raise TrainerError(
            f"{name} raised {type(error).__name__}: {error}: wanted {wanted}"
        ) from error
    rewards = _numbers(f"what {name} returned", returned, "biuf", wanted)
    if rewards.shape != actions.shape:
        raise TrainerError(f"{name} returned shape {rewards.shape}: wanted {wanted}")
    rewards = np.asarray(rewards, dtype=np.float64)
    if not np.isfinite(rewards).all():
        first = np.flatnonzero(~np.isfinite(rewards))[0]
        raise TrainerError(
            f"{name} returned {rewards[first]} for action {actions[first]} "
            f"and label {labels[first]}: wanted {wanted}"
        )
    return rewards


def probe_reward(reward_fn: Any, data: BanditData | None, policy: SoftmaxPolicy | None) -> None:
    """Try `reward_fn` on a few rows of `data`, or on made-up ones where there are none yet.

    Raises:
        TrainerError: when it is not callable, or fails as in `rewards_of`.
    """
    if not callable(reward_fn):
        raise TrainerError(
            f"reward_fn={reprlib.repr(reward_fn)} ({type(reward_fn).__name__}): "
            "wanted a function reward_fn(actions, labels), or None for 1 where they are equal"
        )
    # Every policy has the actions 0 and 1, so these rows are possible whatever comes later.
    labels = np.array([0, 1, 1], dtype=np.int64) if data is None else data.labels[:_PROBED_ROWS]
    n_actions = 2 if policy is None else policy.n_actions
    rewards_of(reward_fn, np.arange(len(labels), dtype=np.int64) % n_actions, labels)


def _named(reward_fn: RewardFn) -> str:
    return str(getattr(reward_fn, "__qualname__", None) or reprlib.repr(reward_fn))


def _numbers(name: str, values: Any, kinds: str, wanted: str) -> Any:
    """A fresh array of `values`, refused where its element type is of none of the NumPy `kinds`."""
    try:
        array = np.array(values)
    except Exception as error:  # ragged rows, or whatever an array-like of others may raise
        raise TrainerError(f"{name}={reprlib.repr(values)}: wanted {wanted} ({error})") from error
    if array.dtype.kind not in kinds and array.size:
        raise TrainerError(
            f"{name}={reprlib.repr(values)} (elements are {array.dtype}): wanted {wanted}"
        )
    return array


def _require_labels(name: str, labels: Ints, n_actions: int | None) -> None:
    above = False if n_actions is None else labels >= n_actions
    bad = np.flatnonzero((labels < 0) | above)
    if bad.size:
        largest = "" if n_actions is None else f" to {n_actions - 1}, the agent's last action"
        raise TrainerError(f"{name} labels[{bad[0]}]={labels[bad[0]]}: wanted ints from 0{largest}")
