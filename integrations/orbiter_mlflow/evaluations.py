"""The data of a run: its dataset inputs, and which metric keys an evaluation of which data gets."""

from dataclasses import replace
from typing import Any, NamedTuple

from orbiter_mlflow import names
from orbiter_mlflow.datasets import describe
from orbiter_mlflow.delivery.records import Dataset
from orbiter_mlflow.redact import Redactor


class _Data(NamedTuple):
    """What tells the data of an evaluation from others."""

    identity: str
    name: str | None
    kept: Any = None
    """The data, where only the object tells them apart: its id must not be given to another."""


_NO_DATA = _Data("", None)


class RunData:
    """The data that one run is checked with and evaluated on.

    Args:
        redactor: takes the secrets out of what the data say of themselves.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._keys = EvaluationKeys()
        self._checked = _NO_DATA
        self._evaluated: dict[int, _Data] = {}
        self._step = 0

    def checked(self, train_data: Any, test_data: Any) -> list[Dataset]:
        """The dataset inputs of a check."""
        train, _ = self._described(train_data, names.TRAIN)
        test, self._checked = self._described(test_data, names.EVAL)
        return train + test

    def evaluation_started(self, test_data: Any, step: int) -> list[Dataset]:
        """The dataset inputs of an evaluation at `step`; its data are those checked, for None."""
        if step != self._step:
            self._step, self._evaluated = step, {}
        if test_data is None:
            return []
        found, self._evaluated[id(test_data)] = self._described(test_data, names.EVAL)
        return found

    def prefix(self, test_data: Any, step: int) -> tuple[str | int, ...]:
        """The parts of the key prefix of an evaluation that was started on these data."""
        data = self._evaluated.get(id(test_data), self._checked)
        return self._keys.prefix(data.identity, data.name, step)

    def _described(self, data: Any, context: str) -> tuple[list[Dataset], _Data]:
        info = describe(data, role=context)
        if info is None:
            return [], _NO_DATA
        redact, record = self._redactor.text, info.record
        record = replace(
            record,
            name=redact(record.name),
            source=redact(record.source),
            schema=redact(record.schema),
            profile=redact(record.profile),
        )
        name = None if info.given_name is None else redact(info.given_name)
        kept = None if info.identity == info.digest else data
        return [record], _Data(info.identity, name, kept)


class EvaluationKeys:
    """Gives each evaluation of a run its key prefix.

    Data with a name go to `eval/<name>`, other data to `eval`. A second set of data at the same
    step is numbered: `eval/2`. Data that were numbered once keep their number at later steps where
    it is free, so that a curve stays the curve of the same data.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[str, ...], str], int] = {}
        self._step: int | None = None
        self._taken: dict[tuple[tuple[str, ...], int], str] = {}

    def prefix(self, data: str, name: str | None, step: int) -> tuple[str | int, ...]:
        """The parts of the key prefix of an evaluation at `step` of the data known as `data`."""
        if step != self._step:
            self._step, self._taken = step, {}
        base = (names.EVAL,) if name is None else (names.EVAL, name)
        number = self._known.get((base, data), 1)
        while self._taken.get((base, number), data) != data:
            number += 1
        self._taken[base, number] = data
        self._known[base, data] = number
        return base if number == 1 else (*base, number)
