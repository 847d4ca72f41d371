"""Decide which training processes may share one delivery process.

Those that would get the same one if each had its own: of one user, in one container and one job,
with the same Python and working folder, and with the same variables for stores, proxies and
credentials. Each such group has a named pipe in the spool, whose name is derived from all of that.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from orbiter_mlflow.delivery.process_identity import namespace, this_process
from orbiter_mlflow.delivery.store_environment import digest, for_stores, is_mere_setting

_NAMESPACES = ("ipc", "mnt", "net", "pid", "user", "uts")


def pipe_of(spool: Path, folder: str, environ: Mapping[str, str]) -> Path:
    """The named pipe of the delivery process that serves this process.

    Args:
        spool: the folder of the journals.
        folder: the working folder of delivery.
        environ: the environment of the training.
    """
    settings = [item for item in for_stores(environ).items() if is_mere_setting(item[0])]
    shared = [_machine(), _python(), _inode(folder), digest(environ), sorted(settings)]
    name = hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:32]
    return spool / f"{name}.delivery"


def _machine() -> list[str]:
    """User and rights, machine and container, and the job: its end takes its processes with it."""
    groups = [os.geteuid(), os.getegid(), *os.getgroups()]
    me = this_process()
    return [str(groups), _umask(), me.host, me.boot, *map(namespace, _NAMESPACES), _job()]


def _inode(folder: str) -> list[object]:
    """A folder that is removed and made anew is another one."""
    try:
        status = Path(folder).stat()
    except OSError:
        return [folder]
    return [folder, status.st_dev, status.st_ino]


def _umask() -> str:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return ""  # not Linux
    return next((line for line in lines if line.startswith("Umask:")), "")


def _job() -> str:
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""


def _python() -> list[str]:
    """The interpreter and the folders from which delivery imports MLflow and its plugins."""
    installed = [_version(name) for name in ("orbiter", "mlflow", "mlflow-skinny")]
    return [sys.executable or "", sys.version, *installed, __file__, *map(str, sys.path)]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
