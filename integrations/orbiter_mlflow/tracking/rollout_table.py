"""The rollouts of one step as a table: bounded, redacted, in the format of `mlflow.log_table`.

A table has a row for each rollout and these columns, those that no rollout fills left out:
`rollout` (its number in the report, from 1), `prompt` and `completion` (as people read them),
`reward/<name>`, `tokens`, what `extra` has by its own names, `tool_calls`, and `messages`: JSON
with `prompt` and `completion` where either was chat messages.
"""

import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from orbiter.train.hooks import Rollout, quiet_logger
from orbiter_mlflow import names
from orbiter_mlflow.delivery.rollout_traces import tool_call
from orbiter_mlflow.redaction.many_texts import ManyTexts
from orbiter_mlflow.redaction.redactor import REDACTED
from orbiter_mlflow.text.shortening import without_middle
from orbiter_mlflow.text.values import read, text_of
from orbiter_mlflow.tracking.artifact_files import reason_of

__all__ = ["MAX_TEXT", "Table", "table_of"]

MAX_TEXT = 50_000
"""Characters of a text; a longer one is cut in its middle."""
MAX_CHARACTERS = 32 << 20
"""Characters of all texts of a table; the rollouts behind them are left out."""
_MAX_DEPTH = 20
_MAX_INT = 2**63

_logger = quiet_logger(__name__)

