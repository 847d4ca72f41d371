"""The params of a config as one nested JSON object, and back.

The object has the config's own names, shape and order, with the codec's markers for what JSON
lacks. An object that is one param, though it could be several, is wrapped: `{"$leaf": {...}}`.
"""

from collections.abc import Iterable, Mapping

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.flatten import is_key
from orbiter_mlflow.config.codec.json_text import Json, parse, to_text
from orbiter_mlflow.config.codec.kinds.scalars import SCALARS
from orbiter_mlflow.config.codec.markers import LEAF, is_marker
from orbiter_mlflow.config.codec.splitting import join_values
from orbiter_mlflow.config.codec.tree import (
    NO_OBJECT,
    Node,
    Order,
    in_order,
    is_sorted,
    read_order,
    tree,
)
from orbiter_mlflow.errors import ConfigError, UnreadableError

__all__ = ["from_document", "to_document"]


def to_document(params: Mapping[str, str], fields: Iterable[str] = ()) -> dict[str, Json]:
    """The params as one object; `from_document` is the inverse.

    Args:
        params: the params of one config, as `encode_config` gives them.
        fields: names that come first, in this order; all others follow by name.

    Raises:
        ConfigError: naming all params that cannot be read, or contradict each other.
    """
    problems: dict[str, str] = {}
    nodes = tree((key.split("."), text) for key, text in join_values(params).items()).children
    keys: Order = {}
    if names.KEY_ORDER in nodes:
        try:
            keys = read_order(nodes.pop(names.KEY_ORDER).text)
        except UnreadableError as error:
            problems[names.KEY_ORDER] = str(error)
    order = [name for name in dict.fromkeys(fields) if name in nodes]
    order += sorted(nodes.keys() - set(order))
    document = {name: _object(nodes[name], name, problems, keys) for name in order}
    if problems:
        raise ConfigError("the config", problems)
    return document


def _object(node: Node, path: str, problems: dict[str, str], order: Order) -> Json:
    own: Json = {}
    if node.text is not None:
        try:
            own = parse(node.text)
        except UnreadableError as error:
            problems[path] = str(error)
            return None
    if not node.children:
        apart = type(own) is dict and any(key == LEAF or is_key(key, len(path)) for key in own)
        return {LEAF: own} if apart else own
    if type(own) is not dict:
        problems[path] = NO_OBJECT
        return None
    for key in sorted(node.children):
        if key in own:
            problems[f"{path}.{key}"] = f"is there twice, also inside {path}"
        own[key] = _object(node.children[key], f"{path}.{key}", problems, order)
    return in_order(own, order.get(path))


def from_document(document: Mapping[str, Json]) -> dict[str, str]:
    """The params that `to_document` gives this object for; long ones are not split.

    Raises:
        ConfigError: naming all values that JSON lacks, such as a date or NaN in YAML.
    """
    params: dict[str, str] = {}
    problems: dict[str, str] = {}
    order: dict[str, list[str]] = {}
    for name, value in document.items():
        if type(name) is str:
            _flatten(name, value, params, problems, order)
        else:
            problems[str(name)] = "is the name of a field, but no string: put it in quotes"
    if problems:
        raise ConfigError("the config", problems)
    if order:
        params[names.KEY_ORDER] = to_text(order)
    return params


def _flatten(
    path: str,
    value: Json,
    params: dict[str, str],
    problems: dict[str, str],
    order: dict[str, list[str]],
) -> None:
    if type(value) is not dict or value.keys() == {LEAF}:
        whole = value[LEAF] if type(value) is dict else value
        _check(whole, path, problems)
        params[path] = "" if problems else to_text(whole)
        return
    below = {key: item for key, item in value.items() if is_key(key, len(path))}
    rest = {key: item for key, item in value.items() if key not in below}
    if rest or not below:
        _check(rest, path, problems)
        params[path] = "" if problems else to_text(rest)
    keys = [key for key in value if type(key) is str and not is_marker(key)]
    if below and not is_sorted(keys):
        order[path] = keys
    for key, item in below.items():
        _flatten(f"{path}.{key}", item, params, problems, order)


def _check(value: Json, path: str, problems: dict[str, str]) -> None:
    """Note each value that is not JSON, but not the value itself: it may be a secret."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is str:
                _check(item, f"{path}.{key}", problems)
            else:
                problems[f"{path}.{key}"] = "has a key that is no string: put it in quotes"
    elif kind is list:
        for number, item in enumerate(value):
            _check(item, f"{path}[{number}]", problems)
    elif kind is float and value - value != 0.0:
        marker = SCALARS[float].marker
        problems[path] = f'is not finite: write {{"{marker}": "inf"}}, "-inf" or "nan"'
    elif kind not in (str, int, float, bool, type(None)):
        problems[path] = f"is a {kind.__name__}, which JSON lacks: a string goes in quotes"
