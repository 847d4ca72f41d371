"""Describe user, program and command line, without asking another process.

Nothing here raises: what is not known is left out.
"""

import getpass
import json
import os
import shlex
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orbiter_mlflow import names
from orbiter_mlflow.redaction.redactor import Redactor
from orbiter_mlflow.text.values import tag_value

__all__ = ["command_line", "context_tags", "origins", "redacted", "source_tags"]

_OURS = ("orbiter", "orbiter_mlflow")


def source_tags(redactor: Redactor) -> dict[str, str]:
    """`mlflow.user`, `mlflow.source.name` and `.type`, and the tags in `MLFLOW_RUN_CONTEXT`.

    As in MLflow's own contexts (mlflow/tracking/context, 3.17) the latter, a JSON object in the
    environment, has the last word. A notebook's name is taken from where editors leave it; no
    server is asked.

    Args:
        redactor: takes the secrets out of a text; a tag that it fails on is left out.
    """
    shell = _shell()
    notebook = type(shell).__name__ == "ZMQInteractiveShell" or hasattr(shell, "kernel")
    name = (notebook and _notebook_name(shell)) or _program() or "<console>"
    tags = {
        names.USER: os.environ.get("MLFLOW_TRACKING_USERNAME") or _user(),
        names.SOURCE_NAME: name,
        names.SOURCE_TYPE: "NOTEBOOK" if notebook else "LOCAL",
    }
    return redacted(tags | context_tags(), redactor)


def command_line(redactor: Redactor) -> str:
    """The command that started this process, quoted for a shell, without its secrets."""
    arguments: list[str] = getattr(sys, "orig_argv", []) or getattr(sys, "argv", [])
    return shlex.join(redactor.arguments(arguments))


def context_tags() -> dict[str, str]:
    """The tags in `MLFLOW_RUN_CONTEXT`; they take precedence over MLflow's own."""
    try:
        context = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    except ValueError:
        return {}
    if not isinstance(context, dict):
        return {}
    return {key: text for key, text in context.items() if isinstance(text, str)}


def origins(trainer: type) -> Iterator[tuple[Path, str]]:
    """Places that the code of a run may come from, the surest first: a folder and a name in it.

    These are the program, the file of the trainer's class or of the next of its bases, and the
    working folder. Installed files and our own do not count: an installed command says nothing
    about whose code it runs. A program of the user's that lies elsewhere rules out the working
    folder.
    """
    program = _own_program()
    if program is not None:
        yield program.parent, program.name
    for cls in trainer.__mro__:
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        ours = cls.__module__.partition(".")[0] in _OURS
        if file is not None and not ours and not _installed(path := Path(file).absolute()):
            yield path.parent, path.name
            break
    with suppress(FileNotFoundError):  # the working folder was removed
        here = Path.cwd()
        if program is None or program.is_relative_to(here):
            yield here, "."


def _own_program() -> Path | None:
    """The program's file; None if it is installed, and in a console or a notebook."""
    program = _program()
    if not program or _shell() is not None or hasattr(sys, "ps1"):
        return None
    with suppress(FileNotFoundError):  # the working folder was removed
        path = _absolute(Path(program))
        return path if path.is_file() and not _installed(path) else None
    return None


def _installed(file: Path) -> bool:
    folders = (sysconfig.get_path(name) for name in ("scripts", "stdlib", "platstdlib"))
    return bool({"site-packages", "dist-packages"} & set(file.parts)) or any(
        file.is_relative_to(folder) for folder in folders if folder
    )


def redacted(tags: dict[str, str], redactor: Redactor) -> dict[str, str]:
    """Redact tags and make them storable; a tag for which that fails is left out."""
    clean = {}
    for key, text in tags.items():
        with suppress(Exception):  # better no tag than a secret
            clean[key] = tag_value(redactor.value(key, text))
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
    """The program's path, even if the working folder has changed since it started."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)  # absolute since Python 3.9
    if main is not None and Path(main).name == program.name:
        program = Path(main)
    return program.absolute()


def _user() -> str:
    try:
        return getpass.getuser()
    except Exception:  # no such user id in a container: KeyError, from Python 3.13 on OSError
        return "unknown"
