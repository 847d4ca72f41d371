"""Compare the config of a resumed run with that of the trainer that resumes it, which stays out.

The params of a run cannot change, so the differences go into a tag and a warning.
"""

import json
from collections.abc import Mapping, Sequence

from orbiter_mlflow import names
from orbiter_mlflow.delivery.resumption.rewriting import RunContents
from orbiter_mlflow.text.shortening import json_within, shortened

_SHOWN = 5
"""Changed params that a warning names."""
_LENGTHS = (1000, 100, 20)
"""Characters that a value may have in the tag; the more params changed, the shorter."""

Changes = Mapping[str, tuple[str | None, str | None]]
"""Param -> its value in the run, and the resuming trainer's; None where there is none."""


def config_changes(run: RunContents, params: Mapping[str, str]) -> Changes:
    """Compare the config of a run with the params of a resuming trainer."""
    roots = {*_fields(run.tags), *map(names.config_field, params)}
    kept = {key: text for key, text in run.params.items() if names.config_field(key) in roots}
    return {
        key: (kept.get(key), params.get(key))
        for key in sorted(kept.keys() | params.keys())
        if kept.get(key) != params.get(key)
    }


def changes_tag(changes: Changes, number: int) -> dict[str, str]:
    """The tag with the changes of resumption `number`, if any: JSON, `{param: [kept, new]}`.

    To stay within MLflow's limit, long values are shortened and say how long they are; params that
    still do not fit are counted under the key `...`.
    """
    if not changes:
        return {}
    name = names.in_life(names.CONFIG_CHANGED, number)
    content: dict[str, object] = {}
    for length in _LENGTHS:
        content = {key: [_short(text, length) for text in pair] for key, pair in changes.items()}
        if len(text := json.dumps(content, ensure_ascii=False)) <= names.MAX_DATA_TAG:
            return {name: text}
    return {name: json_within(content, names.MAX_DATA_TAG)}


def changes_text(changes: Changes, number: int) -> str:
    """The changes of resumption `number` in words; empty where there are none."""
    if not changes:
        return ""
    shown = []
    for key, pair in list(changes.items())[:_SHOWN]:
        kept, new = ("none" if text is None else _short(text, 40) for text in pair)
        shown.append(f"{key}={kept} (this trainer has {new})")
    if len(changes) > _SHOWN:
        shown.append(f"{len(changes) - _SHOWN} more")
    return f"{', '.join(shown)}; all in the tag {names.in_life(names.CONFIG_CHANGED, number)}"


def _fields(tags: Mapping[str, str]) -> Sequence[str]:
    """The root fields of a run's config; none where somebody has changed the tag."""
    pieces = [name for name in tags if names.piece_of(name)[0] == names.CONFIG_FIELDS]
    pieces.sort(key=lambda name: names.piece_of(name)[1] or 0)
    try:
        fields = json.loads("".join(tags[name] for name in pieces))
    except ValueError:
        return []
    return [str(field) for field in fields] if isinstance(fields, list) else []


def _short(text: str | None, length: int) -> str | None:
    return None if text is None else shortened(text, length)
