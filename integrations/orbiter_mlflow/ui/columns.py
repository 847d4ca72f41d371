"""How the table of runs in the MLflow UI shows an experiment: the columns that tell runs apart.

Pure. The UI shows no params and metrics by itself; a view that is shared as a tag of the
experiment names the columns, and a link with the tag's key opens it (seen in MLflow 3.17).
"""

import json
from collections.abc import Mapping, Sequence

from orbiter_mlflow import names
from orbiter_mlflow.runs.model import StoredRun

__all__ = ["shared_view"]

_MOST_PARAMS = 5
_MOST_METRICS = 4
_LONGEST = 40
"""Characters of a value that a column can show."""


def shared_view(runs: Sequence[StoredRun]) -> str:
    """The view, as the UI reads it: JSON.

    Args:
        runs: some of the experiment's, the latest first.
    """
    metrics = {key for run in runs for key in run.metrics}
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
                *(f"params.`{key}`" for key in _params([run.params for run in runs])),
                *(f"metrics.`{key}`" for key in names.by_importance(metrics)[:_MOST_METRICS]),
                f"tags.`{names.STATE}`",
            ],
        }
    )


def _params(columns: Sequence[Mapping[str, str]]) -> list[str]:
    """Params in which the runs differ; the first ones where they differ in none."""
    keys = list(dict.fromkeys(key for column in columns for key in column))
    short = [
        key
        for key in keys
        if names.piece_of(key) == (key, None)
        and key != names.CONFIG_ROOT
        and all(len(column.get(key, "")) <= _LONGEST for column in columns)
    ]
    differing = [key for key in short if len({column.get(key) for column in columns}) > 1]
    return (differing or short)[:_MOST_PARAMS]
