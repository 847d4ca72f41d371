"""Find runs by the uid of the journal that created them, and the other way round."""

from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import ViewType

from orbiter_mlflow import names


def runs_with_uid(
    client: MlflowClient,
    uid: str,
    experiment_ids: Sequence[str] | None = None,
    view_type: int = ViewType.ACTIVE_ONLY,
) -> list[str]:
    """The ids of the runs that carry a uid, oldest first.

    Args:
        client: of the store.
        uid: the value of the tag `orbiter.uid`.
        experiment_ids: where to look. Default: in all experiments that are not deleted.
        view_type: of the runs.
    """
    found = client.search_runs(
        _experiments(client) if experiment_ids is None else list(experiment_ids),
        filter_string=f"tags.`{names.UID}` = '{uid}'",
        run_view_type=view_type,
        order_by=["attributes.start_time ASC"],
    )
    return [str(run.info.run_id) for run in found]


def children_of(client: MlflowClient, run_id: str) -> dict[str, str]:
    """The runs of its experiment that are nested under a run: the uid of the journal that created
    each -> its run id.

    Args:
        client: of the store.
        run_id: the run.
    """
    found: dict[str, str] = {}
    token = None
    while True:
        page = client.search_runs(
            [client.get_run(run_id).info.experiment_id],
            filter_string=f"tags.`{names.PARENT_RUN_ID}` = '{run_id}'",
            max_results=1000,
            page_token=token,
        )
        for run in page:
            uid = run.data.tags.get(names.UID)
            # A repeated request may have created a twin, which stays empty.
            if uid is not None and (uid not in found or names.DELIVERED in run.data.tags):
                found[uid] = str(run.info.run_id)
        token = page.token
        if not token:
            return found


def _experiments(client: MlflowClient) -> list[str]:
    found: list[str] = []
    token = None
    while True:
        page = client.search_experiments(page_token=token)
        found += [str(one.experiment_id) for one in page]
        token = page.token
        if not token:
            return found
