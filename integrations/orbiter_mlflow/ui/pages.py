"""The pages of the MLflow UI for a store, and the command that serves them if no server does."""

import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from orbiter_mlflow import names
from orbiter_mlflow.text.escaping import in_shell
from orbiter_mlflow.text.urls import without_userinfo
from orbiter_mlflow.ui.columns import shared_view
from orbiter_mlflow.ui.links import compare_page, run_page, runs_page

if TYPE_CHECKING:
    from rich.console import Console

    from orbiter_mlflow.runs.store import RunStore

__all__ = [
    "command_path",
    "display_uri",
    "page_of_run",
    "pages",
    "print_pages",
    "server_command",
    "ui_address",
]

_MAX_RUNS = 100
"""Latest runs that choose the columns of the table."""
_MAX_COMPARED = 6
"""Latest finished runs on the page that compares them."""

_LOCAL = "http://127.0.0.1:5000"
_SERVED = ("http://", "https://")


def ui_address(tracking_uri: str) -> str:
    """The address of the UI: the server itself, else the one that `server_command` serves."""
    return without_userinfo(tracking_uri) if tracking_uri.startswith(_SERVED) else _LOCAL


def pages(store: "RunStore", experiment_id: str, address: str | None = None) -> dict[str, str]:
    """The pages of an experiment: title -> address.

    The columns of the run table are stored in a tag of the experiment. If the store refuses the
    tag, the link opens the table with the UI's own columns.

    Args:
        address: the address of the UI; by default `ui_address`.

    Raises:
        StoreError: the store cannot be read.
    """
    base = address or ui_address(store.shown_uri)
    runs = list(islice(store.search("", [experiment_id], page=_MAX_RUNS), _MAX_RUNS))
    view = names.OUR_VIEW if store.share_view(experiment_id, shared_view(runs)) else None
    found = {
        "See the runs": runs_page(base, experiment_id, shared_view=view),
        "See their curves": runs_page(base, experiment_id, shared_view=view, charts=True),
    }
    finished = [run.run_id for run in runs if run.status == "FINISHED"]
    compared = finished[:_MAX_COMPARED]
    if len(compared) > 1:
        found["Compare them"] = compare_page(base, [experiment_id], compared)
    return found


def page_of_run(tracking_uri: str, run_id: str) -> str:
    """The page of a run; reads the store to find the run's experiment.

    Raises:
        StoreError: the store cannot be read.
    """
    from orbiter_mlflow.runs.store import RunStore

    experiment_id = RunStore(tracking_uri).get(run_id).experiment_id
    return run_page(ui_address(tracking_uri), experiment_id, run_id)


def print_pages(
    console: "Console", store: "RunStore", experiment_id: str, address: str | None = None
) -> None:
    """Print the pages of an experiment, after the command that serves them if no server does.

    Args:
        store, experiment_id, address: as for `pages`.

    Raises:
        StoreError: the store cannot be read.
    """
    from rich.text import Text

    found = pages(store, experiment_id, address)
    serve = None if address else server_command(store.shown_uri)
    if serve is not None:
        found = {"Start the UI": serve} | found
    for title, text in found.items():
        style = f"link {text}" if text.startswith(_SERVED) else ""
        console.print(Text(f"\n{title}:\n  ") + Text(text, style=style), soft_wrap=True)


def server_command(tracking_uri: str) -> str | None:
    """The command that serves the UI of a store; None if the store is a server."""
    if tracking_uri.startswith(_SERVED):
        return None
    words = command_path("mlflow"), "server", "--backend-store-uri", display_uri(tracking_uri)
    return f"{' '.join(map(in_shell, words))} --port 5000"


def display_uri(tracking_uri: str) -> str:
    """The URI as one would type it: without credentials, and relative for a file in this folder."""
    uri = without_userinfo(tracking_uri)
    here = f"sqlite:///{Path.cwd()}/"
    return f"sqlite:///{uri.removeprefix(here)}" if uri.startswith(here) else uri


def command_path(command: str) -> str:
    """The path to type for a command of this environment, even if it is not activated."""
    if shutil.which(command):
        return command
    beside = Path(sys.executable).with_name(command)
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
