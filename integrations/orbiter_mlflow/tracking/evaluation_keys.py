"""The data of a run: its dataset inputs, and the prefix of metric keys that belongs to each.

The data decide, not the moment: a prefix that an evaluation has used stands for its data as long
as the run lives, and a tag says which data that is.
"""

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from hashlib import sha256
from itertools import count
from typing import Any, NamedTuple

from orbiter.train.hooks import quiet_logger
from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Dataset, Record, Tags
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.text.shortening import json_within
from orbiter_mlflow.text.values import type_name
from orbiter_mlflow.tracking.datasets import DatasetInfo, describe
from orbiter_mlflow.tracking.metric_sources import path_of

_logger = quiet_logger(__name__)

_LONGEST_PREFIX = 120
"""Characters: a key must have room for what follows."""
_LONGEST_NAME = 100
"""Characters of the name of data in the tag."""

Parts = tuple[str | int, ...]
"""The parts of a prefix: `("eval",)`, `("eval", "hard")`, `("eval", 2)`."""


class Evaluation(NamedTuple):
    """An evaluation: the prefix of its keys, and the step it belongs to."""

    prefix: Parts
    step: int


class _Data(NamedTuple):
    """Described data, and an identity that only equal data share."""

    info: DatasetInfo
    identity: str


# The evaluations that this task or thread is inside of. Concurrent ones must not mix their steps.
_under_way: ContextVar[tuple[tuple["RunData", Evaluation], ...]] = ContextVar(
    "orbiter_evaluations", default=()
)


class RunData:
    """The data that a run is checked with and evaluated on.

    Args:
        redactor: takes the secrets out of names, sources and schemas.
        eval_names: names for data, by their digest or by their own name.
    """

    def __init__(self, redactor: Redactor, eval_names: Mapping[str, str]) -> None:
        self._redactor = redactor
        self._names = eval_names
        self._prefixes = Prefixes()
        self._objects = Objects()
        self._train: _Data | None = None
        self._checked: _Data | None = None
        self._logged: dict[Dataset, None] = {}
        self._table: dict[str, dict[str, str]] = {}

    def checked(self, train_data: Any, test_data: Any) -> list[Record]:
        """The dataset inputs of a check; an evaluation without data is one on `test_data`."""
        self._train = self._described(train_data, names.TRAIN)
        self._checked = self._described(test_data, names.EVAL)
        return [*self._inputs(self._train), *self._inputs(self._checked)]

    def known(self) -> list[Record]:
        """The records about data so far, for another run that goes on with these data."""
        records: list[Record] = list(self._logged)
        if self._table:
            records.append(self._table_tag())
        return records

    def _table_tag(self) -> Tags:
        return Tags({names.EVALUATED_DATA: json_within(self._table, names.MAX_DATA_TAG)})

    def started(self, data: Any, step: int) -> list[Record]:
        """An evaluation on `data` (None for those of the checks) starts at `step`."""
        prefix, records = self.prefix(data)
        _under_way.set((*_under_way.get(), (self, Evaluation(prefix, step))))
        return records

    def ended(self) -> Evaluation | None:
        """The evaluation that ends here; None if its start was not reported."""
        under_way = _under_way.get()
        for at in reversed(range(len(under_way))):
            run, evaluation = under_way[at]
            if run is self:
                _under_way.set((*under_way[:at], *under_way[at + 1 :]))
                return evaluation
        return None

    def prefix(self, data: Any) -> tuple[Parts, list[Record]]:
        """The prefix of keys measured on `data` (None for those of the checks), and what is new."""
        found = self._checked if data is None else self._described(data, names.EVAL)
        if found is None:
            return (names.EVAL,), []
        info, identity = found
        is_main = self._checked is not None and identity == self._checked.identity
        parts = self._prefixes.of(identity, self._name(found), is_main=is_main)
        records, path = self._inputs(found), path_of(parts)
        if path not in self._table:
            self._table[path] = {
                "name": info.record.name[:_LONGEST_NAME],
                "digest": info.record.digest,
            }
            records.append(self._table_tag())
            if not is_main and not info.certain and info.own_name is None:
                _logger.warning(
                    "data of type %s cannot be told from others by their contents: the metrics of "
                    "this object go to %s/...; give it a `name`, which others may share",
                    type_name(data),
                    path,
                )
        return parts, records

    def _name(self, data: _Data) -> str | None:
        """The name in the keys of data that are not those of the checks."""
        own = data.info.own_name
        name = self._names.get(data.info.record.digest) or self._names.get(own or "") or own
        if name is None and self._train is not None and data.identity == self._train.identity:
            return names.TRAIN
        return None if name is None else self._redactor.text(name)

    def _inputs(self, data: _Data | None) -> list[Record]:
        """The dataset input, the first time."""
        if data is None or data.info.record in self._logged:
            return []
        self._logged[data.info.record] = None
        return [data.info.record]

    def _described(self, data: Any, context: str) -> _Data | None:
        info = describe(data, role=context, redact=self._redactor.text)
        if info is None:
            return None
        return _Data(info, self._objects.identity(data, info))


class Prefixes:
    """Binds prefixes of metric keys to data, each for the life of a run.

    The data of the checks have `eval`; others `eval/<name>`, else `eval/<number>` from 2 on, in the
    order in which they come. Others of a name that is taken are numbered behind it.
    """

    def __init__(self) -> None:
        self._main: str | None = None
        self._bound: dict[tuple[str | None, str], Parts] = {}
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def of(self, identity: str, name: str | None, *, is_main: bool) -> Parts:
        """The parts of the prefix of the data known as `identity`.

        `is_main` says that they are those of the checks. Data that were so when they were first
        evaluated on keep the prefix.
        """
        with self._lock:
            if is_main and self._main is None:
                self._main = identity
            if identity == self._main:
                return (names.EVAL,)
            bound = self._bound.get((name, identity))
            if bound is None:
                bound = next(one for one in _candidates(name) if path_of(one) not in self._taken)
                self._taken.add(path_of(bound))
                self._bound[name, identity] = bound
            return bound


def _candidates(name: str | None) -> Iterator[Parts]:
    base: Parts = (names.EVAL,)
    if name is not None:
        base = (names.EVAL, _short(name))
        yield base
    yield from ((*base, number) for number in count(2))


def _short(name: str) -> str:
    """`name`, or where its escaped form is too long the start of it and a checksum."""
    if len(path_of((name,))) <= _LONGEST_PREFIX:
        return name
    return f"{name[:12]}-{sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:16]}"


class Objects:
    """Tells data apart: by digest where they were read, else by name, else by the object itself."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._known: dict[int, tuple[str, Any]] = {}

    def identity(self, data: Any, info: DatasetInfo) -> str:
        """An identity that only equal data share."""
        if info.certain:
            return info.record.digest
        if info.own_name is not None:
            return f"{info.record.digest} {info.own_name}"
        identity, held = self._known.get(id(data), ("", None))
        if held is data or (isinstance(held, weakref.ref) and held() is data):
            return identity
        try:
            held = weakref.ref(data)
        except TypeError:  # kept alive instead: its id must not be given to another
            held = data
        identity = f"{info.record.digest} #{next(self._numbers)}"
        self._known[id(data)] = identity, held
        return identity
