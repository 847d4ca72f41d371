"""MLflow's entities as records of a journal, after MLflow's own validation.

A store refuses bad content where it arrives; here it is refused in the call that logs it, by the
same functions and so with the same exceptions.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.utils import validation

from orbiter_mlflow.delivery.batches import MetricPoint
from orbiter_mlflow.delivery.records import Dataset, Metrics, Params, Record, Tags, Update

_read = attrgetter(
    "key", "value", "timestamp", "step", "model_id", "dataset_name", "dataset_digest"
)
_made: Callable[[Any], MetricPoint] = partial(tuple.__new__, MetricPoint)
"""As `MetricPoint._make` does, in half the time."""
_ABOUT = MetricPoint._fields[4:]
_NOTHING_ELSE = [None] * len(_ABOUT)
_MOST_KEYS = 10_000
_good_keys: set[str] = set()
"""Keys of metrics that MLflow has taken; checking one takes longer than all else here."""


def checked_metric(metric: Metric, path: str = "") -> MetricPoint:
    """The point of a metric, if MLflow takes it.

    Raises:
        MlflowException: it does not.
    """
    point = _made(_read(metric))
    if not _is_known_good(point):
        validation._validate_metric(*point[:4], path=path)
        validation._validate_length_limit(
            "Metric name", validation.MAX_ENTITY_KEY_LENGTH, point.key
        )
        if len(_good_keys) >= _MOST_KEYS:
            _good_keys.clear()
        _good_keys.add(point.key)
        value, time, step = float(point.value), int(point.time), int(point.step)
        point = point._replace(value=value, time=time, step=step)
    return point


def _is_known_good(point: MetricPoint) -> bool:
    """Whether MLflow needs not be asked for a point."""
    return (
        point[0] in _good_keys
        and type(point[1]) is float
        and type(point[2]) is int
        and type(point[3]) is int
        and point[2] >= 0
    )


def checked_param(param: Param, path: str = "") -> Param:
    """The param, if MLflow takes it; cut where MLflow cuts it.

    Raises:
        MlflowException: it does not.
    """
    return _encodable(validation._validate_param(param.key, param.value, path=path))


def checked_tag(tag: RunTag, path: str = "") -> RunTag:
    """The tag, if MLflow takes it; cut where MLflow cuts it.

    Raises:
        MlflowException: it does not.
    """
    return _encodable(validation._validate_tag(tag.key, tag.value, path=path))


def checked_batch(
    metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
) -> tuple[list[MetricPoint], list[Param], list[RunTag]]:
    """The content of a `log_batch`, if MLflow takes all of it.

    Raises:
        MlflowException: it does not.
    """
    points = [_made(_read(one)) for one in metrics]
    if not all(_is_known_good(one) for one in points):
        points = [checked_metric(one, f"metrics[{index}]") for index, one in enumerate(metrics)]
    checked = (
        points,
        [checked_param(one, f"params[{index}]") for index, one in enumerate(params)],
        [checked_tag(one, f"tags[{index}]") for index, one in enumerate(tags)],
    )
    validation._validate_batch_log_limits(*checked)
    validation._validate_param_keys_unique(checked[1])
    return checked


def metric_records(points: Sequence[MetricPoint]) -> Iterator[Metrics]:
    """Records of some points, in their order: one for neighbours that differ only in key and
    value."""
    if len({point[2:] for point in points}) == 1:  # as a rule
        values = {point[0]: point[1] for point in points}
        if len(values) == len(points):
            yield _metrics(points[0][2:], values)
            return
    values = {}
    at: tuple[Any, ...] = ()
    for point in points:
        here = point[2:]
        if here != at or point[0] in values:
            if values:
                yield _metrics(at, values)
            at, values = here, {}
        values[point[0]] = point[1]
    if values:
        yield _metrics(at, values)


def send(store: AbstractStore, run_id: str, record: Record) -> bool:
    """Write a record to a store without a journal; False for a kind that only journals hold.

    Raises:
        MlflowException: the store's own.
    """
    if isinstance(record, Metrics):
        metrics = [
            Metric(key, value, record.time, record.step, **record.of or {})
            for key, value in record.values.items()
        ]
        store.log_batch(run_id, metrics, [], [])
    elif isinstance(record, Params):
        store.log_batch(run_id, [], [Param(*one) for one in record.values.items()], [])
    elif isinstance(record, Tags):
        store.log_batch(run_id, [], [], [RunTag(*one) for one in record.values.items()])
    elif isinstance(record, Update):
        status = None if record.status is None else RunStatus.from_string(record.status)
        store.update_run_info(run_id, status, record.end_time, record.name)
    elif isinstance(record, Dataset):
        tags = [InputTag(*one) for one in (record.tags or {}).items()]
        dataset = DatasetEntity(
            record.name,
            record.digest,
            record.source_type,
            record.source,
            record.schema or None,
            record.profile or None,
        )
        store.log_inputs(run_id, [DatasetInput(dataset, tags)])
    else:
        return False
    return True


def dataset_records(datasets: Sequence[DatasetInput] | None) -> list[Dataset]:
    """Records of a run's dataset inputs.

    Raises:
        TypeError: `datasets` is no list.
        MlflowException: MLflow does not take them.
    """
    if datasets is None:
        return []
    if not isinstance(datasets, list):
        raise TypeError(f"Argument 'datasets' should be a list, got '{type(datasets)}'")
    validation._validate_dataset_inputs(datasets)
    return [
        Dataset(
            name=one.dataset.name,
            digest=one.dataset.digest,
            source_type=one.dataset.source_type,
            source=one.dataset.source,
            schema=one.dataset.schema or "",
            profile=one.dataset.profile or "",
            context="",
            tags={tag.key: tag.value for tag in one.tags or ()},
        )
        for one in datasets
    ]


def require_unchanged(run_id: str, known: Mapping[str, str], params: Sequence[Param]) -> None:
    """Refuse params that a run has with another value.

    Raises:
        MlflowException: there are some.
    """
    changed = [
        {"key": param.key, "old_value": known[param.key], "new_value": param.value}
        for param in params
        if known.get(param.key, param.value) != param.value
    ]
    if changed:
        raise MlflowException(
            f"Changing param values is not allowed. Params were already logged='{changed}' for run "
            f"ID='{run_id}'.",
            INVALID_PARAMETER_VALUE,
        )


def require_same(run_id: str, known: Mapping[str, str], param: Param) -> None:
    """Refuse one param that a run has with another value.

    Raises:
        MlflowException: it has.
    """
    if (value := known.get(param.key, param.value)) != param.value:
        raise MlflowException(
            f"Changing param values is not allowed. Param with key='{param.key}' was already logged"
            f" with value='{value}' for run ID='{run_id}'. Attempted logging new value "
            f"'{param.value}'.",
            INVALID_PARAMETER_VALUE,
        )


def _metrics(at: tuple[Any, ...], values: dict[str, float]) -> Metrics:
    time, step, *about = at
    if about == _NOTHING_ELSE:
        return Metrics(step, time, values)
    of = {name: text for name, text in zip(_ABOUT, about, strict=True) if text is not None}
    return Metrics(step, time, values, of)


def _encodable(entity: Any) -> Any:
    """A param or tag whose text can be sent: no half of a surrogate pair."""
    try:
        f"{entity.key}{entity.value}".encode()
    except UnicodeEncodeError as error:
        raise MlflowException(
            f"{entity.key!r} is {json.dumps(entity.value)}, which no store takes: it holds half of "
            "a surrogate pair",
            INVALID_PARAMETER_VALUE,
        ) from error
    return entity
