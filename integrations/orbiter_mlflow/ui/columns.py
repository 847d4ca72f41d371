"""Choose the columns of the run table in the MLflow UI: those in which the runs differ.

Pure. By default the UI shows no params and metrics. A tag of the experiment can share a view with
other columns, and a link with the tag's key opens it (seen in MLflow 3.17).
"""

import json
from collections.abc import Mapping, Sequence

from orbiter_mlflow import names
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.text import colons

__all__ = ["shared_view", "table_metrics", "table_params"]

_MAX_PARAMS = 5
_MAX_METRICS = 4
_MAX_LENGTH = 40
"""Longest value, in characters, that fits into a column."""


def shared_view(runs: Sequence[StoredRun]) -> str:
    """The view as JSON, in the UI's own format.

    Args:
        runs: some runs of the experiment, the latest first.
    """
    marked = any(colons.is_marked(run.tags) for run in runs)
    stored = colons.without_colons if marked else str
    return json.dumps(
        {
            "searchFilter": "",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": [
                *(f"params.`{stored(key)}`" for key in table_params([run.params for run in runs])),
                *(f"metrics.`{stored(key)}`" for key in table_metrics(runs)),
                f"tags.`{names.STATE}`",
            ],
        }
    )


def table_metrics(runs: Sequence[StoredRun]) -> list[str]:
    """The metrics that get a column: the most important ones."""
    return names.by_importance({key for run in runs for key in run.metrics})[:_MAX_METRICS]


def table_params(columns: Sequence[Mapping[str, str]]) -> list[str]:
    """The params that get a column: those in which the runs differ; without any, the first ones.

    Args:
        columns: the params of each run. One without any, as the parent of a sweep, has no say.
    """
    columns = [column for column in columns if column]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    short = [
        key
        for key in keys
        if names.piece_of(key) == (key, None)
        and key != names.CONFIG_ROOT
        and all(len(column.get(key, "")) <= _MAX_LENGTH for column in columns)
    ]
    differing = [key for key in short if len({column.get(key) for column in columns}) > 1]
    return (differing or short)[:_MAX_PARAMS]
