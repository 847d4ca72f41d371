"""Sweeps in one process: what the parent run says of its children, on a store that is up."""

import asyncio
import json

import pytest

from orbiter_mlflow import MLflowSettings, Sweep, names
from sweeps import child, children, parent_of, table


def test_the_parent_has_counts_the_best_child_and_a_table(sqlite_uri: str) -> None:
    async def scan() -> Sweep:
        settings = MLflowSettings(tracking_uri=sqlite_uri, experiment="scan")
        async with Sweep("lr-scan", settings, metric="train/loss", direction="lower") as sweep:
            await asyncio.gather(*(child(sweep, rate) for rate in (0.5, 0.25, 0.75)))
            with pytest.raises(Exception, match="diverged"):
                await child(sweep, 0.1, fails=True)
        return sweep

    sweep = asyncio.run(scan())
    parent = parent_of(sqlite_uri, sweep)
    nested = {run.data.params["learning_rate"]: run for run in children(sqlite_uri, parent)}
    assert parent.info.run_name == "lr-scan"
    assert parent.info.status == "FINISHED"
    assert sweep.run_id == parent.info.run_id
    assert nested.keys() == {"0.5", "0.25", "0.75", "0.1"}
    assert {run.data.tags[names.SWEEP] for run in [parent, *nested.values()]} == {"lr-scan"}
    tags = parent.data.tags
    assert json.loads(tags[names.SWEEP_CHILDREN]) == {"FAILED": 1, "FINISHED": 3}
    assert tags[names.SWEEP_METRIC] == "train/loss (lower)"
    assert tags[names.SWEEP_BEST] == nested["0.25"].info.run_id
    assert float(tags[names.SWEEP_BEST_VALUE]) == 0.25
    shown = table(sqlite_uri, parent)
    assert shown["columns"] == ["run_id", "name", "status", "train/loss", "learning_rate"]
    assert [(row[0], row[2], row[3], row[4]) for row in shown["data"]] == [
        (nested["0.25"].info.run_id, "FINISHED", 0.25, "0.25"),
        (nested["0.5"].info.run_id, "FINISHED", 0.5, "0.5"),
        (nested["0.75"].info.run_id, "FINISHED", 0.75, "0.75"),
        (nested["0.1"].info.run_id, "FAILED", 0.2, "0.1"),
    ]
    assert {row[1] for row in shown["data"]} == {f"lr-scan-{n}" for n in (1, 2, 3, 4)}
    assert json.loads(tags[names.LOGGED_TABLES]) == [
        {"path": "sweep/children.json", "type": "table"}
    ]