_OURS = (names.ROLLOUT, names.PROMPT, names.COMPLETION, names.TOKENS, names.TOOL_CALLS)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of rollouts.

    Attributes:
        content: JSON with `columns` and `data`.
        rows: how many rollouts it has.
        unreadable: how many rollouts raised an error.
        cut: how many texts were cut.
        totals: the sum of the rewards of each row; None where it has none.
    """

    content: bytes
    rows: int
    unreadable: int
    cut: int
    totals: tuple[float | None, ...]


def table_of(rollouts: Sequence[Rollout], at_most: int, texts: ManyTexts) -> Table:
    """The table of a report. A rollout that cannot be read is logged and left out.

    Args:
        rollouts: all of the report.
        at_most: rows; with more rollouts, it takes those at even distances.
        texts: takes the secrets out of texts.
    """
    clean = _Cleaner(texts)
    count = min(len(rollouts), at_most)
    rows: list[dict[str, Any]] = []
    unreadable = 0
    for at in (row * len(rollouts) // count for row in range(count)):
        if clean.characters >= MAX_CHARACTERS:
            break
        try:
            rows.append({names.ROLLOUT: at + 1} | clean.row(rollouts[at]))
        except Exception as error:  # of a user's object
            unreadable += 1
            shown = texts.text(reason_of(error))
            _logger.error("not recorded: rollout %d of a report: %s", at + 1, shown)
    columns = _columns(rows)
    table = {"columns": columns, "data": [[row.get(name) for name in columns] for row in rows]}
    totals = tuple(map(_total, rows))
    return Table(to_json(table), len(rows), unreadable, clean.cut, totals)


def _total(row: Mapping[str, Any]) -> float | None:
    rewards = [one for name, one in row.items() if names.is_reward(name) and one is not None]
    return sum(rewards) if rewards else None


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = dict.fromkeys(name for row in rows for name in row)
    order = [names.ROLLOUT, names.PROMPT, names.COMPLETION]
    order += [name for name in found if names.is_reward(name)]
    order += [name for name in (names.TOKENS,) if name in found]
    last = [name for name in (names.TOOL_CALLS, names.MESSAGES) if name in found]
    return [*order, *(name for name in found if name not in {*order, *last}), *last]


class _Cleaner:
    """Turns rollouts into rows.

    Attributes:
        characters: of all texts so far.
        cut: texts that were cut.
    """

    def __init__(self, texts: ManyTexts) -> None:
        self._texts = texts
        self._redactor = texts.redactor
        # The completions of a group have the same prompt.
        self._known: dict[str, tuple[str, bool]] = {}
        self.characters = self.cut = 0

    def row(self, rollout: Rollout) -> dict[str, Any]:
        """The row of a rollout, without its number."""
        prompt = self._said(rollout.prompt if _is_empty(rollout.messages) else rollout.messages)
        completion = self._said(rollout.completion)
        row: dict[str, Any] = {
            names.PROMPT: _as_text(prompt),
            names.COMPLETION: _as_text(completion),
        }
        row |= self._rewards(rollout.rewards)
        if rollout.tokens is not None:
            row[names.TOKENS] = _cell(self._named(names.TOKENS, rollout.tokens, 0))
        extra = rollout.extra if isinstance(rollout.extra, Mapping) else {"extra": rollout.extra}
        for name, value in self._mapping(extra, 0).items():
            taken = name in _OURS or name == names.MESSAGES or names.is_reward(name)
            row[f"extra/{name}" if taken else name] = _cell(value)
        if not _is_empty(rollout.tool_calls):
            calls = _as_list(rollout.tool_calls)
            row[names.TOOL_CALLS] = _json(
                self.value([rollout.tool_calls] if calls is None else calls)
            )
        if not (isinstance(prompt, str) and isinstance(completion, str)):
            row[names.MESSAGES] = _json({"prompt": prompt, "completion": completion})
        return row

    def text(self, text: str) -> str:
        """A text without secrets, and without what no store takes."""
        if text not in self._known:
            self._known[text] = self._shortened(self._texts.text(text))
        shown, cut = self._known[text]
        self.characters += len(shown)
        self.cut += cut
        return shown

    def _shortened(self, shown: str) -> tuple[str, bool]:
        """A text as it is written, and whether it was cut."""
        cut = len(shown) > MAX_TEXT
        shown = without_middle(shown, MAX_TEXT, "characters left out")
        if not shown.isascii() or "\x00" in shown:
            # Lone surrogates stop readers of JSON, NUL the databases.
            shown = shown.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
        return shown, cut

    def value(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON, without secrets: by the names in it, and by its texts."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(str.__str__(value))
        if depth < _MAX_DEPTH:
            if isinstance(value, Mapping):
                return self._mapping(value, depth + 1)
            if (items := _as_list(value)) is not None:
                return self._list(items, depth + 1)
        whole = _whole(value)
        if whole is not None:
            self.characters += 8
            return whole
        found = read(value)
        if isinstance(found, float) and math.isfinite(found):
            self.characters += 8
            return found
        return self.text(found if isinstance(found, str) else text_of(value))

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        called = value.get("name", value.get("key"))  # {"name": "API_KEY", "value": "x"}
        found = {}
        for given, one in value.items():
            key = str(given)
            shown = self.text(key)
            by_name = key == "value" and isinstance(called, str)
            name = str.__str__(called) if by_name else key
            if (shown != key and self._redactor.text(key) != key) or self._is_secret(name, one):
                found[shown] = REDACTED
            else:
                found[shown] = self._named(key, one, depth)
        return found

    def _list(self, items: Sequence[Any], depth: int) -> list[Any]:
        first = items[0] if len(items) == 2 else None
        if isinstance(first, str) and isinstance(items[1], str | int | float):
            name = str.__str__(first)
            if not isinstance(items[1], bool) and self._redactor.is_pair(name, str(items[1])):
                return [self.text(name), REDACTED]
        found = []
        before: list[str] = []
        for item in items:  # ["--api-key", "x"], as of a command line
            word = str.__str__(item) if isinstance(item, str) else ""
            secret = self._redactor.follows_as_secret(before, word)
            found.append(REDACTED if secret else self.value(item, depth))
            before = [*before[-3:], word] if isinstance(item, str) else []
        return found

    def _named(self, key: str, value: Any, depth: int) -> Any:
        """A value under a name: a secret as a whole if the name says so."""
        return REDACTED if self._is_secret(key, value) else self.value(value, depth)

    def _is_secret(self, key: str, value: Any) -> bool:
        if not self._redactor.is_secret_key(key):
            return False
        if isinstance(value, str):
            text = str.__str__(value)
            return self._redactor.value(key, text) == REDACTED
        return not (isinstance(value, bool) or _is_empty(value))

    def _rewards(self, rewards: Any) -> dict[str, float | None]:
        if not isinstance(rewards, Mapping):
            rewards = {"reward": rewards}
        found = {
            names.reward_column(self.text(str(name))[: names.MAX_KEY] or "reward"): read(one)
            for name, one in rewards.items()
        }
        return {
            name: one if isinstance(one, float) and math.isfinite(one) else None
            for name, one in found.items()
        }

    def _said(self, said: Any) -> str | list[Any]:
        """A text, or chat messages."""
        if isinstance(said, str):
            return self.text(str.__str__(said))
        messages = [said] if isinstance(said, Mapping) else _as_list(said)
        if messages is None:
            return self.text(text_of(said))
        return [
            self.value(one) if isinstance(one, Mapping) else {"content": self.text(text_of(one))}
            for one in messages
        ]


def _is_empty(value: Any) -> bool:
    return value is None or (hasattr(value, "__len__") and len(value) == 0)


def _as_list(value: Any) -> Sequence[Any] | None:
    """The items of a list, a tuple, or an array of objects, which lists in parquet files become."""
    if isinstance(value, list | tuple):
        return value
    if getattr(getattr(value, "dtype", None), "kind", None) in ("O", "U") and value.shape:
        found: list[Any] = value.tolist()
        return found
    return None


def _whole(value: Any) -> int | None:
    """An integer, also of numpy, that JSON's readers take."""
    try:
        found = operator.index(value)
    except Exception:  # TypeError, or what a user's object raises
        return None
    return found if abs(found) < _MAX_INT else None


def _as_text(said: str | list[Any]) -> str:
    """Chat messages as people read them."""
    if isinstance(said, str):
        return said
    if len(said) == 1:
        return _content(said[0])
    return "\n\n".join(f"{message.get('role', '?')}: {_content(message)}" for message in said)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):  # of several kinds: texts, images
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        content = "\n".join(part if isinstance(part, str) else "(no text)" for part in parts)
    shown = [] if not content else [content if isinstance(content, str) else _json(content)]
    calls = message.get("tool_calls")
    for name, given, _ in map(tool_call, calls if isinstance(calls, list) else ()):
        shown.append(f"[calls {name}({_json(given)})]")
    return "\n".join(shown)


def _cell(value: Any) -> Any:
    """A value of a column: a scalar, or the JSON of anything else."""
    return _json(value) if isinstance(value, list | dict) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
