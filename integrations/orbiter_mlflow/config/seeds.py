"""The seeds in a config, picked out of its params."""

from collections.abc import Mapping

from orbiter_mlflow import names
from orbiter_mlflow.config.codec.json_text import canonical, is_json, parse
from orbiter_mlflow.config.codec.splitting import join_values, split_value

__all__ = ["seed_tags"]


def seed_tags(params: Mapping[str, str]) -> dict[str, str]:
    """The tag with what is called `seed` or `..._seed`, if anything is; as the params are redacted.

    Args:
        params: those of the config alone.
    """
    found = {}
    for path, text in join_values(params).items():
        name = path.rpartition(".")[2].lower()
        if name == "seed" or name.endswith("_seed"):
            found[path] = parse(text) if is_json(text) else text
    return split_value(names.SEEDS, canonical(found), names.MAX_TAG_VALUE) if found else {}
