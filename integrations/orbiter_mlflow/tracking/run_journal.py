"""Open a run's journal and register it for delivery."""

import logging
import uuid
from pathlib import Path

from orbiter_mlflow.delivery import spool_folder
from orbiter_mlflow.delivery.ack import Ack
from orbiter_mlflow.delivery.hosts.base import Host, OfflineHost, host_of
from orbiter_mlflow.delivery.hosts.process import DeliveryProcess
from orbiter_mlflow.delivery.hosts.thread import DeliveryThread
from orbiter_mlflow.delivery.process_identity import this_process
from orbiter_mlflow.delivery.records import Head
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.settings import MLflowSettings
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.text.urls import without_userinfo
from orbiter_mlflow.text.values import tag_value

_logger = logging.getLogger(__name__)

_warned: set[Path] = set()
"""The fallback folders that a warning has named."""

_HOSTS: dict[str, type[Host]] = {
    "process": DeliveryProcess,
    "thread": DeliveryThread,
    "offline": OfflineHost,
}


def prepare_delivery(settings: MLflowSettings) -> None:
    """Let delivery get ready while the training does: it takes seconds to import mlflow."""
    for folder in settings.spool_folders:
        try:
            spool_folder.prepare(folder)
        except OSError:  # it is told when there is a journal
            continue
        host_of(_HOSTS[settings.delivery]).prepare(folder)
        return


def open_run_journal(
    settings: MLflowSettings, redactor: Redactor, *, user: str | None
) -> RunWriter:
    """Start the journal of a run, and its delivery as the settings say.

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
        parent_run_id=None if settings.sweep else settings.parent_run_id,
        parent_uid=settings.sweep.uid if settings.sweep else None,
        user=user,
        keep=settings.keep_journals,
        live=settings.delivery != "offline",
        folder=working_folder(redactor),
    )
    return open_writer(settings, head)


def open_writer(settings: MLflowSettings, head: Head, ack: Ack | None = None) -> RunWriter:
    """Create the journal of a head in the first folder that takes it, and start its delivery.

    Args:
        settings: say where journals lie and how they are delivered.
        head: the first record.
        ack: what delivery has to know from the start; see `spool.open_journal`.

    Raises:
        OSError: the journal cannot be made.
    """
    folders = settings.spool_folders
    problem: OSError | None = None
    for folder in folders:
        try:
            spool_folder.prepare(folder)
            writer = RunWriter(
                folder,
                head,
                host_of(_HOSTS[settings.delivery]),
                tracking_uri=settings.tracking_uri,
                flush_timeout=settings.flush_timeout,
                ack=ack,
                sync_each=settings.durability == "record",
            )
        except OSError as error:
            problem = problem or error
            continue
        if len(folders) > 1 and spool_folder.is_fallback(folder):
            _warn_of_fallback(folder, problem)
        return writer
    raise problem or FileNotFoundError("no folder for journals")


def _warn_of_fallback(folder: Path, problem: OSError | None) -> None:
    if folder in _warned:
        return
    _warned.add(folder)
    _logger.warning(
        "%s: journals go to %s; set spool_dir to a folder that outlives this job",
        "there is no home folder" if problem is None else f"no journal in the home ({problem})",
        folder,
    )


def working_folder(redactor: Redactor) -> str | None:
    """The working folder of this process, as a head has it; None if it has been removed."""
    try:
        return tag_value(redactor.text(str(Path.cwd())))
    except OSError:  # it has been removed
        return None
