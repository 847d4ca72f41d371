"""What a journal keeps at all costs: how the run ends, and what it is called and set to."""

from collections.abc import Iterator

from orbiter_mlflow.delivery.records import Close, Params, Record, Status, Tags, entry_size

_MOST = 1 << 15
"""Bytes of params and tags that wait in memory: half of the room that last words have."""


def is_last_word(record: Record) -> bool:
    """Whether a record tells how the run has ended."""
    return isinstance(record, Close) or (isinstance(record, Status) and record.end_time is not None)


class Unkept:
    """Params and tags that the disk did not take: the latest of each, to be tried again."""

    def __init__(self) -> None:
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._params or self._tags)

    def takes(self, record: Record) -> bool:
        """Remember a record; False where it is of another kind, or too much waits already."""
        if not isinstance(record, Params | Tags):
            return False
        size = sum(entry_size(key, text) for texts in self._both() for key, text in texts.items())
        size += sum(entry_size(key, text) for key, text in record.values.items())
        if size > _MOST:
            return False
        self._of(record).update(record.values)
        return True

    def forget(self, record: Record) -> None:
        """These were kept, or later values of them."""
        if self and isinstance(record, Params | Tags):
            for key in record.values:
                self._of(record).pop(key, None)

    def records(self) -> Iterator[Params | Tags]:
        """What waits."""
        if self._params:
            yield Params(dict(self._params))
        if self._tags:
            yield Tags(dict(self._tags))

    def _both(self) -> tuple[dict[str, str], dict[str, str]]:
        return self._params, self._tags

    def _of(self, record: Params | Tags) -> dict[str, str]:
        return self._params if isinstance(record, Params) else self._tags
