"""The formulas of REINFORCE for a softmax policy: pure functions of arrays.

`log_probs` are a policy's log-probabilities, shape (rows, n_actions). The docstring of
`PolicyGradientTrainer` has the symbols and the sources.
"""

import math

import numpy as np

from orbiter.train.policy_gradient.policy import Floats, Ints


def entropies(log_probs: Floats) -> Floats:
    """The entropy of each row, shape (rows,), in nats."""
    return np.asarray(-(np.exp(log_probs) * log_probs).sum(axis=1))


def expected_loss(log_probs: Floats, rewards: Floats, *, entropy_coef: float) -> float:
    """`-J` exactly, given the reward of every action, shape (rows, n_actions)."""
    expected = (np.exp(log_probs) * rewards).sum(axis=1)
    return -float((expected + entropy_coef * entropies(log_probs)).mean())


def loss_gradient(
    features: Floats, log_probs: Floats, actions: Ints, advantages: Floats, *, entropy_coef: float
) -> tuple[Floats, Floats]:
    """Estimate `-grad J` for weights and bias from one action with its `r - b` per row."""
    probs = np.exp(log_probs)
    by_score = probs * advantages[:, None]
    by_score[np.arange(len(actions)), actions] -= advantages
    by_score += entropy_coef * probs * (log_probs + entropies(log_probs)[:, None])
    by_score /= len(actions)
    return features.T @ by_score, by_score.sum(axis=0)


def clipped(
    gradient: tuple[Floats, Floats], max_norm: float | None
) -> tuple[tuple[Floats, Floats], float]:
    """The gradient, scaled down to `max_norm`, and its Euclidean norm before scaling."""
    by_weights, by_bias = gradient
    norm = math.sqrt(float((by_weights**2).sum() + (by_bias**2).sum()))
    if max_norm is None or norm <= max_norm:
        return gradient, norm
    return (by_weights * (max_norm / norm), by_bias * (max_norm / norm)), norm
