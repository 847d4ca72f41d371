"""Run the code blocks of the documentation; check those that cannot run here.

The language of a block decides its treatment, and a second word refines it: `sh elsewhere` is only
checked, because it needs another machine; `sh process` runs in a shell, so a program in it has a
process of its own; `sh integrations` does so where the large libraries are, and is only checked
elsewhere; a file name writes the block to that file; `text` is the output of the block
before, and `text sample` is not compared. A `python` block may `await`, like a cell of a notebook.
"""

import ast
import asyncio
import contextlib
import gc
import inspect
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import types
import warnings
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from orbiter_mlflow import MLflowTrainerMixin
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.spool_folder import default_spool
from orbiter_mlflow.gate.options import JUDGING, STORE
from orbiter_mlflow.gate.policy import load_policy
from waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
UNCHECKED = {
    "accelerate",
    "cat",
    "cd",
    "createdb",
    "createuser",
    "export",
    "git",
    "mc",
    "pip",
    "rsync",
    "sbatch",
    "seq",
    "torchrun",
    "xargs",
}
"""Programs whose options are not checked."""

_BLOCK = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
_AWAITS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_DRAWN = re.compile("[\u2500-\u257f]+")


@dataclass(frozen=True)
class Block:
    """Fenced code of a page; `word` is the second word, after the language."""

    language: str
    word: str
    text: str
    line: int


