"""The lives of a run: what one that continues an earlier one changes in the records of its journal.

Pure: what a record becomes follows from the life, the run as it was before it, and the journal, so
that delivering again after a crash gives the same points and tags.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from orbiter_mlflow import names
from orbiter_mlflow.delivery.records import Artifact, Metrics, Params, Record, Tags
from orbiter_mlflow.text.clock import utc
from orbiter_mlflow.text.escaping import shortened

MAX_STEP = 2**63 - 1
"""The largest step that MLflow stores."""

TRAINED = f"{names.TRAIN}/"
EVALUATED = f"{names.EVAL}/"

_SHOWN = 5
"""Changed params that a warning names."""

_LENGTHS = (1000, 100, 20)
"""Characters that a value may have in the tag of the changes; the shorter, the more there are."""

Changes = Mapping[str, tuple[str | None, str | None]]
"""Param -> its value in the run, and the one of this life; None where there is none."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a run holds.

    Attributes:
        last_step: the largest step of what was trained or evaluated; None where nothing was.
        params: all of them, also those logged by others.
        tags: all of them.
    """

    last_step: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Life:
    """What one journal is to its run.

    Attributes:
        number: 1 for the journal that made the run, or the first one of ours in a run of others.
        after_step: the last step in the run when this life began; None where it had none.
        keeps_config: the run has a config of ours already, and keeps it.
        shift: how far the steps of this life are moved; None before it has trained.
        overlap: the first step trained where it is not beyond `after_step` and stays: both lives
            have points there.
    """

    number: int = 1
    after_step: int | None = None
    keeps_config: bool = False
    shift: int | None = None
    overlap: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its records are delivered as they are."""
        return self.number == 1 and self.after_step is None

    def tag(self, uid: str) -> dict[str, str]:
        """The tag by which `begun` finds this life of the journal `uid`."""
        told = {"uid": uid, "after_step": self.after_step, "keeps_config": self.keeps_config}
        if self.overlap is not None:
            told["overlaps_from_step"] = self.overlap
        return {f"{names.LIFE}.{self.number}": json.dumps(told)}

    def reaching(self, record: Record | None) -> "Life":
        """This life once it has come to a record: the first training report fixes the shift.

        One at step 0 or 1 comes from a trainer that counts anew: it goes right behind the last step
        in the run. Any other comes from one that has restored its own count, perhaps from a
        checkpoint older than the last step: its steps stay.
        """
        if self.after_step is None or self.shift is not None:
            return self
        if not isinstance(record, Metrics) or not all(map(_is_trained, record.values)):
            return self
        if record.step in (0, 1):
            return replace(self, shift=max(0, self.after_step + 1 - record.step))
        overlap = record.step if record.step <= self.after_step else None
        return replace(self, shift=0, overlap=overlap)

    def told(self, record: Record | None) -> Record | None:
        """A record as it is delivered in this life."""
        if isinstance(record, Metrics):
            return replace(record, step=self._step(record))
        if isinstance(record, Tags):
            return Tags(self.tags(record.values))
        if isinstance(record, Params) and self.keeps_config:
            return Params({})
        if isinstance(record, Artifact) and self.number > 1:
            return replace(record, folder=_folder(record.folder, self.number))
        return record

    def tells_config(self, record: Record | None) -> bool:
        """Whether a record is the last one of a config that the run does not take."""
        return (
            self.keeps_config and isinstance(record, Tags) and names.CONFIG_DIGEST in record.values
        )

    def tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Tags under the names that they have in this life."""
        if self.number == 1:
            return dict(tags)
        return {self._name(name): text for name, text in tags.items()}

    def _name(self, name: str) -> str:
        if name.startswith(names.CONFIG):
            apart = self.keeps_config  # else the run's params are of this life
        else:
            apart = name.startswith(names.OF_ONE_LIFE)
        return names.in_life(name, self.number) if apart else name

    def _step(self, record: Metrics) -> int:
        if self.after_step is None:
            return record.step
        if self.shift is None:  # evaluated before it has trained: what the last life has come to
            return max(record.step, self.after_step)
        return min(record.step + self.shift, MAX_STEP)


def begun(earlier: Earlier, uid: str) -> Life | None:
    """The life that the journal `uid` has begun in a run; None where it has not."""
    for number, told in _told(earlier).items():
        if told.get("uid") == uid:
            after, keeps = told.get("after_step"), told.get("keeps_config")
            return Life(number, after if isinstance(after, int) else None, keeps is True)
    return None


def following(earlier: Earlier) -> Life:
    """The life that comes next in a run."""
    ours = {names.UID, names.CONFIG_DIGEST} & earlier.tags.keys()
    last = max(_told(earlier), default=1 if ours else 0)
    return Life(last + 1, earlier.last_step, names.CONFIG_DIGEST in earlier.tags)


def uids(earlier: Earlier) -> set[object]:
    """The journals that have written to a run."""
    told = [life.get("uid") for life in _told(earlier).values()]
    return {uid for uid in (earlier.tags.get(names.UID), *told) if uid is not None}


def past_errors(earlier: Earlier, number: int) -> dict[str, str]:
    """The tags of the error that ended life `number`, under the names that tell whose it was."""
    return {
        names.in_life(name, number): earlier.tags[name]
        for name in names.ERROR
        if name in earlier.tags
    }


def last_step(steps: Iterable[tuple[str, int]]) -> int | None:
    """The largest step among the metrics of trainers, out of key and step of a run's metrics.

    Those of others may count something else: seconds, samples, tokens.
    """
    ours = (step for key, step in steps if key.startswith((TRAINED, EVALUATED)))
    return max(ours, default=None)


def config_changes(earlier: Earlier, params: Mapping[str, str]) -> Changes:
    """What differs between the config of a run and the params of a later life."""
    roots = {*_fields(earlier.tags), *map(_root, params)}
    kept = {key: text for key, text in earlier.params.items() if _root(key) in roots}
    return {
        key: (kept.get(key), params.get(key))
        for key in sorted(kept.keys() | params.keys())
        if kept.get(key) != params.get(key)
    }


def changes_tag(changes: Changes, number: int) -> dict[str, str]:
    """The tag of the changes of life `number`, if any: JSON, `{param: [kept, new]}`.

    To keep MLflow's limit, long values are shortened, and say how long they are; params that still
    find no room are counted under the key `...`.
    """
    if not changes:
        return {}
    name = names.in_life(names.CONFIG_CHANGED, number)
    told: dict[str, object] = {}
    for length in _LENGTHS:
        told = {key: [_short(text, length) for text in pair] for key, pair in changes.items()}
        if len(text := json.dumps(told, ensure_ascii=False)) <= names.MAX_TAG_VALUE:
            return {name: text}
    while len(text) > names.MAX_TAG_VALUE:
        told.pop("...", None)
        told.popitem()
        told["..."] = f"{len(changes) - len(told)} more"
        text = json.dumps(told, ensure_ascii=False)
    return {name: text}


def changes_text(changes: Changes, number: int) -> str:
    """The changes of life `number` in words; empty where there are none."""
    if not changes:
        return ""
    shown = []
    for key, pair in list(changes.items())[:_SHOWN]:
        kept, new = ("none" if text is None else _short(text, 40) for text in pair)
        shown.append(f"{key}={kept} (this trainer has {new})")
    if len(changes) > _SHOWN:
        shown.append(f"{len(changes) - _SHOWN} more")
    return f"{', '.join(shown)}; all in the tag {names.in_life(names.CONFIG_CHANGED, number)}"


def phase(records: Iterable[Record | None]) -> str | None:
    """What a trainer was at when its journal ended; None where the records do not tell."""
    validated = evaluated = False
    for record in records:
        if isinstance(record, Tags):
            state = record.values.get(names.STATE)
            if state == "training":
                return "train"
            validated = validated or state == "validated"
        elif isinstance(record, Metrics):
            evaluated = evaluated or any(key.startswith(EVALUATED) for key in record.values)
    # What was neither validated nor trained has a run because it began to evaluate.
    return "evaluate" if evaluated or not validated else None


def death_tags(died: int, phase: str | None) -> dict[str, str]:
    """The tags of a run whose process is gone; `died` in milliseconds since the epoch."""
    return {
        names.STATE: "failed",
        names.state_at("failed"): utc(died),
        names.ERROR_TYPE: "ProcessDied",
        names.ERROR_MESSAGE: "the process ended without a word: killed or out of memory",
        **({} if phase is None else {names.ERROR_PHASE: phase}),
    }


def _told(earlier: Earlier) -> dict[int, dict[str, object]]:
    """Number of a life -> what its tag says; nothing where somebody has changed it."""
    found: dict[int, dict[str, object]] = {}
    for name, text in earlier.tags.items():
        prefix, _, number = name.rpartition(".")
        if prefix == names.LIFE and number.isdecimal():
            try:
                told = json.loads(text)
            except ValueError:
                told = None
            found[int(number)] = told if isinstance(told, dict) else {}
    return found


def _is_trained(key: str) -> bool:
    return key.startswith(TRAINED)


def _folder(folder: str | None, number: int) -> str | None:
    """Where an artifact goes: what tells of the program goes beside that of earlier lives."""
    first, *inside = (folder or "").split("/")
    if first != names.PROVENANCE:
        return folder
    return "/".join([first, f"life-{number}", *inside])


def _fields(tags: Mapping[str, str]) -> Sequence[str]:
    """The root fields of a run's config; none where their tag is not what we write."""
    pieces = [name for name in tags if name.partition(":")[0] == names.CONFIG_FIELDS]
    pieces.sort(key=lambda name: (len(name), name))  # by their number
    try:
        fields = json.loads("".join(tags[name] for name in pieces))
    except ValueError:
        return []
    return [str(field) for field in fields] if isinstance(fields, list) else []


def _root(key: str) -> str:
    """The field of a config that a param belongs to."""
    return key.partition(".")[0].partition(":")[0]


def _short(text: str | None, length: int) -> str | None:
    return None if text is None else shortened(text, length)
