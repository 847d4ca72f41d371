"""The demo's language model with more characters, and room for more tokens."""

import string
from typing import Any

from orbiter_mlflow.cli import demo_model

CHARACTERS = string.ascii_lowercase + string.digits + " +=.:\n"


def tiny_agent(seed: int = 0) -> tuple[Any, Any]:
    """An untrained model, the same for the same seed, and its tokenizer of characters."""
    return demo_model.tiny_agent(seed, positions=128, characters=CHARACTERS)
