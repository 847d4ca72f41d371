"""A tokenizer and a language model that are made on the spot; need transformers.

The tokenizer has one token for each character, the model some 80,000 parameters.
"""

import string
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SPECIAL = ("<pad>", "<eos>", "<unk>")


def tiny_tokenizer() -> Any:
    """A tokenizer of characters."""
    characters = string.ascii_lowercase + string.digits + " +=.:\n"
    ids = {token: number for number, token in enumerate((*SPECIAL, *characters))}
    plain = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    plain.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def tiny_config(**settings: Any) -> Any:
    """The config of a Qwen2 with two layers."""
    return Qwen2Config(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
        **settings,
    )


def tiny_model(seed: int = 0) -> Any:
    """An untrained model; the same for the same seed."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(tiny_config())


def tiny_agent(seed: int = 0) -> tuple[Any, Any]:
    """A model and its tokenizer."""
    return tiny_model(seed), tiny_tokenizer()
