"""TRL's `SFTTrainer` with `report_to="mlflow"` inside `active_run()` of a trainer of ours.

Two of its arguments have names of the trainer's config, and other values.
"""

import asyncio
from typing import Any

import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from orbiter.train import TrainConfig, Trainer, TrainMetrics
from orbiter_mlflow import MLflowTrainerMixin


def tokenizer() -> Any:
    words = {word: n for n, word in enumerate(("<pad>", "<eos>", "<unk>", "a", "b", "c"))}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


class Tuning(MLflowTrainerMixin, Trainer):
    def check_agent(self, agent: object) -> None: ...
    def check_dataset(self, train_data: object, test_data: object = None) -> None: ...
    def check_reward(self, reward_fn: object = None) -> None: ...
    def check_config(self, config: TrainConfig | None = None) -> None: ...

    async def train(self) -> TrainMetrics:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=6,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                pad_token_id=0,
            )
        )
        args = trl.SFTConfig(
            output_dir="checkpoints",
            learning_rate=3e-4,
            report_to="mlflow",
            max_steps=4,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            disable_tqdm=True,
        )
        with self.active_run():
            done = trl.SFTTrainer(
                model,
                args,
                train_dataset=Dataset.from_dict({"text": ["a b c a"] * 16}),
                processing_class=tokenizer(),
            ).train()
        return TrainMetrics(loss=done.training_loss, steps=4)

    async def evaluate(self, test_data: object = None) -> TrainMetrics:
        return TrainMetrics()


trainer = Tuning(TrainConfig(output_dir="out", learning_rate=1e-5))
trainer.check_agent(None)
trainer.mark_validated()
asyncio.run(trainer.train())
