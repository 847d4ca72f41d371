"""Describe the data of a training for MLflow: name, digest, size, schema.

This never consumes an iterator, asks a lazy dataset for an item, takes long, or raises; and it
says how much of the data the digest has seen.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePath
from typing import Any, NamedTuple

from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Dataset
from orbiter_mlflow.text.values import tag_value, type_name
from orbiter_mlflow.tracking.fingerprint import Column, Fingerprint, columns_of

__all__ = ["DatasetInfo", "describe"]

_MAX_COLUMNS = 1000
_NAMES = {names.TRAIN: "train_data", names.EVAL: "test_data"}
_MOST = {"source": 65535, "source_type": 65535, "schema": 1048575, "profile": 1048575}
"""Characters (mlflow/utils/validation.py, 3.17)."""
_MLFLOW_TYPES = {
    "bool": "boolean",
    "boolean": "boolean",
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "int64": "long",
    "float32": "float",
    "float64": "double",
    "str": "string",
    "string": "string",
    "datetime": "datetime",
    "datetime64": "datetime",
}


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Data as MLflow records them, and how far they can be told from others.

    Attributes:
        record: name, digest, source, schema and size, within MLflow's limits.
        certain: the digest has seen every object in the data, so that other data most likely have
            another one.
        own_name: the name that the data have of their own; None if they were named by their role.
    """

    record: Dataset
    certain: bool
    own_name: str | None


def describe(
    data: Any, *, role: str, redact: Callable[[str], str] = lambda text: text
) -> DatasetInfo | None:
    """Describe `data`; None for None.

    Args:
        data: the argument of `check_dataset` or `evaluate`. The `name` of the data is used if it is
            text. Data with a digest of their own (datasets of MLflow and Hugging Face) keep it.
        role: the context that MLflow shows, `train` or `eval`; it names data without a name.
        redact: takes the secrets out of a text.
    """
    if data is None:
        return None
    own_name = (_text_attribute(data, "name") or "")[: names.MAX_DATASET_NAME] or None
    own = _own_description(data)
    digest, rows, how_much, certain = _own_digest(own, data) or _read(data)
    size = {} if rows is None else {"num_rows": rows}
    record = Dataset(
        name=redact(own_name or _NAMES.get(role, f"{role}_data")),
        digest=digest,
        source_type=own.get("source_type", "code"),
        source=redact(own.get("source", json.dumps({"tags": {"type": type_name(data)[:1000]}}))),
        schema=redact(own.get("schema") or _schema(data)),
        profile=redact(own.get("profile") or json.dumps(size | {"digest": how_much})),
        context=role,
    )
    return DatasetInfo(record, certain, None if own_name is None else redact(own_name))


class _Reading(NamedTuple):
    digest: str
    rows: int | None
    how_much: str
    certain: bool = True


def _own_digest(own: Mapping[str, str], data: Any) -> _Reading | None:
    """The digest that data bring along: MLflow's, or the fingerprint of Hugging Face."""
    digest = own.get("digest") or _text_attribute(data, "_fingerprint")
    if digest is None:
        return None
    if not re.fullmatch(rf"[\w\-]{{1,{names.MAX_DATASET_DIGEST}}}", digest):
        digest = _hash(digest)
    return _Reading(digest, _length(data), "its own")


def _read(data: Any) -> _Reading:
    try:
        found: Fingerprint | None = Fingerprint(data)
    except Exception:  # data that change while they are read, a broken frame
        found = None
    rows = found.rows if found else None
    if found is None or (found.by_type_only and (rows is None or rows.read == 0)):
        length = rows.total if rows else _length(data)
        digest = _hash(f"{type_name(data)} {length} {found.digest if found else ''}")
        return _Reading(digest, length, "length and type only", certain=False)
    if isinstance(data, str | PurePath):
        how_much = "text only"  # most likely an address: what lies there was not read
    elif rows is not None and rows.read < rows.total:
        how_much = f"sample of {rows.read} of {rows.total} rows"
    else:
        how_much = "long parts sampled" if found.sampled else "all"
    if found.by_type_only:
        how_much += "; some objects by type only"
    return _Reading(found.digest, rows and rows.total, how_much, not found.by_type_only)


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _text_attribute(data: Any, name: str) -> str | None:
    """An attribute of the data, if it has it and it is text."""
    try:
        value = getattr(data, name, None)
    except Exception:
        return None
    return tag_value(str.__str__(value)) or None if isinstance(value, str) else None


def _own_description(data: Any) -> dict[str, str]:
    """What a dataset of MLflow, or one that looks like it, says of itself."""
    digest = _text_attribute(data, "digest")
    if digest is None or _text_attribute(data, "name") is None:
        return {}
    own = {"digest": digest}
    if any(base.__module__.startswith("mlflow.data") for base in type(data).__mro__):
        try:
            texts = {key: text for key, text in data.to_dict().items() if isinstance(text, str)}
        except Exception:
            return own
        fitting = {key: texts[key] for key in texts.keys() & _MOST if len(texts[key]) <= _MOST[key]}
        if not {"source", "source_type"} <= fitting.keys():  # neither means anything alone
            fitting = {key: fitting[key] for key in fitting.keys() & {"schema", "profile"}}
        own |= fitting
    return own


def _length(data: Any) -> int | None:
    if isinstance(data, str | bytes):  # a path or an address, whose length says nothing
        return None
    try:
        return len(data)
    except Exception:
        return None


def _schema(data: Any) -> str:
    try:
        columns = columns_of(data)
        if columns is not None:
            return json.dumps({"mlflow_colspec": [_column(one) for one in columns[:_MAX_COLUMNS]]})
        features, targets = data if type(data) is tuple and len(data) == 2 else (data, None)
        if _is_array(features) and (targets is None or _is_array(targets)):
            specs = {
                "features": _tensors(features),
                "targets": None if targets is None else _tensors(targets),
            }
            return json.dumps({"mlflow_tensorspec": specs})
    except Exception:
        return ""
    return ""


def _column(column: Column) -> dict[str, object]:
    plain = re.split(r"[\[(]", column.dtype.lower())[0]
    kind = _MLFLOW_TYPES.get(plain, column.dtype)
    return {"type": kind, "name": str(column.name), "required": True}


def _is_array(data: Any) -> bool:
    """Whether this is an array of numpy or torch; its shape says what is in it."""
    return type(data).__module__.partition(".")[0] in ("numpy", "torch") and hasattr(data, "dtype")


def _tensors(array: Any) -> str:
    dtype = str(array.dtype).removeprefix("torch.")
    spec = {"dtype": dtype, "shape": [-1, *array.shape[1:]] if array.shape else []}
    return json.dumps([{"type": "tensor", "tensor-spec": spec}])
