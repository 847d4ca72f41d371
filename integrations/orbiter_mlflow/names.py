"""Every name this integration writes to MLflow, and MLflow's limits on names and values.

The only place that knows the prefixes of metric keys and the names of tags.
"""

import re
from collections.abc import Iterable

# -- tags of a run -------------------------------------------------------------------------------
STATE = "orbiter.state"
"""The trainer's present state."""
TRAINER = "orbiter.trainer"
"""The trainer's class, as `module:qualname`."""
CHECKS = "orbiter.checks"
"""The checks that passed, comma-separated."""
CONFIG_TYPE = "orbiter.config.type"
"""The config's class, as `module:qualname`."""
CONFIG_CODEC = "orbiter.config.codec"
"""Version of the encoding of the params."""
CONFIG_FIELDS = "orbiter.config.fields"
"""JSON list of the config's root fields: params of other names are not ours."""
CONFIG_DIGEST = "orbiter.config.digest"
"""SHA-256 of our params."""
CONFIG_CHECKSUMS = "orbiter.config.checksums"
"""Short checksums of our params, one each, packed: which one was changed or is missing."""
CONFIG_UNENCODABLE = "orbiter.config.unencodable"
"""JSON list of the config paths that are kept as text only and cannot be loaded back."""
CONFIG_REDACTED = "orbiter.config.redacted"
"""JSON list of the config paths that hold a secret and were redacted."""
ERROR_TYPE = "orbiter.error.type"
ERROR_MESSAGE = "orbiter.error.message"
ERROR_PHASE = "orbiter.error.phase"
ENDED_BY = "orbiter.ended_by"
"""The exception by which a run was stopped on purpose: `optuna.exceptions.TrialPruned`."""
NONFINITE = "orbiter.metrics.nonfinite"
"""JSON list of the metric keys that were ever NaN or infinite."""
RENAMED = "orbiter.metrics.renamed"
"""JSON object of the metric keys that had to change: key logged -> key reported."""
EVALUATED_DATA = "orbiter.metrics.data"
"""JSON object of the data behind the metrics: prefix of keys -> name and digest of the data."""
ARTIFACTS_RENAMED = "orbiter.artifacts.renamed"
"""JSON object of the artifacts whose names no store would keep: name logged -> name given."""
ARTIFACT_PROBLEMS = "orbiter.artifacts.problems"
"""JSON object of the files that are not kept as they were: name -> reason."""
GIT_DIRTY = "orbiter.git.dirty"
"""`true` where tracked files differed from the commit, or untracked ones lay beside them."""
GIT_DIFF = "orbiter.git.diff"
"""SHA-256 of the uncommitted diff, as git writes it, and of the names of the untracked files."""
GIT_DIFF_CUT = "orbiter.git.diff.cut"
"""How much of a diff that was too long is kept: `1000000 of 2345678 bytes`."""
GIT_SUBMODULES = "orbiter.git.submodules"
"""Submodules with uncommitted changes of their own, which no diff of ours holds: `a, b/c`."""
COMMAND = "orbiter.command"
"""The command line of the program, quoted for a shell."""
PYTHON = "orbiter.python"
PLATFORM = "orbiter.platform"
CPU = "orbiter.cpu"
GPU = "orbiter.gpu"
"""Names of the GPUs, counted: `8 x NVIDIA H100`."""
PACKAGES = "orbiter.packages"
"""SHA-256 of the artifact `provenance/requirements.txt`."""
SEEDS = "orbiter.seeds"
"""JSON object of the config's seeds: path -> value."""
PROVENANCE_FAILED = "orbiter.provenance.failed"
"""JSON object of the provenance sections that failed: section -> reason."""
UID = "orbiter.uid"
"""Which journal made the run; it finds the run again after a lost answer."""
DELIVERED = "orbiter.delivered"
"""`<uid>:<offset>`: how far the journal has been delivered."""
COLONS = "orbiter.colons"
"""The character that stands for `:` in the keys of this run (text/colons.py)."""
SWEEP = "orbiter.sweep"
"""The name of the sweep that a run belongs to; on the parent and on each child."""
SWEEP_CHILDREN = "orbiter.sweep.children"
SWEEP_METRIC = "orbiter.sweep.metric"
SWEEP_BEST, SWEEP_BEST_VALUE = "orbiter.sweep.best", "orbiter.sweep.best_value"
"""On the parent: how many children have which status, as JSON; by what they are ranked; the run id
of the best one, and its metric."""
FORKED_FROM = "orbiter.forked_from"
"""`orbiter.uid` of the run that the trainer had in the process which has forked this one."""
DAMAGED = "orbiter.damaged"
"""How many lines of the journal could not be read."""
LOST = "orbiter.lost"
"""How many records the disk of the training machine did not take; where the process was killed, at
least half of them."""
QUARANTINED = "orbiter.quarantined"
"""How many entries MLflow refused for good; they lie in the journal's quarantine file."""
DATASETS_MISSING = "orbiter.datasets.missing"
"""Which datasets of a run that has ended are not in the store, or not yet, and why."""
ARTIFACTS_MISSING = "orbiter.artifacts.missing"
"""Which artifacts of a run that has ended are not in the store, or not yet, and why."""
ROLLOUTS_MISSING = "orbiter.rollouts.missing"
"""Which rollouts of a run that has ended are not in the store, or not yet, and why."""
CHECKPOINTS_MISSING = "orbiter.checkpoints.missing"
"""Which checkpoints of a run that has ended are not in the store, or not yet, and why."""
ROLLOUTS_LEFT_OUT = "orbiter.rollouts.left_out"
"""JSON object of what was reported and is not kept: `rollouts` in no table, `texts cut`, `traces`
that `traces_per_minute` allows for no longer -> how many."""
DESCRIBED = "orbiter.description"
"""Marks our description in a journal, by its checksum; earlier versions wrote it to the store."""

