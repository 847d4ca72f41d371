"""`Rollout`: what an agent said at one step, and what it was rewarded for it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from orbiter.train._log_throttle import quiet_logger

__all__ = ["Message", "Rollout"]

Message = Mapping[str, Any]
"""A chat message as chat templates take it: `role`, `content`, and perhaps `tool_calls`."""

_logger = quiet_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One episode of an agent: a prompt, a completion, and its rewards.

    Attributes:
        prompt: the prompt as a text; empty where there are `messages`.
        messages: the prompt as chat messages.
        completion: a text, or the chat messages of all turns after the prompt, those of tools among
            them.
        rewards: by name, as many as there are reward functions.
        tool_calls: each with `name`, and perhaps `arguments` and `result`; not those that stand in
            the messages.
        tokens: how many the completion has; None where nobody counted.
        extra: anything more, by name, such as the right answer.
    """

    prompt: str = ""
    completion: str | Sequence[Message] = ""
    messages: Sequence[Message] = ()
    rewards: Mapping[str, float] = field(default_factory=dict)
    tool_calls: Sequence[Mapping[str, Any]] = ()
    tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: "Rollout | Mapping[str, Any]") -> "Rollout":
        """A rollout from a mapping with the names of the attributes; other names go to `extra`.

        A `prompt` that is a list or an array of chat messages, as in TRL's data and in parquet
        files, becomes `messages`.

        Raises:
            TypeError: it is neither a rollout nor a mapping, or its `extra` is no mapping.
        """
        if isinstance(given, Rollout):
            return given
        if not isinstance(given, Mapping):
            raise TypeError(f"a rollout is a Rollout or a mapping, not {type(given).__name__}")
        known = {name: given[name] for name in _NAMES if given.get(name) is not None}
        more = {name: value for name, value in given.items() if name not in _NAMES}
        prompt = known.get("prompt")
        is_list = isinstance(prompt, list | tuple) or hasattr(prompt, "tolist")
        if is_list and "messages" not in known:
            known["messages"] = known.pop("prompt")
        if more:
            extra = known.get("extra", {})
            if not isinstance(extra, Mapping):
                raise TypeError(f"extra is a mapping, not {type(extra).__name__}")
            known["extra"] = {**extra, **more}
        return cls(**known)


_NAMES = tuple(one.name for one in fields(Rollout))


def usable(given: Iterable[Rollout | Mapping[str, Any]]) -> Iterator[Rollout]:
    """The rollouts of a report; those that are none are logged as errors and left out."""
    for at, one in enumerate(given):
        try:
            yield Rollout.of(one)
        except Exception as error:  # of a user's mapping
            _logger.error("not recorded: rollout %d of a report: %s", at + 1, error)
