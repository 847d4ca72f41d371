"""A config as MLflow params, and the config back from them."""

from orbiter_mlflow.config.encoding import (
    CODEC_VERSION,
    ConfigError,
    EncodedConfig,
    config_from_params,
    config_to_params,
    encode_config,
    join_values,
    own_params,
    params_digest,
    read_config,
    split_value,
)

__all__ = [
    "CODEC_VERSION",
    "ConfigError",
    "EncodedConfig",
    "config_from_params",
    "config_to_params",
    "encode_config",
    "join_values",
    "own_params",
    "params_digest",
    "read_config",
    "split_value",
]
