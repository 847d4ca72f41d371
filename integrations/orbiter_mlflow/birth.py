"""The birth of a run: what its journal begins with, and who delivers it."""

import uuid
from pathlib import Path

from orbiter_mlflow.clock import now
from orbiter_mlflow.delivery.host import Host, OfflineHost, host_of
from orbiter_mlflow.delivery.outbox import Outbox
from orbiter_mlflow.delivery.process import DeliveryProcess
from orbiter_mlflow.delivery.records import Head
from orbiter_mlflow.delivery.thread import DeliveryThread
from orbiter_mlflow.delivery.writer import this_process
from orbiter_mlflow.redact import Redactor
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.urls import without_userinfo
from orbiter_mlflow.values import tag_value

_HOSTS: dict[str, type[Host]] = {
    "process": DeliveryProcess,
    "thread": DeliveryThread,
    "offline": OfflineHost,
}


def open_outbox(settings: MLflowSettings, redactor: Redactor, *, user: str | None) -> Outbox:
    """Start the journal of a run, under delivery as the settings say.

    Raises:
        OSError: the journal cannot be made.
    """
    experiment, name = settings.experiment, settings.run_name
    head = Head(
        uid=uuid.uuid4().hex,
        tracking_uri=redactor.text(without_userinfo(settings.tracking_uri)),
        start_time=now(),
        writer=this_process(),
        experiment=None if experiment is None else redactor.text(experiment),
        experiment_id=settings.experiment_id,
        run_id=settings.run_id,
        run_name=None if name is None else tag_value(redactor.text(name)),
        parent_run_id=settings.parent_run_id,
        user=user,
        keep=settings.keep_journals,
        live=settings.delivery != "offline",
        folder=_working_folder(redactor),
    )
    return Outbox(
        settings.spool_dir,
        head,
        host_of(_HOSTS[settings.delivery]),
        tracking_uri=settings.tracking_uri,
        patience=settings.flush_timeout,
    )


def _working_folder(redactor: Redactor) -> str | None:
    try:
        return tag_value(redactor.text(str(Path.cwd())))
    except OSError:  # it has been removed
        return None
