"""The agent of a TRL training: a model and its tokenizer, or a name under which to load them."""

import os
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

from orbiter.train.states import TrainerError

__all__ = ["Agent", "agent_of"]


@dataclass(frozen=True)
class Agent:
    """What TRL gets to train.

    Attributes:
        model: the model, or its name or path.
        tokenizer: None for the one of the name or path.
    """

    model: Any
    tokenizer: Any

    @property
    def name(self) -> str:
        """The name or path of the model; of one that was made on the spot, its class."""
        if isinstance(self.model, str):
            return self.model
        path = getattr(getattr(self.model, "config", None), "_name_or_path", "")
        return str(path or type(self.model).__name__)


def agent_of(agent: Any) -> Agent:
    """The agent in an argument of `check_agent`.

    Raises:
        TrainerError: it is none of the forms that are known.
    """
    if isinstance(agent, str | os.PathLike) and os.fspath(agent):
        return Agent(str(os.fspath(agent)), None)
    if isinstance(agent, tuple) and len(agent) == 2:
        model, tokenizer = agent
    else:
        model, tokenizer = getattr(agent, "model", None), getattr(agent, "tokenizer", None)
    if not hasattr(model, "config") or not callable(getattr(model, "forward", None)):
        raise TrainerError(
            f"agent={shortened(agent)} ({type(agent).__name__}): expected the name or path of a "
            "model, a pair (model, tokenizer), or an object with the attributes model and tokenizer"
        )
    if not callable(getattr(tokenizer, "decode", None)):
        raise TrainerError(
            f"the tokenizer of the agent is {shortened(tokenizer)} ({type(tokenizer).__name__}): "
            "expected a tokenizer of transformers"
        )
    return Agent(model, tokenizer)
