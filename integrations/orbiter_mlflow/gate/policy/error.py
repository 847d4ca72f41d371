"""Error messages for policies: one line with the key, the value, and what to write instead."""

import re
from collections.abc import Mapping
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orbiter_mlflow.errors import PolicyError
from orbiter_mlflow.text.shortening import shortened

_MAX_SHOWN = 80


def policy_error(
    path: str, error: ValidationError, tables: Mapping[str, type[BaseModel]]
) -> PolicyError:
    """All mistakes that pydantic found, in the file's own terms.

    Args:
        path: the file, for people.
        tables: name of each table in the file -> its model; "" is the file itself.
    """
    return PolicyError(f"{path}: {'; '.join(_explained(one, tables) for one in error.errors())}")


def _explained(error: ErrorDetails, tables: Mapping[str, type[BaseModel]]) -> str:
    """Describe one mistake: key, value if it helps, and the correction."""
    parts = [part for part in error["loc"] if part != "[key]"]
    key = ".".join(str(part) if isinstance(part, int) else quoted(part) for part in parts)
    last = str(parts[-1]) if parts else ""
    match error["type"]:
        case "missing" if last == "direction":
            directions = "'higher' or 'lower'"
            if parts[0] == "metrics":
                directions = "'higher', 'lower' or 'target'"
            return f"{key} is missing: set it to {directions}; it is never guessed"
        case "missing" if len(parts) == 1:
            return f"[{key}] is missing{_TO_ADD.get(key, '')}"
        case "missing":
            return f"{key} is missing{_TO_ADD.get(key, '')}"
        case "extra_forbidden":
            table = tables[str(parts[0]) if len(parts) > 1 else ""]
            known = [field.alias or name for name, field in table.model_fields.items()]
            near = get_close_matches(last, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            return f"{key} is an unknown key: {hint}"
        case "value_error" if not key:
            return str(error["ctx"]["error"])
        case "value_error":
            return f"{f'{key}: ' if key else ''}{error['ctx']['error']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{key} = {_shown(error['input'])} should be a table: write [{key}]"
        case "string_pattern_mismatch" if last == "at":
            return f"{key} = {_shown(error['input'])} should be last, best or step=N"
        case "tuple_type" if key == "accept":
            return "accept should be tables: write [[accept]] for each accepted regression"
        case "date_type":
            return f"{key} = {_shown(error['input'])} should be a date, unquoted: 2026-12-31"
        case "tuple_type":
            return f'{key} = {_shown(error["input"])} should be a list: ["..."]'
        case "less_than_equal" | "greater_than_equal" if last == "schema":
            return f"{key} = {_shown(error['input'])}: this version reads schema = 1 only"
        case _:
            what = error["msg"].removeprefix("Input ").removeprefix("String ")
            return f"{key} = {_shown(error['input'])} {what}"


NO_METRICS = 'there are no metrics: add a [metrics."<key>"] with a direction and a limit'
"""The message for a policy that judges nothing."""
_TO_ADD = {
    "gate": ": add it with schema = 1",
    "gate.schema": ": add schema = 1",
    "baseline": ": add it with one of run, filter and file",
}


def _shown(value: object) -> str:
    """A value roughly as TOML writes it, shortened."""
    text = str(value).lower() if isinstance(value, bool | float) else repr(value)
    return shortened(one_line(text), _MAX_SHOWN)


def quoted(key: str) -> str:
    """One part of a key as TOML writes it, on one line."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return key
    return '"' + one_line(key.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def one_line(text: str) -> str:
    """`text` with line breaks and all other white space as single spaces."""
    return " ".join(text.split())
