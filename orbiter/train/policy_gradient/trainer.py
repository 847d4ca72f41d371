"""The reference backend: REINFORCE on a contextual bandit, in NumPy alone.

A training is repeatable bit for bit from its config, and yields to the event loop after each batch.
The agent is in `policy.py`, data and rewards in `bandit.py`, formulas in `reinforce.py`.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from reprlib import repr as shortened
from typing import Any, NamedTuple

import numpy as np

from orbiter.train.policy_gradient.bandit import (
    BanditData,
    RewardFn,
    match_reward,
    probe_reward,
    rewards_of,
)
from orbiter.train.policy_gradient.config import PolicyGradientConfig, checked
from orbiter.train.policy_gradient.policy import Floats, Ints, SoftmaxPolicy, sample
from orbiter.train.policy_gradient.reinforce import clipped, entropies, expected_loss, loss_gradient
from orbiter.train.trainer import Trainer, TrainerError, TrainMetrics

__all__ = ["PolicyGradientConfig", "PolicyGradientTrainer", "SoftmaxPolicy"]


class _Measured(NamedTuple):
    """The measurements of one optimizer step, before the policy changes."""

    loss: float
    mean_reward: float
    entropy: float
    grad_norm: float


class PolicyGradientTrainer(Trainer):
    """Trains a `SoftmaxPolicy` on a contextual bandit with REINFORCE and a reward baseline.

    A row `x` of features is the context and a class is an action. For each row of a batch an action
    `a` is sampled from the policy `p`, and only that action's reward `r` is seen, never the label.
    The objective is `J = E[r] + entropy_coef * H(p)`, and a step ascends the estimate

        grad J = mean over rows of (r - b) * grad log p(a|x) + entropy_coef * grad H(p(.|x))
        grad log p(a|x) by the scores = onehot(a) - p
        grad H by the scores = -p * (log p + H)

    where the baseline `b` is a running average of the rewards of earlier batches: it does not
    depend on the actions it is compared with, so the estimate is unbiased. This is the REINFORCE
    algorithm with reinforcement comparison of R. J. Williams (1992), "Simple statistical
    gradient-following algorithms for connectionist reinforcement learning", Machine Learning 8,
    229-256, https://doi.org/10.1007/BF00992696; the entropy term is that of R. J. Williams and
    J. Peng (1991), "Function optimization using connectionist reinforcement learning algorithms",
    Connection Science 3, 241-268.

    **Metrics.** `loss` is `-J`: in `train` with the rewards that were sampled, in `evaluate` with
    the exact expectation over the policy's actions. It falls from about minus the reward of
    guessing, and is below zero where rewards are above. `accuracy` is the share of rows whose
    likeliest action is the label. `entropy` is `H` in nats, mean over rows. `mean_reward` is that
    of sampled actions in `train`, of the likeliest ones in `evaluate`. `grad_norm` is the
    gradient's length before clipping.

    The checks may come in any order, and may be repeated; of two arguments that do not fit each
    other, the later one is refused. Data are copied. The agent is trained in
    place. A trainer can be pickled if its reward function can.

    Args:
        config: `PolicyGradientConfig()` by default.

    Raises:
        TrainerError: for a config of another type, or a value out of range.
    """

    _config: PolicyGradientConfig

    def __init__(self, config: PolicyGradientConfig | None = None) -> None:
        super().__init__(checked(PolicyGradientConfig() if config is None else config))
        self._policy: SoftmaxPolicy | None = None
        self._train_data: BanditData | None = None
        self._test_data: BanditData | None = None
        self._reward_fn: RewardFn = match_reward
        self._steps = 0

    @property
    def config(self) -> PolicyGradientConfig:
        """The settings of this training; `check_config` may have replaced them."""
        return self._config

    # -- checks --------------------------------------------------------------------------------

    def check_agent(self, agent: Any) -> None:
        """Keep the policy to train, in place.

        Raises:
            TrainerError: unless it is a `SoftmaxPolicy` with finite weights that fits the data.
        """
        if not isinstance(agent, SoftmaxPolicy):
            raise TrainerError(
                f"agent={shortened(agent)} ({type(agent).__name__}): expected a SoftmaxPolicy"
            )
        if not _is_finite(agent):
            raise TrainerError(f"agent={agent!r} has NaN or infinite weights: expected finite ones")
        _require_fit(agent, self._train_data, self._test_data)
        probe_reward(self._reward_fn, self._train_data, agent)
        self._policy = agent

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None:
        """Keep copies of the data.

        Args:
            train_data: the tuple `(features, labels)`: finite numbers of shape (rows, columns), and
                ints of shape (rows,), each an action of the agent.
            test_data: the same, for `evaluate`; optional.

        Raises:
            TrainerError: for other data, or data that do not fit each other, agent or reward.
        """
        train = BanditData.parse("train_data", train_data)
        test = None if test_data is None else BanditData.parse("test_data", test_data)
        if test is not None and test.features.shape[1] != train.features.shape[1]:
            raise TrainerError(
                f"test_data features have shape {test.features.shape}: expected "
                f"{train.features.shape[1]} columns, as in train_data"
            )
        _require_fit(self._policy, train, test)
        probe_reward(self._reward_fn, train, self._policy)
        self._train_data, self._test_data = train, test

    def check_reward(self, reward_fn: Any = None) -> None:
        """Keep the reward function after trying it on a few rows (made-up ones without data).

        Args:
            reward_fn: `reward_fn(actions, labels)`, called once a batch with two int64 arrays of
                shape (n,), returns n finite numbers; each depends on its own action and label only.
                None (as without this check): 1.0 where the action is the label, else 0.0.

        Raises:
            TrainerError: when it is not callable, raises, or returns anything else.
        """
        reward_fn = match_reward if reward_fn is None else reward_fn
        probe_reward(reward_fn, self._train_data, self._policy)
        self._reward_fn = reward_fn

    def check_config(self, config: Any = None) -> None:
        """Check the settings, after replacing those that are given.

        Args:
            config: None to keep the current ones, a `PolicyGradientConfig` to use instead, or a
                mapping of single settings to change.

        Raises:
            TrainerError: for another type, a key that is no setting, or a value out of range.
        """
        if config is None:
            config = self._config
        elif isinstance(config, Mapping):
            known = [field.name for field in fields(self._config) if field.init]
            for key in config:
                if key not in known:
                    raise TrainerError(f"config has {key!r}: expected one of {', '.join(known)}")
            config = replace(self._config, **config)
        self._config = checked(config)

    # -- training ------------------------------------------------------------------------------

    async def train(self) -> TrainMetrics:
        """Train the agent in place.

        Reports loss, mean_reward, entropy and grad_norm every `report_every` steps, as means over
        the steps since the last report.

        Returns:
            The same four (all but the loss in `extra`) as means over the last epoch, and the
            accuracy of the trained policy on the training data.

        Raises:
            TrainerError: when a check is missing, a reward is not finite, or the policy diverges to
                NaN or infinity (reported as a NaN loss first).
        """
        self._require_validated()
        config = checked(self._config)  # mutable: it may have changed since its check
        if self._train_data is None:
            raise TrainerError("train needs train_data: call check_dataset(train_data) first")
        policy, data = self._agent_for("train"), self._train_data
        rng = np.random.default_rng(config.seed)
        baseline = 0.0
        window, epoch = _Means(), _Means()
        for _ in range(config.epochs):
            epoch = _Means()
            order = rng.permutation(len(data.labels))
            for start in range(0, len(order), config.batch_size):
                rows = order[start : start + config.batch_size]
                measured = self._step(policy, data.features[rows], data.labels[rows], baseline, rng)
                self._steps += 1
                if math.isnan(measured.loss):
                    self.report(measured._asdict(), step=self._steps)
                    raise TrainerError(
                        f"train diverged to NaN at step {self._steps} "
                        f"(learning_rate={config.learning_rate}, "
                        f"weight_decay={config.weight_decay}): try a smaller learning_rate"
                    )
                baseline += (1 - config.baseline_decay) * (measured.mean_reward - baseline)
                epoch.add(measured, len(rows))
                window.add(measured, len(rows))
                if self._steps % config.report_every == 0:
                    self.report(window.means()._asdict(), step=self._steps)
                    window = _Means()
                await asyncio.sleep(0)  # let other tasks run
        if window.rows:
            self.report(window.means()._asdict(), step=self._steps)
        extra: dict[str, Any] = epoch.means()._asdict()
        return TrainMetrics(
            loss=extra.pop("loss"),
            accuracy=float((policy.greedy(data.features) == data.labels).mean()),
            steps=self._steps,
            extra=extra,
        )

    def _step(
        self,
        policy: SoftmaxPolicy,
        features: Floats,
        labels: Ints,
        baseline: float,
        rng: np.random.Generator,
    ) -> _Measured:
        """Take one optimizer step. The loss is NaN if the step or the policy is not finite."""
        config = self._config
        log_probs = policy.log_probabilities(features)
        actions = sample(np.exp(log_probs), rng)
        rewards = rewards_of(self._reward_fn, actions, labels)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller reports divergence
            gradient = loss_gradient(
                features, log_probs, actions, rewards - baseline, entropy_coef=config.entropy_coef
            )
            (d_weights, d_bias), norm = clipped(gradient, config.max_grad_norm)
            kept = 1 - config.learning_rate * config.weight_decay
            policy.weights = kept * policy.weights - config.learning_rate * d_weights
            policy.bias = policy.bias - config.learning_rate * d_bias
            mean_reward, entropy = float(rewards.mean()), float(entropies(log_probs).mean())
            loss = -(mean_reward + config.entropy_coef * entropy)
        diverged = not (math.isfinite(loss) and math.isfinite(norm) and _is_finite(policy))
        return _Measured(math.nan if diverged else loss, mean_reward, entropy, norm)

    # -- evaluation ----------------------------------------------------------------------------

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        """Measure the agent, without sampling: the same agent and data give the same metrics.

        Args:
            test_data: as in `check_dataset`; by default that check's test data.

        Returns:
            loss and accuracy, mean_reward and entropy in `extra`, and the optimizer steps so far.

        Raises:
            TrainerError: when the agent or the test data are missing, or do not fit.
        """
        policy = self._agent_for("evaluate")
        data = self._test_data
        if test_data is not None:
            data = BanditData.parse("test_data", test_data)
        if data is None:
            raise TrainerError(
                "evaluate needs test_data: give it, or call check_dataset(train_data, test_data)"
            )
        data.require_fit("test_data", policy)
        log_probs = policy.log_probabilities(data.features)
        rows, n_actions = log_probs.shape
        every_action = np.tile(np.arange(n_actions), rows)
        rewards = rewards_of(self._reward_fn, every_action, data.labels.repeat(n_actions))
        rewards = rewards.reshape(rows, n_actions)
        greedy = log_probs.argmax(axis=1)
        return TrainMetrics(
            loss=expected_loss(log_probs, rewards, entropy_coef=self._config.entropy_coef),
            accuracy=float((greedy == data.labels).mean()),
            steps=self._steps,
            extra={
                "mean_reward": float(rewards[np.arange(rows), greedy].mean()),
                "entropy": float(entropies(log_probs).mean()),
            },
        )

    def _agent_for(self, purpose: str) -> SoftmaxPolicy:
        if self._policy is None:
            raise TrainerError(f"{purpose} needs an agent: call check_agent(agent) first")
        return self._policy


class _Means:
    """Means over steps, weighted by their rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums = np.zeros(len(_Measured._fields))

    def add(self, measured: _Measured, rows: int) -> None:
        self.rows += rows
        self._sums += rows * np.array(measured)

    def means(self) -> _Measured:
        return _Measured(*(self._sums / self.rows).tolist())


def _require_fit(
    policy: SoftmaxPolicy | None, train: BanditData | None, test: BanditData | None
) -> None:
    for name, data in (("train_data", train), ("test_data", test)):
        if policy is not None and data is not None:
            data.require_fit(name, policy)


def _is_finite(policy: SoftmaxPolicy) -> bool:
    return bool(np.isfinite(policy.weights).all() and np.isfinite(policy.bias).all())
