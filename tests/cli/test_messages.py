"""Common mistakes: a message of a few lines names the thing, the value and the way out."""

import ast
import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from orbiter.train import TrainConfig, TrainerError
from orbiter_mlflow import ConfigError, MLflowSettings, TrackingError, load_config
from orbiter_mlflow.cli.main import main
from pages import ROOT
from trainers import stored, tracked

PAGE = ROOT / "docs" / "how-to" / "troubleshooting.md"
POLICY = '[gate]\nschema = 1\n[baseline]\nrun = "r"\n[metrics.m]\ndirection = "higher"\n'
COMMANDS = {
    "chek": (2, "'chek'", "did you mean 'check'?"),
    "sync nowhere": (2, "nowhere: there is no such journal or folder"),
    "demo --seeds many": (2, "'--seeds'", "'many'"),
    "diff 1234abcd": (2, "give two or more"),
    "reproduce first": (2, "'first'", "a name needs its experiment"),
    "reproduce first --experiment e": (1, "no experiment 'e'"),
    "reproduce 1234abcd --tracking-uri sqlite:///none.db": (1, "none.db: check the tracking URI"),
    "reproduce 1234abcd --tracking-uri htp://x": (1, "'htp://x'", "check how it begins"),
    "reproduce 1234abcd --tracking-uri http://127.0.0.1:9": (
        *(1, "http://127.0.0.1:9/", "Connection refused", "check that it is up"),
    ),
    "check none.toml --candidate c": (2, "none.toml: cannot be read (No such file"),
    "check typo.toml --candidate c": (2, "metrics.m.max_dorp", "did you mean max_drop?"),
    "check limitless.toml --candidate c": (2, "metrics.m:", "add min, max, max_drop"),
    "check good.toml": (2, "no candidate", "--candidate"),
    "check good.toml --candidate c --experiment none": (3, "no experiment 'none'"),
    "bless 1234abcd --reason r": (1, "'1234abcd'"),
    "bless 1234abcd": (2, "--reason"),
}


@pytest.fixture
def told(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    """Exit code and output of the command, run as its script runs it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    Path("good.toml").write_text(POLICY + "min = 0\n")
    Path("typo.toml").write_text(POLICY + "max_dorp = 0\n")
    Path("limitless.toml").write_text(POLICY)

    def call(line: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["orbiter-mlflow", *line.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out + err

    return call


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_names_the_mistake(line: str, told: Callable[[str], tuple[int, str]]) -> None:
    expected, *parts = COMMANDS[line]
    code, text = told(line)
    assert code == expected, text
    assert "Traceback" not in text
    for part in parts:
        assert str(part) in " ".join(text.split()), text
    if code < 3:
        assert text.startswith("orbiter-mlflow: ")
        assert len(text.splitlines()) <= 3


async def test_a_lifecycle_in_the_wrong_order(sqlite_uri: str) -> None:
    trainer = tracked(sqlite_uri, enabled=False)
    with pytest.raises(TrainerError, match=r"must be validated before training \(state=created\)"):
        await trainer.train()
    with (
        pytest.raises(TrackingError, match=r"starts at mark_validated\(\)"),
        trainer.active_run(),
    ):
        pass
    trainer.mark_validated()
    with pytest.raises(TrainerError, match=r"state=validated\): make a new trainer"):
        trainer.check_agent(None)


def test_a_setting_that_there_is_not() -> None:
    with pytest.raises(ValidationError, match=r"delivry\n"):
        MLflowSettings(delivry="offline")  # type: ignore[call-arg]  # the typo
    with pytest.raises(ValidationError, match="'process', 'thread' or 'offline'"):
        MLflowSettings(delivery="of line")  # type: ignore[arg-type]  # the typo


def test_a_config_that_cannot_be_had(sqlite_uri: str) -> None:
    config = TrainConfig(extra={"hf_token": "hf_" + "a1" * 10})
    trainer = tracked(sqlite_uri, config, delivery="thread")
    trainer.mark_validated()
    asyncio.run(trainer.train())
    run_id = stored(sqlite_uri, trainer).info.run_id
    with pytest.raises(ConfigError, match=r"extra.hf_token: is a secret.*give it in `secrets`"):
        load_config(run_id, tracking_uri=sqlite_uri)


def test_the_page_says_what_the_sources_say() -> None:
    known = "\n".join(
        node.value
        for folder in ("orbiter", "integrations")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    rows = re.findall(r"^\| (`[^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 15
    for row in rows:
        for message in re.findall(r"`([^`]+)`", row):
            for piece in re.split(r"\.\.\.", message):
                words = piece.strip("() ;,:")
                if words != "1 validation error for":  # pydantic's
                    assert words in known, f"{words!r} of {message!r}"
