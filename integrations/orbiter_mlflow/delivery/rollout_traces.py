"""Rollouts as traces: what each one shows, with ids that are the same whenever it is sent again.

A text completion is one chat span. An episode of several messages is an agent span with all of
them, and below it a chat span for each of the agent's turns and a tool span for each tool call.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Rollouts
from orbiter_mlflow.errors import RejectedError

_PREVIEW = 1000
"""Characters of a preview (mlflow/tracing/constant.py, 3.17)."""

_TOOL_ROLES = ("tool", "function")

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A span of a trace.

    Attributes:
        id: 16 hexadecimal digits.
        parent: id of the span above; None for the root.
        name: shown in the tree.
        kind: MLflow's type of a span.
        inputs, outputs: JSON.
    """

    id: str
    parent: str | None
    name: str
    kind: Literal["AGENT", "CHAT_MODEL", "TOOL"]
    inputs: Any
    outputs: Any


@dataclass(frozen=True, slots=True)
class RolloutTrace:
    """A trace of one rollout.

    Attributes:
        id: 32 hexadecimal digits.
        time: milliseconds since the epoch.
        request, response: the previews.
        tags: among them the name.
        rewards: name -> value.
        reward_ids: ids of their assessments, 32 hexadecimal digits each.
        spans: the root first.
    """

    id: str
    time: int
    request: str
    response: str
    tags: Mapping[str, str]
    rewards: Mapping[str, float]
    reward_ids: Mapping[str, str]
    spans: Sequence[Span]


def traces_of(record: Rollouts, content: bytes, key: str) -> list[RolloutTrace]:
    """The traces of a record.

    Args:
        record: as it is delivered, so with the steps of a resumed run.
        content: its table.
        key: says which record of which journal it is; the ids depend on it.

    Raises:
        RejectedError: the table is not one of ours.
    """
    try:
        table = json.loads(content)
        rows = [dict(zip(table["columns"], table["data"][at], strict=True)) for at in record.traces]
        return [
            _trace(record, row, f"{key}:{at}") for at, row in zip(record.traces, rows, strict=True)
        ]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RejectedError(f"the table of rollouts cannot be read: {error}", definite=True) from (
            error
        )


def _trace(record: Rollouts, row: Mapping[str, Any], key: str) -> RolloutTrace:
    said = json.loads(row.get(names.MESSAGES) or "{}")
    prompt = said.get("prompt", row[names.PROMPT])
    completion = said.get("completion", row[names.COMPLETION])
    asked = _messages(prompt, "user")
    answered = _messages(completion, "assistant")
    calls = json.loads(row.get(names.TOOL_CALLS) or "[]")
    rewards = {
        names.reward_of(name): float(value)
        for name, value in row.items()
        if names.is_reward(name) and value is not None
    }
    tokens = row.get(names.TOKENS)
    # A tag, not MLflow's usage: without the tokens of the prompt it would show 0 of them.
    counted = {names.COMPLETION_TOKENS: str(tokens)} if isinstance(tokens, int | float) else {}
    last = answered[-1] if answered else {}
    return RolloutTrace(
        id=_id(key, 32),
        time=record.time,
        request=_preview(asked[-1] if asked else {}) or row[names.PROMPT][:_PREVIEW],
        response=_preview(last) or row[names.COMPLETION][:_PREVIEW],
        tags={
            names.TRACE_NAME: names.trace_name(record.phase, record.step),
            names.STEP: str(record.step),
            names.PHASE: record.phase,
            names.ROLLOUT_NUMBER: str(row[names.ROLLOUT]),
            **counted,
        },
        rewards=rewards,
        reward_ids={name: _id(f"{key}:reward:{name}", 32) for name in rewards},
        spans=_spans(key, asked, answered, calls),
    )