BASELINE = "baseline"
"""The name under which a run is blessed: a policy's `filter` looks for it."""
BASELINE_NAME = "main"
"""The default name."""
BLESSED_AT = "orbiter.baseline.at"
"""When a run was blessed: UTC, in ISO 8601."""
BLESSED_BY = "orbiter.baseline.by"
BLESSED_REASON = "orbiter.baseline.reason"
BLESSED_POLICY = "orbiter.baseline.policy"
"""SHA-256 of the policy by which it was blessed."""
BLESSINGS = "orbiter.baseline.blessings"
"""The blessings that a run belongs to, as JSON, the newest first: `gate.blessings` has the form."""

# -- prefixes and suffixes -----------------------------------------------------------------------
ORBITER = "orbiter"
TRAIN = "train"
EVAL = "eval"
FINAL = "final"
"""The prefix of results of `train` whose keys were reported: `train/final/<key>`."""
EXTRA = "extra"
"""The prefix of keys of `extra` that collide with a field: `train/extra/<key>`."""
_SYSTEM = "system/"
"""MLflow's prefix of the metrics that its UI shows as those of the system."""


def state_at(state: str) -> str:
    """The tag with the UTC time, in ISO 8601, at which `state` was reached."""
    return f"{STATE}.{state}_at"


def is_train_key(key: str) -> bool:
    """Whether a metric key is one of a training."""
    return key.startswith(f"{TRAIN}/")


def is_eval_key(key: str) -> bool:
    """Whether a metric key is one of an evaluation."""
    return key.startswith(f"{EVAL}/")


def system_metric(name: str) -> str:
    """The metric key of a reading of the machine."""
    return f"{_SYSTEM}{name}"


def is_system_key(key: str) -> bool:
    """Whether a metric key is one of the machine, and not of the training on it."""
    return key.startswith(_SYSTEM)


def by_importance(keys: Iterable[str]) -> list[str]:
    """Order metric keys for people, and drop step counts and metrics of the system: accuracy and
    loss, which every trainer has, come first; evaluation before training; curves before final
    values."""

    def rank(key: str) -> tuple[bool, bool, bool, str]:
        prefix, _, name = key.rpartition("/")
        return (
            name not in ("accuracy", "loss"),
            not is_eval_key(key),
            prefix == f"{TRAIN}/{FINAL}",
            key,
        )

    shown = (key for key in keys if not key.endswith("/steps") and not is_system_key(key))
    return sorted(shown, key=rank)


