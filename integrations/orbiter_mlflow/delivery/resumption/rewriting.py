"""How the records of a journal are rewritten when it resumes a run: steps, tags, params, folders.

Pure: the result depends only on the resumption, the run as it was before, and the journal. So
delivering again after a crash gives the same points and tags.

A run counts the journals that wrote to it: the first is number 1, and each one that resumes the run
gets the next number. Tags and artifact folders call such a period of a run a "life".
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import (
    Artifact,
    Checkpoint,
    Metrics,
    Params,
    Record,
    Rollouts,
    Tags,
)
from orbiter_mlflow.text import artifact_paths

MAX_STEP = 2**63 - 1
"""The largest step that MLflow stores."""


@dataclass(frozen=True, slots=True)
class RunContents:
    """The contents of a run in the store, as far as delivery needs them.

    Attributes:
        last_step: the largest step of its training and evaluation metrics; None without any.
        params: all of them, also those logged by others.
        tags: all of them.
        has_metrics: whether it has any metric, of whatever name.
        status: its status.
        last_system_step: the largest step of its metrics of the system; None without any.
    """

    last_step: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    has_metrics: bool = False
    status: str = "RUNNING"
    last_system_step: int | None = None


@dataclass(frozen=True, slots=True)
class Resumption:
    """How the records of one journal are rewritten for its run.

    Attributes:
        number: 1 for the journal that created the run, or our first in a run made by others.
        after_step: the last step in the run when this journal resumed it; None without one.
        keeps_config: the run has a config of ours already and keeps it.
        shift: added to the steps of this journal; None until it has trained.
        overlap: the first step trained, if it is not beyond `after_step`: from there on the run has
            points of both journals.
        after_system_step: the last step of the run's metrics of the system, whose steps count
            samples: those of this journal follow it, as in MLflow. None without one.
    """

    number: int = 1
    after_step: int | None = None
    keeps_config: bool = False
    shift: int | None = None
    overlap: int | None = None
    after_system_step: int | None = None

    @property
    def changes_nothing(self) -> bool:
        """Whether records are delivered as they are."""
        return self.number == 1 and self.after_step is None and self.after_system_step is None

    def tag(self, uid: str) -> dict[str, str]:
        """The tag from which `find_resumption` reads the resumption of the journal `uid`."""
        content = {"uid": uid, "after_step": self.after_step, "keeps_config": self.keeps_config}
        if self.overlap is not None:
            content["overlaps_from_step"] = self.overlap
        if self.after_system_step is not None:
            content["after_system_step"] = self.after_system_step
        return {f"{names.LIFE}.{self.number}": json.dumps(content)}

    def advanced_by(self, record: Record | None) -> "Resumption":
        """The resumption after a record: the first training report determines the shift.

        Step 0 or 1 comes from a trainer that counts from the start: it follows the last step of the
        run. Any other step comes from a trainer that restored its own count, perhaps from a
        checkpoint older than the last step: its steps stay.
        """
        if self.after_step is None or self.shift is not None:
            return self
        if not _is_of_training(record):
            return self
        if record.step in (0, 1):
            return replace(self, shift=max(0, self.after_step + 1 - record.step))
        overlap = record.step if record.step <= self.after_step else None
        return replace(self, shift=0, overlap=overlap)

    def rewrite(self, record: Record | None) -> Record | None:
        """Rewrite a record for delivery."""
        if isinstance(record, Metrics):
            of_system = all(map(names.is_system_key, record.values))
            move = self._system_step if of_system else self._step
            return replace(record, step=move(record.step))
        if isinstance(record, Tags):
            return Tags(self._with_own_tables(self.rename_tags(record.values)))
        if isinstance(record, Params) and self.keeps_config:
            return Params({})
        if isinstance(record, Rollouts | Checkpoint):
            file = self._step_file(record.step, record.number)
            return replace(record, step=self._step(record.step), name=file)
        if isinstance(record, Artifact) and self.number > 1:
            return replace(record, folder=_folder(record.folder, self.number))
        return record

    def completes_config(self, record: Record | None) -> bool:
        """Whether a record is the last one of a config that the run does not take."""
        return (
            self.keeps_config and isinstance(record, Tags) and names.CONFIG_DIGEST in record.values
        )

    def rename_tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tags, with the number of the resumption in the names that each one has to itself."""
        if self.number == 1:
            return dict(tags)
        return {self._name(name): text for name, text in tags.items()}

    def _name(self, name: str) -> str:
        if name.startswith(names.CONFIG):
            apart = self.keeps_config  # otherwise the params of the run are this journal's
        else:
            apart = name.startswith(names.OF_ONE_LIFE)
        return names.in_life(name, self.number) if apart else name

    def _step(self, step: int) -> int:
        if self.after_step is None:
            return step
        if self.shift is None:  # evaluated before training: it measures the last journal's result
            return max(step, self.after_step)
        return min(step + self.shift, MAX_STEP)

    def _system_step(self, step: int) -> int:
        if self.after_system_step is None:
            return step
        return min(step + self.after_system_step + 1, MAX_STEP)

    def _step_file(self, step: int, number: int) -> str:
        moved = self._step(step)
        # Before training, all steps become one.
        reported = step if moved != step and self.shift is None else None
        return artifact_paths.step_file(moved, number, self.number, reported)

    def _with_own_tables(self, tags: dict[str, str]) -> dict[str, str]:
        """The tags, with the tables of rollouts by the names that they have in the run."""
        if names.LOGGED_TABLES not in tags:
            return tags
        tables = json.loads(tags[names.LOGGED_TABLES])
        for table in tables:
            folder, _, file = table["path"].rpartition("/")
            parts = artifact_paths.step_file_parts(file)
            if parts is not None and folder.startswith(f"{artifact_paths.rollouts_folder()}/"):
                table["path"] = f"{folder}/{self._step_file(parts[0], parts[1])}"
        return tags | {names.LOGGED_TABLES: json.dumps(tables)}


