"""Rebuild the config of a run from its params: equal to the one that was logged, or an error.

The tags say which params are ours and whether they are unchanged. No tag can make this import code.
Runs of other tools are read by `config.best_effort`.
"""

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, overload

from orbiter.train import TrainConfig
from orbiter_mlflow import names
from orbiter_mlflow.config.best_effort import read_best_effort
from orbiter_mlflow.config.codec.classes import class_name, find_class, is_dataclass_class
from orbiter_mlflow.config.codec.loading import Loading
from orbiter_mlflow.config.codec.modules import MovedModule, import_named, missing_modules
from orbiter_mlflow.config.codec.rebuild import uncopied
from orbiter_mlflow.config.codec.splitting import join_values
from orbiter_mlflow.config.encoding import READABLE, own_params, read_config
from orbiter_mlflow.config.tags import differences, params_digest
from orbiter_mlflow.errors import ConfigError, RunNotFoundError, UnreadableError
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.settings import MLflowSettings, resolve
from orbiter_mlflow.text.escaping import plain

__all__ = ["config_of", "config_params", "load_config"]

_TAGS = frozenset(
    {
        *(names.CONFIG_TYPE, names.CONFIG_CODEC, names.CONFIG_FIELDS),
        *(names.CONFIG_DIGEST, names.CONFIG_CHECKSUMS),
    }
)

_MODULES = "the modules of its classes"

_logger = logging.getLogger(__name__)

T = TypeVar("T")


@overload
def load_config(
    run_id: str,
    config_type: None = None,
    *,
    tracking_uri: str | None = None,
    secrets: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    import_modules: Iterable[str] = (),
    allow_unknown: bool = False,
) -> TrainConfig: ...
@overload
def load_config(
    run_id: str,
    config_type: type[T],
    *,
    tracking_uri: str | None = None,
    secrets: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    import_modules: Iterable[str] = (),
    allow_unknown: bool = False,
) -> T: ...
def load_config(
    run_id: str,
    config_type: type[Any] | None = None,
    *,
    tracking_uri: str | None = None,
    secrets: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    import_modules: Iterable[str] = (),
    allow_unknown: bool = False,
) -> Any:
    """Load the config that a run has logged, equal to the original, with types and NaN.

    The config is rebuilt from the params in one request, without the run's artifacts. Fields that
    were added to the class since then get their defaults. A run that another tool has logged is
    loaded as far as the types of the fields allow. For a run that was resumed with other params,
    it is the config that the run shows, its first. Each of these cases is part of one warning.

    If a server does not answer, MLflow retries for four minutes by default:
    `MLFLOW_HTTP_REQUEST_MAX_RETRIES`, `MLFLOW_HTTP_REQUEST_TIMEOUT`.

        config = load_config("0b3c5f...", MyConfig, secrets={"extra.hf_token": token})

    Args:
        run_id: the run's full id.
        config_type: the config's class; by default the one that the run names, which must be a
            `TrainConfig` and already imported.
        tracking_uri: the store of the run; by default the environment's.
        secrets: path -> value for redacted values: `extra.hf_token`, `clients[1].api_key`.
        overrides: path -> value for values that were logged as text: `{"extra.collate": collate}`.
        import_modules: packages whose modules may be imported if the config names classes or
            functions in them; no others are.
        allow_unknown: ignore params that are not fields of the class any more.

    Raises:
        ConfigError: lists all params that were changed or are missing, secrets to pass, values
            that were logged only as text, and fields that the class lacks or cannot fill.
        RunNotFoundError: there is no such run.
        StoreError: the store cannot be read.
        TypeError: `config_type` is not a dataclass.
    """
    from orbiter_mlflow.runs.store import RunStore

    settings = None if tracking_uri is None else MLflowSettings(tracking_uri=tracking_uri)
    store = RunStore(resolve(settings, None).tracking_uri)
    try:
        run = store.get(run_id)
    except RunNotFoundError as error:
        raise RunNotFoundError(f"{error}{store.near(run_id)}") from None
    return config_of(
        run,
        config_type,
        secrets=secrets,
        overrides=overrides,
        import_modules=import_modules,
        allow_unknown=allow_unknown,
    )


