"""`orbiter-mlflow demo`, run as its users run it: the installed command, in an empty folder."""

import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from folders import each_file
from orbiter.train.policy_gradient.trainer import PolicyGradientConfig
from orbiter_mlflow import config_from_text, names
from orbiter_mlflow.delivery.spool import journals
from orbiter_mlflow.delivery.spool_folder import default_spool
from orbiter_mlflow.runs.reproduction import code_tags
from orbiter_mlflow.text.packed_tags import unpacked
from servers import free_port
from waiting import eventually

COMMAND = Path(sys.executable).with_name("orbiter-mlflow")
ROW = re.compile(
    r"│ (?P<run>[0-9a-f]{8}|-) +│ +(?P<rate>0\.\d) │ +(?P<seed>\d) │ +(?P<before>[\d.]+)% "
    r"│ +(?P<after>[\d.]+)% │ +(?P<loss>-?[\d.]+) │ +(?P<seconds>[\d.]+) │ (?P<status>.*?) +│"
)


def environment(**variables: str) -> dict[str, str]:
    """So wide that no line of the table is folded; delivery of what cannot arrive ends at once."""
    return os.environ | {"COLUMNS": "200", "ORBITER_MLFLOW_LINGER": "0"} | variables


def demo(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "demo", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def rows(out: str) -> list[dict[str, str]]:
    return [found.groupdict() for found in ROW.finditer(out)]


def runs_of(uri: str, experiment: str = "orbiter-demo") -> list[Run]:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], order_by=["start_time ASC"]))


def history(uri: str, run: Run, key: str) -> list[tuple[int, float]]:
    return [
        (point.step, point.value)
        for point in MlflowClient(uri).get_metric_history(run.info.run_id, key)
    ]


def test_the_demo_in_an_empty_folder(tmp_path: Path) -> None:
    ended = demo()
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""

    table = rows(ended.stdout)
    assert [(row["rate"], row["seed"]) for row in table] == [
        *(("0.5", "0"), ("0.5", "1"), ("0.5", "2")),
        *(("0.1", "0"), ("0.1", "1"), ("0.1", "2")),
    ]
    assert {row["status"] for row in table} == {"FINISHED"}

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    runs = runs_of(uri)
    assert [run.info.run_id[:8] for run in runs] == [row["run"] for row in table]
    for run, row in zip(runs, table, strict=True):
        _assert_whole(uri, run, row)

    experiment_id = runs[0].info.experiment_id
    page = f"http://127.0.0.1:5000/#/experiments/{experiment_id}/runs"
    shown = f"  {page}?workflowType=machine_learning&viewStateShareKey=orbiter\n"
    assert shown in ended.stdout
    assert "server --backend-store-uri sqlite:///mlflow.db --port 5000\n" in ended.stdout
    assert all(run.info.run_id in ended.stdout for run in runs)
    code = code_tags(Path(__file__).parent)
    assert runs[0].data.tags.get(names.GIT_COMMIT) == code.get(names.GIT_COMMIT)
    first, *_ = ended.stdout.splitlines()
    assert first.startswith(f"orbiter {version('orbiter')}")
    assert code.get(names.GIT_COMMIT, "")[:8] in first
    assert "Your figures may differ" in ended.stdout
    assert ended.stdout.endswith("orbiter-mlflow --help\n")

    _assert_commands_run(ended.stdout, table)
    eventually(lambda: not journals(default_spool()))
    assert not list(default_spool().glob("*.ack"))


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="TRL is installed")
def test_the_demo_of_trl_says_what_to_install() -> None:
    ended = demo("--backend", "trl")
    assert ended.returncode == 1
    assert ended.stderr == "orbiter-mlflow: this demo needs TRL: pip install 'orbiter[trl]'\n"
    assert ended.stdout == ""


def _assert_whole(uri: str, run: Run, row: dict[str, str]) -> None:
    assert run.info.status == "FINISHED"
    params, tags = run.data.params, unpacked(run.data.tags)
    assert (params["learning_rate"], params["seed"]) == (row["rate"], row["seed"])
    assert params["epochs"] == "40"
    assert tags[names.STATE] == "completed"
    assert tags[names.TRAINER] == "orbiter_mlflow.cli.demo_runs:DemoTrainer"
    assert tags[names.CHECKS] == "check_agent,check_dataset,check_reward,check_config"
    for state in ("validated", "training", "completed"):
        assert names.state_at(state) in tags
    assert names.QUARANTINED not in tags

    (start, before), (end, after) = history(uri, run, "eval/accuracy")
    assert start == 0
    assert 0.05 < before < 0.15  # ten digits, nothing learned
    assert after >= 0.85
    assert (f"{before:.1%}", f"{after:.1%}") == (f"{row['before']}%", f"{row['after']}%")
    losses = history(uri, run, "train/loss")
    assert len(losses) > 40
    assert max(step for step, _ in losses) == end
    ((at, _),) = history(uri, run, "train/final/loss")
    assert at == end

    inputs = {
        tag.value: entry.dataset
        for entry in run.inputs.dataset_inputs
        for tag in entry.tags
        if tag.key == names.DATASET_CONTEXT
    }
    assert set(inputs) == {names.TRAIN, names.EVAL}
    assert inputs[names.TRAIN].digest != inputs[names.EVAL].digest


