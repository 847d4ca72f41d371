"""The README: its code runs, its commands exist, what it shows of the example store is so."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pages import ROOT, Block, act, blocks, opened

README = ROOT / "README.md"
PROGRAM = "\n".join(block.text for block in blocks(README) if block.language == "python")


def test_the_code_runs_as_one_program_from_top_to_bottom(tmp_path: Path, empty_store: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())  # to make one takes seconds
    program = tmp_path / "readme.py"
    program.write_text(PROGRAM, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^run [0-9a-f]{32}$", ended.stdout, re.MULTILINE)


def test_the_example_takes_as_few_lines_as_it_says() -> None:
    trainer = PROGRAM[PROGRAM.index("class MyTrainer") : PROGRAM.index("trainer = ")]
    assert len(trainer.split("\n")) <= 15


def test_commands_do_what_they_show_with_the_example_store(
    own_folder: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(own_folder, empty_store, monkeypatch)
    example = own_folder / ".example"  # as `make ui` makes it
    shutil.copytree(ROOT / "mlruns.example" / "journals", example)
    (example / "mlflow.db").write_bytes(empty_store.read_bytes())
    sync = "orbiter-mlflow sync .example --ended --tracking-uri sqlite:///.example/mlflow.db"
    session.run(Block("sh", "", sync, 0))
    for block in blocks(README):
        if block.language != "python":  # run above, in a process of its own
            act(session, block)


def test_ci_runs_the_two_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make demo" in script
    assert "make test" in script


def test_it_is_short() -> None:
    assert README.read_text(encoding="utf-8").count("\n") <= 140