def pages() -> list[Path]:
    """All pages for users and contributors."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    found = [*top, *(ROOT / "docs").rglob("*.md")]
    return [*sorted(found), *sorted((ROOT / "examples").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced code of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        language, _, word = match[2].partition(" ")
        code = "".join(line.removeprefix(match[1]) for line in match[3].splitlines(keepends=True))
        found.append(Block(language, word, code, text.count("\n", 0, match.start()) + 1))
    return found


def lines(script: str) -> list[str]:
    """The commands of a script, with continued lines joined."""
    joined = re.sub(r" *\\\n *", " ", script).splitlines()
    return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


# -- checked commands ------------------------------------------------------------------------------


def check_commands(script: str) -> None:
    """Check that each command exists and has the given options."""
    for line in lines(script):
        for command in _simple_commands(line):
            _check_command(command)


def _simple_commands(line: str) -> Iterator[list[str]]:
    for inner in re.findall(r"\$\(([^)]*)\)", line):
        yield from _simple_commands(inner)
    tokens = shlex.shlex(re.sub(r"\$\([^)]*\)", "X", line), posix=True, punctuation_chars="|&;<>")
    tokens.whitespace_split = True
    words: list[str] = []
    redirected = False
    for token in tokens:
        if token in ("|", "&&", "||", ";", "&"):
            yield words
            words = []
        elif token.strip("<>") == "":
            redirected = True
        elif redirected:
            redirected = False
        elif words or not re.fullmatch(r"\w+=.*", token, re.DOTALL):
            words.append(token)
    if words:
        yield words


def _check_command(words: list[str]) -> None:
    program, *rest = words
    if program == "srun":
        _check_command(rest[next(i for i, word in enumerate(rest) if not word.startswith("-")) :])
    elif program == "orbiter-mlflow":
        _parse(commands, rest)
    elif program == "mlflow":
        _parse(_mlflow(), rest)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        named = {word for word in rest if "=" not in word}
        assert named <= set(targets), f"make knows no {rest}"
    elif program == ".ci/run":
        assert (ROOT / program).exists()
    elif program == "pytest":
        known = {option.name for option in (*STORE, *JUDGING)}
        for option in re.findall(r"--orbiter-([\w-]+)", " ".join(rest)):
            assert option in known or option == "policy", option
    elif rest[:2] == ["-m", "benchmarks"]:
        from benchmarks.__main__ import main

        _parse(main, rest[2:])
    else:
        assert program in {*UNCHECKED, "python"}, f"nothing checks {program!r}"


@cache
def _mlflow() -> click.Group:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it warns about MLflow's types
        from mlflow.cli import cli

    assert isinstance(cli, click.Group)
    return cli


def _parse(command: click.Command, words: list[str]) -> None:
    """Let click parse a command line without running it.

    Raises:
        click.UsageError: no such command, or no such option.
    """
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, words = found, words[1:]
    if words != ["--help"]:
        command.make_context(command.name, list(words), parent=context)


# -- running blocks --------------------------------------------------------------------------------


class Session:
    """A session of one page: its blocks run in the current folder, one after the other.

    Commands of `orbiter-mlflow` and Python programs run in this process, where MLflow is loaded.
    """

    def __init__(self, environment: pytest.MonkeyPatch, integrations: bool) -> None:
        self._environment = environment
        self.integrations = integrations
        self._module = types.ModuleType("page")
        environment.setitem(sys.modules, "page", self._module)
        environment.delitem(sys.modules, "my_trainer", raising=False)
        environment.syspath_prepend(str(Path.cwd()))
        environment.delenv("COLUMNS", raising=False)  # pages show output at the width of a log
        self.output = ""

    def run(self, block: Block) -> None:
        """Run a block; `output` is its output."""
        printed = io.StringIO()
        if block.language == "python":
            with contextlib.redirect_stdout(printed):
                code = compile(block.text, f"line {block.line}", "exec", _AWAITS)
                running = eval(code, vars(self._module))
                if inspect.iscoroutine(running):
                    asyncio.run(_finished(running))
            self.output = printed.getvalue()
            held = vars(self._module).values()
            _settle(alive=sum(isinstance(value, MLflowTrainerMixin) for value in held))
            return
        if block.word in ("process", "integrations"):
            check_commands(block.text)
            code, out, told = _shell(block.text)
            assert code == 0, out + told
            self.output = out + told
            return
        self.output = "".join(self._line(line) for line in lines(block.text))

    def _line(self, line: str) -> str:
        command, _, comment = line.partition("  #")
        expected = re.search(r"exit code (\d)", comment)
        command = os.path.expandvars(command)
        match = re.fullmatch(r"export (\w+)=(\S*)", command.strip())
        if match:
            self._environment.setenv(match[1], match[2])
            return ""
        command, _, file = command.partition(" > ")
        code, out, err = self._command(command)
        assert code == (int(expected[1]) if expected else 0), f"{line}\n{out}{err}"
        if file:
            Path(file.strip()).write_text(out, encoding="utf-8")
        return err if file else out + err

    def _command(self, command: str) -> tuple[int, str, str]:
        words = shlex.split(command)
        if words[0] == "orbiter-mlflow":
            done = CliRunner().invoke(commands, words[1:])
            if done.exception is not None and not isinstance(done.exception, SystemExit):
                raise done.exception
            return done.exit_code, done.stdout, done.stderr
        if words[0] == "python" and words[1].endswith(".py"):
            return self._program(words[1:])
        return _shell(command)

    def _program(self, words: list[str]) -> tuple[int, str, str]:
        printed = io.StringIO()
        self._environment.setattr(sys, "argv", words)
        code = 0
        with contextlib.redirect_stdout(printed):
            try:
                runpy.run_path(words[0], run_name="__main__")
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        _settle()
        return code, printed.getvalue(), ""


async def _finished(running: Coroutine[Any, Any, object]) -> None:
    await running


def _shell(script: str) -> tuple[int, str, str]:
    shell = subprocess.run(
        ["bash", "-e", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if spool.journals(default_spool()):  # on a slow machine a training has not waited for it
        assert CliRunner().invoke(commands, ["sync"]).exit_code == 0
    return shell.returncode, shell.stdout, shell.stderr


def opened(
    folder: Path,
    empty_store: Path,
    environment: pytest.MonkeyPatch,
    *,
    integrations: bool = False,
) -> Session:
    """Open a session in a folder like the reader's: an empty store, and the tutorial's trainer.

    A thread delivers, because a process would import MLflow once more.

    Args:
        integrations: the large libraries are installed, so blocks that need them run.
    """
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    for block in blocks(ROOT / "docs" / "tutorial.md"):
        if block.word.endswith(".py"):
            (folder / block.word).write_text(block.text, encoding="utf-8")
    # The pages assume an activated environment.
    environment.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    environment.setenv("ORBITER_MLFLOW_DELIVERY", "thread")
    environment.setenv("ORBITER_MLFLOW_SKIP_PROVENANCE", "git,machine,packages")
    return Session(environment, integrations)


def _settle(alive: int = 0) -> None:
    """Wait until everything is delivered, as at the end of a program.

    Args:
        alive: how many trainers live on; their journals stay.
    """
    gc.collect()

    def settled() -> bool:
        journals = spool.journals(default_spool())
        return len(journals) <= alive and not any(map(spool.is_waiting, journals))

    eventually(settled)


# -- treating a block ------------------------------------------------------------------------------


def act(session: Session, block: Block) -> None:
    """Run, write or check a block, by its language and its word."""
    language, word = block.language, block.word
    if re.fullmatch(r"[\w.-]+\.\w+", word):
        Path(word).write_text(block.text, encoding="utf-8")
        if language in CHECKS:
            CHECKS[language](block.text)
    elif (language, word) == ("text", "integrations"):
        missing = shows(session.output, block.text) if session.integrations else ""
        assert not missing, f"{missing!r} is not in the output:\n{session.output}"
    elif language == "text":
        assert word in ("", "sample"), word
        missing = "" if word else shows(session.output, block.text)
        assert not missing, f"{missing!r} is not in the output:\n{session.output}"
    elif (language, word) in (("python", ""), ("sh", ""), ("sh", "process")):
        session.run(block)
    elif (language, word) == ("sh", "integrations"):
        session.run(block) if session.integrations else check_commands(block.text)
    elif (language, word) == ("python", "elsewhere"):
        compile(block.text, "page", "exec")
    elif (language, word) == ("sh", "elsewhere"):
        check_commands(block.text)
    else:
        assert not word, word
        CHECKS[language](block.text)


def policy(text: str) -> None:
    """Read a policy, or a part of one."""
    file = Path("page.toml")
    if "[gate]" not in text:
        tables = tomllib.loads(text).keys()
        text = "" if "metrics" in tables else '[metrics."m"]\ndirection = "higher"\nmin = 0\n'
    whole = text if "[gate]" in text else f"[gate]\nschema = 1\n[baseline]\nrun = 'r'\n{text}"
    file.write_text(whole, encoding="utf-8")
    load_policy(file)


def pipeline(text: str) -> None:
    """Check the commands of a CI pipeline."""
    for script in scripts(yaml.safe_load(text)):
        check_commands(script)


def scripts(value: Any) -> Iterator[str]:
    """The scripts in a pipeline."""
    if isinstance(value, list):
        for item in value:
            yield from scripts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "run":
                yield item
            elif key in ("script", "before_script"):
                yield from item
            else:
                yield from scripts(item)


CHECKS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": policy,
    "yaml": pipeline,
}
"""Languages whose blocks are parsed, not run."""


def _words(line: str) -> list[str]:
    """The words of a line, without digests, numbers and box drawing."""
    line = re.sub(r"\b[0-9a-f]{8}(?:[0-9a-f]{24,56})?\b", "#", _DRAWN.sub(" ", line))
    return re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", line).split()


def shows(output: str, sample: str) -> str:
    """The first line of the sample that is missing from the output; "" if none is.

    Lines must come in order. A line matches if its words are in one line of the output, in order;
    all numbers are equal.
    """
    rest = iter([_words(line) for line in output.splitlines()])
    for line in sample.splitlines():
        expected = _words(line)
        if not any(_in_order(expected, found) for found in rest):
            return line
    return ""


def _in_order(expected: list[str], found: list[str]) -> bool:
    remaining = iter(found)
    return all(word in remaining for word in expected)
