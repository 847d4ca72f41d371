"""The settings of tracking: the store, the names of the run, and what to do on failure.

Each setting comes from the first of these that sets it: the keyword `mlflow=MLflowSettings(...)`,
the class attribute `mlflow_settings`, the environment, the default.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from orbiter_mlflow.delivery.spool_folder import default_spool, fallbacks
from orbiter_mlflow.delivery.store_uri import absolute, plain
from orbiter_mlflow.text.urls import without_userinfo
from orbiter_mlflow.text.values import tag_value

_PREFIX = "ORBITER_MLFLOW_"
_MLFLOW_VARIABLES = {
    "tracking_uri": "MLFLOW_TRACKING_URI",
    "experiment": "MLFLOW_EXPERIMENT_NAME",
    "experiment_id": "MLFLOW_EXPERIMENT_ID",
    "run_id": "MLFLOW_RUN_ID",
}

Part = Literal["git", "diff", "command", "machine", "packages", "seeds"]
"""A provenance section that `skip_provenance` can switch off."""
Identifier = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]*$", max_length=256)]
"""The id of a run or an experiment (mlflow/utils/validation.py)."""


class SweepMembership(BaseModel):
    """Which sweep a run belongs to; `Sweep.settings` and `Sweep.environment` make it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uid: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """The uid of the journal that creates the parent run, whose id may not be known yet."""
    name: str
    """The sweep's name, for the tag by which its runs are found."""
    number: int
    """Counts the children that the sweep has given settings to, from 1."""
    folder: Path
    """Where the children note their results, so that the parent can count them."""
    metric: str | None = None
    """The metric by which children are ranked."""


