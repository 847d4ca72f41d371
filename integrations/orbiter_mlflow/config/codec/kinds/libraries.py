"""Configs of OmegaConf and ml_collections, and pydantic's secrets."""

import sys
from collections.abc import Mapping
from typing import Any

from orbiter_mlflow.config.codec.kinds.kind import Json, Kind, NotWholeError, never_read
from orbiter_mlflow.errors import UnreadableError

__all__ = ["LIBRARIES"]

_FLAGS = ("struct", "readonly")
_PLAIN_NODES = frozenset({"AnyNode", "DictConfig", "ListConfig"})


def _loaded(name: str) -> Any:
    if name not in sys.modules:
        raise UnreadableError(f"needs {name}: import {name} first")
    return sys.modules[name]


# -- OmegaConf -------------------------------------------------------------------------------------


def _omega_flags(value: Any) -> dict[str, Any] | None:
    """The flags set on it; None if there are none.

    Raises:
        NotWholeError: it is part of a larger config that its interpolations refer to, or it is
            structured, and only its dataclass could restore the types.
    """
    content = _omega_content(value)
    if value._get_parent() is not None and _interpolates(content):
        raise NotWholeError("part", content)
    flags = {name: flag for name in _FLAGS if (flag := value._get_flag(name)) is not None}
    others = {name for name, flag in (value._metadata.flags or {}).items() if flag is not None}
    if others.difference(_FLAGS) or not _is_plain_node(value, top=True):
        raise NotWholeError("structured", content)
    return flags or None


def _is_plain_node(node: Any, *, top: bool = False) -> bool:
    meta = node._metadata
    if type(node).__name__ not in _PLAIN_NODES or meta.ref_type is not Any:
        return False
    if not top and any(meta.flags.values() if meta.flags else ()):
        return False
    inner = node.__dict__.get("_content")
    if inner is None or isinstance(inner, str):
        return type(node).__name__ == "AnyNode" or isinstance(inner, str) or inner is None
    if meta.object_type not in (dict, list) or meta.element_type is not Any:
        return False
    return all(map(_is_plain_node, inner.values() if isinstance(inner, dict) else inner))


def _omega_content(node: Any) -> Any:
    """Its content as plain containers; interpolations stay text."""
    inner = node.__dict__.get("_content", node.__dict__.get("_val"))
    if type(node).__name__ == "DictConfig" and isinstance(inner, dict):
        return {key: _omega_content(item) for key, item in inner.items()}
    if type(node).__name__ == "ListConfig" and isinstance(inner, list):
        return [_omega_content(item) for item in inner]
    return inner


def _interpolates(content: Any) -> bool:
    if isinstance(content, dict):
        return any(map(_interpolates, content.values()))
    if isinstance(content, list):
        return any(map(_interpolates, content))
    return isinstance(content, str) and "${" in content


def _omega_items(value: Any) -> Mapping[Any, Any]:
    content = _omega_content(value)
    if not isinstance(content, dict):  # missing, None, or one interpolation
        raise NotWholeError("structured", content)
    return content


def _read_omega(flags: Any, content: Any) -> Any:
    made = _loaded("omegaconf").OmegaConf.create(content)
    for name, flag in (flags or {}).items():
        if name not in _FLAGS:
            raise ValueError(f"{name} is not a flag")
        made._set_flag(name, flag)
    return made


def _omega_list_items(value: Any) -> list[Any]:
    content = _omega_content(value)
    if not isinstance(content, list):
        raise NotWholeError("structured", content)
    return content


def _needs_omegaconf(payload: Json) -> list[str]:
    return ["omegaconf:"]


# -- ml_collections --------------------------------------------------------------------------------

_ML_DEFAULTS = {
    "_locked": False,
    "_type_safe": True,
    "_convert_dict": True,
    "_allow_dotted_keys": False,
    "_sort_keys": True,
}
_ML_APART = frozenset({"_fields", "_configdict", *_ML_DEFAULTS})


def _ml_settings(value: Any) -> dict[str, Any] | None:
    own = vars(value)
    if own.keys() - _ML_APART or _holds_reference(value):
        raise NotWholeError("part", dict(own["_fields"]))
    changed = {
        name[1:]: own[name]
        for name, default in _ML_DEFAULTS.items()
        if own.get(name, default) != default
    }
    return changed or None


def _holds_reference(value: Any) -> bool:
    return any(type(item).__name__ == "FieldReference" for item in vars(value)["_fields"].values())


def _ml_items(value: Any) -> Mapping[str, Any]:
    return dict(vars(value)["_fields"])


def _read_ml(settings: Any, items: Mapping[str, Any]) -> Any:
    made = _loaded("ml_collections").ConfigDict()
    return _filled(made, settings, items)


def _frozen_settings(value: Any) -> dict[str, Any] | None:
    return _ml_settings(vars(value)["_configdict"])


def _frozen_items(value: Any) -> Mapping[str, Any]:
    """The items it was made from; its own are tuples where these are lists."""
    return _ml_items(vars(value)["_configdict"])


def _read_frozen_ml(settings: Any, items: Mapping[str, Any]) -> Any:
    module = _loaded("ml_collections")
    inner = _filled(module.ConfigDict(), settings, items)
    made = module.FrozenConfigDict(inner)
    vars(made)["_configdict"] = inner  # it keeps a sorted copy
    return made


def _filled(made: Any, settings: Any, items: Mapping[str, Any]) -> Any:
    own = vars(made)
    own["_fields"].update(items)
    for name, value in (settings or {}).items():
        if f"_{name}" not in _ML_DEFAULTS:
            raise ValueError(f"{name} is not a setting")
        own[f"_{name}"] = value
    return made


def _needs_ml(payload: Json) -> list[str]:
    return ["ml_collections:"]


# -- pydantic --------------------------------------------------------------------------------------


def _secret(value: Any) -> Any:
    raise NotWholeError("secret")


_SECRET = Kind("$secret", _secret, never_read)

LIBRARIES: dict[str, Kind] = {
    "omegaconf.dictconfig:DictConfig": Kind(
        "$omegaconf",
        _omega_flags,
        _read_omega,
        names=_needs_omegaconf,
        items=_omega_items,
    ),
    "omegaconf.listconfig:ListConfig": Kind(
        "$omegaconf.list",
        _omega_flags,
        lambda flags, content: _read_omega(flags, list(content)),
        names=_needs_omegaconf,
        items=_omega_list_items,
    ),
    "ml_collections.config_dict.config_dict:ConfigDict": Kind(
        "$ml_collections", _ml_settings, _read_ml, names=_needs_ml, items=_ml_items
    ),
    "ml_collections.config_dict.config_dict:FrozenConfigDict": Kind(
        "$ml_collections.frozen",
        _frozen_settings,
        _read_frozen_ml,
        names=_needs_ml,
        items=_frozen_items,
    ),
    "pydantic.types:SecretStr": _SECRET,
    "pydantic.types:SecretBytes": _SECRET,
}
"""Name of the exact class -> kind."""
