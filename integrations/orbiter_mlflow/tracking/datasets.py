"""Describes the data of a training for MLflow: name, digest, size, schema.

It never consumes an iterator, asks a lazy dataset for an item, or takes long; and it says how much
of the data its digest has seen. It survives whatever it is handed.
"""

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePath
from typing import Any

from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Dataset
from orbiter_mlflow.text.values import tag_value, type_name
from orbiter_mlflow.tracking.fingerprint import Column, Contents, columns_of

__all__ = ["DatasetInfo", "describe"]

_MAX_COLUMNS = 1000
_NAMES = {names.TRAIN: "train_data", names.EVAL: "test_data"}
_MAX_SOURCE = 65535
_MAX_SCHEMA = 1048575
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
    """What MLflow is told of data. All texts are within its limits."""

    name: str
    digest: str
    """Equal for equal data, in each process; at most `names.MAX_DATASET_DIGEST` characters."""
    source_type: str
    source: str
    """JSON."""
    schema: str
    """JSON as MLflow writes it for frames and arrays; empty for other data."""
    profile: str
    """JSON: `num_rows` where that is known, and in `digest` how much of the data was read."""
    context: str
    certain: bool
    """The digest has seen all objects in the data: others would most likely have another one."""
    given_name: str | None
    """`name` where the data have one of their own."""

    @property
    def record(self) -> Dataset:
        """As the journal keeps it."""
        return Dataset(
            name=self.name,
            digest=self.digest,
            source_type=self.source_type,
            source=self.source,
            schema=self.schema,
            profile=self.profile,
            context=self.context,
        )


def describe(data: Any, *, role: str) -> DatasetInfo | None:
    """Describe `data`; None for None.

    Args:
        data: whatever was given to `check_dataset` or `evaluate`. The `name` of the data is used
            if it is text; data that bring a digest of their own (datasets of MLflow and of Hugging
            Face) keep it.
        role: the context that MLflow shows, `train` or `eval`; it names data without a name.
    """
    if data is None:
        return None
    given_name = (_text_attribute(data, "name") or "")[: names.MAX_DATASET_NAME] or None
    told = _own_description(data)
    seen = _own_digest(told.get("digest"), data) or _read(data)
    size = {} if seen.rows is None else {"num_rows": seen.rows}
    return DatasetInfo(
        name=given_name or _NAMES.get(role, f"{role}_data"),
        digest=seen.digest,
        source_type=told.get("source_type", "code"),
        source=told.get("source", json.dumps({"tags": {"type": type_name(data)[:1000]}})),
        schema=told.get("schema") or _schema(data),
        profile=told.get("profile") or json.dumps({**size, "digest": seen.how_much}),
        context=role,
        certain=seen.certain,
        given_name=given_name,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """A digest, and what it has seen of the data."""

    digest: str
    rows: int | None
    how_much: str
    certain: bool = True
    """No object was passed over: other data would most likely have another digest."""


def _own_digest(digest: str | None, data: Any) -> _Seen | None:
    """The digest that the data bring along: MLflow's, or the fingerprint of Hugging Face."""
    digest = digest or _text_attribute(data, "_fingerprint")
    if digest is None:
        return None
    if not re.fullmatch(rf"[\w\-]{{1,{names.MAX_DATASET_DIGEST}}}", digest):
        digest = _hash(digest)
    return _Seen(digest, _length(data), "its own")


def _read(data: Any) -> _Seen:
    try:
        contents: Contents | None = Contents(data)
    except Exception:  # data that change while they are read, a broken frame
        contents = None
    rows = None if contents is None else contents.rows
    if contents is None or (contents.unread and (rows is None or rows.read == 0)):
        length = rows.total if rows else _length(data)
        digest = contents.digest if contents else ""
        digest = _hash(f"{type_name(data)} {length} {digest}")
        return _Seen(digest, length, "length and type only", certain=False)
    if isinstance(data, str | PurePath):
        how_much = "text only"  # an address, most likely: what lies there was not read
    elif rows is not None and rows.read < rows.total:
        how_much = f"sample of {rows.read} of {rows.total} rows"
    else:
        how_much = "long parts sampled" if contents.sampled else "all"
    if contents.unread:
        how_much += "; some objects by type only"
    return _Seen(contents.digest, rows.total if rows else None, how_much, not contents.unread)


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
    told = {"digest": digest}
    if any(base.__module__.startswith("mlflow.data") for base in type(data).__mro__):
        try:
            texts = {key: text for key, text in data.to_dict().items() if isinstance(text, str)}
        except Exception:
            return told
        if {"source", "source_type"} <= texts.keys() and len(texts["source"]) <= _MAX_SOURCE:
            told |= {key: texts[key] for key in ("source", "source_type")}
        told |= {
            key: text
            for key, text in texts.items()
            if key in ("schema", "profile") and len(text) <= _MAX_SCHEMA
        }
    return told


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
