"""A run that the store creates after nobody waits for it any more.

MLflow repeats a request for minutes. The run has got a provisional id by then, and delivery may
have created it already.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future

from mlflow.exceptions import MlflowException
from mlflow.store.tracking.abstract_store import AbstractStore

from orbiter_mlflow.plugin.journaled_run import JournaledRun

_logger = logging.getLogger(__name__)


def delete(
    store: AbstractStore,
    run_id: str,
    provisional: "Future[JournaledRun]",
    of_same_uid: Callable[[], Sequence[str]],
) -> None:
    """Delete a run that came late, unless delivery has found it and writes to it.

    Args:
        store: MLflow's own.
        run_id: the run.
        provisional: the run in its place; cancelled if there is none.
        of_same_uid: finds the ids of all runs with its uid.
    """
    try:
        try:
            taken = provisional.result().delivered_id()
        except CancelledError:  # the caller was told that the run cannot be created
            taken = ""
        if taken is None:  # delivered, and the journal removed before anybody looked
            taken = next((one for one in of_same_uid() if one != run_id), run_id)
        if taken != run_id:
            store.delete_run(run_id)
    except MlflowException as error:
        _logger.warning("an empty run %s may stay in the store: %s", run_id, error)