# -- packed tags (text/packed_tags.py) -----------------------------------------------------------
PACKS = {
    "orbiter.config": (
        CONFIG_TYPE,
        CONFIG_CODEC,
        CONFIG_FIELDS,
        CONFIG_CHECKSUMS,
        CONFIG_UNENCODABLE,
        CONFIG_REDACTED,
        SEEDS,
    ),
    "orbiter.lifecycle": (TRAINER, CHECKS, f"{STATE}."),
    "orbiter.provenance": (
        *(PYTHON, PLATFORM, CPU, GPU, PACKAGES),
        *(GIT_DIRTY, GIT_DIFF, GIT_SUBMODULES),
        COMMAND,
        PROVENANCE_FAILED,
    ),
}
"""Packed tag -> prefixes of the tags that it holds. Tags that people and the gate search by, and
those of trouble, stay by themselves."""

# -- runs that are continued ---------------------------------------------------------------------
LIFE = "orbiter.life"
"""`orbiter.life.<n>`: JSON of which journal continued the run, and after which step."""
CONFIG_CHANGED = "orbiter.config.changed"
"""JSON object of the params that differ in a later life: param -> [kept, of that life]."""
ERROR = (ERROR_TYPE, ERROR_MESSAGE, ERROR_PHASE, ENDED_BY)
"""Tags about the present life; `in_life` renames them when the next one begins."""
CONFIG = "orbiter.config"
"""Prefix of the tags about a config, which go with its params as a whole."""
PROVENANCE = "provenance"
"""The folder of artifacts on where a run comes from."""
OF_ONE_LIFE = (
    "orbiter.lifecycle",
    "orbiter.state.",
    "orbiter.trainer",
    "orbiter.metrics.",
    "orbiter.artifacts.",
    "orbiter.git.",
    "orbiter.command",
    "orbiter.python",
    "orbiter.platform",
    "orbiter.cpu",
    "orbiter.gpu",
    "orbiter.packages",
    "orbiter.seeds",
    "orbiter.provenance",
    "orbiter.datasets.",
    "orbiter.rollouts.",
    "orbiter.checkpoints.",
    "mlflow.source.",
    "mlflow.user",
)
"""Prefixes of the tags that each life of a run has for itself: the first life under these names,
later ones as `in_life` says. All other tags are about the present."""


def in_life(name: str, number: int) -> str:
    """The tag `name` of a life; 2 gives `orbiter.state.failed_at.2`. Numbered pieces stay last."""
    whole, piece = piece_of(name)
    return f"{whole}.{number}" if piece is None else piece_name(f"{whole}.{number}", piece)


def is_of_any_life(tag: str, name: str) -> bool:
    """Whether `tag` is the tag `name` of the first life or of a later one."""
    return tag == name or tag.startswith(f"{name}.")


# -- params of a config --------------------------------------------------------------------------
CONFIG_ROOT = ":root"
"""The param of the config itself: fields whose names are no keys for MLflow, and what it carries
besides the fields of its class."""
KEY_ORDER = "order-of-keys"
"""The param with the order of keys that are not sorted; no field has this name."""


def is_seed(key: str) -> bool:
    """Whether a param holds a seed: its last part is `seed`, or ends with `_seed`."""
    name = key.rpartition(".")[2].lower()
    return name == "seed" or name.endswith("_seed")


def config_field(key: str) -> str:
    """The field that a param of a config belongs to: `extra` for `extra.lora.r` and `extra:0`."""
    return piece_of(key.partition(".")[0])[0]


# -- pieces of a value that is too long for one param or tag -------------------------------------
_PIECE = re.compile(r"(.*):(0|[1-9][0-9]*)", re.DOTALL)


def piece_name(name: str, number: int) -> str:
    """The name of one piece: `key:0`, `key:1`, ..."""
    return f"{name}:{number}"


def piece_of(name: str) -> tuple[str, int | None]:
    """The name of the whole value and the number of the piece; None if the value is not split."""
    match = _PIECE.fullmatch(name)
    return (name, None) if match is None else (match[1], int(match[2]))


