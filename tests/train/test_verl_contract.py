"""The names, defaults and checks of the verl backend, none of which need verl."""

import dataclasses
import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import orbiter.train
from orbiter.train import (
    RewardSpec,
    TrainConfig,
    TrainerError,
    TrainerState,
    VeRLAlgorithm,
    VeRLConfig,
    VeRLTrainer,
)
from orbiter.train.verl import _build_verl_params, _check_verl_available

ROWS = [{"input": "1+1", "output": "2"}, {"input": "2+2", "output": "4"}]
without_verl = pytest.mark.skipif(
    importlib.util.find_spec("verl") is not None, reason="verl is installed here"
)


def reward(**_given: Any) -> float:
    return 1.0


def checked(config: VeRLConfig | None = None) -> VeRLTrainer:
    trainer = VeRLTrainer(config)
    trainer.check_agent("some/model")
    trainer.check_dataset(ROWS, ROWS[:1])
    trainer.check_reward(reward)
    trainer.check_config()
    return trainer


# -- exports ---------------------------------------------------------------------------------------


def test_the_backend_is_loaded_when_one_of_its_names_is_used() -> None:
    program = (
        "import sys, orbiter.train\n"
        "assert 'orbiter.train.verl' not in sys.modules\n"
        "assert 'VeRLTrainer' in dir(orbiter.train)\n"
        "from orbiter.train import VeRLTrainer\n"
        "assert 'orbiter.train.verl' in sys.modules\n"
        "print(*sorted({'hydra', 'mlflow', 'numpy', 'torch', 'verl'} & set(sys.modules)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.split() == []


def test_a_name_that_no_backend_has_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="'VeRLTrainre'"):
        orbiter.train.VeRLTrainre  # noqa: B018


# -- rewards ---------------------------------------------------------------------------------------


def test_a_reward_spec_is_frozen_and_has_slots() -> None:
    spec = RewardSpec(callable=reward)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.func_name = "other"  # type: ignore[misc]
    assert not hasattr(spec, "__dict__")


@pytest.mark.parametrize("given", [{}, {"module_path": "a"}, {"func_name": "b"}])
def test_a_reward_spec_needs_the_callable_or_both_names(given: dict[str, str]) -> None:
    with pytest.raises(TrainerError, match="requires either"):
        RewardSpec(**given)  # type: ignore[arg-type]


def test_a_reward_spec_resolves_to_its_callable() -> None:
    assert RewardSpec(callable=reward).resolve() is reward
    assert RewardSpec(module_path="math", func_name="sqrt").resolve()(9) == 3


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        ("math", "nothing", "Cannot find 'nothing'"),
        ("math", "pi", "not callable"),
        ("not a module", "f", "dotted name"),
        ("a..b", "f", "dotted name"),
        ("../rewards.py", "f", "dotted name"),
    ],
)
def test_a_reward_spec_that_leads_to_no_function_is_refused(
    module: str, name: str, message: str
) -> None:
    with pytest.raises(TrainerError, match=message):
        RewardSpec(module_path=module, func_name=name).resolve()


def test_the_import_error_of_a_reward_module_passes() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        VeRLTrainer().check_reward(RewardSpec(module_path="no_such_module", func_name="f"))


# -- settings --------------------------------------------------------------------------------------


def test_the_settings_have_their_defaults() -> None:
    assert dataclasses.asdict(VeRLConfig()) == {
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-5,
        "output_dir": "",
        "extra": {},
        "algorithm": VeRLAlgorithm.GRPO,
        "rollout_batch_size": 4,
        "ppo_epochs": 4,
        "kl_coeff": 0.1,
        "clip_range": 0.2,
        "gamma": 1.0,
        "lam": 0.95,
        "model_name": "",
        "tokenizer_name": "",
        "max_prompt_length": 1024,
        "max_response_length": 512,
        "rewards": {},
        "composed": {},
    }
    assert not hasattr(VeRLConfig(), "__dict__")


