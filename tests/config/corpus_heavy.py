"""Whole configs of the libraries that people fine-tune with, and torch's values."""

import functools
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic_settings
import torch
import transformers
import trl
from accelerate import DataLoaderConfiguration, FullyShardedDataParallelPlugin
from accelerate.utils import ProjectConfiguration
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from peft import AdaLoraConfig, IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig
from transformers import (
    AwqConfig,
    BertConfig,
    BitsAndBytesConfig,
    FineGrainedFP8Config,
    GenerationConfig,
    GPTQConfig,
    LlamaConfig,
    QuantoConfig,
    Qwen2Config,
    Qwen2VLConfig,
    Seq2SeqTrainingArguments,
    TrainingArguments,
)

os.environ["HF_HUB_OFFLINE"] = "1"

__all__ = ["HEAVY", "HEAVY_ALIKE"]


def arguments(cls: Any, **given: Any) -> Callable[[], Any]:
    return lambda: cls(output_dir="out", report_to=[], use_cpu=True, **given)


def later(make: Callable[[], Any], **attributes: Any) -> Callable[[], Any]:
    def made() -> Any:
        value = make()
        for name, item in attributes.items():
            setattr(value, name, item)
        return value

    return made


def call(cls: Any, *args: Any, **given: Any) -> Callable[[], Any]:
    return lambda: cls(*args, **given)


def verl(name: str = "ppo_trainer") -> Any:
    """A config of verl, composed by hydra; verl itself is not imported."""
    files = importlib.metadata.files("verl") or []
    found = (f for f in files if f.match(f"trainer/config/{name}.yaml"))
    (folder,) = (Path(str(one.locate())).parent for one in found)
    with initialize_config_dir(str(folder), version_base=None):
        return compose(name)


class Settings(pydantic_settings.BaseSettings):  # type: ignore[misc]  # untyped here
    host: str = "none"
    port: int = 1


