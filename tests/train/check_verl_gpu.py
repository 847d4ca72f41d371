"""`make test-verl-gpu`: GRPO by verl with vLLM, on a machine with a GPU.

`ORBITER_VERL_MODEL` names the model. `make test` does not collect this file, because of its name.
"""

import os
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from orbiter.train import VeRLConfig, VeRLTrainer
from orbiter.train.rollouts import Rollout
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin, load_config

ROWS = [
    {"input": f"What is {a} plus {b}? Answer with the number alone.", "output": str(a + b)}
    for a in range(8)
    for b in range(10)
]
STEPS = 8


class Tracked(MLflowTrainerMixin, VeRLTrainer):
    """The backend, tracked; keeps the completions of validations."""

    def __init__(self, config: VeRLConfig, uri: str) -> None:
        super().__init__(config, mlflow=MLflowSettings(tracking_uri=uri))
        self.said: dict[int, list[Rollout]] = {}

    def _on_rollouts(self, rollouts: Any, step: int, phase: Any) -> None:
        super()._on_rollouts(rollouts, step, phase)
        assert phase == "eval"
        self.said[step] = list(rollouts)


def reward(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> float:
    """1 for the number alone, less for one in a sentence."""
    if solution_str.strip() == ground_truth:
        return 1.0
    return 0.5 if ground_truth in solution_str.split() else 0.0


async def test_grpo_runs_with_vllm_and_is_tracked(sqlite_uri: str, own_folder: Path) -> None:
    config = VeRLConfig(
        epochs=2,
        batch_size=16,
        learning_rate=1e-6,
        ppo_epochs=1,
        max_prompt_length=128,
        max_response_length=32,
        model_name=os.environ["ORBITER_VERL_MODEL"],
        output_dir=str(own_folder / "out"),
        extra={
            "verl": {
                "actor_rollout_ref.model.use_remove_padding": False,  # else flash-attn is needed
                "actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
                "actor_rollout_ref.rollout.gpu_memory_utilization": 0.4,
            }
        },
    )
    trainer = Tracked(config, sqlite_uri)
    trainer.check_agent(config.model_name)
    trainer.check_dataset(ROWS[16:], ROWS[:16])
    trainer.check_reward(reward)
    trainer.check_config()
    trainer.mark_validated()
    result = await trainer.train()
    assert result.steps == STEPS
    run_id = await trainer.wait_run_id()
    assert run_id is not None
    client = MlflowClient(sqlite_uri)
    assert client.get_run(run_id).info.status == "FINISHED"
    scores = client.get_metric_history(run_id, "train/critic/score/mean")
    assert [point.step for point in scores] == list(range(1, STEPS + 1))
    validated = {key for key in client.get_run(run_id).data.metrics if key.startswith("eval/val-")}
    assert validated
    assert sorted(trainer.said) == [0, 4, 8]
    assert all(rollout.completion for rollout in trainer.said[STEPS])
    assert load_config(run_id, tracking_uri=sqlite_uri) == trainer.config
    assert (own_folder / "out" / "verl" / "checkpoints" / f"global_step_{STEPS}").is_dir()