@pytest.mark.parametrize(
    ("name", "value"),
    [("rollout_batch_size", 0), ("ppo_epochs", 0), ("clip_range", -0.1), ("clip_range", 1.1)],
)
def test_a_setting_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        VeRLConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rollout_batch_size", 2.5),
        ("rollout_batch_size", True),
        ("rollout_batch_size", math.nan),
        ("ppo_epochs", "4"),
        ("clip_range", math.nan),
        ("gamma", "x"),
        ("epochs", None),
        ("learning_rate", "1e-5"),
        ("model_name", 5),
        ("extra", []),
    ],
)
def test_a_setting_of_another_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}=.*: expected a"):
        VeRLConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", -1),
        ("learning_rate", math.nan),
        ("kl_coeff", -0.1),
        ("gamma", math.nan),
        ("lam", 1.5),
        ("max_prompt_length", -5),
        ("max_response_length", 0),
        ("rollout_batch_size", 1),
    ],
)
def test_a_setting_that_cannot_be_trained_with_is_refused_by_the_checks(
    name: str, value: Any
) -> None:
    bad = VeRLConfig(**{name: value})
    with pytest.raises(TrainerError, match=f"bad value: {name}="):
        VeRLTrainer().check_config(bad)
    with pytest.raises(TrainerError, match=f"bad value: {name}="):
        VeRLTrainer(bad).mark_validated()


def test_a_setting_that_was_assigned_is_checked_too() -> None:
    config = VeRLConfig()
    config.ppo_epochs = "4"  # type: ignore[assignment]
    with pytest.raises(TrainerError, match="ppo_epochs='4': expected an int"):
        VeRLTrainer().check_config(config)


def test_the_completions_of_a_prompt_are_compared_by_grpo_alone() -> None:
    config = VeRLConfig(algorithm=VeRLAlgorithm.PPO, rollout_batch_size=1)
    VeRLTrainer().check_config(config)


def test_an_algorithm_that_was_assigned_by_its_name_is_the_same() -> None:
    config = VeRLConfig()
    config.algorithm = "ppo"  # type: ignore[assignment]
    assert _build_verl_params(config, None)["algorithm"] == "ppo"


def test_an_algorithm_is_given_by_its_name_too() -> None:
    assert VeRLConfig(algorithm="sft").algorithm is VeRLAlgorithm.SFT  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dpo"):
        VeRLConfig(algorithm="dpo")  # type: ignore[arg-type]


def test_a_dict_is_merged_into_extra() -> None:
    given = VeRLConfig(extra={"a": 1})
    trainer = VeRLTrainer(given)
    trainer.check_config({"b": 2})
    assert trainer.verl_config.extra == {"a": 1, "b": 2}
    assert given.extra == {"a": 1}


@without_verl
def test_overrides_of_verl_are_added_to_those_that_the_config_has() -> None:
    trainer = VeRLTrainer(
        VeRLConfig(extra={"a": 1, "verl": {"trainer": {"device": "cpu", "nnodes": 2}}})
    )
    trainer.check_config({"verl": {"trainer.nnodes": 1, "optim.lr": 0.1}})
    assert trainer.verl_config.extra == {
        "a": 1,
        "verl": {"trainer.device": "cpu", "trainer.nnodes": 1, "optim.lr": 0.1},
    }


def test_a_config_of_verl_replaces_the_settings() -> None:
    trainer, config = VeRLTrainer(), VeRLConfig(epochs=7)
    trainer.check_config(config)
    assert trainer.verl_config is trainer.config is config


def test_a_plain_config_sets_what_it_has() -> None:
    trainer = VeRLTrainer(VeRLConfig(output_dir="kept", gamma=0.9))
    trainer.check_config(TrainConfig(epochs=2, batch_size=3, learning_rate=0.1))
    assert trainer.verl_config == VeRLConfig(
        epochs=2, batch_size=3, learning_rate=0.1, output_dir="kept", gamma=0.9
    )
    trainer.check_config(TrainConfig(output_dir="other"))
    assert trainer.verl_config.output_dir == "other"


def test_another_config_is_refused() -> None:
    with pytest.raises(TrainerError, match="expected a VeRLConfig"):
        VeRLTrainer().check_config(5)


