"""Compose verl's config from a `VeRLConfig`, by hydra from verl's own files.

verl is not imported for this: its config files and hydra are enough.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from orbiter.train.states import TrainerError
from orbiter.train.verl.config import VeRLAlgorithm, VeRLConfig, checked
from orbiter.train.verl.fields import FILE_LOGGER, fields_of, settings_of
from orbiter.train.verl.installation import config_folder
from orbiter.train.verl.overrides import overrides_of, require_setting

if TYPE_CHECKING:
    from omegaconf import DictConfig


_DESTINATIONS = ("trainer.default_local_dir", "trainer.default_hdfs_dir")
"""Settings of verl by which checkpoints are kept without an `output_dir`."""


class Composition(NamedTuple):
    """What verl is to run with.

    Attributes:
        config: the trainer's config; `composed` and the fields that were overridden are filled in.
        tree: verl's config, its interpolations not resolved.
    """

    config: VeRLConfig
    tree: "DictConfig"


def compose(config: VeRLConfig, *, rows: int, tested: bool, rewarded: bool) -> Composition:
    """Compose verl's config; the arguments are those of `settings_of`.

    Raises:
        TrainerError: the config has a bad value, or a setting in `extra["verl"]` that verl does
            not have.
        ImportError: verl or hydra is missing.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = checked(config)
    overrides = overrides_of(config.extra)
    name = "sft_trainer_engine" if config.algorithm is VeRLAlgorithm.SFT else "ppo_trainer"
    known, _ = _files(name, ())
    choices = {key: value for key, value in overrides.items() if _is_choice(known, key, value)}
    known, base = _files(name, tuple(sorted(choices.items())))
    single = {key: value for key, value in overrides.items() if key not in choices}
    for key in single:
        require_setting(known, key)
    device = single.get("trainer.device", "cuda")
    config = checked(config, **fields_of(config.algorithm, single))
    saved = bool(config.output_dir) or not single.keys().isdisjoint(_DESTINATIONS)
    settings = settings_of(
        config, rows=rows, tested=tested, rewarded=rewarded, saved=saved, device=device
    )
    if "trainer.logger" in single:
        single["trainer.logger"] = _with_file_logger(single["trainer.logger"])
    tree = deepcopy(base)
    from_environment = {
        key: escaped for key, value in single.items() if (escaped := _escaped(value)) != value
    }
    try:
        _update(tree, settings | single)
        composed: Any = OmegaConf.to_container(tree, resolve=True)
        if from_environment:  # maybe a secret: recorded by the variable's name
            recorded = deepcopy(tree)
            _update(recorded, from_environment)
            composed = OmegaConf.to_container(recorded, resolve=True)
    except OmegaConfBaseException as error:
        raise TrainerError(f"verl's config cannot be composed: {error}") from error
    return Composition(replace(config, composed=composed), tree)


def _update(tree: "DictConfig", settings: Mapping[str, Any]) -> None:
    from omegaconf import OmegaConf

    for key, value in settings.items():
        OmegaConf.update(tree, key, value, merge=False, force_add=True)


def _escaped(value: Any) -> Any:
    """A value whose references to environment variables are not resolved."""
    if isinstance(value, str):
        return value.replace("${", "\\${") if "oc.env" in value else value
    if isinstance(value, Mapping):
        return {key: _escaped(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_escaped, value))
    return value


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra as if nobody had initialized it; what a `@hydra.main` around us has comes back."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.version import VersionBase

    around, base = GlobalHydra.instance(), VersionBase.instance()
    hydra, version = around.hydra, base.version_base
    around.clear()
    try:
        yield
    finally:
        around.hydra, base.version_base = hydra, version
        GlobalHydra.set_instance(around)


def _with_file_logger(loggers: Any) -> list[Any]:
    """The loggers that somebody has chosen, with the one that metrics are read from."""
    chosen = [loggers] if isinstance(loggers, str) else list(loggers or ())
    return chosen if FILE_LOGGER in chosen else [*chosen, FILE_LOGGER]


def _is_choice(known: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether an override chooses one of verl's config files, as `model_engine` does."""
    if not isinstance(value, str) or name not in known:
        return False
    return name == "model_engine" or isinstance(known[name], Mapping)


@lru_cache(maxsize=8)
def _files(
    name: str, choices: tuple[tuple[str, str], ...]
) -> tuple[Mapping[str, Any], "DictConfig"]:
    """verl's own config: as nested mappings, and as hydra composes it."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    with _own_hydra(), initialize_config_dir(str(config_folder()), version_base=None):
        try:
            tree = compose(name, [f"{group}={choice}" for group, choice in choices])
        except HydraException as error:
            raise TrainerError(f"verl's config cannot be composed: {error}") from error
    OmegaConf.set_struct(tree, False)
    known: Any = OmegaConf.to_container(tree, resolve=False)
    return known, tree
