"""The agent of the reference backend: a linear softmax policy over a fixed set of actions.

Its probabilities stay exact for large scores. The trainer decides how it learns.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


class SoftmaxPolicy:
    """Chooses action `a` in context `x` with probability `softmax(x @ weights + bias)[a]`.

    Before training (all zero), every action is equally likely. A trainer improves the policy in
    place, by binding new arrays to `weights` and `bias`; arrays read earlier keep their values.

    Args:
        n_features: numbers in a context, at least 1.
        n_actions: actions to choose from, at least 2; they are numbered from 0.
        weights: shape (n_features, n_actions), finite; copied. Zeros by default.
        bias: shape (n_actions,), finite; copied. Zeros by default.

    Raises:
        ValueError: for a size or an array outside these limits.
    """

    __slots__ = ("bias", "weights")

    weights: Floats
    bias: Floats

    def __init__(
        self,
        n_features: int,
        n_actions: int,
        *,
        weights: ArrayLike | None = None,
        bias: ArrayLike | None = None,
    ) -> None:
        _require_size("n_features", n_features, least=1)
        _require_size("n_actions", n_actions, least=2)
        self.weights = _parameter("weights", weights, (n_features, n_actions))
        self.bias = _parameter("bias", bias, (n_actions,))

    def __repr__(self) -> str:
        return f"SoftmaxPolicy(n_features={self.n_features}, n_actions={self.n_actions})"

    @property
    def n_features(self) -> int:
        """Numbers in a context."""
        return int(self.weights.shape[0])

    @property
    def n_actions(self) -> int:
        """Actions to choose from."""
        return int(self.weights.shape[1])

    def log_probabilities(self, features: ArrayLike) -> Floats:
        """The log-probability of each action, shape (rows, n_actions), in nats.

        Args:
            features: shape (rows, n_features).

        Raises:
            ValueError: for features of another shape.
        """
        rows = np.asarray(features, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(
                f"features have shape {rows.shape}, expected (rows, {self.n_features})"
            )
        # Diverged weights give NaN, which the trainer checks for: a warning adds nothing.
        with np.errstate(over="ignore", invalid="ignore"):
            scores = rows @ self.weights + self.bias
            scores -= scores.max(axis=1, keepdims=True)
            scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return np.asarray(scores)

    def probabilities(self, features: ArrayLike) -> Floats:
        """The probability of each action, shape (rows, n_actions); see `log_probabilities`."""
        return np.exp(self.log_probabilities(features))

    def act(self, features: ArrayLike, rng: np.random.Generator) -> Ints:
        """Sample one action for each row, shape (rows,); draws one number a row from `rng`."""
        return sample(self.probabilities(features), rng)

    def greedy(self, features: ArrayLike) -> Ints:
        """The likeliest action of each row, shape (rows,); a tie goes to the lowest action."""
        return np.asarray(self.log_probabilities(features).argmax(axis=1), dtype=np.int64)


def sample(probabilities: Floats, rng: np.random.Generator) -> Ints:
    """Sample an action for each row of `probabilities` by inverting its cumulative distribution."""
    drawn = rng.random((len(probabilities), 1))
    # The last sum may round to just below 1, so leave it out: the rest is the last action.
    return np.asarray((probabilities.cumsum(axis=1)[:, :-1] <= drawn).sum(axis=1), dtype=np.int64)


def _require_size(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}={value!r}: expected an int of at least {least}")


def _parameter(name: str, values: ArrayLike | None, shape: tuple[int, ...]) -> Floats:
    if values is None:
        return np.zeros(shape)
    array = np.array(values, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(
            f"{name} has shape {array.shape}: expected finite numbers of shape {shape}"
        )
    return array