def test_the_settings_become_one_mapping_without_what_is_empty() -> None:
    assert _build_verl_params(VeRLConfig(), None) == {
        "algorithm": "grpo",
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-5,
        "rollout_batch_size": 4,
        "ppo_epochs": 4,
        "kl_coeff": 0.1,
        "clip_range": 0.2,
        "gamma": 1.0,
        "lam": 0.95,
        "max_prompt_length": 1024,
        "max_response_length": 512,
    }
    full = VeRLConfig(model_name="m", tokenizer_name="t", output_dir="o", extra={"a": 1})
    params = _build_verl_params(full, RewardSpec(callable=reward))
    assert {name: params[name] for name in ("model_name", "tokenizer_name", "output_dir")} == {
        "model_name": "m",
        "tokenizer_name": "t",
        "output_dir": "o",
    }
    assert params["extra"] == {"a": 1}
    assert params["reward_fn"] == "reward"
    params = _build_verl_params(full, RewardSpec(module_path="a.b", func_name="c"))
    assert (params["reward_module"], params["reward_func"]) == ("a.b", "c")


# -- checks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "argument", "message"),
    [
        ("check_agent", None, "non-None agent"),
        ("check_dataset", [], "non-empty"),
        ("check_dataset", None, "non-empty"),
        ("check_dataset", {"input": "x"}, "list or tuple"),
        ("check_dataset", [*ROWS, "x"], r"train_data\[2\].* must be a dict"),
        ("check_dataset", [*ROWS, {"output": "x"}], r"train_data\[2\].*missing required 'input'"),
        ("check_dataset", [{1: "x", "a": "y"}], r"train_data\[0\].*missing required 'input'"),
        ("check_reward", 5, "callable or RewardSpec"),
    ],
)
def test_a_bad_argument_is_refused(check: str, argument: Any, message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        getattr(VeRLTrainer(), check)(argument)


def test_bad_test_data_are_refused() -> None:
    with pytest.raises(TrainerError, match=r"test_data\[0\] is missing required 'input'"):
        VeRLTrainer().check_dataset(ROWS, [{}])


@pytest.mark.parametrize("given", [None, reward, RewardSpec(module_path="math", func_name="sqrt")])
def test_each_kind_of_reward_is_accepted(given: Any) -> None:
    VeRLTrainer().check_reward(given)


def test_fine_tuning_takes_no_reward() -> None:
    sft = VeRLConfig(algorithm=VeRLAlgorithm.SFT)
    trainer = VeRLTrainer(sft)
    trainer.check_reward(None)
    with pytest.raises(TrainerError, match="the algorithm is sft"):
        trainer.check_reward(reward)
    trainer = VeRLTrainer()
    trainer.check_reward(reward)
    with pytest.raises(TrainerError, match="the algorithm is sft"):
        trainer.check_config(sft)
    trainer.verl_config.algorithm = "sft"  # type: ignore[assignment]
    with pytest.raises(TrainerError, match="the algorithm is sft"):
        trainer.mark_validated()


def test_the_trainer_shows_class_algorithm_epochs_and_state() -> None:
    class Mine(VeRLTrainer):
        pass

    assert repr(Mine()) == "Mine(algorithm=grpo, epochs=1, state=created)"


async def test_a_fresh_trainer_evaluates_without_verl() -> None:
    metrics = await VeRLTrainer().evaluate(ROWS)
    assert metrics.steps == 2
    assert metrics.extra == {"eval_items": 2}
    assert (await checked().evaluate()).steps == 1
    assert (await VeRLTrainer().evaluate()).steps == 0


# -- without verl ----------------------------------------------------------------------------------


@without_verl
def test_that_verl_is_missing_is_said_with_the_command_that_installs_it() -> None:
    with pytest.raises(ImportError, match="VeRL is required: pip install"):
        _check_verl_available()


@without_verl
async def test_without_verl_all_but_train_works(tmp_path: Path) -> None:
    trainer = checked(VeRLConfig(output_dir=str(tmp_path)))
    trainer.mark_validated()
    with pytest.raises(TrainerError, match="VeRL is required: pip install"):
        await trainer.train()
    assert trainer.state is TrainerState.FAILED
    assert [*tmp_path.glob("*")] == []  # noqa: ASYNC240