def config_of(
    run: StoredRun,
    config_type: type[Any] | None = None,
    *,
    secrets: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    import_modules: Iterable[str] = (),
    allow_unknown: bool = False,
) -> Any:
    """The config of a run that is already read; otherwise like `load_config`.

    Raises:
        ConfigError: see `load_config`.
        TypeError: `config_type` is not a dataclass.
    """
    named_by_caller = config_type is not None
    if named_by_caller and not (isinstance(config_type, type) and is_dataclass_class(config_type)):
        raise TypeError(f"config_type must be a dataclass, not {config_type!r}")
    subject = f"the config of run {run.run_id}"
    if not _is_ours(run, subject):
        return _best_effort(run, config_type or TrainConfig, secrets, overrides, subject)
    params, problems = config_params(run)
    named = _tags(run, subject).get(names.CONFIG_TYPE, "")
    moved = None if config_type is None else _moved(named, config_type)
    problems |= _without_modules(params, "" if named_by_caller else named, moved, import_modules)
    if config_type is None:
        try:
            config_type = _named_class(named)
        except UnreadableError as error:
            raise ConfigError(subject, {"its class": str(error), **problems}) from None
    cls = config_type
    if _MODULES in problems:
        raise ConfigError(f"{subject} ({class_name(cls)})", problems)
    reading = Loading(secrets or {}, overrides or {}, allow_unknown=allow_unknown, moved=moved)
    reading.problems |= problems
    try:
        with uncopied({**(secrets or {}), **(overrides or {})}):
            config = read_config(params, cls, reading)
    except ConfigError as error:
        raise ConfigError(f"{subject} ({class_name(cls)})", error.problems) from None
    notes = [*_of_another_class(named, cls), *_of_later_lives(run), *reading.notes]
    notes += reading.construction_notes
    if notes:
        _logger.warning("%s: %s", subject, "; ".join(notes))
    return config


def config_params(run: StoredRun) -> tuple[dict[str, str], dict[str, str]]:
    """The params of a config that one of our trainers has logged, and their problems.

    Returns:
        Param -> value, long ones in pieces; and param -> how it differs from the logged one.

    Raises:
        ConfigError: the run has no such config, one of another codec version, or damaged tags.
    """
    subject = f"the config of run {run.run_id}"
    if not _is_ours(run, subject):
        raise ConfigError(subject, {"its params": "were not logged by a tracked trainer"})
    tags = _tags(run, subject)
    version = tags[names.CONFIG_CODEC]
    if version not in READABLE:
        known = " and ".join(repr(one) for one in sorted(READABLE))
        raise ConfigError(
            subject, {names.CONFIG_CODEC: f"is {version!r}; this orbiter_mlflow reads {known}"}
        )
    try:
        fields = json.loads(tags.get(names.CONFIG_FIELDS, "null"))
    except ValueError:
        fields = None
    if type(fields) is not list or not all(type(field) is str for field in fields):
        raise ConfigError(subject, {names.CONFIG_FIELDS: "is not the list of fields it was"})
    params = own_params(run.params, fields)
    return params, _changes(params, tags)


def _is_ours(run: StoredRun, subject: str) -> bool:
    if names.CONFIG_CODEC in run.tags:
        return True
    if names.CONFIG in run.tags:  # else it would have been unpacked
        raise ConfigError(subject, {names.CONFIG: "is not the JSON object it was"})
    # A run of MLflow's own clients has a uid too, but no trainer.
    if names.UID in run.tags and (names.TRAINER in run.tags or names.DELIVERED not in run.tags):
        reason = (
            "is not there yet: mark_validated() logs it, and `orbiter-mlflow sync` delivers what "
            "still waits"
        )
        raise ConfigError(subject, {names.CONFIG_CODEC: reason})
    return False


def _tags(run: StoredRun, subject: str) -> dict[str, str]:
    """The tags on the first life's config, pieces joined; later lives have their own."""
    own = {key: text for key, text in run.tags.items() if names.piece_of(key)[0] in _TAGS}
    try:
        return join_values(own)
    except ConfigError as error:
        raise ConfigError(subject, error.problems) from None


