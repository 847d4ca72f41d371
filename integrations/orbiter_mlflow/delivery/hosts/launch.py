"""Start a delivery process."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.hosts.environment import for_delivery
from orbiter_mlflow.delivery.process_identity import this_process

_FORK = "import posix, sys; posix.fork() or posix.execv(sys.argv[1], sys.argv[1:])"
"""What stands between, for some 20 ms: a Python without packages forks and ends. So delivery is no
child of the training, and never its zombie. No thread waits for it, since Python warns of forks in
programs with threads."""

LOG = "delivery.log"
"""The file beside the journals that takes the error output of delivery processes."""


def start(
    reading: int, pipe: Path | None, spool: Path | None, folder: str, environ: Mapping[str, str]
) -> None:
    """Start a delivery process.

    Args:
        reading: the end of the pipe at which it reads its orders.
        pipe: the pipe's name; None for one without.
        spool: the folder of its log; None for no log.
        folder: its working folder.
        environ: the environment of the training.

    Raises:
        OSError: it cannot be started.
    """
    if not sys.executable:
        raise OSError("this Python does not know its own interpreter")
    me = this_process()
    paths = (os.path.abspath(path) for path in sys.path if path)  # noqa: PTH100  entries are text
    modules = os.pathsep.join(paths)
    with _log(spool) as log:
        process = subprocess.Popen(  # noqa: S603  our own module
            [
                *(sys.executable, "-S", "-c", _FORK),
                *(sys.executable, "-P", "-m", "orbiter_mlflow.delivery.hosts.child"),
                *(str(me.pid), me.started or "-", str(pipe or "-")),
            ],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=for_delivery(environ) | {"PYTHONPATH": modules},
            cwd=folder if os.access(folder, os.X_OK) else os.sep,
            start_new_session=True,  # Ctrl-C in the terminal is not meant for it
        )
    try:
        if (code := process.wait(retry.CONNECT)) != 0:
            raise OSError(f"its start ended with code {code}")
    except subprocess.TimeoutExpired:  # a crowded machine
        with contextlib.suppress(RuntimeError):  # no thread can be started: it is no zombie yet
            threading.Thread(target=process.wait, name="orbiter-launch", daemon=True).start()


def _log(folder: Path | None) -> IO[bytes]:
    known = folder is not None and folder.is_dir()  # or it has been removed
    path = folder / LOG if folder is not None and known else Path(os.devnull)
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
