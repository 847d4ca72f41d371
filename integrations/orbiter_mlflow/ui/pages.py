"""How the MLflow UI of a store is reached: its pages, and what to type where nobody serves it."""

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
    "installed",
    "page_of_run",
    "pages",
    "say_pages",
    "server_command",
    "typed",
    "ui_address",
]

_LOOKED_AT = 100
"""Runs, the latest, in which the columns of the table are looked for."""
_COMPARED = 6
"""Runs, the latest that are finished, that the page beside each other shows."""

_LOCAL = "http://127.0.0.1:5000"
_SERVED = ("http://", "https://")


def ui_address(tracking_uri: str) -> str:
    """Where the UI is: at the server itself, else where `server_command` will serve it."""
    return without_userinfo(tracking_uri) if tracking_uri.startswith(_SERVED) else _LOCAL


def pages(store: "RunStore", experiment_id: str, address: str | None = None) -> dict[str, str]:
    """The pages of an experiment, by what they show.

    The columns of the table are kept in a tag of the experiment. A store that does not take it
    gets a link to the table as the UI shows it by itself.

    Args:
        store: where the runs are.
        experiment_id: which experiment.
        address: of the UI; by default `ui_address`.

    Raises:
        StoreError: the store cannot be read.
    """
    base = address or ui_address(store.shown_uri)
    runs = list(islice(store.search("", [experiment_id], page=_LOOKED_AT), _LOOKED_AT))
    view = names.OUR_VIEW if store.share_view(experiment_id, shared_view(runs)) else None
    found = {
        "See the runs": runs_page(base, experiment_id, shared_view=view),
        "See their curves": runs_page(base, experiment_id, shared_view=view, charts=True),
    }
    finished = [run.run_id for run in runs if run.status == "FINISHED"]
    compared = finished[:_COMPARED]
    if len(compared) > 1:
        found["Compare them"] = compare_page(base, [experiment_id], compared)
    return found


def page_of_run(tracking_uri: str, run_id: str) -> str:
    """The page of a run. Asks the store which experiment it is in, and waits for the answer.

    Raises:
        StoreError: the store cannot be read.
    """
    from orbiter_mlflow.runs.store import RunStore

    experiment_id = RunStore(tracking_uri).get(run_id).experiment_id
    return run_page(ui_address(tracking_uri), experiment_id, run_id)


def say_pages(
    console: "Console", store: "RunStore", experiment_id: str, address: str | None = None
) -> None:
    """Print the pages of an experiment, and before them how to serve them where nobody does.

    Args:
        console: where to.
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
    """The command that serves the UI; None where a server does."""
    if tracking_uri.startswith(_SERVED):
        return None
    words = installed("mlflow"), "server", "--backend-store-uri", typed(tracking_uri)
    return f"{' '.join(map(in_shell, words))} --port 5000"


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
