"""Turn reports into records: points with their time, and tags for values that are no number."""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from orbiter.train import TrainMetrics
from orbiter.train.hooks import quiet_logger
from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Metrics, Record, Tags
from orbiter_mlflow.redaction.redactor import REDACTED, Redactor
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.text.values import tag_value
from orbiter_mlflow.tracking.metric_keys import Flat, MetricKeys, Prefix

_logger = quiet_logger(__name__)

_STEPS_REMEMBERED = 1000
"""Steps whose last time is remembered: several tasks may report at steps of their own."""


def is_metrics(method: str, metrics: object, trainer: str) -> bool:
    """Whether `method` of a trainer has returned metrics; a warning where it has not."""
    if isinstance(metrics, TrainMetrics | Mapping):
        return True
    _logger.warning(
        "%s of %s returned %s, not TrainMetrics: nothing to log",
        method,
        trainer,
        type(metrics).__name__,
    )
    return False


class Measurements:
    """The measurements of one run. Threads may share it.

    Attributes:
        keys: the keys of metrics and of the user's own tags.
    """

    def __init__(self, redactor: Redactor) -> None:
        self.keys = MetricKeys(redactor.text)
        self._redactor = redactor
        self._times: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()
        self._renamed: dict[str, str] = {}
        self._nonfinite: set[str] = set()
        self._written: dict[str, str] = {}

    def records(
        self, prefix: Prefix, metrics: Mapping[str, Any] | TrainMetrics, step: int
    ) -> Iterator[Record]:
        """The records of a report or an evaluation at `step`, with keys under `prefix`."""
        return self._records(self.keys.flatten(prefix, metrics), step)

    def records_of_training(
        self, metrics: Mapping[str, Any] | TrainMetrics, step: int
    ) -> Iterator[Record]:
        """The records of the result of a training at `step`: beside the curves, not on them."""
        return self._records(self.keys.flatten_result(names.TRAIN, metrics), step)

    def _records(self, flat: Flat, step: int) -> Iterator[Record]:
        if flat.numbers:
            yield Metrics(step, self._time_of(step), flat.numbers)
        if flat.texts or flat.nonfinite or flat.renamed:
            news = self._news(flat)
            if news:
                yield Tags(news)

    def _time_of(self, step: int) -> int:
        """The present time, but later than all times of this step before.

        MLflow drops a second point of equal key, step, time and value; and of the points of one
        step it takes the last in time for the latest.
        """
        with self._lock:
            last = self._times.pop(step, 0)
            self._times[step] = at = max(now(), last + 1)
            if len(self._times) > _STEPS_REMEMBERED:
                self._times.popitem(last=False)
        return at

    def _news(self, flat: Flat) -> dict[str, str]:
        """The tags for values that are no finite number, as far as they have changed."""
        tags = {}
        for key, text in flat.texts.items():
            secret = any(self._redactor.is_secret_key(part) for part in key.split("."))
            tags[key] = REDACTED if secret else self._redactor.text(text)
        if flat.nonfinite:
            self._nonfinite.update(flat.nonfinite)
            tags[names.NONFINITE] = json.dumps(sorted(self._nonfinite), ensure_ascii=False)
        if flat.renamed:
            self._renamed.update(flat.renamed)
            tags[names.RENAMED] = json.dumps(self._renamed, ensure_ascii=False)
        news = {key: text for key, text in tags.items() if self._written.get(key) != text}
        self._written.update(news)
        return {key: tag_value(text) for key, text in news.items()}
