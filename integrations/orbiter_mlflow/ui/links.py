"""Addresses of pages of the MLflow UI. Pure: no server is contacted.

A plain link to an experiment opens a page that hides its runs (seen in MLflow 3.17), so all links
lead to the view for machine learning runs.
"""

import json
from collections.abc import Iterable
from urllib.parse import quote

_WORKFLOW = "workflowType=machine_learning"
"""The part of the UI that shows training runs; the other one shows traces."""


def runs_page(
    base: str, experiment_id: str, *, shared_view: str | None = None, charts: bool = False
) -> str:
    """The table of an experiment's runs.

    Args:
        base: the address of the UI.
        experiment_id: the id of the experiment.
        shared_view: the key of a view that a tag of the experiment shares.
        charts: show the runs' charts instead of the table.
    """
    query = _WORKFLOW
    if shared_view is not None:
        query += f"&viewStateShareKey={shared_view}"
    if charts:
        query += "&compareRunsMode=CHART"
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def run_page(base: str, experiment_id: str | None, run_id: str) -> str:
    """The page of one run. Without the experiment, the UI finds it, but shows the GenAI view."""
    if experiment_id is None:
        return f"{base.rstrip('/')}/#/runs/{run_id}"
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?{_WORKFLOW}"


def traces_page(base: str, experiment_id: str, run_id: str, name: str) -> str:
    """The tab of a run's page with its traces of one name (seen in MLflow 3.17)."""
    shown = quote(f"trace_name::=::{name}::", safe="")
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}/traces?filter={shown}"


def compare_page(base: str, experiment_ids: Iterable[str], run_ids: Iterable[str]) -> str:
    """The page that compares runs; they may be of several experiments."""
    runs, experiments = (
        quote(json.dumps(list(dict.fromkeys(ids)), separators=(",", ":")))
        for ids in (run_ids, experiment_ids)
    )
    return f"{base.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}&{_WORKFLOW}"
