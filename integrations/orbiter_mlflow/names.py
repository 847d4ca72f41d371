"""Every name this integration writes to MLflow, and MLflow's limits on names and values."""

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
CONFIG_UNENCODABLE = "orbiter.config.unencodable"
"""JSON list of the config paths that are kept as text only and cannot be loaded back."""
CONFIG_REDACTED = "orbiter.config.redacted"
"""JSON list of the config paths that hold a secret and were redacted."""
ERROR_TYPE = "orbiter.error.type"
ERROR_MESSAGE = "orbiter.error.message"
ERROR_PHASE = "orbiter.error.phase"
NONFINITE = "orbiter.metrics.nonfinite"
"""JSON list of the metric keys that were ever NaN or infinite."""
RENAMED = "orbiter.metrics.renamed"
"""JSON object of the metric keys that MLflow could not take as given: key logged -> key given."""
GIT_DIRTY = "orbiter.git.dirty"
"""`true` where tracked files differed from the commit, or untracked ones lay beside them."""
UID = "orbiter.uid"
"""Which journal made the run; it finds the run again after a lost answer."""
DELIVERED = "orbiter.delivered"
"""`<uid>:<offset>`: how far the journal has been delivered."""
DAMAGED = "orbiter.damaged"
"""How many lines of the journal could not be read."""
LOST = "orbiter.lost"
"""How many records the disk of the training machine did not take."""
QUARANTINED = "orbiter.quarantined"
"""How many entries MLflow refused for good; they lie in the journal's quarantine file."""

# -- prefixes and suffixes -----------------------------------------------------------------------
ORBITER = "orbiter"
TRAIN = "train"
EVAL = "eval"
EXTRA = "extra"
"""Where keys of `extra` go that collide with a field: `train/extra/<key>`."""


def state_at(state: str) -> str:
    """The tag with the UTC time, in ISO 8601, at which `state` was reached."""
    return f"{STATE}.{state}_at"


# -- MLflow's own tags ---------------------------------------------------------------------------
RUN_NAME = "mlflow.runName"
PARENT_RUN_ID = "mlflow.parentRunId"
DESCRIPTION = "mlflow.note.content"
USER = "mlflow.user"
SOURCE_NAME = "mlflow.source.name"
SOURCE_TYPE = "mlflow.source.type"
GIT_COMMIT = "mlflow.source.git.commit"
GIT_BRANCH = "mlflow.source.git.branch"
GIT_REPO_URL = "mlflow.source.git.repoURL"
DATASET_CONTEXT = "mlflow.data.context"
"""Tag of a dataset input: `train` or `eval`."""

# -- limits (mlflow/utils/validation.py, 3.17) ---------------------------------------------------
MAX_KEY = 250
"""Characters in the key of a param, metric or tag."""
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_METRICS = 1000
"""Metrics in a batch, and entities of all kinds together."""
MAX_PARAMS_OR_TAGS = 100
"""Params in a batch; tags likewise."""
MAX_BATCH_BYTES = 1_000_000
"""A batch' JSON in the request; the server refuses more."""
MAX_DATASET_NAME = 500
MAX_DATASET_DIGEST = 36
