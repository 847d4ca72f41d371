"""A config as MLflow params, and back.

`config_to_params` and `config_from_params` are inverse: configs that differ in anything, even in
the type of a number, have different params. A value that cannot come back, and every secret, is
shown, listed and refused on reading: the result is never silently wrong.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from typing import Any, TypeVar

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.classes import class_name
from orbiter_mlflow.config.codec.flatten import flatten_config
from orbiter_mlflow.config.codec.hints import ANY, hints_of
from orbiter_mlflow.config.codec.json_text import Json, parse, to_text
from orbiter_mlflow.config.codec.markers import JSON, MORE, REDACTED, TEXT, is_marker
from orbiter_mlflow.config.codec.marking import read_state
from orbiter_mlflow.config.codec.reading import At, Checked, Reading, is_text, read_node
from orbiter_mlflow.config.codec.rebuild import rebuild
from orbiter_mlflow.config.codec.redact import redact_config
from orbiter_mlflow.config.codec.splitting import join_values, split_value
from orbiter_mlflow.config.codec.tree import Node, read_order, tree
from orbiter_mlflow.config.tags import params_digest
from orbiter_mlflow.errors import ConfigError, UnreadableError
from orbiter_mlflow.redaction.redactor import Redactor

__all__ = ["CODEC_VERSION", "ConfigError", "EncodedConfig", "config_from_params"]
__all__ += ["config_to_params", "encode_config", "join_values", "own_params", "params_digest"]
__all__ += ["read_config", "split_value"]

CODEC_VERSION = "2"
"""Version of the encoding. 2 keeps the order of dicts and the whole state of an instance."""
READABLE = frozenset({"1", CODEC_VERSION})
"""Versions that this module reads; it may misread the params of another one."""

_logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedConfig:
    """A config as it is logged.

    Attributes:
        params: key -> value, within MLflow's limits on both.
        fields: names of the config's fields, and of its attributes besides; params with other names
            are not ours.
        unencodable: path of a value that is kept as text and cannot be loaded back -> the reason,
            and what to do instead.
        redacted: paths of secrets; `[]` stands for any item of a list.
    """

    params: dict[str, str]
    fields: tuple[str, ...]
    unencodable: Mapping[str, str] = field(default_factory=dict)
    redacted: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """`params_digest` of the params."""
        return params_digest(self.params)


def config_to_params(config: object, *, redact: Sequence[str] = ()) -> dict[str, str]:
    """The params of a config.

    Args:
        config: a `TrainConfig`, or any dataclass instance.
        redact: globs of further key names whose values are secrets.

    Raises:
        TypeError: `config` is no dataclass instance.
    """
    return encode_config(config, Redactor(tuple(redact))).params


def encode_config(config: object, redactor: Redactor | None = None) -> EncodedConfig:
    """The params of a config, with its fields, its secrets, and the values that cannot be encoded.

    Args:
        config: a `TrainConfig`, or any dataclass instance.
        redactor: decides what is a secret; `Redactor()` by default.

    Raises:
        TypeError: `config` is no dataclass instance; nothing else, whatever it holds.
    """
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"a config is a dataclass instance, not {type(config).__qualname__}")
    flat = flatten_config(config)
    redacted = redact_config(flat, redactor or Redactor())
    params: dict[str, str] = {}
    for path, text in redacted.texts.items():
        params.update(split_value(".".join(path), text, names.MAX_PARAM_VALUE))
    return EncodedConfig(params, flat.names, redacted.unencodable, redacted.redacted)


def config_from_params(params: Mapping[str, str], config_type: type[T]) -> T:
    """The config that was logged as these params.

    Its fields hold exactly the logged values, whatever a `__post_init__` would change. Classes
    named in the params are not imported: import the modules that define them first.

    Args:
        params: the config's own; `own_params` picks them from those of a run.
        config_type: the config's class.

    Raises:
        ConfigError: names all fields that are missing, unknown, unreadable, redacted, or logged
            as text only.
        TypeError: `config_type` is no dataclass.
    """
    reading = Checked()
    config = read_config(params, config_type, reading)
    for note in reading.construction_notes:
        _logger.warning("the config: %s", note)
    return config


def read_config(params: Mapping[str, str], config_type: type[T], reading: Reading) -> T:
    """The config that was logged as these params, as `reading` reads them.

    Raises:
        ConfigError: names everything that is wrong.
        TypeError: `config_type` is no dataclass.
    """
    if not is_dataclass(config_type):
        raise TypeError(f"the type of a config is a dataclass, not {config_type!r}")
    hints = hints_of(config_type)
    problems = reading.problems
    try:
        params = join_values(params)
    except ConfigError as error:
        problems |= error.problems
        params = {k: v for k, v in params.items() if names.piece_of(k)[0] not in problems}
    nodes = tree((key.split("."), text) for key, text in params.items()).children
    order, root = nodes.pop(names.KEY_ORDER, None), nodes.pop(names.CONFIG_ROOT, None)
    try:
        reading.order = read_order(None if order is None else order.text)
    except UnreadableError as error:
        problems[names.KEY_ORDER] = str(error)
    head, apart = _root_parts(root, problems)
    nodes |= apart
    more = head.get(MORE, [])
    reading.expect(nodes)
    values: dict[str, Any] = {}
    for name, node in nodes.items():
        if name in hints or name in more:
            values[name] = read_node(node, hints.get(name, ANY), name, reading)
        elif not reading.leaves_out(config_type, name):
            reading.unknown(config_type, name)
    for name in hints.keys() - values.keys():
        if name not in problems:
            reading.missing(config_type, name)
    if not problems:
        try:
            state = read_state(config_type, head, values, At(reading, names.CONFIG_ROOT))
            found: T = reading.rebuilt(rebuild(config_type, state))
            return found
        except UnreadableError as error:
            problems["the config"] = str(error)
    redact = Redactor().text
    raise ConfigError(
        class_name(config_type),
        {redact(path): redact(problems[path]) for path in sorted(problems)},
    )


def _root_parts(
    node: Node | None, problems: dict[str, str]
) -> tuple[dict[str, Json], dict[str, Node]]:
    """The parts of the config's own param: its head, and the fields that are no keys for MLflow."""
    if node is None:
        return {}, {}
    try:
        own = parse(node.text or "")
    except UnreadableError as error:
        own, problems[names.CONFIG_ROOT] = {}, str(error)
    if type(own) is not dict or node.children:
        problems[names.CONFIG_ROOT] = "is no object"
        return {}, {}
    head = {key: item for key, item in own.items() if is_marker(key)}
    if type(more := head.get(MORE, [])) is not list:
        problems[names.CONFIG_ROOT] = (
            is_text(more) if type(more) is dict and TEXT in more else "is malformed"
        )
        head = {}
    apart = {name: Node(to_text(_untyped(x))) for name, x in own.items() if name not in head}
    return head, apart


def _untyped(item: Json) -> Json:
    """Such a field is written, and so read, without its annotation; a secret stays as it is."""
    return item if type(item) is dict and REDACTED in item else {JSON: item}


def own_params(params: Mapping[str, str], fields: Iterable[str]) -> dict[str, str]:
    """The params of a run that belong to a config with these fields.

    Args:
        params: all params of the run; scripts may log others.
        fields: `EncodedConfig.fields`.
    """
    own = {*fields, names.CONFIG_ROOT, names.KEY_ORDER}
    return {key: text for key, text in params.items() if names.config_field(key) in own}