def _is_of_training(record: Record | None) -> TypeGuard[Metrics | Rollouts]:
    """Whether a record has the step of a training report."""
    if isinstance(record, Rollouts):
        return record.phase == names.TRAIN
    return isinstance(record, Metrics) and all(map(names.is_train_key, record.values))


def find_resumption(run: RunContents, uid: str) -> Resumption | None:
    """Read from a run's tags how the journal `uid` resumed it; None where it has not yet."""
    for number, content in _recorded(run).items():
        if content.get("uid") == uid:
            return Resumption(
                number,
                _int_or_none(content.get("after_step")),
                content.get("keeps_config") is True,
                after_system_step=_int_or_none(content.get("after_system_step")),
            )
    return None


def next_resumption(run: RunContents) -> Resumption:
    """The next resumption of a run."""
    # Not its uid: runs of MLflow's own clients have one too.
    ours = {names.TRAINER, names.STATE, names.CONFIG_DIGEST} & run.tags.keys()
    last = max(_recorded(run), default=1 if ours else 0)
    return Resumption(
        last + 1,
        run.last_step,
        names.CONFIG_DIGEST in run.tags,
        after_system_step=run.last_system_step,
    )


def journal_uids(run: RunContents) -> set[object]:
    """The uids of the journals that have written to a run."""
    recorded = [content.get("uid") for content in _recorded(run).values()]
    return {uid for uid in (run.tags.get(names.UID), *recorded) if uid is not None}


def past_errors(run: RunContents, number: int) -> dict[str, str]:
    """The tags of the error that ended resumption `number`, with that number in their names."""
    return {names.in_life(name, number): run.tags[name] for name in names.ERROR if name in run.tags}


def last_step(steps: Iterable[tuple[str, int]]) -> int | None:
    """The largest step of the training and evaluation metrics, out of (key, step) pairs.

    Other metrics may count something else: seconds, samples, tokens.
    """
    ours = (step for key, step in steps if names.is_train_key(key) or names.is_eval_key(key))
    return max(ours, default=None)


def last_system_step(steps: Iterable[tuple[str, int]]) -> int | None:
    """The largest step of the metrics of the system, out of (key, step) pairs."""
    return max((step for key, step in steps if names.is_system_key(key)), default=None)


def _int_or_none(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _recorded(run: RunContents) -> dict[int, dict[str, object]]:
    """Number of a resumption -> content of its tag; empty where somebody has changed the tag."""
    found: dict[int, dict[str, object]] = {}
    for name, text in run.tags.items():
        prefix, _, number = name.rpartition(".")
        if prefix == names.LIFE and number.isdecimal():
            try:
                content = json.loads(text)
            except ValueError:
                content = None
            found[int(number)] = content if isinstance(content, dict) else {}
    return found


def _folder(folder: str | None, number: int) -> str | None:
    """Where an artifact goes: provenance of a resumption goes into a folder of its own."""
    first, *inside = (folder or "").split("/")
    if first != names.PROVENANCE:
        return folder
    return "/".join([first, f"life-{number}", *inside])