def _spans(
    key: str, asked: list[Message], answered: list[Message], calls: Sequence[Any]
) -> list[Span]:
    root = _id(f"{key}:0", 16)
    in_turns = [call for message in answered for call in _calls_in(message)]
    if len(answered) == 1 and not calls and not in_turns:
        inputs, outputs = {"messages": asked}, {"choices": [{"message": answered[0]}]}
        return [Span(root, None, "rollout", "CHAT_MODEL", inputs, outputs)]
    found = [Span(root, None, "rollout", "AGENT", {"messages": asked}, {"messages": answered})]

    def below(name: str, kind: Literal["CHAT_MODEL", "TOOL"], inputs: Any, outputs: Any) -> None:
        found.append(Span(_id(f"{key}:{len(found)}", 16), root, name, kind, inputs, outputs))

    turn, heard = 0, asked
    for at, message in enumerate(answered):
        if message.get("role") == "assistant":
            turn += 1
            answer = {"choices": [{"message": message}]}
            below(f"turn {turn}", "CHAT_MODEL", {"messages": heard}, answer)
            heard = []
            in_turn = [tool_call(call) for call in _calls_in(message)]
            results = _results([id_ for _, _, id_ in in_turn], answered[at + 1 :])
            for (name, given, _), result in zip(in_turn, results, strict=True):
                below(name, "TOOL", given, result)
        else:
            heard = [*heard, message]
    for call in calls:
        name, given, _ = tool_call(call)
        below(name, "TOOL", given, call.get("result") if isinstance(call, dict) else None)
    return found


def _results(ids: Sequence[str], after: Iterable[Message]) -> list[Any]:
    """The results of a turn's calls: contents of the tools' messages before the next turn.

    A call has the result with its id; where ids are missing or repeated, results are in the order
    of the calls.
    """
    answers = takewhile(lambda message: message.get("role") != "assistant", after)
    tools = [message for message in answers if message.get("role") in _TOOL_ROLES]
    told = [str(message.get("tool_call_id") or "") for message in tools]
    free = [*range(len(tools))]
    found: dict[int, int] = {}
    for call, id_ in enumerate(ids):
        if id_ and ids.count(id_) == told.count(id_) == 1:
            found[call] = told.index(id_)
            free.remove(found[call])
    for call, id_ in enumerate(ids):
        if call not in found:
            match = next((at for at in free if not (id_ and told[at]) or id_ == told[at]), None)
            if match is not None:
                found[call] = match
                free.remove(match)
    return [
        tools[found[call]].get("content") if call in found else None for call in range(len(ids))
    ]


def _messages(said: Any, role: str) -> list[Message]:
    if isinstance(said, str):
        return [{"role": role, "content": said}]
    return [_for_the_ui({"role": role} | message) for message in said]


def _for_the_ui(message: dict[str, Any]) -> Message:
    """A message as MLflow's UI takes it for one of a chat: calls in OpenAI's form."""
    calls = [
        {
            "id": id_,
            "type": "function",
            "function": {
                "name": name,
                "arguments": given if isinstance(given, str) else json.dumps(given),
            },
        }
        for name, given, id_ in map(tool_call, _calls_in(message))
    ]
    content = message.get("content")
    if not isinstance(content, str | list):
        content = "" if content is None else json.dumps(content)
    return message | {"content": content} | ({"tool_calls": calls} if calls else {})


def _calls_in(message: Message) -> Iterator[Any]:
    calls = message.get("tool_calls")
    yield from calls if isinstance(calls, list) else ()


def tool_call(call: Any) -> tuple[str, Any, str]:
    """Name, arguments and id of a tool call, in the form of OpenAI's or in a flat one."""
    if not isinstance(call, dict):
        return "tool", call, ""
    function = call.get("function")
    inner = function if isinstance(function, dict) else call
    given = inner.get("arguments")
    if isinstance(given, str):
        with suppress(ValueError):
            given = json.loads(given)
    return str(inner.get("name") or "tool"), given, str(call.get("id") or "")


def _preview(message: Message) -> str:
    content = message.get("content")
    return content[:_PREVIEW] if isinstance(content, str) else ""


def _id(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