class MLflowSettings(BaseModel):
    """How one trainer is tracked. Immutable; unknown fields are refused.

    Raises:
        pydantic.ValidationError: a value is wrong; it names the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    tracking_uri: str = "sqlite:///mlflow.db"
    """Any MLflow tracking URI, with or without the prefix `journal+`, which is removed at once. A
    relative path is resolved against the working folder at once."""
    experiment: str | None = Field(default=None, min_length=1, max_length=500)
    """Name of the experiment, created if it does not exist. Default: MLflow's `Default`."""
    experiment_id: Identifier | None = None
    """Id of an existing experiment, instead of its name. An error if both are set."""
    run_name: str | None = Field(default=None, min_length=1, max_length=250)
    """Name of the run, up to 250 characters. Default: MLflow makes one up."""
    run_id: Identifier | None = None
    """Id of a run to resume, instead of creating one."""
    parent_run_id: Identifier | None = None
    """Id of the run under which the UI nests this one."""
    sweep: SweepMembership | None = None
    """The sweep under whose run the UI nests this one, instead of `parent_run_id`; set by `Sweep`.
    As a variable, JSON."""
    tags: dict[str, str] = {}
    """Tags of the run. Names that begin with `orbiter.` are refused with a warning."""
    eval_names: dict[str, Annotated[str, Field(min_length=1, max_length=250)]] = {}
    """Names for evaluation data, by digest or by the name they have of their own: metrics on these
    data go to `eval/<name>/`."""
    description: str | None = None
    """Markdown that the run's page shows first, before the generated description."""
    spool_dir: Path = Field(default_factory=default_spool)
    """Folder of the journals, on a disk that outlives the job. Default: under the home folder;
    under the folder for temporary files if the home cannot be written."""
    delivery: Literal["process", "thread", "offline"] = "process"
    """Whether a process, a thread, or `orbiter-mlflow sync` sends the journal to MLflow."""
    durability: Literal["second", "record"] = "second"
    """What may be lost if the machine dies: with `second` the records of the last second; with
    `record` none, as each waits for the disk before the call that reports it returns."""
    keep_journals: bool = False
    """Whether journals stay in the spool once they are fully delivered."""
    flush_timeout: float = Field(default=30.0, ge=0, allow_inf_nan=False)
    """Seconds, 0 or more, that `train` and `evaluate` wait at most for delivery when they end."""
    answer_timeout: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Seconds, 0 or more, that MLflow's own API waits behind the prefix `journal+` for a store that
    gives no answer, before it goes on without."""
    on_failure: Literal["warn", "raise"] = "warn"
    """Whether results that are not delivered in time, and tables of examples that cannot be used,
    give a warning or a `TrackingError`."""
    redact: tuple[str, ...] = ()
    """More key names of secrets, as globs such as `internal_*`; letter case does not matter."""
    skip_provenance: tuple[Part, ...] = ()
    """Provenance sections that are not collected; `git` leaves out `diff`, too."""
    progress: bool | Annotated[int, Field(gt=0)] = False
    """Whether `report` moves a progress bar on the terminal; a number is the total of steps."""
    rollouts_per_step: int = Field(default=1000, ge=0)
    """How many rollouts of a report its table holds at most; 0 keeps none."""
    traces_per_step: int = Field(default=8, ge=0)
    """How many rollouts of a report become traces at most: the worst, the best, some between."""
    traces_per_minute: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """How many rollouts of a run become traces on average, more than 0; 64 may come at once."""
    log_checkpoints: Literal["last", "best", "all"] | None = None
    """Which reported checkpoints become artifacts of the run: the last one, the best one by
    `checkpoint_metric`, or all. Default: none."""
    checkpoint_metric: str | None = Field(default=None, min_length=1, max_length=250)
    """Key of the metric by which the best checkpoint is told, such as `eval/loss`."""
    checkpoint_direction: Literal["lower", "higher"] | None = None
    """Whether less or more of `checkpoint_metric` is better."""
    system_metrics: bool | Annotated[float, Field(ge=0.1, allow_inf_nan=False)] = False
    """Whether to sample the machine, the process tree and the GPUs while the run goes on; a number
    is the seconds between two samples, 0.1 or more. True: every 10 seconds. Needs the extra
    `system`."""
    ranks: Literal["zero", "all"] = "zero"
    """Whether only rank 0 of a distributed training tracks, or every process."""
    enabled: bool = True
    """Whether tracking is on."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, without_userinfo(value) if name == "tracking_uri" else value

    @field_validator("experiment", "tracking_uri")
    @classmethod
    def _storable(cls, text: str | None) -> str | None:
        if text is not None and tag_value(text) != text:
            raise ValueError(f"{text!r} holds NUL or half a surrogate pair, which no store takes")
        return text

    @field_validator("tracking_uri")
    @classmethod
    def _absolute(cls, uri: str) -> str:
        uri = plain(uri)
        if not uri.strip():
            raise ValueError("is empty: give a URI, or leave it out for sqlite:///mlflow.db")
        return absolute(uri)

    @field_validator("system_metrics", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        """A number is one also as the text of a variable, where `1` might mean `true`."""
        if isinstance(value, str):
            with suppress(ValueError):
                return float(value)
        return value

    @field_validator("spool_dir")
    @classmethod
    def _expanded(cls, folder: Path) -> Path:
        try:
            return folder.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"'{folder}': there is no home folder to expand ~ to") from error

    @model_validator(mode="after")
    def _one_experiment(self) -> "MLflowSettings":
        if self.experiment is not None and self.experiment_id is not None:
            raise ValueError(
                f"experiment={self.experiment!r} and experiment_id={self.experiment_id!r} are both "
                "set: leave one out"
            )
        return self

    @model_validator(mode="after")
    def _best_is_defined(self) -> "MLflowSettings":
        metric, direction = self.checkpoint_metric, self.checkpoint_direction
        if self.log_checkpoints is not None and (metric is None) != (direction is None):
            raise ValueError(
                f"checkpoint_metric={metric!r} and checkpoint_direction={direction!r}: set both, "
                'such as "eval/loss" and "lower"'
            )
        if self.log_checkpoints == "best" and metric is None:
            raise ValueError(
                'log_checkpoints="best" needs checkpoint_metric and checkpoint_direction, such as '
                '"eval/loss" and "lower"'
            )
        return self

    @property
    def spool_folders(self) -> list[Path]:
        """Folders for the journals, best first: `spool_dir`, and if nobody has set that, the
        fallbacks for a home that cannot be written."""
        if "spool_dir" in self.model_fields_set:
            return [self.spool_dir]
        return list(dict.fromkeys([self.spool_dir, *fallbacks()]))


_SAME = (("experiment", "experiment_id"), ("parent_run_id", "sweep"))
"""Fields that say the same thing: the first source that has one of them has the say on both."""


def resolve(
    explicit: MLflowSettings | None,
    class_settings: MLflowSettings | None,
    environ: Mapping[str, str] = os.environ,
) -> MLflowSettings:
    """Merge the settings, each field from the first source that sets it.

    Raises:
        pydantic.ValidationError: a value is wrong; it names the field.
    """
    values: dict[str, Any] = {}
    for source in (_explicit(explicit), _explicit(class_settings), from_environment(environ)):
        for pair in _SAME:
            if any(name in values for name in pair):
                source = {name: value for name, value in source.items() if name not in pair}
        values = source | values
    return MLflowSettings(**values)


