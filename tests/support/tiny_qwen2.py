"""A Qwen2 with two layers, random weights and a tokenizer trained on the spot, in the files of
Hugging Face; neither torch nor transformers is needed to write them."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS = 64, 128, 2, 4, 2
END, PADDING = "<|im_end|>", "<pad>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_qwen2(folder: Path, texts: Iterable[str], seed: int = 0) -> int:
    """Write a model whose tokenizer knows `texts`; returns the number of its parameters."""
    folder.mkdir(parents=True)
    vocabulary = _write_tokenizer(folder, texts)
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": vocabulary.get_vocab_size(),
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "eos_token_id": vocabulary.token_to_id(END),
        "pad_token_id": vocabulary.token_to_id(PADDING),
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(seed)
    weights = {
        name: random.normal(0, 0.02, shape).astype(np.float32)
        if name.endswith(("proj.weight", "tokens.weight"))
        else np.full(shape, float(name.endswith("norm.weight")), np.float32)
        for name, shape in _shapes(vocabulary.get_vocab_size())
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return sum(array.size for array in weights.values())


def _write_tokenizer(folder: Path, texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=["<|im_start|>", END, PADDING],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PADDING,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def _shapes(vocabulary: int) -> Iterable[tuple[str, tuple[int, ...]]]:
    keys = HIDDEN // HEADS * KEY_HEADS
    yield "model.embed_tokens.weight", (vocabulary, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name, size in (("q", HIDDEN), ("k", keys), ("v", keys)):
            yield f"{prefix}.self_attn.{name}_proj.weight", (size, HIDDEN)
            yield f"{prefix}.self_attn.{name}_proj.bias", (size,)
        yield f"{prefix}.self_attn.o_proj.weight", (HIDDEN, HIDDEN)
        for name in ("gate", "up"):
            yield f"{prefix}.mlp.{name}_proj.weight", (INNER, HIDDEN)
        yield f"{prefix}.mlp.down_proj.weight", (HIDDEN, INNER)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}.{name}.weight", (HIDDEN,)