def _assert_commands_run(out: str, table: list[dict[str, str]]) -> None:
    """They are there to be typed: they must run as they stand."""
    worst, *_, best = sorted(table, key=lambda row: float(row["after"]))
    reproduce, diff = (
        _run_printed(out, f"orbiter-mlflow {name} ") for name in ("reproduce", "diff")
    )
    config = config_from_text(reproduce, PolicyGradientConfig, format="yaml")
    assert config == PolicyGradientConfig(
        epochs=40, learning_rate=float(best["rate"]), seed=int(best["seed"])
    )
    assert worst["run"] in diff
    assert re.search(r"│   learning_rate +│ 0.1 +│ 0.5 ", diff)
    assert re.search(r"│   eval/accuracy +│ 0\.\d+ +│ 0\.\d+ ↑ \+", diff)


def _run_printed(out: str, command: str) -> str:
    (line,) = [line for line in out.splitlines() if command in line]
    ended = subprocess.run(
        shlex.split(line),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_against_a_server(server_uri: str) -> None:
    given = ("--seeds", "1", "--epochs", "2", "--experiment", "x y", "--tracking-uri", server_uri)
    ended = demo(*given)
    assert ended.returncode == 0, ended.stderr
    assert [row["status"] for row in rows(ended.stdout)] == ["FINISHED", "FINISHED"]
    runs = runs_of(server_uri, "x y")
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert [len(history(server_uri, run, "eval/accuracy")) for run in runs] == [2, 2]
    experiment_id = runs[0].info.experiment_id
    page = f"{server_uri}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    assert page in ended.stdout
    assert "Start the UI" not in ended.stdout


def test_twice_into_the_store_that_the_environment_names(sqlite_uri: str, tmp_path: Path) -> None:
    small = ("--seeds", "1", "--epochs", "1")
    assert demo(*small, MLFLOW_TRACKING_URI=sqlite_uri).returncode == 0
    (first, second) = runs_of(sqlite_uri)
    # A run id in the environment is for one trainer; the demo has several.
    again = demo(*small, MLFLOW_TRACKING_URI=sqlite_uri, MLFLOW_RUN_ID=first.info.run_id)
    assert again.returncode == 0, again.stderr
    runs = runs_of(sqlite_uri)
    assert [run.info.run_id for run in runs[:2]] == [first.info.run_id, second.info.run_id]
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    assert not (tmp_path / "mlflow.db").exists()


def test_a_server_that_is_not_there() -> None:
    uri = f"http://me:opensesame@127.0.0.1:{free_port()}"
    ended = demo(
        *("--seeds", "1", "--epochs", "1", "--tracking-uri", uri),
        ORBITER_MLFLOW_FLUSH_TIMEOUT="1",
    )
    assert ended.returncode == 1
    assert [row["status"] for row in rows(ended.stdout)] == ["waits in the journal"] * 2
    assert "orbiter-mlflow sync" in ended.stderr
    assert ended.stdout.rstrip().endswith("orbiter-mlflow sync")
    assert "Traceback" not in ended.stderr
    assert "opensesame" not in ended.stdout + ended.stderr
    assert len(journals(default_spool())) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seeds", "0"], "--seeds"),
        (["--epochs", "x"], "--epochs"),
        (["--epochs", "0"], "--epochs"),
        (["--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
        (["--experiment", ""], "experiment"),
        (["--tracking-uri", "sqlite:///:memory:"], "tracking_uri"),
        (["--tracking-uri", " "], "tracking_uri"),
    ],
)
def test_wrong_usage_is_reported_in_one_line(
    arguments: list[str], named: str, tmp_path: Path
) -> None:
    _assert_refused(demo(*arguments), named)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_setting_in_the_environment_is_reported_too() -> None:
    _assert_refused(demo(ORBITER_MLFLOW_FLUSH_TIMEOUT="soon"), "flush_timeout")


def _assert_refused(ended: subprocess.CompletedProcess[str], named: str) -> None:
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("orbiter-mlflow: ")
    assert named in line


def test_ctrl_c_ends_it_without_a_traceback(sqlite_uri: str) -> None:
    started = subprocess.Popen(
        [COMMAND, "demo", "--epochs", "10000", "--tracking-uri", sqlite_uri],
        env=environment(ORBITER_MLFLOW_LINGER="60"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        eventually(
            lambda: any(
                b'"training"' in content
                for content in each_file(default_spool(), Path.read_bytes).values()
            )
        )
        os.killpg(started.pid, signal.SIGINT)  # as a terminal does: to all in the foreground
        out, err = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 130
    assert "Traceback" not in out + err
    eventually(lambda: not journals(default_spool()))
    (run,) = runs_of(sqlite_uri)
    assert run.info.status == "KILLED"
    assert run.data.params["epochs"] == "10000"
