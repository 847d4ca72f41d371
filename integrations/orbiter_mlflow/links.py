"""Addresses of pages of the MLflow UI. Pure text: nothing is asked of a server.

A plain link to an experiment opens a page that hides its runs (seen in MLflow 3.17), so all links
lead to the view for machine learning runs.
"""

import json
from collections.abc import Iterable
from urllib.parse import quote


def runs_page(base: str, experiment_id: str) -> str:
    """The table of an experiment's runs. `base` is the address of the UI."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def run_page(base: str, experiment_id: str, run_id: str) -> str:
    """One run."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def compare_page(base: str, experiment_ids: Iterable[str], run_ids: Iterable[str]) -> str:
    """Runs side by side; they may be of several experiments."""
    runs, experiments = (
        quote(json.dumps(list(dict.fromkeys(ids)), separators=(",", ":")))
        for ids in (run_ids, experiment_ids)
    )
    return f"{base.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}"
