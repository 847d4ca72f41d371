"""A language model that is made on the spot; needs torch and transformers, and nothing of ours."""

from typing import Any

__all__ = ["tiny_agent"]


def tiny_agent(
    seed: int, *, width: int = 64, positions: int = 32, characters: str = "0123456789+="
) -> tuple[Any, Any]:
    """A Qwen2 of two layers with random weights, and a tokenizer of characters.

    Args:
        seed: of the weights.
        width: of the hidden states; 64 makes some 80,000 parameters.
        positions: tokens that prompt and completion may have together.
        characters: that the tokenizer knows.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    ids = {token: number for number, token in enumerate(("<pad>", "<eos>", *characters))}
    plain = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))  # noqa: S106  no password
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    plain.decoder = decoders.Fuse()
    special = {"pad_token": "<pad>", "eos_token": "<eos>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, **special)
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(ids),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    return Qwen2ForCausalLM(config), tokenizer