def _explicit(settings: MLflowSettings | None) -> dict[str, Any]:
    if settings is None:
        return {}
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read settings from environment variables: `ORBITER_MLFLOW_<FIELD>`, else MLflow's own.

    `ORBITER_MLFLOW_TAGS`, `ORBITER_MLFLOW_EVAL_NAMES` and `ORBITER_MLFLOW_SWEEP` are JSON objects,
    `ORBITER_MLFLOW_REDACT` and `ORBITER_MLFLOW_SKIP_PROVENANCE` are comma-separated lists.
    """
    values: dict[str, Any] = {}
    for name in MLflowSettings.model_fields:
        variables = (_PREFIX + name.upper(), _MLFLOW_VARIABLES.get(name, ""))
        text = next((environ[v] for v in variables if environ.get(v)), None)
        if text is not None:
            values[name] = _parsed(name, text)
    if "experiment" in values:
        values.pop("experiment_id", None)  # as in MLflow, the name goes first
    return values


def to_environment(values: Mapping[str, str | None], environ: Mapping[str, str]) -> dict[str, str]:
    """An environment with these settings for trainers and for MLflow's own clients.

    Args:
        values: settings that MLflow has a variable for, by field; None removes one.
        environ: the environment to change.
    """
    changed = dict(environ)
    for name, text in values.items():
        changed.pop(_PREFIX + name.upper(), None)  # it would win over MLflow's own
        changed.pop(_MLFLOW_VARIABLES[name], None)
        if text is not None:
            changed[_MLFLOW_VARIABLES[name]] = text
    return changed


def as_environment(settings: MLflowSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """An environment by which a child process gets `settings`, and no others.

    Args:
        settings: all of them.
        environ: the environment to change.
    """
    variables = {_PREFIX + name.upper() for name in MLflowSettings.model_fields}
    others = variables | {*_MLFLOW_VARIABLES.values()}
    values = settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return {name: text for name, text in environ.items() if name not in others} | {
        _PREFIX + name.upper(): _text(value) for name, value in values.items()
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def _parsed(name: str, text: str) -> Any:
    if name in ("redact", "skip_provenance"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if name in ("tags", "eval_names", "sweep"):
        try:
            return json.loads(text)
        except ValueError:
            return text  # pydantic says that it is no object, and names the field
    return text


def claim_environment_run_id(settings: MLflowSettings) -> None:
    """Remove a run id that `settings` took from the environment, if this process tracks: it is for
    the first trainer of the process only, and for no process that this one starts."""
    if settings.run_id is None or not settings.enabled or not tracks_here(settings):
        return
    for variable in (_PREFIX + "RUN_ID", _MLFLOW_VARIABLES["run_id"]):
        if os.environ.get(variable) == settings.run_id:
            del os.environ[variable]


def tracks_here(settings: MLflowSettings, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process tracks: it has rank 0 or no rank, or every rank tracks."""
    return settings.ranks == "all" or is_rank_zero(environ)


# -- the rank of this process --------------------------------------------------------------------
# The innermost launcher decides: `srun` may start `mpirun`, and that `torchrun`.

_LAUNCHERS = (
    (("RANK",), "WORLD_SIZE"),  # torchrun, DeepSpeed, accelerate
    (("HOROVOD_RANK",), "HOROVOD_SIZE"),
    (("OMPI_COMM_WORLD_RANK",), "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    (("PMI_RANK",), "PMI_SIZE"),  # MPICH, Intel MPI, Cray
    (("JSM_NAMESPACE_RANK",), "JSM_NAMESPACE_SIZE"),  # jsrun
    (("PMIX_RANK",), None),
    (("NODE_RANK", "LOCAL_RANK"), None),  # Lightning, which knows no rank before it trains
    (("SLURM_PROCID",), "SLURM_NTASKS"),
)
"""Variables of the rank and of the number of processes. The first launcher whose rank is set
decides. If it sets no number of processes, only a rank above 0 decides: `NODE_RANK=0` is set for
each process of the first node."""


def is_rank_zero(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process has rank 0, or none: it was started alone.

    A value that is no whole number counts as not set, as an empty one does.
    """
    for ranks, size in _LAUNCHERS:
        found = [number for name in ranks if (number := _number(environ.get(name))) is not None]
        if found and size is not None:
            return max(found) == 0 or (_number(environ.get(size)) or 1) == 1
        if any(found):
            return False
    return True


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text.strip()) else None
