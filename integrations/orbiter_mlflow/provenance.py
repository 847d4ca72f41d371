"""Where a run comes from: user, program and git commit, as the tags that MLflow's fluent API sets.

`source_tags` is cheap and asks no other process; `git_tags` runs git, and belongs on a thread of
its own. Neither raises: what cannot be found out is left out.
"""

import getpass
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from re import sub

from orbiter_mlflow import names
from orbiter_mlflow.values import tag_value

__all__ = ["git_tags", "source_tags"]

GIT_TIMEOUT = 10.0
"""Seconds that each call of git may take."""
_MAX_OUTPUT = 64 * 1024

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
    return _redacted(tags | _context(), redact)


def git_tags(redact: Redact, *, timeout: float = GIT_TIMEOUT) -> dict[str, str]:
    """Commit, branch and origin of the program's repository, and whether its tree is dirty.

    The repository is the one of the main script's folder; in a console or a notebook that of the
    working directory. A script that the repository ignores (an installed command, in a virtual
    environment that lies there) does not come from it. Where there is no commit, no git, or a
    repository that git does not trust, there are no tags.

    Args:
        redact: takes the secrets out of a text; a tag for which it fails is left out.
        timeout: seconds that each call of git may take; the tag of one that takes longer is
            missing.
    """
    try:
        folder, script = _origin()
        head = _git(folder, timeout, "rev-parse", "--verify", "-q", "HEAD")
        if head.code != 0 or _git(folder, timeout, "check-ignore", "-q", "--", script).code == 0:
            return {}
        tags = {names.GIT_COMMIT: head.output.strip()}
        branch = _git(folder, timeout, "symbolic-ref", "-q", "--short", "HEAD")
        if branch.code == 0:  # else HEAD is detached
            tags[names.GIT_BRANCH] = branch.output.strip()
        # not `remote get-url`: it applies `insteadOf`, where people keep tokens
        origin = _git(folder, timeout, "config", "--get", "remote.origin.url")
        if origin.code == 0:
            tags[names.GIT_REPO_URL] = _without_userinfo(origin.output.strip())
        status = _git(folder, timeout, "status", "--porcelain", "--untracked-files=normal")
        if status.output:
            tags[names.GIT_DIRTY] = "true"
        elif status.code == 0:
            tags[names.GIT_DIRTY] = "false"
    except Exception:  # no git, no such folder, no new thread because the program ends
        return {}
    given = _context()
    return _redacted({key: text for key, text in tags.items() if key not in given}, redact)


def _redacted(tags: dict[str, str], redact: Redact) -> dict[str, str]:
    clean = {}
    for key, text in tags.items():
        with suppress(Exception):  # rather no tag than a secret
            clean[key] = tag_value(redact(text))
    return clean


# -- the program ---------------------------------------------------------------------------------


def _shell() -> object:
    """IPython's shell, if the program runs in one."""
    with suppress(Exception):
        return sys.modules["IPython"].get_ipython()
    return None


def _notebook_name(shell: object) -> str | None:
    with suppress(Exception):
        path = getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__")
        path = path or os.environ.get("__vsc_ipynb_file__")  # noqa: SIM112
        path = path or os.environ.get("IPYNB_FILE")
        return Path(path).name if path else None
    return None


def _program() -> str | None:
    arguments: list[str] = getattr(sys, "argv", [])  # missing in an embedded interpreter
    return arguments[0] if arguments else None


def _user() -> str:
    try:
        return getpass.getuser()
    except Exception:  # no such user id in a container: KeyError, from Python 3.13 on OSError
        return "unknown"


def _context() -> dict[str, str]:
    try:
        given = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    except ValueError:
        return {}
    if not isinstance(given, dict):
        return {}
    return {key: text for key, text in given.items() if isinstance(text, str)}


# -- git -----------------------------------------------------------------------------------------


def _origin() -> tuple[Path, str]:
    """The folder whose repository is asked for, and what in it is the program."""
    program = _program()
    if program and _shell() is None and not hasattr(sys, "ps1"):
        path = Path(program).absolute()
        if path.is_file():
            return path.parent, path.name
    return Path.cwd(), "."


def _without_userinfo(url: str) -> str:
    return sub(r"://[^/]*@", "://", url, count=1)


class _Answer:
    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output


def _git(folder: Path, timeout: float, *arguments: str) -> _Answer:
    """What git says, up to a limit; one that takes too long is killed, with all it has started."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside git's hooks
    }
    with subprocess.Popen(  # noqa: S603
        # a repository may name a program as its fsmonitor, which `status` would start
        ["git", "-c", "core.fsmonitor=false", *arguments],  # noqa: S607
        cwd=folder,
        env=environment | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        timer = threading.Timer(timeout, _kill, [process])
        timer.daemon = True
        timer.start()
        try:
            output = process.stdout.read(_MAX_OUTPUT) if process.stdout else b""
            if len(output) == _MAX_OUTPUT:
                _kill(process)
            code = process.wait()
        finally:
            timer.cancel()
    return _Answer(code, output.decode("utf-8", "replace"))


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
