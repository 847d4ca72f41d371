"""Addresses of pages of the MLflow UI. Pure text: nothing is asked of a server.

A plain link to an experiment opens a page that hides its runs (seen in MLflow 3.17), so all links
lead to the view for machine learning runs.
"""

import json
from collections.abc import Sequence
from urllib.parse import quote


def runs_page(base: str, experiment_id: str) -> str:
    """The table of an experiment's runs. `base` is the address of the UI."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def compare_page(base: str, experiment_id: str, run_ids: Sequence[str]) -> str:
    """Runs side by side."""
    runs, experiments = (
        quote(json.dumps(list(ids), separators=(",", ":"))) for ids in (run_ids, [experiment_id])
    )
    return f"{base.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}"
