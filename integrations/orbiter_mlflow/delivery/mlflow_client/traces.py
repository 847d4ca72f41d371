"""Send traces of rollouts to a store of MLflow: ids and times are ours, so that sending them again
changes nothing."""

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

from mlflow import entities
from mlflow.entities import trace_location
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey

from orbiter_mlflow.delivery.mlflow_client.errors import classified
from orbiter_mlflow.delivery.mlflow_client.server_version import server_version
from orbiter_mlflow.delivery.rollout_traces import RolloutTrace
from orbiter_mlflow.errors import RejectedError, TransientError, UnsupportedError

_WITH_SPANS = (3, 4)
"""The first version of a server with `log_spans` (mlflow/store/tracking/rest_store.py, 3.17)."""
_SOURCE = entities.AssessmentSource(entities.AssessmentSourceType.CODE, "reward")


def send(store: Any, experiment_id: str, run_id: str, traces: Sequence[RolloutTrace]) -> None:
    """Send traces, and link them to a run.

    Args:
        store: a tracking store of MLflow.
        experiment_id: of the run.
        run_id: the run.
        traces: at least one.

    Raises:
        UnsupportedError: the store has no traces.
        Exception: what MLflow raises.
    """
    _require_traces(store)
    # The spans last: in the other order SQL stores take twice as long, as they insert each trace,
    # fail, and merge it row by row.
    location = trace_location.TraceLocation.from_experiment_id(experiment_id)
    for trace in traces:
        store.start_trace(_info(trace, location, run_id))
    _send_spans(store, experiment_id, traces)


def _send_spans(store: Any, experiment_id: str, traces: Sequence[RolloutTrace]) -> None:
    """Send the spans of all traces at once; one by one where that is refused, as too large for a
    proxy."""
    spans = [entities.Span.from_dict(one) for trace in traces for one in _spans(trace)]
    refusal: Exception | None = None
    try:
        store.log_spans(experiment_id, spans)
    except NotImplementedError as error:
        raise UnsupportedError(f"no traces: {error}") from error
    except Exception as error:
        if len(traces) == 1 or not isinstance(classified(error), RejectedError):
            raise
        for trace in traces:
            try:
                _send_spans(store, experiment_id, [trace])
            except Exception as found:
                refusal = found
    if refusal is not None:
        raise refusal


def _require_traces(store: Any) -> None:
    """Raise if `log_spans` is going to, before anything is sent."""
    if not isinstance(store, RestStore):
        if type(store).log_spans is AbstractStore.log_spans:
            raise UnsupportedError(f"no traces: {type(store).__name__} takes no spans")
        return
    version = _version(store)
    if version is None:
        # MLflow remembers that, though the server may only have been down when it was asked.
        store._get_server_version.cache_clear()
        if server_version(store) is not None and (version := _version(store)) is None:
            raise TransientError("the server does not tell its version in time")
    if version is None or version.release < _WITH_SPANS:
        raise UnsupportedError(f"no traces: the version of the server is {version}")


def _version(store: RestStore) -> Any:
    return store._get_server_version(store.get_host_creds())


def _info(trace: RolloutTrace, location: Any, run_id: str) -> entities.TraceInfo:
    trace_id = _trace_id(trace)
    assessments = []
    for name, value in trace.rewards.items():
        feedback = entities.Feedback(
            name=name,
            value=value,
            source=_SOURCE,
            trace_id=trace_id,
            create_time_ms=trace.time,
            last_update_time_ms=trace.time,
        )
        feedback.assessment_id = f"a-{trace.reward_ids[name]}"
        assessments.append(feedback)
    return entities.TraceInfo(
        trace_id=trace_id,
        trace_location=location,
        request_time=trace.time,
        state=entities.TraceState.OK,
        request_preview=trace.request,
        response_preview=trace.response,
        execution_duration=0,
        trace_metadata={TraceMetadataKey.SOURCE_RUN: run_id},
        tags=dict(trace.tags),
        assessments=assessments,
    )


def _spans(trace: RolloutTrace) -> Iterator[dict[str, Any]]:
    for at, span in enumerate(trace.spans):
        attributes = {
            SpanAttributeKey.REQUEST_ID: _trace_id(trace),
            SpanAttributeKey.SPAN_TYPE: span.kind,
            SpanAttributeKey.INPUTS: span.inputs,
            SpanAttributeKey.OUTPUTS: span.outputs,
        }
        # The microseconds keep the spans in their order.
        began = trace.time * 10**6 + at * 1000
        ended = trace.time * 10**6 + (at + 1 if at else len(trace.spans)) * 1000
        yield {
            "trace_id": _base64(trace.id),
            "span_id": _base64(span.id),
            "parent_span_id": "" if span.parent is None else _base64(span.parent),
            "name": span.name,
            "start_time_unix_nano": began,
            "end_time_unix_nano": ended,
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "events": [],
            "attributes": {
                key: json.dumps(value, ensure_ascii=False) for key, value in attributes.items()
            },
        }


def _trace_id(trace: RolloutTrace) -> str:
    return f"tr-{trace.id}"


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()
