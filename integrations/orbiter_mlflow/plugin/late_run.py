"""A run that the store creates after nobody waits for it any more.

MLflow repeats a request for minutes. The run has got a provisional id by then, and delivery may
have created it already.
"""

import logging
from concurrent.futures import CancelledError, Future

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.abstract_store import AbstractStore

from orbiter_mlflow.delivery import late_effects
from orbiter_mlflow.delivery.resumption.rewriting import RunContents
from orbiter_mlflow.plugin.journaled_run import JournaledRun

_logger = logging.getLogger(__name__)


def delete(store: AbstractStore, run_id: str, provisional: "Future[JournaledRun]") -> None:
    """Delete a run that came late, unless delivery has found it and writes to it.

    Args:
        store: MLflow's own.
        run_id: the run.
        provisional: the run in its place; cancelled if there is none.
    """
    try:
        taken = provisional.result().delivered_id()
    except CancelledError:  # the caller was told that the run cannot be created
        taken = None
    if taken == run_id:
        return
    try:
        # Without an answer, delivery may have finished with this run, and removed the journal.
        if _is_untouched(store.get_run(run_id)):
            store.delete_run(run_id)
    except MlflowException as error:
        _logger.warning("an empty run %s may stay in the store: %s", run_id, error)


def _is_untouched(run: Run) -> bool:
    contents = RunContents(None, run.data.params, run.data.tags, bool(run.data.metrics))
    return run.info.end_time is None and late_effects.is_empty(contents)
