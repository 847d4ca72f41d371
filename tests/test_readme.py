"""The README: its code runs, its commands exist, its tables are complete."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orbiter_mlflow import MLflowSettings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [
        line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()
    ]
    return [line for line in lines if line]


def run(*command: str, folder: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_code_runs_as_one_program_from_top_to_bottom(tmp_path: Path) -> None:
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks("python")), encoding="utf-8")
    out = run(sys.executable, str(program), folder=tmp_path)
    assert re.search(r"^run [0-9a-f]{32}$", out, re.MULTILINE)


def test_the_example_takes_as_few_lines_as_it_says() -> None:
    example = blocks("python")[0]
    trainer = example[example.index("class MyTrainer") : example.index("trainer = ")]
    assert len(trainer.split("\n")) <= 15


@pytest.mark.parametrize("command", commands())
def test_a_command_exists(command: str, tmp_path: Path) -> None:
    program, *arguments = command.split()
    if program == "make":  # .ci/run runs these two; here, that make knows them
        run("make", "--dry-run", "--directory", str(ROOT), *arguments, folder=tmp_path)
    elif program == "mlflow":
        run(sys.executable, "-m", "mlflow", "server", "--help", folder=tmp_path)
    else:
        run(program, *arguments, folder=tmp_path)


def test_ci_runs_the_two_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make demo" in script
    assert "make test" in script


def test_every_setting_is_in_the_table() -> None:
    table = README[README.index("## Settings") :]
    for name in MLflowSettings.model_fields:
        assert f"`{name}`" in table, name


def test_links_in_the_readme_lead_to_the_runs() -> None:
    for link in re.findall(r"http://\S+/#/experiments/\S+", README):
        assert "runs?workflowType=machine_learning" in link
