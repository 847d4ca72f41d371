"""Runs whose bookkeeping tags are not packed, as earlier versions logged them, stay readable."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from logged import log_to
from orbiter.train import TrainConfig
from orbiter_mlflow import load_config, names
from orbiter_mlflow.errors import ConfigError
from orbiter_mlflow.runs.diff import diff_runs
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.runs.store import RunStore
from orbiter_mlflow.text.packed_tags import PackedTags, unpacked

LOGGED = json.loads(Path(__file__).with_name("run_of_unpacked_tags.json").read_text("utf-8"))
PARAMS: dict[str, str] = LOGGED["params"]
TAGS: dict[str, str] = LOGGED["tags"]
OVERRIDES = {"extra.collate": len}
SECRETS = {"extra.hf_token": "s"}
CONFIG = TrainConfig(
    epochs=3, extra={"seed": 7, "hf_token": "s", "lora": {"r": 16}, "collate": len}
)

Log = Callable[[dict[str, str]], StoredRun]


@pytest.fixture
def log(sqlite_uri: str) -> Log:
    """Logs a run with these tags to a store, and reads it back."""

    def logged(tags: dict[str, str]) -> StoredRun:
        return RunStore(sqlite_uri).get(log_to(sqlite_uri, PARAMS, tags))

    return logged


def test_both_forms_are_read_as_the_same_tags(log: Log) -> None:
    packed = PackedTags().add(TAGS)
    ours = {name for name in packed if name.startswith("orbiter.") and name != names.DESCRIBED}
    assert ours == {
        *("orbiter.config", names.CONFIG_DIGEST, "orbiter.lifecycle", "orbiter.provenance"),
        *(names.STATE, names.EVALUATED_DATA, names.UID, names.DELIVERED),
    }
    before, after = log(TAGS), log(packed)
    assert TAGS.items() <= before.tags.items()
    assert before.tags.keys() == after.tags.keys()
    found = diff_runs([before, after])
    assert (found.config, found.code, found.machine, found.notes) == ((), (), (), ())


@pytest.mark.parametrize("pack", [dict, PackedTags().add], ids=["unpacked", "packed"])
def test_the_config_of_both_forms_is_loaded(
    log: Log, pack: Callable[[dict[str, str]], dict[str, str]], sqlite_uri: str
) -> None:
    run = log(pack(TAGS))
    config = load_config(run.run_id, tracking_uri=sqlite_uri, secrets=SECRETS, overrides=OVERRIDES)
    assert config == CONFIG


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config.codec": 2}', "[" * 5000])
def test_a_packed_tag_that_was_edited_is_named(log: Log, text: str, sqlite_uri: str) -> None:
    run = log(PackedTags().add(TAGS) | {"orbiter.config": text})
    with pytest.raises(ConfigError, match=r"orbiter\.config: is not the JSON object it was"):
        load_config(run.run_id, tracking_uri=sqlite_uri)


def test_packed_tags_grow_and_what_finds_no_room_stays_by_itself() -> None:
    packed = PackedTags()
    stored: dict[str, str] = {}
    commands = ["python train.py", "python " + "x" * 7900, "python"]
    steps = [{names.PYTHON: "3.11.7", names.PACKAGES: "a" * 64}, {names.GIT_DIRTY: "false"}]
    steps += [{names.COMMAND: command, "team": "rl"} for command in commands]
    expected: dict[str, str] = {}
    for tags in steps:
        expected |= tags
        stored |= packed.add(tags)
        assert unpacked(stored) == expected
        assert max(map(len, stored.values())) <= names.MAX_TAG_VALUE


def test_each_life_of_a_run_has_packed_tags_of_its_own() -> None:
    first = PackedTags().add({names.PYTHON: "3.11", names.state_at("failed"): "then"})
    second = PackedTags().add({names.PYTHON: "3.12", names.state_at("completed"): "now"})
    stored = first | {names.in_life(name, 2): text for name, text in second.items()}
    assert unpacked(stored) == {
        names.PYTHON: "3.11",
        names.state_at("failed"): "then",
        names.in_life(names.PYTHON, 2): "3.12",
        names.in_life(names.state_at("completed"), 2): "now",
    }
