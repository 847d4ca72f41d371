"""How a trainer is tracked: where to, under which name, and what to do in trouble.

Each setting comes from the first of these that has it: the keyword `mlflow=MLflowSettings(...)`,
the class attribute `mlflow_settings`, the environment, the default.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from orbiter_mlflow.delivery.spool_folder import default_spool, fallbacks
from orbiter_mlflow.delivery.store_uri import absolute
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
"""Of what is found out about where a run comes from."""
Identifier = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]*$", max_length=256)]
"""Of a run or an experiment (mlflow/utils/validation.py)."""


class MLflowSettings(BaseModel):
    """Settings of the tracking of one trainer.

    Raises:
        pydantic.ValidationError: a value is wrong; it names the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    tracking_uri: str = "sqlite:///mlflow.db"
    """Any tracking URI of MLflow's; a relative path is taken from the present folder."""
    experiment: str | None = Field(default=None, min_length=1, max_length=500)
    """Name of the experiment, made where it does not exist; MLflow's `Default` where left out."""
    experiment_id: Identifier | None = None
    """The experiment by its id instead of its name."""
    run_name: str | None = Field(default=None, min_length=1, max_length=250)
    """MLflow makes one up where left out."""
    run_id: Identifier | None = None
    """Continue this run instead of starting one."""
    parent_run_id: Identifier | None = None
    """Show the run nested under that one."""
    tags: dict[str, str] = {}
    """More tags of the run."""
    eval_names: dict[str, Annotated[str, Field(min_length=1, max_length=250)]] = {}
    """Names for evaluation data, by their digest or by the name that they have: the metrics on
    them go to `eval/<name>/`."""
    description: str | None = None
    """Shown on the run's page; Markdown."""
    spool_dir: Path = Field(default_factory=default_spool)
    """Where the journals lie; on a cluster, a disk that outlives the job."""
    delivery: Literal["process", "thread", "offline"] = "process"
    """Who sends the journal to MLflow: a process of its own, a thread, or `orbiter-mlflow sync`."""
    keep_journals: bool = False
    """Keep journals that are delivered to their end; they are removed otherwise."""
    flush_timeout: float = Field(default=30.0, ge=0, allow_inf_nan=False)
    """Seconds that `train` and `evaluate` wait, at most, for delivery when they end."""
    on_failure: Literal["warn", "raise"] = "warn"
    """Whether results that could not be delivered in time are a warning or a `TrackingError`."""
    redact: tuple[str, ...] = ()
    """More names of secrets, as patterns such as `internal_*`; upper and lower case are alike."""
    skip_provenance: tuple[Part, ...] = ()
    """What is not to be found out about where the run comes from; `git` takes `diff` with it."""
    progress: bool | Annotated[int, Field(gt=0)] = False
    """A progress bar on the terminal, moved by `report`; a number says how many steps there are."""
    ranks: Literal["zero", "all"] = "zero"
    """Which processes of a distributed training track."""
    enabled: bool = True
    """False switches the tracking off."""

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
        if not uri.strip():
            raise ValueError("is empty: give a URI, or leave it out for sqlite:///mlflow.db")
        return absolute(uri)

    @field_validator("spool_dir")
    @classmethod
    def _expanded(cls, folder: Path) -> Path:
        try:
            return folder.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"'{folder}': there is no home folder that ~ stands for") from error

    @model_validator(mode="after")
    def _one_experiment(self) -> "MLflowSettings":
        if self.experiment is not None and self.experiment_id is not None:
            raise ValueError(
                f"experiment={self.experiment!r} and experiment_id={self.experiment_id!r} are both "
                "set: leave one out"
            )
        return self

    @property
    def spool_folders(self) -> list[Path]:
        """Where the journals may lie, best first: in `spool_dir`; where nobody has set it, also in
        the folders that take its place if it takes none."""
        if "spool_dir" in self.model_fields_set:
            return [self.spool_dir]
        return list(dict.fromkeys([self.spool_dir, *fallbacks()]))


def resolve(
    given: MLflowSettings | None,
    of_class: MLflowSettings | None,
    environ: Mapping[str, str] = os.environ,
) -> MLflowSettings:
    """The settings in force, field by field from the first source that sets one.

    Raises:
        pydantic.ValidationError: a value is wrong; it names the field.
    """
    values: dict[str, Any] = {}
    for source in (_explicit(given), _explicit(of_class), from_environment(environ)):
        if "experiment" in values or "experiment_id" in values:
            source.pop("experiment", None)
            source.pop("experiment_id", None)
        values = source | values
    return MLflowSettings(**values)


def _explicit(settings: MLflowSettings | None) -> dict[str, Any]:
    if settings is None:
        return {}
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that environment variables set: `ORBITER_MLFLOW_<FIELD>`, else MLflow's own.

    `ORBITER_MLFLOW_TAGS` and `ORBITER_MLFLOW_EVAL_NAMES` are JSON objects, `ORBITER_MLFLOW_REDACT`
    and `ORBITER_MLFLOW_SKIP_PROVENANCE` are comma-separated lists.
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


def _parsed(name: str, text: str) -> Any:
    if name in ("redact", "skip_provenance"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if name in ("tags", "eval_names"):
        try:
            return json.loads(text)
        except ValueError:
            return text  # pydantic says that it is no dictionary, and names the field
    return text


def claim_environment_run_id(settings: MLflowSettings) -> None:
    """Take the run id that `settings` got from the environment out of it, where they track here:
    it serves the first trainer of the process only, and no process started by it."""
    if settings.run_id is None or not settings.enabled or not tracks_here(settings):
        return
    for variable in (_PREFIX + "RUN_ID", _MLFLOW_VARIABLES["run_id"]):
        if os.environ.get(variable) == settings.run_id:
            del os.environ[variable]


def tracks_here(settings: MLflowSettings, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one that tracks: rank 0, or a process that has no rank."""
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
"""Variables of the rank, and of the number of processes, in order: the first of which a rank is set
decides. Without a number, a rank above 0 decides, and 0 leaves it to the next: `NODE_RANK=0` is set
for each process of the first node."""


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
