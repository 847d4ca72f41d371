"""User, program and command line, as this process knows them: cheap, and asks no other process.

Nothing here raises: what cannot be found out is left out.
"""

import getpass
import json
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.redact import Redactor
from orbiter_mlflow.values import tag_value

__all__ = ["command_line", "context_tags", "origin", "redacted", "source_tags"]

Redact = Callable[[str], str]


def source_tags(redact: Redact) -> dict[str, str]:
    """`mlflow.user`, `mlflow.source.name` and `.type`, and the tags in `MLFLOW_RUN_CONTEXT`.

    As in MLflow's own contexts (mlflow/tracking/context, 3.17) the latter, a JSON object in the
    environment, has the last word. A notebook's name is taken from where editors leave it; no
    server is asked.

    Args:
        redact: takes the secrets out of a text; a tag for which it fails is left out.
    """
    shell = _shell()
    notebook = type(shell).__name__ == "ZMQInteractiveShell" or hasattr(shell, "kernel")
    name = (notebook and _notebook_name(shell)) or _program() or "<console>"
    tags = {
        names.USER: os.environ.get("MLFLOW_TRACKING_USERNAME") or _user(),
        names.SOURCE_NAME: name,
        names.SOURCE_TYPE: "NOTEBOOK" if notebook else "LOCAL",
    }
    return redacted(tags | context_tags(), redact)


def command_line(redactor: Redactor) -> str:
    """The command that started this process, quoted for a shell, without its secrets."""
    arguments: list[str] = getattr(sys, "orig_argv", []) or getattr(sys, "argv", [])
    return shlex.join(redactor.arguments(arguments))


def context_tags() -> dict[str, str]:
    """The tags in `MLFLOW_RUN_CONTEXT`; where they name one of MLflow's, they go first."""
    try:
        given = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    except ValueError:
        return {}
    if not isinstance(given, dict):
        return {}
    return {key: text for key, text in given.items() if isinstance(text, str)}


def origin() -> tuple[Path, str]:
    """The folder that the program comes from, and what in it is the program.

    In a console or a notebook the working directory, and `.`.

    Raises:
        OSError: the working directory is gone.
    """
    program = _program()
    if program and _shell() is None and not hasattr(sys, "ps1"):
        path = _absolute(Path(program))
        if path.is_file():
            return path.parent, path.name
    return Path.cwd(), "."


def redacted(tags: dict[str, str], redact: Redact) -> dict[str, str]:
    """The tags without secrets, as a store takes them; one for which that fails is left out."""
    clean = {}
    for key, text in tags.items():
        with suppress(Exception):  # rather no tag than a secret
            clean[key] = tag_value(redact(text))
    return clean


def _shell() -> object:
    """IPython's shell, if the program runs in one."""
    with suppress(Exception):
        return sys.modules["IPython"].get_ipython()
    return None


def _notebook_name(shell: object) -> str | None:
    with suppress(Exception):
        path = getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__")
        path = path or os.environ.get("__vsc_ipynb_file__")  # noqa: SIM112  so VS Code calls it
        path = path or os.environ.get("IPYNB_FILE")
        return Path(path).name if path else None
    return None


def _program() -> str | None:
    arguments: list[str] = getattr(sys, "argv", [])  # missing in an embedded interpreter
    return arguments[0] if arguments else None


def _absolute(program: Path) -> Path:
    """Where the program is, though it may have left the folder that it was started in."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)  # absolute since Python 3.9
    if main is not None and Path(main).name == program.name:
        program = Path(main)
    return program.absolute()


def _user() -> str:
    try:
        return getpass.getuser()
    except Exception:  # no such user id in a container: KeyError, from Python 3.13 on OSError
        return "unknown"
