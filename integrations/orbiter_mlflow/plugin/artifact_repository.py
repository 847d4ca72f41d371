"""Artifacts of a run that this process writes: each file is copied beside the journal and recorded,
or copied to the run's folder where that is on a disk of this machine.

A write returns once the file is copied, and the user may change or delete the file. A read first
waits until what was written is in the store.
"""

import logging
import os
import posixpath
import stat
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.store.artifact.artifact_repo import ArtifactRepository, verify_artifact_path
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from mlflow.utils.async_logging.run_operations import RunOperations
from mlflow.utils.file_utils import relative_path_to_artifact_path
from mlflow.utils.uri import is_local_uri

from orbiter_mlflow.delivery import kept_files
from orbiter_mlflow.delivery.records import Artifact

if TYPE_CHECKING:
    from orbiter_mlflow.plugin.journaled_run import JournaledRun
    from orbiter_mlflow.plugin.runs import Runs

_logger = logging.getLogger(__name__)

_MOST = 1024
"""Repositories that MLflow keeps (tracking/_tracking_service/client.py)."""


class JournalArtifacts(ArtifactRepository):  # type: ignore[misc]  # mlflow is untyped
    """The artifact repository of one run.

    Args:
        artifact_uri: a URI of the run's artifacts.
        journal: gives the journal that records of the run go to now.
        append: appends a record to this journal. False if the run's records go to another one by
            now, as a final status closes a journal; an OSError if there is no room.
        flush: waits until what was written is in the store.
        inner: makes MLflow's own repository of the run; called at its first use.
    """

    def __init__(
        self,
        artifact_uri: str,
        *,
        journal: Callable[[], Path],
        append: Callable[[Path, Artifact], bool],
        flush: Callable[[], Any],
        inner: Callable[[], ArtifactRepository],
    ) -> None:
        super().__init__(artifact_uri)
        self._journal = journal
        self._append = append
        self._flush = flush
        self._make_inner = inner
        self._inner: ArtifactRepository | None = None
        # A disk needs no journal in front of it: one copy is enough, and others see it at once.
        self._local = LocalArtifactRepository(artifact_uri) if is_local_uri(artifact_uri) else None

    # -- writes --------------------------------------------------------------------------------

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Copy a file and record it; if it cannot be copied, upload it at once.

        Raises:
            MlflowException: the artifact path is not valid.
            OSError: the file cannot be read.
        """
        verify_artifact_path(artifact_path)
        name = Path(local_file).name
        if self._local is not None:
            try:
                self._local.log_artifact(local_file, artifact_path)
            except OSError as error:
                if not Path(local_file).exists():
                    raise
                _logger.info("artifact %r waits for a disk that takes it: %s", name, error)
            else:
                return
        with Path(local_file).open("rb") as file:
            try:
                self._keep(file, name, str(artifact_path) if artifact_path else None)
            except (OSError, UnicodeEncodeError) as error:
                _logger.warning(
                    "artifact %r is uploaded at once, as no copy can be kept: %s", name, error
                )
                self._flush()  # an earlier file of this name comes first
                self._stored().log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Record the files of a folder and of the folders in it.

        Raises:
            MlflowException: the artifact path is not valid.
            OSError: a file cannot be read.
        """
        verify_artifact_path(artifact_path)
        for root, _, names in os.walk(local_dir):  # into no link to a folder, like MLflow
            inside = relative_path_to_artifact_path(os.path.relpath(root, local_dir))
            folder = posixpath.normpath(posixpath.join(artifact_path or "", inside))
            for name in names:
                self.log_artifact(str(Path(root, name)), None if folder == "." else folder)

    def _log_artifact_async(
        self, filename: str, artifact_path: str | None = None, artifact: Any = None
    ) -> RunOperations:
        """Record an image at once: nothing is left to a thread that a kill would end."""
        done: Future[None] = Future()
        try:
            with TemporaryDirectory() as folder:
                path = str(Path(folder, filename))
                if artifact is not None:
                    from PIL import Image  # as in MLflow, which takes no other objects

                    if isinstance(artifact, Image.Image):
                        artifact.save(path)
                self.log_artifact(path, artifact_path)
            done.set_result(None)
        except Exception as error:
            _logger.error("artifact %r cannot be logged: %s", filename, error)
            done.set_exception(error)
        return RunOperations([done])

    def _keep(self, file: BinaryIO, name: str, folder: str | None) -> None:
        """Copy a file beside the journal and record it.

        Raises:
            OSError: it is no regular file, or cannot be copied.
            UnicodeEncodeError: a name is no text.
        """
        f"{folder}{name}".encode()
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no regular file")
        while True:
            journal = self._journal()
            if status.st_size == 0 and (content := file.read()):  # a file of /proc has no size
                kept = kept_files.keep_content(journal, content, name, folder)
            else:
                kept = kept_files.keep_copy(
                    journal, file.fileno(), status.st_size, name, folder, like=status
                )
            try:
                if self._append(journal, kept):
                    return
            except OSError:
                kept_files.discard(journal, kept)
                raise
            kept_files.discard(journal, kept)

    # -- reads ---------------------------------------------------------------------------------

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """The files and folders directly under `path`."""
        found: list[FileInfo] = self._flushed().list_artifacts(path)
        return found

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        """Download a file or folder; return its local path."""
        return str(self._flushed().download_artifacts(artifact_path, dst_path))

    def get_local_path(self, artifact_path: str) -> str | None:
        """The path of a file that is on this machine."""
        path: str | None = self._flushed().get_local_path(artifact_path)
        return path

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file or folder."""
        self._flushed().delete_artifacts(artifact_path)

    def flush_async_logging(self) -> None:
        """Wait until what was written is in the store."""
        self._flush()

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._flushed()._download_file(remote_file_path, local_path)

    def _flushed(self) -> Any:
        self._flush()
        return self._stored()

    def _stored(self) -> Any:
        """MLflow's own repository."""
        if self._inner is None:
            self._inner = self._make_inner()
        return self._inner


def offer(runs: "Runs", run: "JournaledRun") -> None:
    """Let MLflow find the repository that writes to the journal of a run, by each of its ids.

    MLflow looks for the repository of a run in a cache of its own before it makes one, wherever it
    writes artifacts of runs. What only reads makes its own, and asks the store for the run first.
    """

    def stored() -> ArtifactRepository:
        real_id = run.real_id()
        if real_id is None:
            raise MlflowException(
                f"run {run.run_id} is not in the store yet, and neither are its artifacts",
                TEMPORARILY_UNAVAILABLE,
            )
        uri = runs.inner.get_run(real_id).info.artifact_uri
        return get_artifact_repository(uri, tracking_uri=runs.settings.tracking_uri)

    repository = JournalArtifacts(
        run.artifact_root,
        journal=run.journal,
        append=run.artifact,
        flush=lambda: runs.flush(run.run_id, artifacts=True),
        inner=stored,
    )
    for run_id in {run.run_id, run.real_id() or run.run_id}:
        _artifact_repos_cache[run_id] = repository
    while len(_artifact_repos_cache) > _MOST:
        _artifact_repos_cache.popitem(last=False)
