"""A logged config as JSON, YAML or Python that people read and edit, and back.

JSON and YAML hold the same nested object, with the codec's markers for types they lack; Python is a
program that reads that JSON. Writing needs no class of the config.
"""

import json
import keyword
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import yaml

from orbiter_mlflow.config.codec.classes import class_name
from orbiter_mlflow.config.codec.document import from_document, to_document
from orbiter_mlflow.config.codec.json_text import Json
from orbiter_mlflow.config.codec.markers import is_marked
from orbiter_mlflow.config.codec.marking import named_in
from orbiter_mlflow.config.encoding import config_from_params
from orbiter_mlflow.errors import ConfigError
from orbiter_mlflow.text.escaping import in_json

__all__ = ["config_from_text", "json_text", "python_text", "yaml_text"]

T = TypeVar("T")

# Characters that a terminal may act on, or that are lost in a file.
_ESCAPED = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_WIDTH = 88
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f]")
_LOOKS_LIKE_NUMBER = re.compile(r"[-+.0-9]")
"""`1e-05` is a string in YAML 1.1 and a number in YAML 1.2; quoted, it is a string in both."""
_BLOCK = re.compile(r"[^\s](?:[^\n]*[^\s])?(?:\n+[^\n]*[^\s])*\n?")
"""Lines that a YAML block keeps: none ends with a space, and the first does not start with one."""


def config_from_text(
    text: str,
    config_type: type[T],
    *,
    format: Literal["json", "yaml"] = "json",  # noqa: A002  as the command calls it
) -> T:
    """The config that `orbiter-mlflow reproduce` printed, perhaps edited.

    Classes named in the text are not imported: import the modules that define them first.

    Args:
        text: the JSON or YAML.
        config_type: the config's class.
        format: the format of the text; YAML is read by the safe loader.

    Raises:
        ConfigError: the text is not of that format; or names all fields that are missing, unknown,
            unreadable, redacted, or logged as text only.
        TypeError: `config_type` is no dataclass.
    """
    try:
        document = _read(text, format)
        return config_from_params(from_document(document), config_type)
    except ConfigError as error:
        raise ConfigError(class_name(config_type), error.problems) from error


def _read(text: str, form: str) -> dict[str, Json]:
    problem = "is not an object"
    document: Any = None
    try:
        document = json.loads(text) if form == "json" else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg}, line {error.lineno}, column {error.colno}"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        problem = f"is not YAML: {error.problem or error.context}{place}"
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        problem = f"cannot be read: {type(error).__name__}"
    if type(document) is not dict:
        raise ConfigError("the config", {"the text": problem})
    return document


def json_text(params: Mapping[str, str], fields: Iterable[str] = ()) -> str:
    """The config of these params as JSON.

    Args:
        params: the config's own.
        fields: names that come first, in this order.

    Raises:
        ConfigError: the params contradict each other or cannot be read.
    """
    return _json(to_document(params, fields))


def _json(document: dict[str, Json]) -> str:
    return f"{_escape(_lines(document, 0))}\n"


def _lines(value: Json, indent: int) -> str:
    """As `json.dumps` indents, but a list or a marker that fits on a line takes one."""
    short = json.dumps(value, ensure_ascii=False, allow_nan=False)
    inline = type(value) is list or (is_marked(value) and len(value) == 1)
    if type(value) not in (list, dict) or not value or (inline and indent + len(short) <= _WIDTH):
        return short
    margin = " " * (indent + 2)
    if type(value) is list:
        items = [f"{margin}{_lines(item, indent + 2)}" for item in value]
    else:
        items = [
            f"{margin}{json.dumps(key, ensure_ascii=False)}: {_lines(item, indent + 2)}"
            for key, item in value.items()
        ]
    start, end = "[]" if type(value) is list else "{}"
    return "{}\n{}\n{}{}".format(start, ",\n".join(items), " " * indent, end)


def _escape(text: str) -> str:
    return in_json(_ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def yaml_text(params: Mapping[str, str], fields: Iterable[str] = ()) -> str:
    """The config of these params as YAML; texts of several lines are blocks.

    Arguments and errors are those of `json_text`.
    """
    document = to_document(params, fields)
    text: str = yaml.dump(
        document, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=1 << 30
    )
    return _escape(text)  # such characters are always in double quotes, which take escapes


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if _escape(text) != text or _CONTROLS.search(text) or _LOOKS_LIKE_NUMBER.match(text):
        style = '"'
    elif "\n" in text:
        style = "|" if _BLOCK.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(dumper: yaml.SafeDumper, items: list[Json]) -> yaml.SequenceNode:
    """In one line where the items are: `[1, 2]`."""
    flow = all(type(item) not in (list, dict) and "\n" not in str(item) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flow)


_Dumper.add_representer(str, _represent_str)
_Dumper.add_representer(list, _represent_list)


def python_text(params: Mapping[str, str], config_type: str, fields: Iterable[str] = ()) -> str:
    """A program that makes the config of these params, under the name `config`.

    Args:
        params: the config's own.
        config_type: its class, as `module:qualname`; the program imports it.
        fields: names that come first, in this order.

    Raises:
        ConfigError: the params contradict each other or cannot be read, or name a class that
            cannot be imported by that name.
    """
    document = to_document(params, fields)
    module, qualname = _importable(config_type)
    # In JSON a quote stands only in strings, where it may be escaped.
    text = _json(document).replace("'''", "\\u0027" * 3)
    outer = qualname.partition(".")[0]
    modules = {*_modules(document)}
    lines = [f"import {name}" for name in sorted(modules - {module})]
    if "__main__" in {module, *modules}:
        lines.insert(0, "# Put this into the script that was run: only it has the classes.")
    imports = (f"from {module} import {outer}", "from orbiter_mlflow import config_from_text")
    lines += sorted(imports)
    return "\n".join((*lines, "", f"config = config_from_text(r'''{text}''', {qualname})", ""))


def _importable(name: object) -> tuple[str, str]:
    """Module and qualname. They go into a program: nothing but names may get there."""
    module, _, qualname = name.partition(":") if type(name) is str else ("", "", "")
    parts = [*module.split("."), *qualname.split(".")]
    if all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        return module, qualname
    raise ConfigError("the config", {f"{name}": "is no class that can be imported by its name"})


def _modules(document: Json) -> Iterator[str]:
    """The modules of the classes and functions that the config names."""
    for name in named_in(document):
        yield _importable(f"{name}x" if name.endswith(":") else name)[0]
