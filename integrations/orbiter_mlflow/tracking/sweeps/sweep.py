"""`Sweep`: one parent run for many trainers, through a journal like everything else."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from orbiter.train.hooks import quiet_logger
from orbiter_mlflow import names
from orbiter_mlflow.delivery.process_identity import this_process
from orbiter_mlflow.delivery.records import Close, Head, RunStatus, Update
from orbiter_mlflow.delivery.run_writer import RunWriter
from orbiter_mlflow.errors import SweepError
from orbiter_mlflow.provenance.program import source_tags
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.settings import (
    MLflowSettings,
    SweepMembership,
    as_environment,
    resolve,
    tracks_here,
)
from orbiter_mlflow.text.clock import now
from orbiter_mlflow.text.urls import without_userinfo
from orbiter_mlflow.text.values import tag_value
from orbiter_mlflow.tracking.run_journal import open_writer, working_folder
from orbiter_mlflow.tracking.sweeps.folder import SweepFolder, SweepNote
from orbiter_mlflow.tracking.sweeps.objective import MakeTrainer, objective
from orbiter_mlflow.tracking.sweeps.parent import SweepParent, head_tags
from orbiter_mlflow.tracking.sweeps.summary import Ranking

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["Sweep"]

_logger = quiet_logger(__name__)


class Sweep:
    """Many trainers under one parent run, which says what became of them.

        async with Sweep("lr-scan", settings, metric="eval/loss", direction="lower") as sweep:
            await asyncio.gather(*(train(rate, sweep.settings()) for rate in rates))

    The parent has the counts per status, the best FINISHED child and its value as tags, and a table
    of all children as an artifact. It is written through a journal: neither a missing server nor
    offline mode stops a sweep, and children nest under it all the same. A child that fails does not
    end the sweep, unless its exception leaves the block: then the parent ends FAILED. It ends
    KILLED after a cancellation or Ctrl-C, or when its process dies; no child is touched. A program
    without an event loop writes `with` instead of `async with`.

    Args:
        name: the parent's run name, and the tag `orbiter.sweep` of all its runs.
        settings: of the parent and, but for the names of runs, of all children. Fields that they
            leave open come from the environment.
        metric: the key by which children are ranked, as it is in MLflow: `eval/accuracy`.
        direction: which values are better, `higher` or `lower`; it belongs to `metric`.
        resume: the `id` of an earlier sweep, or its parent's run id: continue that one and count
            its children too. It must lie in the spool of these settings, with the same name,
            store, experiment and metric. None or empty: a new sweep, whatever others are called.

    Raises:
        pydantic.ValidationError: a setting is wrong; it names the field.
        SweepError: `metric` and `direction` do not go together.
    """

    def __init__(
        self,
        name: str,
        settings: MLflowSettings | None = None,
        *,
        metric: str | None = None,
        direction: Literal["higher", "lower"] | None = None,
        resume: str | None = None,
    ) -> None:
        self._settings = resolve(settings, None).model_copy(update={"run_id": None})
        if (metric is None) != (direction is None):
            raise SweepError("give metric and direction together: by what to rank the children")
        if direction not in (None, "higher", "lower"):
            raise SweepError(f"direction is {direction!r}: write 'higher' or 'lower'")
        self._redactor = Redactor(self._settings.redact)
        self.name = tag_value(self._redactor.text(MLflowSettings(run_name=name).run_name or ""))
        self._ranking = Ranking(metric, direction) if metric and direction else None
        self._resume = resume
        self._tracks = self._settings.enabled and tracks_here(self._settings)
        self._parent: SweepParent | None = None  # while it is open
        self._latest: SweepParent | None = None
        self._note: SweepNote | None = None

    # -- the sweep -----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Identifies the sweep, to resume it: known at once, and the tag `orbiter.uid` of the
        parent. Empty before the block, and if nothing is tracked."""
        return "" if self._note is None else self._note.uid

    @property
    def run_id(self) -> str | None:
        """The id of the parent's run; None before the run exists. Does not wait."""
        if self._note is not None and self._note.run_id is not None:
            return self._note.run_id
        return None if self._latest is None else self._latest.writer.run_id()

    def counts(self) -> Mapping[str, int]:
        """How many children have which status now, and how many are `not seen`: they were given
        settings, but have no run yet, or note nothing here as they run on another machine."""
        return {} if self._latest is None else self._latest.summary().counts

    def settings(self, run_name: str | None = None) -> MLflowSettings:
        """The settings of one more child: pass them to its trainer, in this process or another.

        Args:
            run_name: of the child. Default: the sweep's name with a number.

        Raises:
            SweepError: the sweep is not open, or another process has opened it.
        """
        return self._settings.model_copy(update=self._of_child(run_name))

    def environment(self, run_name: str | None = None) -> dict[str, str]:
        """The present environment with the settings of one more child: start a process with it,
        whose trainers need no settings of their own.

        Raises:
            SweepError: as `settings`.
        """
        return as_environment(self.settings(run_name), os.environ)

    def objective(self, make: MakeTrainer) -> "Callable[[Trial], float]":
        """An objective for an Optuna study: each trial is a child, and its metric the value.

        The trainer trains, and evaluates if the metric is one of an evaluation that `train` did not
        report. What `train` raises leaves the objective as the contract says: `optuna.TrialPruned`
        unchanged, with the run KILLED. Several threads (`n_jobs`) may run it at once.

        Args:
            make: makes the trainer of a trial with the settings that it is given; it may leave
                `mark_validated()` to the objective.

        Raises:
            SweepError: the sweep has no metric; later, from a trial: the study has another
                direction, or the trainer has no such metric.
        """
        if self._ranking is None:
            raise SweepError("an objective needs a value: give the sweep a metric and a direction")
        return objective(make, self._ranking, self.settings, self._noted)

    def _noted(self, settings: MLflowSettings) -> float | None:
        """The metric that the child with these settings has noted."""
        if self._parent is None or settings.sweep is None:
            return None
        number = settings.sweep.number
        found = [note for note in self._parent.folder.children() if note.number == number]
        return max(found, key=lambda note: note.start_time).value if found else None

    def _of_child(self, run_name: str | None) -> dict[str, object]:
        if not self._tracks:
            return {"run_name": run_name}
        if self._parent is None or self._note is None:
            raise SweepError(f"the sweep {self.name!r} is not open: ask inside its `with` block")
        if not self._parent.is_here:
            raise SweepError(
                f"the sweep {self.name!r} is open in another process: ask for the settings of each "
                "child there, and pass them on"
            )
        folder = self._parent.folder
        number = folder.next_number()
        place = SweepMembership(
            uid=self._note.uid,
            name=self.name,
            number=number,
            folder=folder.path,
            metric=None if self._ranking is None else self._ranking.metric,
        )
        return {
            "run_name": run_name or f"{self.name}-{number}",
            "parent_run_id": None,
            "sweep": place,
        }

    def __reduce__(self) -> str:
        raise SweepError(
            "a sweep stays in the process that opened it: pass settings() of each child to others"
        )

    # -- as a context manager ------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._tracks:
            self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._ending(error) as parent:
            if parent is not None and error is None:
                within = self._settings.flush_timeout
                parent.writer.wait(within, patience=within, lanes=())

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._ending(error) as parent:
            if parent is not None and error is None:
                await parent.writer.flush(self._settings.flush_timeout)

    @contextmanager
    def _ending(self, error: BaseException | None) -> Iterator[SweepParent | None]:
        """End the run; in the block its delivery is waited for, and its journal closed after it:
        one that is closed is removed once it is delivered. None where there is nothing to end."""
        parent, self._parent = self._parent, None
        if parent is None or not parent.is_here:
            yield None
            return
        status: RunStatus = "FINISHED"
        if error is not None:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
        parent.end(status)
        try:
            yield parent
        finally:
            parent.close()
            self._note = parent.folder.read() or self._note

    # -- opening -------------------------------------------------------------------------------

    def _open(self) -> None:
        note = self._new_note()
        folder, old = self._found(self._resume, note) if self._resume else (None, None)
        try:
            note = old or note
            source, outer = source_tags(self._redactor), self._settings.sweep
            head = Head(
                uid=note.uid if old is None else uuid.uuid4().hex,
                run_uid=None if old is None else old.uid,
                tracking_uri=note.tracking_uri,
                start_time=now(),
                writer=this_process(),
                experiment=note.experiment,
                experiment_id=note.experiment_id,
                run_name=self.name if old is None else None,
                parent_run_id=None if outer else self._settings.parent_run_id,
                parent_uid=outer.uid if outer else None,
                user=source.pop(names.USER, None),
                keep=self._settings.keep_journals,
                live=self._settings.delivery != "offline",
                folder=working_folder(self._redactor),
                as_written=True,
                tags=head_tags(self.name, self._ranking, source),
            )
            writer = open_writer(self._settings, head)
            if folder is None:
                folder = _new_folder(writer, note)
        except OSError as error:
            if folder is not None:
                folder.give_back()
            self._tracks = False
            _logger.warning(
                "the sweep %s has no parent run: nothing can be written in %s (%s)",
                self.name,
                self._settings.spool_dir,
                error.strerror,
            )
            return
        self._note = note
        parent = SweepParent(writer, folder, self._ranking, self._redactor)
        self._parent = self._latest = parent
        description = self._settings.description
        own = {} if description is None else {names.DESCRIPTION: description}
        self._parent.begin(self._settings.tags | own)
        _logger.info("the sweep %s has the id %s", self.name, note.uid)

    def _new_note(self) -> SweepNote:
        settings = self._settings
        experiment = settings.experiment
        return SweepNote(
            uuid.uuid4().hex,
            self.name,
            self._redactor.text(without_userinfo(settings.tracking_uri)),
            None if experiment is None else self._redactor.text(experiment),
            settings.experiment_id,
            None if self._ranking is None else self._ranking.metric,
            None if self._ranking is None else self._ranking.direction,
        )

    def _found(self, key: str, new: SweepNote) -> tuple[SweepFolder, SweepNote]:
        """The folder of an earlier sweep, taken for this process.

        Raises:
            SweepError: there is none, it is another sweep, or it is open.
        """
        spools = self._settings.spool_folders
        folder = SweepFolder.find(spools, key)
        old = None if folder is None else folder.read()
        if folder is None or old is None:
            places = ", ".join(map(str, spools))
            raise SweepError(
                f"there is no sweep {key!r} in {places}: resume it with the spool_dir that it had, "
                "or start a new one without resume"
            )
        same = replace(new, uid=old.uid, run_id=old.run_id)
        if same != old:
            differing = [
                f"{one.name} is {getattr(old, one.name)!r}, not {getattr(same, one.name)!r}"
                for one in fields(old)
                if getattr(old, one.name) != getattr(same, one.name)
            ]
            raise SweepError(f"{key!r} is another sweep: its {'; its '.join(differing)}")
        if not folder.take():
            raise SweepError(f"the sweep {key!r} is open in another process: wait for its end")
        return folder, old


def _new_folder(writer: RunWriter, note: SweepNote) -> SweepFolder:
    """The folder of a new sweep, beside the journal of its parent, taken for this process.

    Raises:
        OSError: it cannot be made; the run has ended.
    """
    try:
        folder = SweepFolder.create(writer.path.parent, note)
        folder.take()
    except OSError:
        writer.append(Update("KILLED", now()))
        writer.append(Close())
        writer.close()
        raise
    return folder