def _changes(params: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """How the params differ from the logged ones."""
    if tags.get(names.CONFIG_DIGEST) == params_digest(params):
        return {}
    if names.CONFIG_DIGEST not in tags:
        return {names.CONFIG_DIGEST: "is missing: whether the params were changed is unknown"}
    try:
        found = differences(params, tags.get(names.CONFIG_CHECKSUMS, ""))
    except ValueError:
        shown = ", ".join(sorted(params))
        return {"the params": f"were changed after logging; one or more of {shown}"}
    return found or {names.CONFIG_DIGEST: "was changed, although no param was"}


def _named_class(name: str) -> type[Any]:
    """The class that a run names.

    Raises:
        UnreadableError: it is not imported, or not a `TrainConfig`.
    """
    if not name:
        raise UnreadableError(f"is unknown: {names.CONFIG_TYPE} is missing; pass config_type=")
    try:
        cls = find_class(name)
    except UnreadableError:
        module = name.partition(":")[0]
        where = (
            "was defined in the script itself: pass the class as config_type="
            if module == "__main__"
            else f"is not imported: import {module} first, or pass config_type="
        )
        raise UnreadableError(plain(f"{name} {where}")) from None
    if not (is_dataclass_class(cls) and issubclass(cls, TrainConfig)):
        raise UnreadableError(f"{name} is not a TrainConfig: pass config_type=")
    return cls


def _moved(named: str, cls: type) -> MovedModule | None:
    """The old and the new module of the class, if it has moved."""
    module, _, qualname = named.partition(":")
    same_name = qualname == cls.__qualname__
    return MovedModule(module, cls.__module__) if same_name and module != cls.__module__ else None


def _without_modules(
    params: Mapping[str, str], named: str, moved: MovedModule | None, packages: Iterable[str]
) -> dict[str, str]:
    """One problem that lists all modules to import first; `named` is the class."""
    packages = (packages,) if isinstance(packages, str) else tuple(packages)
    try:
        whole = join_values(params)
    except ConfigError:  # reading them reports it
        whole = dict(params)
    needed = missing_modules(whole, moved)
    module = named.partition(":")[0]
    if module and module not in sys.modules and module != "__main__":
        needed = sorted({*needed, module})
    failed = import_named(needed, packages)
    lines = [f"import {name}" for name in needed if name not in sys.modules and name not in failed]
    problems = [f"{name} cannot be imported: {why}" for name, why in failed.items()]
    if lines:
        roots = sorted({line.split()[1].partition(".")[0] for line in lines})
        problems.insert(
            0,
            f"are not imported: {'; '.join(lines)}; or allow it: import_modules="
            f"({', '.join(repr(root) for root in roots)},)",
        )
    return {_MODULES: plain("; ".join(problems))} if problems else {}


def _of_another_class(named: str, cls: type) -> list[str]:
    if named.partition(":")[2] == cls.__qualname__:
        return []
    return [f"it was logged as a {named}, and is loaded as a {class_name(cls)}"]


def _of_later_lives(run: StoredRun) -> list[str]:
    own = {tag: text for tag, text in run.tags.items() if tag.startswith(names.CONFIG_CHANGED)}
    tags = ", ".join(sorted(own))
    return [f"the run was resumed with other params, which are in {tags}"] if tags else []


def _best_effort(
    run: StoredRun,
    cls: type[T],
    secrets: Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | None,
    subject: str,
) -> T:
    for name, values in (("secrets", secrets), ("overrides", overrides)):
        if values:
            reason = f"is in `{name}`, but another tool logged this run, which replaces no values"
            raise ConfigError(subject, dict.fromkeys(values, reason))
    try:
        found = read_best_effort(run.params, cls)
    except ConfigError as error:
        raise ConfigError(f"{subject} ({class_name(cls)})", error.problems) from None
    _logger.warning(
        "%s was logged by another tool, so it is a best effort: %s", subject, found.summary
    )
    return found.config
