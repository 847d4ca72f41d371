"""Whether a program leaves in a store what it leaves there with the plain URI."""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from client_programs import started
from orbiter_mlflow.delivery import spool
from orbiter_mlflow.delivery.spool_folder import default_spool
from orbiter_mlflow.delivery.store_uri import PREFIX
from programs.pauses import DOWN, UP
from servers import running_server
from store_contents import Varying, contents, differences
from waiting import eventually

TIMES = frozenset({"datetime_complete", "datetime_start"}) | {
    f"{phase}_{what}"
    for phase in ("eval", "train")
    for what in ("runtime", "samples_per_second", "steps_per_second")
}
VARYING: Mapping[str, Varying] = {
    "transformers_callback": Varying(values=TIMES, files=r"/trainer_state\.json$"),
    "lightning_logger": Varying(files=r"\.ckpt$"),  # it holds absolute paths
    "optuna_callback": Varying(values=TIMES),
}


class Comparison:
    """Runs programs in a folder, each on a copy of an empty store.

    Args:
        folder: of this comparison alone.
        empty_store: a sqlite file with MLflow's tables and no runs.
    """

    def __init__(self, folder: Path, empty_store: Path) -> None:
        self._folder = folder
        self._empty = empty_store
        self._expected: dict[str, dict[str, str]] = {}

    def on_sqlite(self, name: str) -> list[str]:
        """The differences after a program has run on sqlite with the prefix."""
        uri = self._store(name, "journaled")
        with started(name, PREFIX + uri, self._folder / f"{name}-journaled") as program:
            program.finish()
        return self._differences(name, uri)

    def on_a_server(self, name: str) -> list[str]:
        """The same on a server that is killed and started again in the middle of the program."""
        uri = self._store(name, "served")
        folder = self._folder / f"{name}-server"
        folder.mkdir()
        with ExitStack() as stack:
            server = running_server(uri, folder)
            with server:
                program = stack.enter_context(
                    started(name, PREFIX + server.uri, self._folder / f"{name}-served")
                )
                program.reach(DOWN)
            program.go_on(DOWN)
            program.reach(UP)
            with server:
                program.finish()
                return self._differences(name, server.uri)

    def _differences(self, name: str, uri: str) -> list[str]:
        eventually(lambda: not spool.journals(default_spool()), within=240)
        found = contents(uri, VARYING.get(name, Varying()))
        return [
            re.sub(r"(.{1000}).*", r"\1 ...", one) for one in differences(self._of(name), found)
        ]

    def _of(self, name: str) -> dict[str, str]:
        """What a program leaves in a store with the plain URI."""
        if name not in self._expected:
            uri = self._store(name, "plain")
            with started(name, uri, self._folder / f"{name}-plain") as program:
                program.finish()
            self._expected[name] = contents(uri, VARYING.get(name, Varying()))
            assert self._expected[name]
        return self._expected[name]

    def _store(self, name: str, kind: str) -> str:
        path = self._folder / f"{name}-{kind}.db"
        path.write_bytes(self._empty.read_bytes())
        return f"sqlite:///{path}"
