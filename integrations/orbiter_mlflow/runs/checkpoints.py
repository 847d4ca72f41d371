"""Bring checkpoints back from a store: which a run has, and a download that is verified.

A checkpoint appears in its folder whole, or not at all: it is fetched beside it, each file is
compared with its SHA-256, and the folder is renamed at the end.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orbiter_mlflow.delivery.checkpoints import manifest as manifests
from orbiter_mlflow.delivery.checkpoints.manifest import Manifest, StoredFile
from orbiter_mlflow.errors import StoreError
from orbiter_mlflow.settings import MLflowSettings, resolve
from orbiter_mlflow.text import artifact_paths

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore

__all__ = ["StoredCheckpoint", "checkpoints_of", "chosen", "download", "newest_checkpoint"]

_MAX_MANIFEST = 64 << 20
"""Bytes of a manifest at most: some 300,000 files."""
_NAMED = 10
"""Steps that a message names at most."""


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint of a run, and the path of its manifest among the run's artifacts."""

    run_id: str
    path: str
    manifest: Manifest


def newest_checkpoint(
    run_id: str, to: str | os.PathLike[str], *, tracking_uri: str | None = None
) -> Path | None:
    """Find the newest checkpoint of a run, and download it unless it is there already.

    To continue a training elsewhere, with `run_id` among the settings too:

        trainer = TRLTrainer(config, resume=newest_checkpoint(run_id, config.output_dir) or False)

    Args:
        run_id: the run's full id.
        to: the folder of checkpoints, in which the checkpoint has a folder of its own.
        tracking_uri: the store of the run; by default the environment's.

    Returns:
        The folder of the checkpoint; None if the run has none in the store.

    Raises:
        StoreError: the store cannot be read, what it has is damaged, or a folder of the
            checkpoint's name has something else.
        RunNotFoundError: there is no such run.
        OSError: the folder cannot be written.
    """
    from orbiter_mlflow.runs.store import RunStore

    settings = None if tracking_uri is None else MLflowSettings(tracking_uri=tracking_uri)
    store = RunStore(resolve(settings, None).tracking_uri)
    found = checkpoints_of(store, store.get(run_id).run_id)
    return download(store, found[-1], Path(to)) if found else None


def checkpoints_of(store: "RunStore", run_id: str) -> list[StoredCheckpoint]:
    """The checkpoints of a run that are whole in the store, the newest last.

    Raises:
        StoreError: the store or a manifest cannot be read.
    """
    found = []
    for path in store.artifact_files(run_id, artifact_paths.CHECKPOINTS):
        if artifact_paths.step_file_parts(path.rpartition("/")[2]) is None:
            continue
        content = store.artifact(run_id, path, max_bytes=_MAX_MANIFEST)
        if content is None:  # replaced by a later one meanwhile
            continue
        try:
            found.append(StoredCheckpoint(run_id, path, manifests.decoded(content)))
        except ValueError as error:
            raise StoreError(f"{path} of run {run_id} is no manifest: {error}") from error
    return sorted(found, key=lambda one: one.manifest.time)


def chosen(
    found: Sequence[StoredCheckpoint], which: Literal["last", "best"] | int
) -> StoredCheckpoint:
    """The last one, the best one, or the latest one of a step.

    Raises:
        StoreError: there is none, or nobody knows which is the best.
    """
    if not found:
        raise StoreError(
            "the run has no checkpoint in the store: set log_checkpoints for the training, and "
            "deliver what waits (orbiter-mlflow status)"
        )
    if which == "last":
        return found[-1]
    if which == "best":
        return _best(found)
    at_step = [one for one in found if one.manifest.step == which]
    if not at_step:
        steps = sorted({one.manifest.step for one in found}, key=lambda step: abs(step - which))
        near = ", ".join(map(str, sorted(steps[:_NAMED])))
        raise StoreError(f"the run has no checkpoint of step {which}; there are those of {near}")
    return at_step[-1]


def _best(found: Sequence[StoredCheckpoint]) -> StoredCheckpoint:
    rules = {(one.manifest.metric, one.manifest.higher) for one in found}
    if len(rules) > 1:
        raise StoreError("the checkpoints of the run have different metrics: choose one by step")
    ((metric, higher),) = rules
    best = manifests.best((one.manifest for one in found), higher)
    if metric is None or best is None:
        what = "have no metric" if metric is None else f"have no value of {metric!r}"
        raise StoreError(
            f"the checkpoints of the run {what}: set checkpoint_metric and checkpoint_direction "
            "for the training, or choose one by step"
        )
    return next(one for one in found if one.manifest is best)


def download(store: "RunStore", checkpoint: StoredCheckpoint, folder: Path) -> Path:
    """Download a checkpoint into a folder of its name, unless it is there already.

    An interrupted download goes on where it was, in the hidden folder `.<name>.download` beside.

    Returns:
        The folder of the checkpoint.

    Raises:
        StoreError: the store cannot be read, what it has is damaged, or a folder of that name has
            something else; names the file.
        OSError: the folder cannot be written.
    """
    manifest = checkpoint.manifest
    target = folder / manifest.title
    if os.path.lexists(target):
        _require_same(target, manifest)
        return target
    work = folder / f".{manifest.title}.download"
    files = work / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name, file in manifest.files.items():
        place = files / name
        if _difference(place, file) is not None:
            _fetch(store, checkpoint, file, work / "scratch", place, name)
    try:
        files.rename(target)
    except OSError:  # another download was first
        if not os.path.lexists(target):
            raise
        _require_same(target, manifest)
    shutil.rmtree(work, ignore_errors=True)
    return target


def _fetch(
    store: "RunStore",
    checkpoint: StoredCheckpoint,
    file: StoredFile,
    scratch: Path,
    place: Path,
    name: str,
) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    path = f"{artifact_paths.CHECKPOINT_FILES}/{file.sha256}"
    fetched = store.download(checkpoint.run_id, path, scratch)
    difference = _difference(fetched, file)
    if difference is not None:
        raise StoreError(
            f"the file {name!r} of the checkpoint of step {checkpoint.manifest.step} is damaged in "
            f"the store ({path} of run {checkpoint.run_id}): {difference}"
        )
    with fetched.open("rb+") as content:  # on the disk before the folder gets its name
        os.fsync(content.fileno())
    place.parent.mkdir(parents=True, exist_ok=True)
    fetched.replace(place)


def _require_same(target: Path, manifest: Manifest) -> None:
    """Require that a folder has a checkpoint's files, and perhaps more.

    Raises:
        StoreError: it does not; names the file.
    """
    for name, file in manifest.files.items():
        difference = _difference(target / name, file)
        if difference is not None:
            raise StoreError(
                f"{target} is there already, and is not the checkpoint of step {manifest.step}: "
                f"{name!r} {difference}; remove it, or choose another folder"
            )


def _difference(path: Path, file: StoredFile) -> str | None:
    """How a file differs from what it should be; None if it does not."""
    with suppress(OSError):
        if path.is_file():
            size = path.stat().st_size
            if size != file.size:
                return f"has {size} bytes instead of {file.size}"
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            return None if digest == file.sha256 else f"has the SHA-256 {digest}"
    return "is not there"
