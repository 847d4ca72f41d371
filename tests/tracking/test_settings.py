"""Settings: where each comes from, and how a wrong one is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orbiter_mlflow import MLflowSettings
from orbiter_mlflow.settings import (
    SweepMembership,
    as_environment,
    claim_environment_run_id,
    from_environment,
    resolve,
    tracks_here,
)

GIVEN: dict[str, Any] = {
    "tracking_uri": "http://given:5000",
    "experiment": "given",
    "run_name": "given",
    "run_id": "a" * 32,
    "parent_run_id": "b" * 32,
    "sweep": SweepMembership(uid="c" * 32, name="s", number=1, folder=Path("/given")),
    "tags": {"by": "given"},
    "eval_names": {"0123abcd": "hard"},
    "description": "given",
    "spool_dir": Path("/given"),
    "delivery": "thread",
    "durability": "record",
    "keep_journals": True,
    "flush_timeout": 1.5,
    "answer_timeout": 0.5,
    "on_failure": "raise",
    "redact": ("given_*",),
    "skip_provenance": ("diff", "packages"),
    "progress": 500,
    "rollouts_per_step": 64,
    "traces_per_step": 2,
    "traces_per_minute": 1.5,
    "log_checkpoints": "last",
    "checkpoint_metric": "eval/loss",
    "checkpoint_direction": "lower",
    "system_metrics": 2.5,
    "ranks": "all",
    "enabled": False,
}
FROM_ENVIRONMENT = {
    "ORBITER_MLFLOW_TRACKING_URI": "http://given:5000",
    "ORBITER_MLFLOW_EXPERIMENT": "given",
    "ORBITER_MLFLOW_RUN_NAME": "given",
    "ORBITER_MLFLOW_RUN_ID": "a" * 32,
    "ORBITER_MLFLOW_PARENT_RUN_ID": "b" * 32,
    "ORBITER_MLFLOW_SWEEP": json.dumps(
        {"uid": "c" * 32, "name": "s", "number": 1, "folder": "/given"}
    ),
    "ORBITER_MLFLOW_TAGS": '{"by": "given"}',
    "ORBITER_MLFLOW_EVAL_NAMES": '{"0123abcd": "hard"}',
    "ORBITER_MLFLOW_DESCRIPTION": "given",
    "ORBITER_MLFLOW_SPOOL_DIR": "/given",
    "ORBITER_MLFLOW_DELIVERY": "thread",
    "ORBITER_MLFLOW_DURABILITY": "record",
    "ORBITER_MLFLOW_KEEP_JOURNALS": "true",
    "ORBITER_MLFLOW_FLUSH_TIMEOUT": "1.5",
    "ORBITER_MLFLOW_ANSWER_TIMEOUT": "0.5",
    "ORBITER_MLFLOW_ON_FAILURE": "raise",
    "ORBITER_MLFLOW_REDACT": " given_*, ",
    "ORBITER_MLFLOW_SKIP_PROVENANCE": "diff, packages",
    "ORBITER_MLFLOW_PROGRESS": "500",
    "ORBITER_MLFLOW_ROLLOUTS_PER_STEP": "64",
    "ORBITER_MLFLOW_TRACES_PER_STEP": "2",
    "ORBITER_MLFLOW_TRACES_PER_MINUTE": "1.5",
    "ORBITER_MLFLOW_LOG_CHECKPOINTS": "last",
    "ORBITER_MLFLOW_CHECKPOINT_METRIC": "eval/loss",
    "ORBITER_MLFLOW_CHECKPOINT_DIRECTION": "lower",
    "ORBITER_MLFLOW_SYSTEM_METRICS": "2.5",
    "ORBITER_MLFLOW_RANKS": "all",
    "ORBITER_MLFLOW_ENABLED": "false",
}


def test_the_tests_here_know_each_setting() -> None:
    assert GIVEN.keys() | {"experiment_id"} == MLflowSettings.model_fields.keys()


# -- where they come from ------------------------------------------------------------------------


@pytest.mark.parametrize("name", GIVEN)
def test_each_field_goes_by_keyword_then_class_then_environment(name: str) -> None:
    variable = f"ORBITER_MLFLOW_{name.upper()}"
    environ = {variable: FROM_ENVIRONMENT[variable]}
    this, default = MLflowSettings(**{name: GIVEN[name]}), MLflowSettings()
    for setting in (resolve(this, None, {}), resolve(None, this, {}), resolve(None, None, environ)):
        assert getattr(setting, name) == GIVEN[name]
    assert getattr(resolve(None, None, {}), name) == getattr(default, name)
    others = MLflowSettings(**{name: getattr(default, name)})  # set, to the default
    assert getattr(resolve(others, this, environ), name) == getattr(default, name)
    assert getattr(resolve(None, others, environ), name) == getattr(default, name)


def test_all_of_the_environment_at_once() -> None:
    assert resolve(None, None, FROM_ENVIRONMENT) == MLflowSettings(**GIVEN)


def test_a_child_process_gets_just_these_settings_by_its_environment() -> None:
    inherited = {"MLFLOW_RUN_ID": "e" * 32, "MLFLOW_EXPERIMENT_NAME": "theirs", "PATH": "/bin"}
    for settings in (
        MLflowSettings(**{**GIVEN, "tags": {"a": "1, 2"}}),
        MLflowSettings(experiment_id="3", progress=True, system_metrics=False),
        MLflowSettings(),
    ):
        environ = as_environment(settings, FROM_ENVIRONMENT | inherited)
        assert resolve(None, None, environ) == settings
        assert environ["PATH"] == "/bin"


def test_a_parent_that_is_named_goes_before_the_sweep_of_the_environment() -> None:
    environ = {name: FROM_ENVIRONMENT[name] for name in ("ORBITER_MLFLOW_SWEEP",)}
    settings = resolve(MLflowSettings(parent_run_id="b"), None, environ)
    assert (settings.parent_run_id, settings.sweep) == ("b", None)
    settings = resolve(
        MLflowSettings(sweep=GIVEN["sweep"]), None, {"ORBITER_MLFLOW_PARENT_RUN_ID": "b"}
    )
    assert (settings.parent_run_id, settings.sweep) == (None, GIVEN["sweep"])


def test_sources_are_mixed_field_by_field() -> None:
    settings = resolve(
        MLflowSettings(run_name="keyword"),
        MLflowSettings(run_name="class", description="class"),
        {"ORBITER_MLFLOW_DESCRIPTION": "environment", "ORBITER_MLFLOW_RANKS": "all"},
    )
    assert (settings.run_name, settings.description, settings.ranks) == ("keyword", "class", "all")


def test_variables_of_mlflow_come_after_our_own() -> None:
    own = {"MLFLOW_TRACKING_URI": "http://mlflow:1", "MLFLOW_EXPERIMENT_NAME": "theirs"}
    settings = resolve(None, None, own)
    assert (settings.tracking_uri, settings.experiment) == ("http://mlflow:1", "theirs")
    settings = resolve(None, None, own | {"ORBITER_MLFLOW_TRACKING_URI": "http://ours:1"})
    assert settings.tracking_uri == "http://ours:1"
    assert from_environment({"MLFLOW_TRACKING_URI": "", "ORBITER_MLFLOW_TAGS": ""}) == {}


def test_of_two_sources_only_one_names_the_experiment() -> None:
    environ = {"MLFLOW_EXPERIMENT_NAME": "environment", "MLFLOW_EXPERIMENT_ID": "7"}
    settings = resolve(None, None, environ)
    assert (settings.experiment, settings.experiment_id) == ("environment", None)
    settings = resolve(MLflowSettings(experiment_id="3"), MLflowSettings(experiment="c"), environ)
    assert (settings.experiment, settings.experiment_id) == (None, "3")
    settings = resolve(None, None, {"MLFLOW_EXPERIMENT_ID": "7"})
    assert (settings.experiment, settings.experiment_id) == (None, "7")


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tracking_uri", " "),
        ("tracking_uri", "journal+"),
        ("tracking_uri", "journal+sqlite://"),
        ("tracking_uri", "sqlite://"),
        ("tracking_uri", "sqlite:///"),
        ("tracking_uri", "sqlite:///:memory:"),
        ("tracking_uri", "http://[::1"),
        ("tracking_uri", "http://\ud800"),
        ("experiment", ""),
        ("experiment", "\x00"),
        ("experiment", "e" * 501),
        ("experiment_id", "no/id"),
        ("run_name", ""),
        ("run_name", "n" * 251),
        ("run_name", "\ud800"),
        ("run_id", "no id"),
        ("run_id", "id\n"),
        ("parent_run_id", ""),
        ("sweep", "lr-scan"),
        ("sweep", {"uid": "no uid", "name": "s", "number": 1, "folder": "/f"}),
        ("tags", {"a": 1}),
        ("tags", ["a"]),
        ("description", 3),
        ("spool_dir", 3),
        ("delivery", "pigeon"),
        ("durability", "minute"),
        ("flush_timeout", -1),
        ("flush_timeout", float("nan")),
        ("flush_timeout", float("inf")),
        ("flush_timeout", "soon"),
        ("answer_timeout", -1),
        ("answer_timeout", float("inf")),
        ("on_failure", "panic"),
        ("redact", "a"),
        ("system_metrics", 0.05),
        ("system_metrics", -1),
        ("system_metrics", float("inf")),
        ("system_metrics", "often"),
        ("ranks", "some"),
        ("enabled", "perhaps"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        MLflowSettings(**{name: value})
    assert {error["loc"][0] for error in caught.value.errors()} == {name}


@pytest.mark.parametrize(
    ("variable", "text", "name"),
    [
        ("ORBITER_MLFLOW_TAGS", "a=b", "tags"),
        ("ORBITER_MLFLOW_TAGS", '["a"]', "tags"),
        ("ORBITER_MLFLOW_TAGS", '{"a": 1}', "tags"),
        ("ORBITER_MLFLOW_FLUSH_TIMEOUT", "soon", "flush_timeout"),
        ("ORBITER_MLFLOW_ENABLED", "perhaps", "enabled"),
        ("MLFLOW_RUN_ID", "no id", "run_id"),
    ],
)
def test_a_wrong_variable_is_refused_by_the_name_of_its_field(
    variable: str, text: str, name: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        resolve(None, None, {variable: text})
    assert caught.value.errors()[0]["loc"][0] == name


@pytest.mark.parametrize(
    ("text", "setting"), [("true", True), ("false", False), ("0", False), ("1", 1.0), ("30", 30.0)]
)
def test_a_number_in_a_variable_is_the_seconds_between_two_samples(
    text: str, setting: bool | float
) -> None:
    found = resolve(None, None, {"ORBITER_MLFLOW_SYSTEM_METRICS": text}).system_metrics
    assert (found, type(found)) == (setting, type(setting))


def test_unknown_names_and_two_experiments_are_refused() -> None:
    with pytest.raises(ValidationError, match="run_nme"):
        MLflowSettings.model_validate({"run_nme": "x"})
    with pytest.raises(ValidationError, match="leave one out"):
        MLflowSettings(experiment="a", experiment_id="1")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        MLflowSettings().run_name = "other"


def test_relative_paths_are_taken_from_the_folder_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default, sqlite, folder, spool = (
        MLflowSettings(),
        MLflowSettings(tracking_uri="sqlite:///a/b.db?timeout=3"),
        MLflowSettings(tracking_uri="./runs"),
        MLflowSettings(spool_dir=Path("spool")),
    )
    monkeypatch.chdir("/")
    assert default.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert sqlite.tracking_uri == f"sqlite:///{tmp_path}/a/b.db?timeout=3"
    assert folder.tracking_uri == (tmp_path / "runs").as_uri()
    assert spool.spool_dir == tmp_path / "spool"
    for uri in ("http://h:1", "databricks", "databricks://profile", "postgresql://h/db"):
        assert MLflowSettings(tracking_uri=uri).tracking_uri == uri


def test_the_prefix_of_mlflows_own_clients_is_removed(tmp_path: Path) -> None:
    for plain, uri in {
        "http://h:1": "http://h:1",
        "sqlite:///a/b.db?timeout=3": f"sqlite:///{tmp_path}/a/b.db?timeout=3",
        "sqlite+pysqlite:////a/b.db": "sqlite+pysqlite:////a/b.db",
        "postgresql+psycopg2://h/db": "postgresql+psycopg2://h/db",
        "./runs": (tmp_path / "runs").as_uri(),
    }.items():
        prefixed = "journal+" + plain
        assert MLflowSettings(tracking_uri=prefixed).tracking_uri == uri
        assert resolve(None, None, {"MLFLOW_TRACKING_URI": prefixed}).tracking_uri == uri
        assert resolve(None, None, {"ORBITER_MLFLOW_TRACKING_URI": prefixed}).tracking_uri == uri


def test_an_absolute_sqlite_path_stays() -> None:
    assert MLflowSettings(tracking_uri="sqlite:////a/b.db").tracking_uri == "sqlite:////a/b.db"


def test_userinfo_is_not_written_down() -> None:
    for prefix in ("", "journal+"):
        settings = MLflowSettings(tracking_uri=f"{prefix}http://ada:hunter2@h:5000")
        assert "hunter2" not in repr(settings)


# -- ranks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "tracks"),
    [
        ({}, True),
        ({"RANK": "0", "WORLD_SIZE": "8"}, True),
        ({"RANK": "7", "WORLD_SIZE": "8"}, False),
        ({"RANK": "7"}, True),
        ({"RANK": "7", "WORLD_SIZE": "1"}, True),
        ({"RANK": "", "WORLD_SIZE": "8"}, True),
        ({"RANK": "first", "WORLD_SIZE": "8"}, True),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, True),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "1"}, True),
        ({"SLURM_PROCID": "3"}, True),
        ({"RANK": "0", "WORLD_SIZE": "4", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, True),
        ({"RANK": "", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, False),
        ({"RANK": "-1", "LOCAL_RANK": "-1", "WORLD_SIZE": "-1"}, True),  # as transformers has it
        ({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2"}, False),
        ({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1"}, False),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "0"}, True),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, True),
        ({"PMI_RANK": "3", "PMI_SIZE": "4"}, False),
        ({"PMI_RANK": "0", "PMI_SIZE": "4"}, True),
        ({"JSM_NAMESPACE_RANK": "5", "JSM_NAMESPACE_SIZE": "6"}, False),
        ({"JSM_NAMESPACE_RANK": "0", "JSM_NAMESPACE_SIZE": "6"}, True),
        ({"PMIX_RANK": "1"}, False),
        ({"PMIX_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),  # a worker that Lightning has started
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        # mpirun inside an srun of one task; srun of tasks that know their node as well
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "SLURM_PROCID": "0"}, False),
        ({"NODE_RANK": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "8"}, False),
        ({"LOCAL_RANK": "0", "SLURM_PROCID": "4", "SLURM_NTASKS": "8"}, False),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, False),
    ],
)
def test_one_process_of_a_distributed_training_tracks(
    environ: dict[str, str], tracks: bool
) -> None:
    assert tracks_here(MLflowSettings(), environ) is tracks
    assert tracks_here(MLflowSettings(ranks="all"), environ)


def test_a_run_id_is_claimed_by_the_process_that_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = "c" * 32
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    claim_environment_run_id(resolve(MLflowSettings(enabled=False), None))
    claim_environment_run_id(MLflowSettings(run_id="d" * 32))
    with monkeypatch.context() as other:
        other.setenv("RANK", "1")
        other.setenv("WORLD_SIZE", "2")
        claim_environment_run_id(resolve(None, None))
    assert os.environ["MLFLOW_RUN_ID"] == run_id
    first, second = resolve(None, None), None
    claim_environment_run_id(first)
    second = resolve(None, None)
    assert (first.run_id, second.run_id) == (run_id, None)


def test_settings_travel_as_json() -> None:
    settings = MLflowSettings(**GIVEN)
    assert MLflowSettings(**json.loads(settings.model_dump_json())) == settings
