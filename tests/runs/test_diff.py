"""`diff`: the comparison of runs, its reports, and the command."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from mlflow import MlflowClient
from rich.console import Console

from configs import Color, DeepLora, Lora, Point, configs, thorough
from logged import as_stored, log_to, params_and_tags, run_with
from orbiter.train import TrainConfig
from orbiter_mlflow import config_to_params, names
from orbiter_mlflow.cli.diff_report import json_report, markdown_report, terminal_report
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.config.display import as_python
from orbiter_mlflow.config.encoding import join_values
from orbiter_mlflow.runs.diff import (
    Change,
    Difference,
    RunDiff,
    diff_runs,
    packages_differ,
    parse_requirements,
)
from orbiter_mlflow.runs.model import DatasetInput, StoredRun
from orbiter_mlflow.ui.links import compare_page

COMMAND = Path(sys.executable).with_name("orbiter-mlflow")
HOSTILE = "\x1b[31m[red]a|b`c\n@me <img src=x> [x](http://y) \u202e${1}\x07"
LARGEST = sys.float_info.max


def rows(found: tuple[Difference, ...]) -> dict[str, tuple[str | None, ...]]:
    return {row.name: row.values for row in found}


def of_extras(*extras: dict[str, Any]) -> RunDiff:
    return diff_runs([run_with(TrainConfig(extra=extra)) for extra in extras])


def with_tags(*tags: Mapping[str, str], **requirements: str | None) -> RunDiff:
    runs = [
        replace(as_stored({}, each), run_id=f"{number:032x}") for number, each in enumerate(tags)
    ]
    lists = {runs[int(name[1:])].run_id: text for name, text in requirements.items()}
    return diff_runs(runs, lists)


def with_metrics(*metrics: Mapping[str, float]) -> RunDiff:
    return diff_runs([replace(as_stored({}), metrics=each) for each in metrics])


def printed(diff: RunDiff, width: int = 160) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(terminal_report(diff))
    return captured.get()


# -- config ----------------------------------------------------------------------------------------


def test_equal_configs_have_no_difference() -> None:
    config = TrainConfig(extra={"nan": math.nan, "lora": Lora(), "s": {3, 1, 2}})
    found = diff_runs([run_with(config), run_with(config), run_with(config)])
    assert found.config == ()
    assert (found.redacted, found.metrics, found.datasets, found.packages) == ((), (), (), ())


def test_a_config_differs_by_path_and_by_type() -> None:
    one = {"n": 1, "s": 1, "b": True, "t": (1, 2), "deep": {"a.b": 1, "same": 0}, "p": "x", "c": 0}
    two = {"n": 1.0, "s": "1", "b": 1, "t": [1, 2], "deep": {"a.b": 2, "same": 0}, "p": Path("x")}
    assert rows(of_extras(one, two).config) == {
        "extra.b": ("True", "1"),
        "extra.c": ("0", None),
        "extra.deep": ("{'a.b': 1}", "{'a.b': 2}"),
        "extra.n": ("1", "1.0"),
        "extra.p": ("'x'", "PosixPath('x')"),
        "extra.s": ("1", "'1'"),
        "extra.t": ("(1, 2)", "[1, 2]"),
    }


def test_long_values_are_compared_as_a_whole() -> None:
    one, two = "x" * 20_000, "x" * 13_000 + "y" + "x" * 6_999
    found = of_extras({"prompt": one}, {"prompt": two}, {"prompt": "short"})
    assert rows(found.config) == {"extra.prompt": (repr(one), repr(two), "'short'")}
    found = of_extras({"prompt": one}, {"prompt": two})
    (line,) = [line for line in printed(found, 400).splitlines() if "extra.prompt" in line]
    assert re.search(r"│ \.\.\.x{20}y?x+\.\.\. \(20002 characters\) │ \.\.\.x{20}yx+\.\.\. ", line)


def test_the_classes_of_configs_differ() -> None:
    one = run_with(TrainConfig())
    two = replace(one, tags={**one.tags, names.CONFIG_TYPE: "m:Other"})
    assert rows(diff_runs([one, two]).code) == {
        "config class": ("orbiter.train.trainer:TrainConfig", "m:Other")
    }


def test_a_redacted_value_is_neither_equal_nor_different() -> None:
    secret = {"hf_token": "hf_AbCdEfGhIjKlMnOpQr", "url": "https://u:p@host/a", "n": 1}
    found = of_extras(secret, {**secret, "n": 2})
    assert rows(found.config) == {"extra.n": ("1", "2")}
    assert found.redacted == ("extra.hf_token", "extra.url")
    assert "redacted, so it is unknown whether they differ: extra.hf_token" in printed(found)
    found = of_extras(secret, {"hf_token": None, "n": 1})
    assert rows(found.config)["extra.hf_token"] == ("redacted", "None")
    assert rows(found.config)["extra.url"] == ("redacted: 'https://[redacted]@host/a'", None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ((1,), "(1,)"),
        ((), "()"),
        (set(), "set()"),
        (frozenset({1}), "frozenset({1})"),
        (b"\x00a", "b'\\x00a'"),
        (bytearray(b"a"), "bytearray(b'a')"),
        (Decimal("1.50"), "decimal('1.50')"),
        (PurePosixPath("/x"), "PurePosixPath('/x')"),
        (Color.RED, "configs.Color.RED"),
        (DeepLora(2), "configs.DeepLora()"),
        ([Lora(1)], "[configs.Lora(r=1, alpha=0.5, targets=('q', 'v'))]"),
        (Point(1.0, None), "configs.Point(x=1.0, y=None)"),
        ({1: (2,)}, "{1: (2,)}"),
        (1 << 3000, hex(1 << 3000)),
        ("\ud83d\ude00", "'\\ud83d\\ude00'"),
        (object(), "<<object object>>"),
        ("{not json", "'{not json'"),
    ],
)
def test_a_value_is_shown_as_python_would(value: Any, text: str) -> None:
    params = config_to_params(TrainConfig(extra={"a": value}))
    assert as_python(params["extra.a"]) == text


@pytest.mark.parametrize(
    "text",
    [
        *('{"$tuple": 1}', '{"$enum": ["a"]}', '{"$bytes": "?"}', '{"$path": []}', '{"$x": 1}'),
        *('{"$type": 1, "a": 2}', '{"$dict": [1]}', '{"$str": [1]}', "[" * 100_000, ""),
    ],
)
def test_text_that_looks_like_a_marker_is_shown(text: str) -> None:
    assert as_python(text)


@given(configs, configs)
@settings(thorough, max_examples=25)
def test_different_values_look_different(one: Any, two: Any) -> None:
    found = diff_runs([run_with(one), run_with(two)])
    columns = [join_values(run_with(config).params) for config in (one, two)]
    differing = {
        key for key in columns[0] | columns[1] if columns[0].get(key) != columns[1].get(key)
    }
    shown_rows = {name for name in rows(found.config) if not name.endswith(" (order)")}
    assert shown_rows == differing - {names.KEY_ORDER}
    assert all(a != b for a, b in rows(found.config).values())


def test_the_order_of_a_dict_is_a_difference() -> None:
    found = of_extras({"w": {"b": 1, "a": 2}}, {"w": {"a": 2, "b": 1}}, {"w": {"b": 1, "a": 2}})
    assert rows(found.config) == {"extra.w (order)": ("b, a", "a, b", "b, a")}
    more = of_extras({"w": {"b": 1, "a": 2}}, {"w": {"b": 1, "c": 0, "a": 2}})
    assert rows(more.config) == {"extra.w.c": (None, "0")}


def test_no_order_is_claimed_for_a_run_that_recorded_none() -> None:
    params, tags = params_and_tags(TrainConfig(extra={"w": {"b": 1, "a": 2}}))
    older = {key: text for key, text in params.items() if key != names.KEY_ORDER}
    old = as_stored(older, tags | {names.CONFIG_CODEC: "1"})
    assert diff_runs([old, as_stored(params, tags)]).config == ()


def test_params_of_other_tools_are_compared_as_text() -> None:
    one, two = as_stored({"lr": "1e-5", "a:1": "x"}), as_stored({"lr": "1e-05", "a:1": "y"})
    assert rows(diff_runs([one, two]).config) == {"lr": ("1e-5", "1e-05"), "a:1": ("'x'", "'y'")}


# -- metrics ---------------------------------------------------------------------------------------


def test_metrics_change_against_the_first_run() -> None:
    (accuracy, loss) = with_metrics(
        {"accuracy": 0.5, "loss": -2.0, "same": 1.0, "nan": math.nan, "inf": LARGEST},
        {"accuracy": 0.75, "loss": -1.0, "same": 1.0, "nan": math.nan, "inf": math.inf},
        {"accuracy": 0.25, "same": 1.0, "nan": math.nan, "inf": LARGEST},
    ).metrics
    assert accuracy.name == "accuracy"
    assert accuracy.changes == (Change(), Change(50.0, "up"), Change(-50.0, "down"))
    assert loss.values == (-2.0, -1.0, None)
    assert loss.changes == (Change(), Change(50.0, "up"), Change())


def test_metrics_of_the_system_are_no_difference() -> None:
    key = names.system_metric("cpu_utilization_percentage")
    assert with_metrics({key: 3.0}, {key: 98.0}, {}).metrics == ()


@pytest.mark.parametrize(
    ("base", "value", "change", "text"),
    [
        (0.0, 1.0, Change(None, "up"), "1 ↑ n/a"),
        (0.0, -1.0, Change(None, "down"), "-1 ↓ n/a"),
        (1.0, math.nan, Change(), "nan "),
        (math.nan, 1.0, Change(), "1 "),
        (1.0, LARGEST, Change(None, "up"), "inf ↑ n/a"),
        (1.0, -LARGEST, Change(None, "down"), "-inf ↓ n/a"),
        (5e-324, 1e308, Change(None, "up"), "1e+308 ↑ n/a"),
        (1.0, 1.0 + 2**-50, Change(2**-50 * 100, "up"), "1.0000000000000009 ↑ +8.88e-14%"),
    ],
)
def test_changes_at_the_edges(base: float, value: float, change: Change, text: str) -> None:
    found = with_metrics({"m": base}, {"m": value})
    assert found.metrics[0].changes[1] == change
    assert f"│ {text}" in printed(found)


# -- code, machine, packages, datasets, status -----------------------------------------------------

CLEAN = {names.GIT_COMMIT: "a" * 40, names.GIT_DIRTY: "false"}


def test_code_and_machine_differ() -> None:
    dirty = {names.GIT_COMMIT: "b" * 40, names.GIT_DIRTY: "true", names.GIT_DIFF: "c" * 64}
    found = with_tags({**CLEAN, names.PYTHON: "3.11.1"}, {**dirty, names.GPU: "8 x H100"})
    assert rows(found.code) == {
        "commit": ("a" * 40, "b" * 40),
        "dirty": ("false", "true"),
        "uncommitted diff": (None, "c" * 64),
    }
    assert rows(found.machine) == {"Python": ("3.11.1", None), "GPU": (None, "8 x H100")}
    text = printed(found)
    assert f" {'a' * 12} " in text
    assert "a" * 13 not in text
    assert not any("code" in note for note in found.notes)


def test_unknown_code_is_noted() -> None:
    undigested = {names.GIT_COMMIT: "a" * 40, names.GIT_DIRTY: "true"}
    found = with_tags(CLEAN, undigested, {})
    assert [note[:12] for note in found.notes if "code" in note] == ["run 00000000"] * 2
    assert "uncommitted changes that it did not record" in found.notes[0]
    assert "recorded no commit" in found.notes[1]
    inside = {**CLEAN, names.GIT_DIRTY: "true", names.GIT_DIFF: "d", names.GIT_SUBMODULES: "lib"}
    said = [note for note in with_tags(CLEAN, inside).notes if "submodules" in note]
    assert said == [
        "run 00000000 had uncommitted changes inside submodules, which are not recorded: lib"
    ]


def test_later_lives_of_a_run_are_compared_too() -> None:
    again = {**CLEAN, names.in_life(names.GIT_COMMIT, 2): "b" * 40}
    changed = {**CLEAN, names.in_life(names.CONFIG_CHANGED, 2): '{"epochs": ["1", "2"]}'}
    found = with_tags({**again, names.in_life(names.PACKAGES, 2): "p"}, changed)
    assert rows(found.packages) == {"all, life 2": ("p", None)}
    assert rows(found.code) == {"commit, life 2": ("b" * 40, None)}
    assert found.notes[0] == "run 00000000 was resumed with params that it does not show: epochs"
    found = with_tags(CLEAN, {**CLEAN, names.in_life(names.GIT_COMMIT, 3): "b" * 40})
    assert rows(found.code) == {"commit, life 3": (None, "b" * 40)}  # the second recorded none


def test_packages_differ() -> None:
    one = "mine==1\nnumpy==1.0\ntorch==2.0\n# local==1 from a folder of this machine\n"
    two = "numpy==2.0\ntorch==2.0\nmine @ git+https://x/y@abc\nextra==1\n"
    found = with_tags({names.PACKAGES: "1"}, {names.PACKAGES: "2"}, r0=one, r1=two)
    assert rows(found.packages) == {
        "extra": (None, "1"),
        "local": ("1 from a folder of this machine", None),
        "mine": ("1", "git+https://x/y@abc"),
        "numpy": ("1.0", "2.0"),
    }
    assert parse_requirements("-e .\n-e .\n\n") == {"-e .": "listed, listed"}
    same = [as_stored({}, {names.PACKAGES: "1"}), as_stored({}, {names.PACKAGES: "1"})]
    assert not packages_differ(same)


def test_packages_without_a_list_differ_by_digest() -> None:
    found = with_tags({names.PACKAGES: "1"}, {names.PACKAGES: "2"}, {}, r0="a==1\n", r1=None)
    assert rows(found.packages) == {"all": ("1", "2", None)}
    assert [note for note in found.notes if "packages" in note] == [
        "run 00000000 recorded no packages",
        "run 00000000 has lost the list of its packages",
    ]
    assert any("packages" in note for note in with_tags({}, {}).notes)


def test_datasets_and_status_differ() -> None:
    runs = [
        replace(as_stored({}), datasets=(DatasetInput("digits", digest, "train"), *more))
        for digest, more in (("1", ()), ("2", (DatasetInput("digits", "0", "train"),)))
    ]
    found = diff_runs([runs[0], replace(runs[1], status="FAILED")])
    assert rows(found.datasets) == {"train: digits": ("1", "0, 2")}
    assert rows(found.status) == {"status": ("FINISHED", "FAILED")}


# -- reports ---------------------------------------------------------------------------------------


def hostile() -> RunDiff:
    one = replace(
        as_stored({HOSTILE: HOSTILE}, {names.GIT_BRANCH: HOSTILE}),
        name=HOSTILE,
        run_id=HOSTILE,
        metrics={HOSTILE: 1.0},
        datasets=(DatasetInput(HOSTILE, HOSTILE, HOSTILE),),
    )
    return diff_runs([one, as_stored({})])


def test_nothing_acts_on_a_terminal() -> None:
    text = printed(hostile())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "[red]" in text


def test_nothing_acts_in_markdown() -> None:
    text = markdown_report(hostile(), "http://host/#/compare")
    outside_code = re.sub(r"`[^`\n]*`", "", text)
    assert not re.search(r"@me|<img|\]\(http://y|\x1b|\u202e", outside_code)
    cells = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert cells == {4}
    assert text.endswith("[Compare in MLflow](<http://host/#/compare>)\n")
    assert "](<" not in markdown_report(hostile(), "javascript:alert(1)")


def test_markdown_fits_into_a_comment_and_says_how_much_is_missing() -> None:
    many = {f"k{number}": "x" * 500 for number in range(400)}
    text = markdown_report(of_extras(many, {}))
    assert "and 301 more: `--format json` has them all" in text
    assert len(text) < 60_000


def test_the_json_has_everything() -> None:
    one = replace(run_with(TrainConfig(epochs=1)), metrics={"a": LARGEST, "b": 1.0})
    two = replace(run_with(TrainConfig(epochs=2)), metrics={"a": math.nan, "b": 2.0}, name="two")
    told = json.loads(json_report(diff_runs([one, two]), "http://host"))
    assert told["schema"] == 1
    assert told["compare"] == "http://host"
    assert told["config"] == [{"name": "epochs", "values": ["1", "2"]}]
    assert [row["values"] for row in told["metrics"]] == [["inf", "nan"], [1.0, 2.0]]
    assert told["metrics"][1]["changes"][1] == {"percent": 100.0, "direction": "up"}
    assert told["runs"][1] == {
        "run_id": two.run_id,
        "name": "two",
        "experiment_id": "0",
        "status": "FINISHED",
    }


def test_no_differences_are_reported() -> None:
    runs: list[StoredRun] = [run_with(TrainConfig())] * 2
    assert printed(diff_runs(runs)).startswith("no differences\n")
    assert markdown_report(diff_runs(runs)).startswith("- no differences\n")


# -- the command -----------------------------------------------------------------------------------


def diff(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(commands, ["diff", *arguments])


def logged_run(uri: str, config: TrainConfig, packages: str, name: str) -> str:
    """A run with a config, a metric and a list of packages."""
    params, tags = params_and_tags(config)
    digest = hashlib.sha256(packages.encode()).hexdigest()
    run_id = log_to(uri, params, {**tags, names.PACKAGES: digest, names.RUN_NAME: name})
    client = MlflowClient(uri)
    client.log_metric(run_id, "accuracy", config.learning_rate)
    client.log_text(run_id, packages, f"{names.PROVENANCE}/{names.REQUIREMENTS_FILE}")
    return run_id


def test_runs_of_a_store(sqlite_uri: str) -> None:
    one = logged_run(sqlite_uri, TrainConfig(learning_rate=0.5), "numpy==1.0\n", "a [red] run")
    two = logged_run(sqlite_uri, TrainConfig(learning_rate=0.75), "numpy==2.0\n", "two")
    store = ("--tracking-uri", sqlite_uri)

    shown_by = subprocess.run(
        [COMMAND, "diff", one[:8], "two", "--experiment", "Default", *store],
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (shown_by.returncode, shown_by.stderr) == (0, "")
    for expected in (
        f"┃ a [red] run ({one[:8]}) ┃ two ({two[:8]})",
        r"│   learning_rate +│ 0.5 +│ 0.75",
        r"│   numpy +│ 1.0 +│ 2.0",
        r"│   accuracy +│ 0.5 +│ 0.75 ↑ \+50%",
    ):
        pattern = expected if "+" in expected else re.escape(expected)
        assert re.search(pattern, shown_by.stdout), shown_by.stdout
    assert "batch_size" not in shown_by.stdout
    page = compare_page("http://127.0.0.1:5000", ["0"], [one, two])
    assert shown_by.stdout.endswith(f"Side by side:\n  {page}\n")
    assert "server --backend-store-uri sqlite:///store.db --port 5000\n" in shown_by.stdout

    told = json.loads(diff(one, two, one, "--format", "json", *store).stdout)
    assert [run["run_id"] for run in told["runs"]] == [one, two, one]
    assert told["packages"] == [{"name": "numpy", "values": ["1.0", "2.0", "1.0"]}]
    assert told["compare"] is None  # nobody but who starts a server here could follow it


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["one"], 2, "two or more"),
        ([], 2, "RUN"),
        (["abc", "def"], 2, "abc"),
        (["a", "b", "--format", "xml"], 2, "xml"),
        (["a", "b", "--tracking-uri", "sqlite:///none.db"], 1, "none.db"),
    ],
)
def test_wrong_usage_is_reported(
    arguments: list[str], code: int, named: str, sqlite_uri: str, tmp_path: Path
) -> None:
    given = [*arguments, *([] if "--tracking-uri" in arguments else ["--tracking-uri", sqlite_uri])]
    ended = diff(*given)
    assert (ended.exit_code, ended.stdout) == (code, "")
    assert named in ended.stderr
    assert not (tmp_path / "none.db").exists()
