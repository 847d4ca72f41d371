"""The reference backend learns from bandit feedback, repeatably, and refuses unusable input."""

import asyncio
import copy
import math
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from logged import log_to, params_and_tags
from orbiter.train import TrainConfig, TrainerError, TrainerState, TrainMetrics
from orbiter.train.policy_gradient.policy import sample
from orbiter.train.policy_gradient.reinforce import clipped, entropies, expected_loss, loss_gradient
from orbiter.train.policy_gradient.trainer import (
    PolicyGradientConfig,
    PolicyGradientTrainer,
    SoftmaxPolicy,
)
from orbiter_mlflow import ConfigError, load_config

FEATURES = [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
LABELS = [0, 1, 2, 1]
DATA = (FEATURES, LABELS)


class Recording(PolicyGradientTrainer):
    """Keeps its reports."""

    def __init__(self, config: PolicyGradientConfig | None = None) -> None:
        super().__init__(config)
        self.reports: list[tuple[int, dict[str, float]]] = []

    def _on_report(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        assert isinstance(metrics, Mapping)
        self.reports.append((step, dict(metrics)))
        super()._on_report(metrics, step)


def trainer_of(
    *,
    agent: SoftmaxPolicy | None = None,
    train_data: Any = DATA,
    test_data: Any = None,
    reward_fn: Any = None,
    **settings: Any,
) -> Recording:
    trainer = Recording(PolicyGradientConfig(**settings))
    trainer.check_agent(SoftmaxPolicy(2, 3) if agent is None else agent)
    trainer.check_dataset(train_data, test_data)
    trainer.check_reward(reward_fn)
    trainer.check_config()
    return trainer


async def trained(trainer: Recording) -> TrainMetrics:
    trainer.mark_validated()
    return await trainer.train()


def digits() -> tuple[Any, Any]:
    """The digits data, scaled to [0, 1], 80 % to train on and 20 % to test on."""
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    features, labels = features[order] / 16, labels[order]
    cut = len(labels) * 8 // 10
    return (features[:cut], labels[:cut]), (features[cut:], labels[cut:])


def digits_trainer(**settings: Any) -> Recording:
    train_data, test_data = digits()
    policy = SoftmaxPolicy(64, 10)
    return trainer_of(agent=policy, train_data=train_data, test_data=test_data, **settings)


# -- learning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("learning_rate", [0.1, 0.5])
async def test_it_learns_digits(learning_rate: float) -> None:
    trainer = digits_trainer(learning_rate=learning_rate)
    before = await trainer.evaluate()
    assert before.accuracy <= 0.2
    assert before.steps == 0

    metrics = await trained(trainer)

    after = await trainer.evaluate()
    assert after.accuracy >= 0.85
    assert after.loss < before.loss
    assert after.steps == metrics.steps == 40 * math.ceil(1437 / 32)
    assert trainer.state is TrainerState.COMPLETED


async def test_it_learns_from_rewards_and_not_from_labels() -> None:
    trainer = digits_trainer(reward_fn=next_digit)
    await trained(trainer)
    result = await trainer.evaluate()
    assert result.extra["mean_reward"] >= 0.85
    assert result.accuracy <= 0.1


def next_digit(actions: Any, labels: Any) -> Any:
    return actions == (labels + 1) % 10


async def test_rewards_are_requested_for_the_sampled_actions_only() -> None:
    asked: list[int] = []

    def reward_fn(actions: Any, labels: Any) -> Any:
        asked.append(len(actions))
        actions[:] = 0  # harmless: the trainer passed a copy
        return [1.0] * len(labels)

    trainer = trainer_of(reward_fn=reward_fn, epochs=2, batch_size=3)
    asked.clear()
    await trained(trainer)
    assert asked == [3, 1, 3, 1]


async def test_the_same_seed_gives_the_same_bits() -> None:
    first, second, other = (digits_trainer(seed=seed, epochs=3) for seed in (7, 7, 8))
    results = [await trained(trainer) for trainer in (first, second, other)]
    assert results[0] == results[1] != results[2]
    assert first.reports == second.reports != other.reports
    assert await first.evaluate() == await second.evaluate() == await first.evaluate()
    assert weights_of(first).tobytes() == weights_of(second).tobytes()
    assert weights_of(first).tobytes() != weights_of(other).tobytes()


def weights_of(trainer: PolicyGradientTrainer) -> Any:
    assert trainer._policy is not None
    return np.vstack([trainer._policy.weights, trainer._policy.bias])


async def test_checks_and_evaluations_do_not_consume_the_trainings_random_numbers() -> None:
    plain, busy = trainer_of(), trainer_of()
    for _ in range(3):
        busy.check_reward()
        await busy.evaluate(DATA)
    assert await trained(plain) == await trained(busy)


async def test_a_heartbeat_runs_during_train() -> None:
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    trainer = trainer_of(epochs=100, batch_size=2)
    heartbeat = asyncio.create_task(heart())
    metrics = await trained(trainer)
    heartbeat.cancel()
    assert metrics.steps == 200
    assert beats >= metrics.steps


async def test_a_cancelled_train_ends_failed() -> None:
    trainer = trainer_of(epochs=10**9)
    trainer.mark_validated()
    training = asyncio.create_task(trainer.train())
    await asyncio.sleep(0)
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert trainer.state is TrainerState.FAILED


# -- formulas --------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [0.0, 0.7])
@pytest.mark.parametrize("entropy_coef", [0.0, 0.3])
def test_the_expected_gradient_is_that_of_the_exact_loss(
    baseline: float, entropy_coef: float
) -> None:
    rng = np.random.default_rng(5)
    features, rewards = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    start = rng.normal(size=(3, 3))  # two rows of weights, one of bias

    def policy_at(parameters: Any) -> SoftmaxPolicy:
        return SoftmaxPolicy(2, 3, weights=parameters[:2], bias=parameters[2])

    def loss_at(parameters: Any) -> float:
        log_probs = policy_at(parameters).log_probabilities(features)
        return expected_loss(log_probs, rewards, entropy_coef=entropy_coef)

    numeric = np.zeros_like(start)
    for index in np.ndindex(start.shape):
        nudge = np.zeros_like(start)
        nudge[index] = 1e-6
        numeric[index] = (loss_at(start + nudge) - loss_at(start - nudge)) / 2e-6

    # The expectation of the estimate: every action of every row, weighted by its probability.
    log_probs = policy_at(start).log_probabilities(features).repeat(3, axis=0)
    actions = np.tile(np.arange(3), 4)
    weight = 3 * np.exp(log_probs[np.arange(12), actions])
    advantages = weight * (rewards.ravel() - baseline)
    by_weights, by_bias = loss_gradient(
        features.repeat(3, axis=0), log_probs, actions, advantages, entropy_coef=entropy_coef
    )
    np.testing.assert_allclose(np.vstack([by_weights, by_bias]), numeric, rtol=1e-6, atol=1e-8)


async def test_an_entropy_bonus_keeps_the_policy_more_random() -> None:
    def rewards(actions: Any, labels: Any) -> Any:
        return actions == 0

    without = await trained(trainer_of(reward_fn=rewards, epochs=300, entropy_coef=0.0))
    bonus = await trained(trainer_of(reward_fn=rewards, epochs=300, entropy_coef=0.5))
    assert bonus.extra["entropy"] > without.extra["entropy"] + 0.2


def test_clipping_bounds_the_norm_and_keeps_the_direction() -> None:
    gradient = (np.array([[3.0, 0.0]]), np.array([0.0, 4.0]))
    (by_weights, by_bias), norm = clipped(gradient, 0.5)
    assert norm == 5.0
    np.testing.assert_allclose(by_weights, [[0.3, 0.0]])
    np.testing.assert_allclose(by_bias, [0.0, 0.4])
    assert clipped(gradient, 5.0) == (gradient, 5.0)
    assert clipped(gradient, None) == (gradient, 5.0)


@pytest.mark.parametrize("max_grad_norm", [0.01, None])
async def test_one_step_is_as_long_as_the_clipped_gradient(max_grad_norm: float | None) -> None:
    trainer = trainer_of(epochs=1, max_grad_norm=max_grad_norm, learning_rate=2.0)
    metrics = await trained(trainer)
    full = metrics.extra["grad_norm"]
    assert full > 0.01
    length = float(np.linalg.norm(weights_of(trainer)))
    assert length == pytest.approx(2.0 * (full if max_grad_norm is None else max_grad_norm))


def test_sampling_follows_the_probabilities() -> None:
    rng = np.random.default_rng(1)
    probabilities = np.tile([0.5, 0.0, 0.2, 0.3], (20_000, 1))
    shares = np.bincount(sample(probabilities, rng), minlength=4) / 20_000
    np.testing.assert_allclose(shares, probabilities[0], atol=0.02)
    assert shares[1] == 0


# -- metrics ---------------------------------------------------------------------------------------


async def test_progress_is_reported_as_means_since_the_last_report() -> None:
    trainer = trainer_of(epochs=5, batch_size=2, report_every=4)
    every = trainer_of(epochs=5, batch_size=2, report_every=1)
    metrics = await trained(trainer)
    assert await trained(every) == metrics

    assert [step for step, _ in trainer.reports] == [4, 8, 10]
    assert [step for step, _ in every.reports] == list(range(1, 11))
    for key in ("loss", "mean_reward", "entropy", "grad_norm"):
        values = [reported[key] for _, reported in every.reports]
        means = [np.mean(values[:4]), np.mean(values[4:8]), np.mean(values[8:])]
        assert [reported[key] for _, reported in trainer.reports] == pytest.approx(means)
        final = metrics.loss if key == "loss" else metrics.extra[key]
        assert final == pytest.approx(means[-1])
    assert metrics.steps == 10
    assert set(metrics.extra) == {"mean_reward", "entropy", "grad_norm"}


async def test_evaluate_measures_the_policy_exactly() -> None:
    agent = SoftmaxPolicy(2, 2, weights=[[0.0, 0.0], [0.0, math.log(3)]])
    data = ([[0.0, 1.0], [0.0, 0.0]], [1, 1])
    trainer = trainer_of(agent=agent, train_data=data, entropy_coef=0.5)
    result = await trainer.evaluate(data)
    entropy = (entropies(np.log([[0.25, 0.75]]))[0] + math.log(2)) / 2
    assert result.accuracy == 0.5  # a tie goes to the lowest action
    assert result.extra == {"mean_reward": 0.5, "entropy": pytest.approx(entropy)}
    assert result.loss == pytest.approx(-((0.75 + 0.5) / 2 + 0.5 * entropy))


async def test_divergence_fails_after_its_nan_is_reported() -> None:
    trainer = trainer_of(learning_rate=1000.0, weight_decay=0.01, epochs=2000, report_every=50)
    with pytest.raises(TrainerError, match=r"diverged to NaN at step \d+ \(learning_rate=1000\.0,"):
        await trained(trainer)
    assert trainer.state is TrainerState.FAILED
    steps, reports = zip(*trainer.reports, strict=True)
    assert list(steps[:-1]) == list(range(50, steps[-1], 50))
    assert [math.isnan(reported["loss"]) for reported in reports] == [False] * 6 + [True]


async def test_weight_decay_takes_its_share_of_the_weights_only() -> None:
    agent = SoftmaxPolicy(2, 3, weights=np.ones((2, 3)), bias=[1.0, 1.0, 1.0])
    trainer = trainer_of(
        agent=agent, reward_fn=no_reward, epochs=1, learning_rate=0.5, weight_decay=0.1
    )
    await trained(trainer)
    np.testing.assert_allclose(agent.weights, 0.95)
    np.testing.assert_allclose(agent.bias, 1.0)


def no_reward(actions: Any, labels: Any) -> Any:
    return np.zeros(len(actions))


async def test_a_reward_that_breaks_during_train_fails_it() -> None:
    calls = 0

    def reward_fn(actions: Any, labels: Any) -> Any:
        nonlocal calls
        calls += 1
        return np.full(len(actions), math.nan if calls > 5 else 1.0)

    trainer = trainer_of(reward_fn=reward_fn)
    with pytest.raises(
        TrainerError, match=r"reward_fn=.* returned nan for action .*expected 4 finite"
    ):
        await trained(trainer)
    assert trainer.state is TrainerState.FAILED


# -- refused input ---------------------------------------------------------------------------------


class Unreadable:
    def __array__(self, *args: object, **kwargs: object) -> Any:
        raise RuntimeError("no such column")


BAD_DATA: list[tuple[Any, str]] = [
    (None, "train_data=None (NoneType): expected a tuple (features, labels)"),
    ([FEATURES, LABELS], "(list): expected a tuple (features, labels)"),
    ((FEATURES, LABELS, LABELS), "expected a tuple (features, labels)"),
    (([1.0, 2.0], [0, 1]), "train_data features have shape (2,): expected 2-D (rows, columns)"),
    (([], []), "train_data features have shape (0,): expected 2-D"),
    ((np.zeros((0, 2)), []), "train_data features have shape (0, 2): expected 2-D"),
    (([[], []], [0, 1]), "train_data features have shape (2, 0): expected 2-D"),
    (
        ([[1.0, 2.0], [3.0]], [0, 1]),
        "train_data features=[[1.0, 2.0], [3.0]]: expected a 2-D array",
    ),
    (([["1", "2"]], [0]), "train_data features=[['1', '2']] (elements are <U1): expected a 2-D"),
    (([[1j, 2]], [0]), "(elements are complex128): expected a 2-D array of finite numbers"),
    (([[None, 1]], [0]), "(elements are object): expected a 2-D array of finite numbers"),
    ((Unreadable(), [0]), "expected a 2-D array of finite numbers (no such column)"),
    (([[0.0, math.nan]], [0]), "train_data features[0, 1]=nan: expected finite numbers"),
    (([[0.0, 1.0], [-math.inf, 0.0]], [0, 1]), "train_data features[1, 0]=-inf: expected finite"),
    (
        (FEATURES, [0, 1]),
        "train_data labels have shape (2,): expected one for each row of features",
    ),
    ((FEATURES, []), "train_data labels have shape (0,): expected one for each row of features"),
    (
        (FEATURES, [[0], [1], [2], [1]]),
        "train_data labels have shape (4, 1): expected one for each",
    ),
    ((FEATURES, [0.0, 1, 2, 1]), "(elements are float64): expected a 1-D array of ints"),
    ((FEATURES, [True] * 4), "(elements are bool): expected a 1-D array of ints"),
    ((FEATURES, ["0", "1", "2", "1"]), "(elements are <U1): expected a 1-D array of ints"),
    ((FEATURES, [0, 1, -1, 1]), "train_data labels[2]=-1: expected ints from 0"),
    (
        (FEATURES, [0, 3, 2, 1]),
        "train_data labels[1]=3: expected ints from 0 to 2, the agent's last",
    ),
    (
        ([[1.0]], [0]),
        "train_data features have shape (1, 1): the agent expects n_features=2 columns",
    ),
]


@pytest.mark.parametrize(("data", "message"), BAD_DATA)
async def test_bad_data_are_refused(data: Any, message: str) -> None:
    trainer = trainer_of()
    kept = trainer._train_data
    with pytest.raises(TrainerError) as caught:
        trainer.check_dataset(data)
    assert message in str(caught.value)
    assert trainer._train_data is kept
    if data is None:
        return  # None stands for the test data of the check
    message = message.replace("train_data", "test_data")
    with pytest.raises(TrainerError) as caught:
        trainer.check_dataset(DATA, data)
    assert message.partition(": the agent")[0] in str(caught.value)
    assert trainer._train_data is kept
    with pytest.raises(TrainerError) as caught:
        await trainer.evaluate(data)
    assert message in str(caught.value)


def test_test_data_must_look_like_train_data() -> None:
    trainer = PolicyGradientTrainer()
    with pytest.raises(
        TrainerError, match=r"test_data features have shape \(1, 1\): expected 2 col"
    ):
        trainer.check_dataset(DATA, ([[1.0]], [0]))


def unfinished(actions: Any, labels: Any) -> Any:
    raise KeyError("table")


BAD_REWARDS = [
    (5, "reward_fn=5 (int): expected a function reward_fn(actions, labels)"),
    (lambda actions: actions, "<lambda> raised TypeError"),
    (unfinished, "reward_fn=unfinished raised KeyError: 'table': expected 4 finite numbers"),
    (lambda actions, labels: None, "(elements are object): expected 4 finite numbers"),
    (lambda actions, labels: "1", "(elements are <U1): expected 4 finite numbers"),
    (lambda actions, labels: 1.0, "returned shape (): expected 4 finite numbers, one for each"),
    (lambda actions, labels: [1.0], "returned shape (1,): expected 4 finite numbers"),
    (lambda actions, labels: [], "returned shape (0,): expected 4 finite numbers"),
    (lambda actions, labels: labels[:, None], "returned shape (4, 1): expected 4 finite numbers"),
    (
        lambda actions, labels: labels * math.nan,
        "returned nan for action 0 and label 0: expected 4",
    ),
    (
        lambda actions, labels: [0, 0, math.inf, 0],
        "returned inf for action 2 and label 2: expected",
    ),
    (lambda actions, labels: labels + 1j, "(elements are complex128): expected 4 finite numbers"),
]


@pytest.mark.parametrize(("reward_fn", "message"), BAD_REWARDS)
def test_bad_rewards_are_refused(reward_fn: Any, message: str) -> None:
    trainer = trainer_of()
    kept = trainer._reward_fn
    with pytest.raises(TrainerError) as caught:
        trainer.check_reward(reward_fn)
    assert message in str(caught.value)
    assert trainer._reward_fn is kept
    with pytest.raises(TrainerError, match="reward_fn"):  # made-up rows show it too
        PolicyGradientTrainer().check_reward(reward_fn)


BAD_AGENTS = [
    (None, "agent=None (NoneType): expected a SoftmaxPolicy"),
    (SoftmaxPolicy, "(type): expected a SoftmaxPolicy"),
    (SoftmaxPolicy(3, 3), "train_data features have shape (4, 2): the agent expects n_features=3"),
    (SoftmaxPolicy(2, 2), "train_data labels[2]=2: expected ints from 0 to 1, the agent's last"),
]


@pytest.mark.parametrize(("agent", "message"), BAD_AGENTS)
def test_bad_agents_are_refused(agent: Any, message: str) -> None:
    trainer = trainer_of()
    kept = trainer._policy
    with pytest.raises(TrainerError) as caught:
        trainer.check_agent(agent)
    assert message in str(caught.value)
    assert trainer._policy is kept


def test_an_agent_with_nan_weights_is_refused() -> None:
    agent = SoftmaxPolicy(2, 3)
    agent.weights[0, 0] = math.nan
    with pytest.raises(TrainerError, match=r"agent=SoftmaxPolicy\(.*NaN .*: expected finite ones"):
        PolicyGradientTrainer().check_agent(agent)


def test_an_agent_must_fit_the_test_data_too() -> None:
    trainer = PolicyGradientTrainer()
    trainer.check_dataset(([[1.0], [2.0]], [0, 1]), ([[1.0]], [7]))
    with pytest.raises(TrainerError, match=r"test_data labels\[0\]=7: expected ints from 0 to 1"):
        trainer.check_agent(SoftmaxPolicy(1, 2))


def test_a_reward_is_probed_again_when_data_or_agent_are_checked_later() -> None:
    def reward_fn(actions: Any, labels: Any) -> Any:
        return np.ones((2, 2))[actions, labels]

    trainer = PolicyGradientTrainer()
    trainer.check_reward(reward_fn)
    with pytest.raises(TrainerError, match=r"reward_fn=.*reward_fn raised IndexError: index 2"):
        trainer.check_dataset(DATA)
    trainer.check_dataset((FEATURES, [0, 1, 0, 1]))
    with pytest.raises(TrainerError, match=r"reward_fn=.*reward_fn raised IndexError: index 2"):
        trainer.check_agent(SoftmaxPolicy(2, 3))
    trainer.check_agent(SoftmaxPolicy(2, 2))


BAD_SETTINGS = [
    ("epochs", 0, "config epochs=0: expected an int of at least 1"),
    ("epochs", True, "config epochs=True: expected an int of at least 1"),
    ("epochs", 2.0, "config epochs=2.0: expected an int of at least 1"),
    ("batch_size", -8, "config batch_size=-8: expected an int of at least 1"),
    ("batch_size", "8", "config batch_size='8': expected an int of at least 1"),
    ("learning_rate", 0.0, "config learning_rate=0.0: expected a finite number above 0"),
    ("learning_rate", math.nan, "config learning_rate=nan: expected a finite number above 0"),
    ("learning_rate", math.inf, "config learning_rate=inf: expected a finite number above 0"),
    ("learning_rate", 10**400, "expected a finite number above 0"),
    ("learning_rate", True, "config learning_rate=True: expected a finite number above 0"),
    ("learning_rate", None, "config learning_rate=None: expected a finite number above 0"),
    ("output_dir", None, "config output_dir=None: expected a str"),
    ("extra", [], "config extra=[]: expected a dict"),
    ("seed", -1, "config seed=-1: expected an int of at least 0"),
    ("seed", None, "config seed=None: expected an int of at least 0"),
    ("entropy_coef", -0.1, "config entropy_coef=-0.1: expected a finite number of at least 0"),
    ("weight_decay", -1, "config weight_decay=-1: expected a finite number of at least 0"),
    ("max_grad_norm", 0, "config max_grad_norm=0: expected a finite number above 0, or None"),
    ("max_grad_norm", math.inf, "config max_grad_norm=inf: expected a finite number above 0, or"),
    ("baseline_decay", 1.0, "config baseline_decay=1.0: expected a number from 0 to below 1"),
    ("baseline_decay", math.nan, "config baseline_decay=nan: expected a number from 0 to below 1"),
    ("report_every", 0, "config report_every=0: expected an int of at least 1"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD_SETTINGS)
async def test_bad_settings_are_refused(name: str, value: Any, message: str) -> None:
    bad = PolicyGradientConfig(**{name: value})
    trainer = trainer_of()
    kept = trainer.config
    for given in (bad, {name: value}):
        with pytest.raises(TrainerError) as caught:
            trainer.check_config(given)
        assert message in str(caught.value)
        assert trainer.config is kept
    with pytest.raises(TrainerError) as caught:
        PolicyGradientTrainer(bad)
    assert message in str(caught.value)
    setattr(kept, name, value)  # a config may be changed behind the trainer's back
    with pytest.raises(TrainerError) as caught:
        await trained(trainer)
    assert message in str(caught.value)


@pytest.mark.parametrize("config", [5, "epochs=3", TrainConfig(), PolicyGradientConfig])
def test_configs_of_other_types_are_refused(config: Any) -> None:
    for check in (PolicyGradientTrainer, PolicyGradientTrainer().check_config):
        with pytest.raises(TrainerError, match=r"config=.*: expected a PolicyGradientConfig"):
            check(config)


@pytest.mark.parametrize("key", ["lr", 3, "_config"])
def test_unknown_settings_are_refused_with_the_known_ones(key: Any) -> None:
    with pytest.raises(TrainerError, match=f"config has {key!r}: expected one of epochs, .*seed"):
        PolicyGradientTrainer().check_config({key: 1})


@dataclass(slots=True)
class OwnConfig(PolicyGradientConfig):
    note: str = ""


def test_a_mapping_changes_single_settings_and_numpy_scalars_are_accepted() -> None:
    trainer = PolicyGradientTrainer(OwnConfig(epochs=3))
    trainer.check_config({"note": "x", "seed": np.int64(4), "learning_rate": np.float32(0.5)})
    assert trainer.config == OwnConfig(epochs=3, note="x", seed=4, learning_rate=0.5)
    trainer.check_config({"extra": {"anything": object}})
    other = PolicyGradientConfig()
    trainer.check_config(other)
    trainer.check_config()
    assert trainer.config is other


async def test_a_missing_check_is_named() -> None:
    trainer = Recording()
    with pytest.raises(TrainerError, match=r"evaluate needs an agent: call check_agent\(agent\)"):
        await trainer.evaluate(DATA)
    trainer.check_agent(SoftmaxPolicy(2, 3))
    with pytest.raises(TrainerError, match="evaluate needs test_data: give it, or call check_data"):
        await trainer.evaluate()
    with pytest.raises(TrainerError, match="train needs train_data: call check_dataset"):
        await trained(trainer)
    trainer = Recording()
    trainer.check_dataset(DATA)
    with pytest.raises(TrainerError, match=r"train needs an agent: call check_agent\(agent\)"):
        await trained(trainer)


async def test_unvalidated_trainers_do_not_train() -> None:
    with pytest.raises(TrainerError, match="must be validated"):
        await trainer_of().train()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_features": 0}, "n_features=0: expected an int of at least 1"),
        ({"n_actions": 1}, "n_actions=1: expected an int of at least 2"),
        ({"n_actions": True}, "n_actions=True: expected an int of at least 2"),
        ({"weights": [[1.0, 2.0]]}, "weights has shape (1, 2): expected finite numbers of shape"),
        (
            {"bias": [0.0, 0.0, math.nan]},
            "bias has shape (3,): expected finite numbers of shape (3,",
        ),
    ],
)
def test_a_policy_refuses_bad_sizes_and_arrays(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        SoftmaxPolicy(**{"n_features": 2, "n_actions": 3} | arguments)
    assert message in str(caught.value)


def test_a_policy_refuses_features_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"features have shape \(3,\), expected \(rows, 2\)"):
        SoftmaxPolicy(2, 3).act([1.0, 2.0, 3.0], np.random.default_rng(0))


# -- copies ----------------------------------------------------------------------------------------


async def test_changing_the_callers_arrays_changes_nothing() -> None:
    features, labels, weights = np.array(FEATURES), np.array(LABELS), np.zeros((2, 3))
    agent = SoftmaxPolicy(2, 3, weights=weights)
    changed = trainer_of(agent=agent, train_data=(features, labels), test_data=(features, labels))
    features[:], labels[:], weights[:] = math.nan, -1, math.nan
    plain = trainer_of(test_data=DATA)
    assert await trained(changed) == await trained(plain)
    assert await changed.evaluate() == await plain.evaluate()
    assert agent.weights.any()  # the agent itself was trained


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
async def test_a_copy_trains_like_the_original_and_independently(copied: Any) -> None:
    original = trainer_of(test_data=DATA)
    original.mark_validated()
    twin: Recording = copied(original)
    result = await original.train()
    assert not weights_of(twin).any()
    assert await twin.train() == result
    assert await twin.evaluate() == await original.evaluate()
    assert copied(twin).state is TrainerState.COMPLETED


def test_the_contract_is_imported_without_numpy() -> None:
    code = "import sys, orbiter.train; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_logged_under_the_old_module_of_the_config_loads_as_the_class(
    sqlite_uri: str,
) -> None:
    config = PolicyGradientConfig(seed=3, max_grad_norm=None, extra={"note": "old"})
    params, tags = params_and_tags(config)
    old, new = "orbiter.train.policy_gradient_config", "orbiter.train.policy_gradient.config"
    assert any(new in text for text in tags.values())
    run_id = log_to(sqlite_uri, params, {key: tags[key].replace(new, old) for key in tags})
    assert load_config(run_id, PolicyGradientConfig, tracking_uri=sqlite_uri) == config
    with pytest.raises(ConfigError, match="pass config_type="):
        load_config(run_id, tracking_uri=sqlite_uri)
