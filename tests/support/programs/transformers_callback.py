"""A `Trainer` of transformers with `report_to="mlflow"`, evaluations and a logged checkpoint."""

import json
import os
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from programs.pauses import DOWN, UP, pause

STEPS = 12


class Pauses(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    def on_step_begin(self, args: Any, state: Any, control: Any, **how: Any) -> None:
        if state.global_step == 3:
            pause(DOWN)
        elif state.global_step == 10:
            pause(UP)


os.environ["MLFLOW_EXPERIMENT_NAME"] = "transformers"
os.environ["MLFLOW_TAGS"] = json.dumps({"team": "agents"})
os.environ["HF_MLFLOW_LOG_ARTIFACTS"] = "1"
set_seed(0)
tokens = torch.randint(0, 32, (24, 8))
rows = [{"input_ids": row, "labels": row} for row in tokens]
config = LlamaConfig(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    pad_token_id=0,
)
trainer = Trainer(
    model=LlamaForCausalLM(config),
    args=TrainingArguments(
        output_dir="out",
        run_name="tiny-llama",
        report_to="mlflow",
        max_steps=STEPS,
        per_device_train_batch_size=4,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=STEPS,
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    ),
    train_dataset=rows,
    eval_dataset=rows[:4],
    callbacks=[Pauses()],
)
trainer.train()
