"""The runs that this process writes through one tracking URI."""

import logging
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import (
    Experiment,
    Run,
    RunTag,
    ViewType,
)
from mlflow.environment_variables import MLFLOW_EXPERIMENT_ID
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from mlflow.utils.name_utils import _generate_random_name
from pydantic import ValidationError

from orbiter_mlflow import names
from orbiter_mlflow.delivery.ack import Ack
from orbiter_mlflow.delivery.mlflow_client.uids import runs_with_uid
from orbiter_mlflow.delivery.process_identity import this_process
from orbiter_mlflow.delivery.records import Head, Record
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.plugin import artifact_repository, entities, late_run, provisional
from orbiter_mlflow.plugin.asking import Asking, NoAnswerError, is_missing
from orbiter_mlflow.plugin.journaled_run import JournaledRun
from orbiter_mlflow.settings import MLflowSettings, from_environment
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.text.urls import without_userinfo
from orbiter_mlflow.tracking.run_journal import open_writer

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_UID = re.compile(r"[0-9a-f]{32}")
_NOT_OURS = (
    *("tracking_uri", "experiment", "experiment_id"),
    *("run_id", "run_name", "parent_run_id", "sweep"),
)
"""Settings of a trainer's run: MLflow's clients say these themselves."""


class Runs:
    """The runs that this process writes through one tracking URI.

    Args:
        inner: MLflow's own store.
        settings: how journals are kept and delivered, and the tracking URI.
    """

    def __init__(self, inner: AbstractStore, settings: MLflowSettings) -> None:
        self.inner = inner
        self.settings = settings
        self._warned = False
        self._asking = Asking(settings.answer_timeout)
        self._runs: dict[str, JournaledRun] = {}
        self._lock = threading.RLock()

    # -- which runs there are ------------------------------------------------------------------

    def created(
        self,
        experiment_id: str,
        user_id: str | None,
        start_time: int,
        tags: Sequence[RunTag],
        run_name: str | None,
    ) -> Run:
        """Create a run: in the store if it answers in time, else in a journal of its own, under a
        provisional id.

        Raises:
            MlflowException: MLflow refuses the run.
        """
        uid = uuid.uuid4().hex
        parent = next((tag.value for tag in tags if tag.key == MLFLOW_PARENT_RUN_ID), None)
        parent_id = parent
        if parent is not None and (known := self.known(parent)) is not None:
            parent_id = known.wait_real_id(self.settings.answer_timeout)
        if parent is not None and parent_id is not None:
            tags = [*(tag for tag in tags if tag.key != MLFLOW_PARENT_RUN_ID)]
            tags.append(RunTag(MLFLOW_PARENT_RUN_ID, parent_id))
        marked = [*tags, RunTag(names.UID, uid)]
        made: Future[JournaledRun] = Future()
        try:
            if self._offline or (parent is not None and parent_id is None):
                raise NoAnswerError
            run = self._asking.ask(
                lambda: self.inner.create_run(experiment_id, user_id, start_time, marked, run_name),
                late=lambda run: late_run.delete(self.inner, str(run.info.run_id), made),
            )
            real_id = str(run.info.run_id)
        except NoAnswerError:
            name = run_name or next(
                (tag.value for tag in tags if tag.key == MLFLOW_RUN_NAME), _generate_random_name()
            )
            run = provisional.run(uid, experiment_id, user_id, start_time, marked, name)
            real_id = None
        head = self._head(
            uid,
            start_time=start_time,
            experiment_id=str(experiment_id),
            run_name=str(run.info.run_name),
            tags={tag.key: tag.value for tag in tags},
            parent_uid=parent if parent_id is None else None,
        )
        ack = Ack(creating=True) if real_id is None else Ack(run_id=real_id, lanes=True)
        writer: RunWriter | None = None
        try:
            writer = open_writer(self.settings, head, ack)
        except OSError as error:
            if real_id is None:
                made.cancel()
                raise MlflowException(
                    f"the run cannot be created: the store does not answer, and no journal can be "
                    f"written in {self.settings.spool_dir} ({error.strerror})"
                ) from error
            self._warn_of_no_journal(error)
        journaled = JournaledRun(
            run, complete=True, attach=self._attach, send=self._send, writer=writer, real_id=real_id
        )
        with self._lock:
            self._runs[journaled.run_id] = journaled
        made.set_result(journaled)
        artifact_repository.offer(self, journaled)
        return run

    def experiment(self, experiment_id: str) -> Experiment:
        """An experiment; if the store does not answer, the one that the environment names is taken
        for granted, so that a program can begin without a server.

        Raises:
            MlflowException: the store's own.
        """
        try:
            return self.ask(lambda: self.inner.get_experiment(experiment_id))
        except NoAnswerError:
            if str(experiment_id) != os.environ.get(MLFLOW_EXPERIMENT_ID.name):
                return self.inner.get_experiment(experiment_id)
            return provisional.experiment(experiment_id)

    def get(self, run_id: str) -> JournaledRun:
        """The run with this id, which need not have been created here.

        Raises:
            MlflowException: there is none.
        """
        found = self.known(run_id)
        if found is not None:
            return found
        complete = True
        try:
            run, real_id = self._find(run_id)
        except NoAnswerError:  # it may well exist
            run = provisional.run(run_id, "", None, 0, (), "")
            real_id, complete = run_id, False
        with self._lock:
            known = self._runs.get(run_id) or self._runs.get(real_id)
            if known is None:
                known = JournaledRun(
                    run, complete=complete, attach=self._attach, send=self._send, real_id=real_id
                )
            self._runs[run_id] = self._runs[real_id] = known
        artifact_repository.offer(self, known)
        return known

    def known(self, run_id: str) -> JournaledRun | None:
        """The run with this id, if this process has written to it."""
        found = self._runs.get(run_id)
        if found is None:
            # A provisional run that exists by now is known by both ids.
            for run in list(self._runs.values()):
                if run.real_id() == run_id:
                    found = self._runs[run_id] = run
        return found

    def bind(self, run: JournaledRun) -> None:
        """Let a run be written as `run` says."""
        with self._lock:
            self._runs[run.run_id] = run
        artifact_repository.offer(self, run)

    def real_id(self, run_id: str) -> str | None:
        """The id in the store of a run that may have a provisional one; None while it has none."""
        found = self._runs.get(run_id)
        return run_id if found is None else found.real_id()

    # -- reading -------------------------------------------------------------------------------

    def ask(self, question: Callable[[], _T]) -> _T:
        """Ask the store, but wait only so long; see `Asking.ask`."""
        return self._asking.ask(question)

    def flush(self, run_id: str | None = None, *, artifacts: bool = False) -> bool:
        """Wait until what this process wrote is in the store: to one run, or to all."""
        if self._offline:
            return False
        if run_id is None:
            runs = list({id(run): run for run in list(self._runs.values())}.values())
        else:
            found = self.known(run_id)
            runs = [] if found is None else [found]
        settings = self.settings
        done = [
            run.flush(settings.flush_timeout, settings.answer_timeout, artifacts=artifacts)
            for run in runs
        ]
        return all(done)

    def read(self, run_id: str) -> Run:
        """The run from the store, what was written here included; if the store is in trouble, as it
        was written here.

        Raises:
            MlflowException: the store's own.
        """
        known = self.known(run_id)
        if known is None:
            return self._found_in_store(run_id)
        if known.answers_alone:
            return known.known()
        flushed = self.flush(run_id, artifacts=True)
        real_id = known.real_id()
        if real_id is not None and (flushed or not known.complete):
            try:
                return self.ask(lambda: self.inner.get_run(real_id))
            except NoAnswerError:
                if not known.complete:
                    return self.inner.get_run(real_id)
        return known.known()

    def _found_in_store(self, run_id: str) -> Run:
        try:
            return self.inner.get_run(run_id)
        except MlflowException as error:
            real_id = self._of_uid(run_id) if is_missing(error) else None
            if real_id is None:
                raise
            return self.inner.get_run(real_id)

    def _find(self, run_id: str) -> tuple[Run, str]:
        try:
            run = self.ask(lambda: self.inner.get_run(run_id))
        except MlflowException as error:
            real_id = self.ask(lambda: self._of_uid(run_id)) if is_missing(error) else None
            if real_id is None:
                raise
            found: str = real_id
            run = self.ask(lambda: self.inner.get_run(found))
        return run, str(run.info.run_id)

    def _of_uid(self, uid: str) -> str | None:
        """The id of the run that was created under a provisional id."""
        if not _UID.fullmatch(uid):
            return None
        client = MlflowClient(self.settings.tracking_uri)
        return next(iter(runs_with_uid(client, uid, view_type=ViewType.ALL)), None)

    # -- journals ------------------------------------------------------------------------------

    @property
    def _offline(self) -> bool:
        return self.settings.delivery == "offline"

    def _attach(self, run: JournaledRun) -> RunWriter:
        """A journal that joins a run."""
        real_id = run.real_id()
        head = self._head(
            uuid.uuid4().hex,
            start_time=now(),
            experiment_id=str(run.known().info.experiment_id),
            run_id=real_id,
            run_uid=run.uid if real_id is None else None,
        )
        try:
            return open_writer(self.settings, head)
        except OSError as error:
            self._warn_of_no_journal(error)
            raise

    def _warn_of_no_journal(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "no journal can be written in %s (%s): MLflow writes to the store without one; set "
                "ORBITER_MLFLOW_SPOOL_DIR to a folder that can be written",
                self.settings.spool_dir,
                error.strerror,
            )

    def _send(self, run: JournaledRun, record: Record) -> bool:
        """Send a record that no journal takes, after what is in one."""
        self.flush(run.run_id)
        real_id = run.real_id()
        if real_id is None:
            return False
        try:
            return self.ask(lambda: entities.send(self.inner, real_id, record))
        except NoAnswerError:
            return False

    def _head(self, uid: str, *, start_time: int, **fields: Any) -> Head:
        uri = self.settings.tracking_uri
        return Head(
            uid=uid,
            tracking_uri=without_userinfo(uri),
            start_time=start_time if 0 <= start_time < 1 << 42 else now(),
            writer=this_process(),
            keep=self.settings.keep_journals,
            live=not self._offline,
            folder=_working_folder(),
            as_written=True,
            **fields,
        )

    def open_runs(self) -> Iterable[JournaledRun]:
        """The runs that this process writes."""
        return list(self._runs.values())

    def forked(self) -> None:
        """Start anew in a forked child."""
        self._lock = threading.RLock()
        for run in self.open_runs():
            run.forked()


_all: dict[str, Runs] = {}
_all_lock = threading.RLock()


def runs_of(inner: AbstractStore, tracking_uri: str) -> Runs:
    """The runs of this process behind a plain tracking URI.

    Raises:
        MlflowException: a setting in the environment is wrong, or nobody could connect to the URI.
    """
    with _all_lock:
        if tracking_uri not in _all:
            values = from_environment(os.environ)
            for name in _NOT_OURS:
                values.pop(name, None)
            try:
                settings = MLflowSettings(**values, tracking_uri=tracking_uri)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                raise MlflowException(
                    f"{'.'.join(map(str, first['loc']))}: {first['msg']}", INVALID_PARAMETER_VALUE
                ) from error
            _all[tracking_uri] = Runs(inner, settings)
        return _all[tracking_uri]


def all_runs() -> list[Runs]:
    """The runs of this process, for each tracking URI."""
    return list(_all.values())


def _forked() -> None:
    global _all_lock
    _all_lock = threading.RLock()
    for runs in all_runs():
        runs.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _working_folder() -> str | None:
    try:
        return str(Path.cwd()).encode(sys.getfilesystemencoding(), "replace").decode()
    except OSError:  # it has been removed
        return None
