"""What older servers refuse, in a form that they take.

Servers before MLflow 2.16, and MLflow on Windows, refuse `:` in the key of a param, metric or tag;
servers before 2.17 refuse tags of more than 5000 characters, or cut them without a note.
"""

from collections.abc import Callable, Iterable, Mapping

from mlflow import MlflowClient
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.os import is_windows

from orbiter_mlflow import names
from orbiter_mlflow.delivery.mlflow_client.server_version import server_version
from orbiter_mlflow.errors import TransientError
from orbiter_mlflow.text import colons
from orbiter_mlflow.text.shortening import ROOM, shortened

_TAKES_COLONS = (2, 16)
_TAKES_LONG_TAGS = (2, 17)


class OlderServers:
    """The limits of the store behind a client.

    The server is asked for its version when the first key or tag is written for which it matters.
    One that does not answer with a version is taken for a new one.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._version: tuple[int, int] | None = None
        self._asked = False
        self._without_colons: dict[str, bool] = {}

    def new_run(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tags of a new run as the store takes them."""
        tags = self.tags(tags)
        if not colons.concerns(tags) or self._takes_colons():
            return tags
        marked = {colons.without_colons(key): text for key, text in tags.items()}
        return marked | {names.COLONS: colons.STAND_IN}

    def tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tags, none longer than the store takes."""
        long = any(len(text) > names.MAX_DATA_TAG for text in tags.values())
        if not long or (self._server_version() or _TAKES_LONG_TAGS) >= _TAKES_LONG_TAGS:
            return dict(tags)
        return {key: shortened(text, names.MAX_DATA_TAG - ROOM) for key, text in tags.items()}

    def renaming(self, run_id: str, keys: Iterable[str]) -> Callable[[str], str]:
        """The function that gives each of these keys of a run as the store takes it.

        A run that was begun without colons stays so, also where its server has become a newer one.
        The run is marked before the first such key is written.
        """
        if not colons.concerns(keys):
            return str
        if run_id not in self._without_colons:
            marked = colons.is_marked(self._client.get_run(run_id).data.tags)
            if not marked and self._takes_colons():
                if self._asked:
                    self._without_colons[run_id] = False
                return str
            if not marked:
                self._client.set_tag(run_id, names.COLONS, colons.STAND_IN)
            self._without_colons[run_id] = True
        return colons.without_colons if self._without_colons[run_id] else str

    def _takes_colons(self) -> bool:
        if not isinstance(self._client._tracking_client.store, RestStore):
            self._asked = True
            return not is_windows()
        return (self._server_version() or _TAKES_COLONS) >= _TAKES_COLONS

    def _server_version(self) -> tuple[int, int] | None:
        """Major and minor version of the server; None for no server, and where it is not known.

        It is asked again after trouble on the way: what an old server refuses meanwhile is retried.
        """
        store = self._client._tracking_client.store
        if self._asked or not isinstance(store, RestStore):
            return self._version
        try:
            self._version = server_version(store)
        except TransientError:
            return None
        self._asked = True
        return self._version
