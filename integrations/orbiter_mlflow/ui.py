"""How the MLflow UI of a store is reached: its address, and what to type where nobody serves it."""

import shutil
import sys
from pathlib import Path

from orbiter_mlflow.settings import without_userinfo

__all__ = ["installed", "server_command", "typed", "ui_address"]

_LOCAL = "http://127.0.0.1:5000"
_SERVED = ("http://", "https://")


def ui_address(tracking_uri: str) -> str:
    """Where the UI is: at the server itself, else where `server_command` will serve it."""
    return without_userinfo(tracking_uri) if tracking_uri.startswith(_SERVED) else _LOCAL


def server_command(tracking_uri: str) -> str | None:
    """The command that serves the UI; None where a server does."""
    if tracking_uri.startswith(_SERVED):
        return None
    return f"{installed('mlflow')} server --backend-store-uri {typed(tracking_uri)} --port 5000"


def typed(tracking_uri: str) -> str:
    """The URI as one would type it, without credentials; a file in the present folder, relative."""
    uri = without_userinfo(tracking_uri)
    here = f"sqlite:///{Path.cwd()}/"
    return f"sqlite:///{uri.removeprefix(here)}" if uri.startswith(here) else uri


def installed(command: str) -> str:
    """A command as one can type it here, also where its environment is not activated."""
    if shutil.which(command):
        return command
    beside = Path(sys.executable).with_name(command)
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
