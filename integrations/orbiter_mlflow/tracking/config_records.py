"""A config as a run logs it: its params, and the tags that say how to read them back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orbiter.train.hooks import quiet_logger
from orbiter_mlflow import names
from orbiter_mlflow.config.codec.splitting import split_value
from orbiter_mlflow.config.encoding import CODEC_VERSION, encode_config
from orbiter_mlflow.config.tags import seed_tags, write_checksums
from orbiter_mlflow.delivery.records import Params, Record, Tags
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.text.packed_tags import PackedTags
from orbiter_mlflow.text.values import tag_value

_logger = quiet_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedConfig:
    """The records of a config, and what in it can be shown but not loaded back: path -> why."""

    records: tuple[Record, ...]
    unencodable: Mapping[str, str]


def warn_of_unencodable(logged: LoggedConfig) -> None:
    """Warn of what cannot be loaded back, if there is something."""
    if logged.unencodable:
        _logger.warning(
            "config values that can be shown but not loaded back, unless load_config is given "
            "them in overrides=: %s",
            "; ".join(f"{path} ({why})" for path, why in logged.unencodable.items()),
        )


def log_config(config: Any, redactor: Redactor, *, seeds: bool = True) -> LoggedConfig:
    """Log a config.

    Args:
        config: the config, a dataclass.
        redactor: takes the secrets out of it.
        seeds: whether to log which of its fields are seeds.

    Raises:
        TypeError: it is no dataclass.
    """
    encoded = encode_config(config, redactor)
    kind = type(config)
    lists = {
        names.CONFIG_FIELDS: encoded.fields,
        names.CONFIG_UNENCODABLE: [*encoded.unencodable],
        names.CONFIG_REDACTED: encoded.redacted,
    }
    tags = {
        names.CONFIG_TYPE: tag_value(f"{kind.__module__}:{kind.__qualname__}"),
        names.CONFIG_CODEC: CODEC_VERSION,
        names.CONFIG_DIGEST: encoded.digest,
    }
    checksums = write_checksums(encoded.params)
    tags |= split_value(names.CONFIG_CHECKSUMS, checksums, names.MAX_DATA_TAG)
    for name, paths in lists.items():
        if paths:
            text = json.dumps(paths, ensure_ascii=False)
            tags |= split_value(name, text, names.MAX_DATA_TAG)
    if seeds:
        tags |= seed_tags(encoded.params)
    return LoggedConfig((Params(encoded.params), Tags(PackedTags().add(tags))), encoded.unencodable)