# -- MLflow's own tags ---------------------------------------------------------------------------
RUN_NAME = "mlflow.runName"
PARENT_RUN_ID = "mlflow.parentRunId"
DESCRIPTION = "mlflow.note.content"
RUN_ID_HERE = "{run_id}"
"""A placeholder in descriptions: delivery replaces it by the run's id."""
USER = "mlflow.user"
SOURCE_NAME = "mlflow.source.name"
SOURCE_TYPE = "mlflow.source.type"
TRACE_NAME = "mlflow.traceName"
GIT_COMMIT = "mlflow.source.git.commit"
GIT_BRANCH = "mlflow.source.git.branch"
GIT_REPO_URL = "mlflow.source.git.repoURL"
SHARED_VIEW = "mlflow.sharedViewState"
"""Tag of an experiment, with a key behind a dot: how the UI shows it by a link with that key."""
OUR_VIEW = "orbiter"
"""The key of our shared view."""
DATASET_CONTEXT = "mlflow.data.context"
"""Tag of a dataset input: `train` or `eval`."""

# -- artifacts in that folder --------------------------------------------------------------------
DIFF_FILE = "uncommitted.diff"
UNTRACKED_FILE = "untracked.txt"
REQUIREMENTS_FILE = "requirements.txt"

# -- tables of examples ---------------------------------------------------------------------------
EVAL_TABLES = "eval_tables"
"""The folder of the tables that `log_eval_table` writes."""
LOGGED_TABLES = "mlflow.loggedArtifacts"
"""JSON list of the artifacts that MLflow's UI shows as tables."""


def eval_table(name: str) -> str:
    """The path of a table of examples among a run's artifacts."""
    return f"{EVAL_TABLES}/{name}.json"


# -- rollouts --------------------------------------------------------------------------------------
ROLLOUT = "rollout"
"""The column with a rollout's number in its report, from 1."""
PROMPT, COMPLETION, TOKENS, TOOL_CALLS = "prompt", "completion", "tokens", "tool_calls"
MESSAGES = "messages"
"""The column with prompt and completion as chat messages, in JSON."""
_REWARD = "reward/"
STEP = "orbiter.step"
"""Tag of a trace: the step of a rollout."""
PHASE = "orbiter.phase"
"""Tag of a trace: `train` or `eval`."""
ROLLOUT_NUMBER = "orbiter.rollout"
"""Tag of a trace: the rollout's number in its report, which its table has too."""
COMPLETION_TOKENS = "orbiter.tokens"
"""Tag of a trace: how many tokens the completion has."""
CHECKPOINT = "orbiter.checkpoint"
"""Tag of a logged model: the manifest of the checkpoint among the artifacts of its run."""


def reward_column(name: str) -> str:
    """The column of a reward in a table of rollouts."""
    return f"{_REWARD}{name}"


def is_reward(column: str) -> bool:
    """Whether a column of a table of rollouts has a reward."""
    return column.startswith(_REWARD)


def reward_of(column: str) -> str:
    """The name of a reward, by its column."""
    return column.removeprefix(_REWARD)


_TRACES_OF = "traces of "


def skipped(lane: str, count: int) -> str:
    """The text of the tag about missing entries of a lane, for those without an endpoint."""
    # Their tables and files are in the store.
    what = {"rollouts": _TRACES_OF, "checkpoints": "models of "}.get(lane, "")
    return f"{what}{count} skipped: the server has no endpoint for them"


def lacks_tables(missing: str) -> bool:
    """Whether the text of `ROLLOUTS_MISSING` tells of more than traces."""
    return any(not part.startswith(_TRACES_OF) for part in missing.split("; "))


def trace_name(phase: str, step: int) -> str:
    """The name of a rollout's trace, which sorts by step: `train/000300`."""
    return f"{phase}/{step:06d}"


# -- limits (mlflow/utils/validation.py, 3.17) ---------------------------------------------------
MAX_KEY = 250
"""Characters in the key of a param, metric or tag."""
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_DATA_TAG = 5000
"""Characters in a tag that programs read: servers before 2.17 refuse longer ones, or cut them."""
MAX_METRICS = 1000
"""Metrics in a batch, and entities of all kinds together."""
MAX_PARAMS_OR_TAGS = 100
"""Params in a batch; tags likewise."""
MAX_BATCH_BYTES = 1_000_000
"""Bytes of JSON in a request for a batch; the server refuses more."""
MAX_DATASET_NAME = 500
MAX_DATASET_DIGEST = 36
