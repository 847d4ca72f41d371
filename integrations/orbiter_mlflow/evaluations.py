"""Which metric keys an evaluation gets: two of different data at one step must not share any."""

from orbiter_mlflow import names


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