HEAVY: dict[str, Callable[[], Any]] = {
    # torch
    **{
        f"torch.{name}": functools.partial(getattr, torch, name)
        for name in ("float32", "bfloat16", "float16", "int64", "bool", "float8_e4m3fn")
    },
    "cpu": call(torch.device, "cpu"),
    "cuda:1": call(torch.device, "cuda:1"),
    "size": call(torch.Size, [1, 2, 3]),
    "tensor": call(torch.arange, 4),
    "parameter": lambda: torch.nn.Parameter(torch.zeros(2)),
    "torch function": lambda: torch.relu,
    "functional": lambda: torch.nn.functional.gelu,
    "module class": lambda: torch.nn.Linear,
    "optimizer": lambda: functools.partial(torch.optim.AdamW, lr=1e-4, betas=(0.9, 0.95)),
    "module": call(torch.nn.Linear, 2, 2),
    "generator": call(torch.Generator),
    "dict of dtypes": lambda: {"z": torch.float32, "a": [torch.bfloat16, torch.device("cpu")]},
    # quantization
    "4 bit": call(BitsAndBytesConfig, load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "4 bit, double": call(
        BitsAndBytesConfig,
        load_in_4bit=True,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    ),
    "8 bit": call(BitsAndBytesConfig, load_in_8bit=True, llm_int8_skip_modules=["lm_head"]),
    "no bits": call(BitsAndBytesConfig),
    "gptq": call(GPTQConfig, bits=4, group_size=64),
    "awq": call(AwqConfig, bits=4),
    "quanto": call(QuantoConfig, weights="int4"),
    "fp8": call(FineGrainedFP8Config),
    # models
    "qwen": call(Qwen2Config),
    "qwen with a keyword": call(Qwen2Config, my_kwarg=7, hidden_size=64),
    "qwen with labels": call(Qwen2Config, id2label={0: "no", 1: "yes", 10: "maybe"}),
    "qwen with a dtype": call(Qwen2Config, dtype=torch.bfloat16),
    "qwen with quantization": lambda: Qwen2Config(
        quantization_config=BitsAndBytesConfig(load_in_4bit=True).to_dict()
    ),
    "qwen set later": later(Qwen2Config, note={"z": 1, "a": 2}),
    "llama": call(LlamaConfig, rope_scaling={"rope_type": "linear", "factor": 2.0}),
    "bert": call(BertConfig, num_labels=3),
    "qwen with vision": call(Qwen2VLConfig),
    "generation": call(GenerationConfig, do_sample=True, temperature=0.5, eos_token_id=[1, 2]),
    "generation set later": later(GenerationConfig, max_new_tokens=5, mine=(1, 2)),
    # training arguments
    "training": arguments(TrainingArguments),
    "training set later": later(arguments(TrainingArguments), learning_rate=1.0, note="x"),
    "training with dicts": arguments(
        TrainingArguments,
        optim_args="a=1",
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": 1e-6, "a": 1},
        accelerator_config={"split_batches": True},
    ),
    "seq2seq": arguments(Seq2SeqTrainingArguments, generation_config=GenerationConfig()),
    **{
        name: arguments(getattr(trl, name), bf16=False)
        for name in (
            "SFTConfig",
            "DPOConfig",
            "GRPOConfig",
            "RewardConfig",
            "KTOConfig",
            "RLOOConfig",
        )
        if hasattr(trl, name)
    },
    "grpo": lambda: trl.GRPOConfig(
        output_dir="out",
        report_to=[],
        bf16=False,
        num_generations=4,
        reward_weights=[1.0, 0.5],
        model_init_kwargs={"dtype": torch.bfloat16, "attn_implementation": "sdpa"},
        generation_kwargs={"z": 1, "a": 2},
    ),
    "sft set later": later(arguments(trl.SFTConfig, bf16=False), packing=True, mine=[1]),
    "model of trl": lambda: trl.ModelConfig(model_name_or_path="x", lora_target_modules=["q"]),
    "script of trl": lambda: trl.ScriptArguments(dataset_name="x"),
    # adapters
    "lora": call(LoraConfig, r=8, target_modules=["q", "v"], task_type="CAUSAL_LM"),
    "lora of all": call(LoraConfig, target_modules="all-linear", rank_pattern={"z": 1, "a": 2}),
    "lora set later": later(call(LoraConfig), note=1),
    "adalora": call(AdaLoraConfig, total_step=10),
    "prefix": call(PrefixTuningConfig, num_virtual_tokens=3),
    "prompt": call(PromptTuningConfig, num_virtual_tokens=3),
    "ia3": call(IA3Config),
    # accelerate
    "fsdp": call(FullyShardedDataParallelPlugin),
    "loader": call(DataLoaderConfiguration, split_batches=True),
    "project": call(ProjectConfiguration, project_dir="x"),
    # pydantic-settings, hydra
    "settings": call(Settings, port=2),
    "verl": verl,
    "verl as a container": lambda: OmegaConf.to_container(verl(), resolve=False),
    "verl's optimizer": lambda: verl().actor_rollout_ref.actor.optim,
    "verl with megatron": lambda: verl("ppo_megatron_trainer"),
    # together
    "recipe": lambda: {
        "quantization": BitsAndBytesConfig(load_in_4bit=True),
        "lora": LoraConfig(r=16, target_modules=["q_proj"]),
        "arguments": arguments(trl.SFTConfig, bf16=False)(),
        "generation": GenerationConfig(max_new_tokens=10),
        "collate": transformers.default_data_collator,
    },
}

HEAVY_ALIKE: dict[str, tuple[Callable[[], Any], ...]] = {
    "quantization": tuple(
        HEAVY[name] for name in ("4 bit", "4 bit, double", "8 bit", "no bits", "gptq", "awq", "fp8")
    ),
    "models": tuple(HEAVY[name] for name in HEAVY if name.startswith("qwen")),
    "arguments": (HEAVY["training"], HEAVY["training set later"]),
    "modules": (lambda: torch.zeros(3), lambda: torch.ones(3)),
}
"""Label -> make values that must not share a digest."""
