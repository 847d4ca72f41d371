"""Checkpoints in a store: which are kept, what becomes of files that change or vanish, and that no
journal gets other files read."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from journals import GONE, HEAD, run_lane
from memory_sink import MemoryRun, MemorySink, Trouble
from orbiter_mlflow import names
from orbiter_mlflow.delivery import kept_files, spool
from orbiter_mlflow.delivery.checkpoints import listing
from orbiter_mlflow.delivery.checkpoints.listing import ListedFile
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.journal import Journal
from orbiter_mlflow.delivery.records import Checkpoint, Close, Head, Metrics, Record, Status
from orbiter_mlflow.delivery.resumption.rewriting import Resumption
from orbiter_mlflow.delivery.side_lane import SideLane, nothing_waits, side_lanes
from orbiter_mlflow.errors import HeldError, TransientError, UnsupportedError
from orbiter_mlflow.text import artifact_paths

END = (Status("FINISHED", 5000), Close())


class Scene:
    """A run that goes on, its journal, and a store in memory; `write` appends to the journal."""

    def __init__(self, folder: Path, head: Head = HEAD) -> None:
        self.folder = folder
        self.sink = MemorySink()
        self.now = 0.0
        spool_folder = folder / "spool"
        spool_folder.mkdir(mode=0o700)
        self.writer = Journal(spool_folder / "run.jsonl", head)
        self.journal = self.writer.path
        clock: Callable[[], float] = lambda: self.now  # noqa: E731
        how: dict[str, Any] = {"clock": clock, "now": clock}
        self.main = Drain(self.journal, lambda _: self.sink, **how)
        lanes = side_lanes(self.journal, lambda _: self.sink, **how)
        self.lane = next(lane for lane in lanes if lane.name == "checkpoints")

    def write(self, *records: Record) -> None:
        for record in records:
            self.writer.append(record)

    def file(self, step: int, content: bytes) -> Path:
        """The only file of a checkpoint."""
        path = self.folder / f"checkpoint-{step}" / "model.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def checkpoint(
        self, step: int, content: bytes | None = None, *, linked: bool = True, **fields: Any
    ) -> Checkpoint:
        """Save a checkpoint, and make its record."""
        path = self.file(step, b"weights %d" % step if content is None else content)
        file = ListedFile.of("model.bin", str(path), path.stat())
        return self.record(step, [listing.link(self.journal, file) if linked else file], **fields)

    def record(self, step: int, files: list[ListedFile], **fields: Any) -> Checkpoint:
        kept = kept_files.keep_content(self.journal, listing.encoded(files), "", None)
        record = Checkpoint(
            file=kept.file,
            name=artifact_paths.step_file(step, 1),
            folder=artifact_paths.CHECKPOINTS,
            size=kept.size,
            sha256=kept.sha256,
            title=f"checkpoint-{step}",
            step=step,
            number=1,
            time=1000 + step,
            keep="all",
        )
        return replace(record, **fields)

    def deliver(self) -> None:
        """Deliver the journal, and go through the retries of what was refused."""
        assert self.main.run()
        run_lane(self.lane)
        for _ in range(20):
            trial = self.lane.next_retry()
            if trial is None:
                return
            self.now += trial
            run_lane(self.lane)
        raise AssertionError(self.lane.ack)

    @property
    def run(self) -> MemoryRun:
        (run,) = self.sink.runs.values()
        return run

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints in the store."""
        paths = [path for path in self.run.artifacts if path.endswith(".json")]
        return sorted(json.loads(self.run.artifacts[path])["step"] for path in paths)

    @property
    def contents(self) -> list[bytes]:
        """The contents of their files in the store."""
        inside = f"{artifact_paths.CHECKPOINT_FILES}/"
        return sorted(
            content for path, content in self.run.artifacts.items() if path.startswith(inside)
        )

    @property
    def waiting(self) -> list[Path]:
        """The files beside the journal."""
        folder = self.journal.with_suffix(".files")
        return [*folder.iterdir()] if folder.exists() else []


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def loss(step: int, value: float) -> Metrics:
    return Metrics(step, step, {"eval/loss": value})


BEST: dict[str, Any] = {"keep": "best", "metric": "eval/loss"}


# -- which are kept --------------------------------------------------------------------------------


def test_the_last_one_replaces_the_others_with_all_that_they_alone_had(scene: Scene) -> None:
    for step in (1, 2, 3):
        scene.write(scene.checkpoint(step, keep="last"), Metrics(step + 1, 0, {"train/loss": 0.5}))
        scene.deliver()
        assert scene.steps == [step]
        assert scene.contents == [b"weights %d" % step]
        assert set(scene.run.models) == {f"checkpoints/step-{step}.json"}
    assert scene.waiting == []


def test_of_checkpoints_that_wait_only_the_last_one_is_uploaded(scene: Scene) -> None:
    scene.write(*(scene.checkpoint(step, keep="last") for step in (1, 2, 3)), *END)
    scene.deliver()
    assert scene.steps == [3]
    assert scene.sink.calls.count("log_artifact") == 2  # a file and a manifest
    assert scene.waiting == []
    assert names.CHECKPOINTS_MISSING not in scene.run.tags


def test_an_earlier_one_is_kept_where_the_last_one_has_vanished(scene: Scene) -> None:
    gone = scene.checkpoint(2, keep="last", linked=False)
    scene.write(scene.checkpoint(1, keep="last"), gone, *END)
    (scene.folder / "checkpoint-2" / "model.bin").unlink()
    scene.deliver()
    assert scene.steps == [1]


@pytest.mark.parametrize(("higher", "kept"), [(False, 2), (True, 4)])
def test_the_best_one_by_the_metric_of_its_step_is_kept(
    scene: Scene, higher: bool, kept: int
) -> None:
    for step, value in ((1, 0.5), (2, 0.2), (3, float("nan")), (4, 0.7), (5, 0.2)):
        record = scene.checkpoint(step, **BEST, higher=higher)
        scene.write(loss(step, value), record, Metrics(step + 1, 0, {"train/loss": 0.0}))
        scene.deliver()
    assert scene.steps == [kept]
    assert scene.contents == [b"weights %d" % kept]
    assert set(scene.run.models) == {f"checkpoints/step-{kept}.json"}
    assert scene.waiting == []


def test_an_evaluation_after_the_checkpoint_decides_too(scene: Scene) -> None:
    scene.write(scene.checkpoint(1, **BEST), loss(1, 0.5))
    scene.deliver()
    assert scene.steps == [1]
    scene.write(scene.checkpoint(2, **BEST))
    scene.deliver()
    assert scene.steps == [1]
    assert not nothing_waits(scene.journal)  # nobody knows yet
    scene.write(loss(2, 0.4))
    scene.deliver()
    assert scene.steps == [2]
    scene.write(*END)
    scene.deliver()
    assert nothing_waits(scene.journal)


def test_one_whose_metric_never_came_is_not_kept_and_told(scene: Scene) -> None:
    scene.write(loss(1, 0.5), scene.checkpoint(1, **BEST), scene.checkpoint(2, **BEST), *END)
    scene.deliver()
    assert scene.steps == [1]
    said = "1 refused by the store, or their files gone or changed"
    assert scene.run.tags[names.CHECKPOINTS_MISSING] == said
    kept = spool.quarantine_path(scene.journal).read_text()
    assert "'eval/loss' was not reported for step 2" in kept


def test_checkpoints_of_other_modes_and_metrics_are_left_alone(scene: Scene) -> None:
    scene.write(scene.checkpoint(1), loss(2, 1.0), scene.checkpoint(2, **BEST))
    scene.write(scene.checkpoint(3, keep="last"), scene.checkpoint(4, keep="last"), *END)
    scene.deliver()
    assert scene.steps == [1, 2, 4]


def test_shared_content_outlives_the_checkpoint_that_brought_it(scene: Scene) -> None:
    scene.write(scene.checkpoint(1, b"same", keep="last"), loss(2, 1.0))
    scene.deliver()
    scene.write(scene.checkpoint(2, b"same", keep="last"), *END)
    scene.deliver()
    assert (scene.steps, scene.contents) == ([2], [b"same"])
    assert scene.sink.calls.count("log_artifact") == 3


def test_a_store_that_deletes_nothing_keeps_them_all_with_one_warning(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.sink.troubles += [Trouble(HeldError("403"), "delete_artifact") for _ in range(3)]
    for step in (1, 2, 3):
        scene.write(scene.checkpoint(step, keep="last"), Metrics(step + 1, 0, {"train/loss": 0.5}))
        scene.deliver()
    assert scene.steps == [1, 2, 3]
    (said,) = [text for record in caplog.records if "deleted" in (text := record.getMessage())]
    assert said == (
        "the checkpoint of step 1 of run run0 is replaced by a later one, and could not be deleted "
        "(403); the next one tries again"
    )


# -- models ----------------------------------------------------------------------------------------


def test_a_model_has_all_metrics_of_its_step_as_the_run_has_them(scene: Scene) -> None:
    scene.write(loss(1, 0.5), scene.checkpoint(1))
    scene.deliver()
    assert scene.steps == [1]  # it is safe already
    assert scene.run.models == {}
    scene.write(Metrics(1, 7, {"eval/accuracy": 0.9}), Metrics(2, 8, {"train/loss": 3.0}))
    scene.deliver()
    (model,) = scene.run.models.values()
    assert model.name == "step-1"
    assert set(model.points) == {p for p in scene.run.points if p.step == 1}
    assert len(model.points) == 2


def test_a_server_without_models_keeps_the_checkpoint_and_says_so(scene: Scene) -> None:
    scene.sink.troubles.append(Trouble(UnsupportedError("404"), "log_model"))
    scene.write(scene.checkpoint(1), *END)
    scene.deliver()
    assert scene.steps == [1]
    said = "models of 1 skipped: the server has no endpoint for them"
    assert scene.run.tags[names.CHECKPOINTS_MISSING] == said
    assert scene.waiting == []


def test_steps_and_names_of_a_later_life_are_its_own(scene: Scene) -> None:
    record = scene.checkpoint(5)
    life = Resumption(number=2, after_step=10, shift=10)
    sent = life.rewrite(record)
    assert isinstance(sent, Checkpoint)
    assert (sent.step, sent.name) == (15, "step-15.life-2.json")


# -- files -----------------------------------------------------------------------------------------


def test_a_linked_file_outlives_its_removal(scene: Scene) -> None:
    scene.write(scene.checkpoint(1), *END)
    (scene.folder / "checkpoint-1" / "model.bin").unlink()
    scene.deliver()
    assert scene.contents == [b"weights 1"]


def test_a_file_that_cannot_be_linked_is_read_where_it_lies(scene: Scene) -> None:
    scene.write(scene.checkpoint(1, linked=False), *END)
    scene.deliver()
    assert scene.contents == [b"weights 1"]


@pytest.mark.parametrize("how", ["written", "replaced", "removed"])
def test_a_file_that_is_not_what_was_reported_is_not_taken_and_told(scene: Scene, how: str) -> None:
    scene.write(scene.checkpoint(1, linked=how == "written"), *END)
    path = scene.folder / "checkpoint-1" / "model.bin"
    if how == "written":
        path.write_bytes(b"weights 2")
    else:
        path.unlink()
        if how == "replaced":
            path.write_bytes(b"weights 1")
    scene.deliver()
    assert (scene.steps, scene.contents) == ([], [])
    said = "1 refused by the store, or their files gone or changed"
    assert scene.run.tags[names.CHECKPOINTS_MISSING] == said
    reason = "was removed" if how == "removed" else "has changed"
    assert reason in spool.quarantine_path(scene.journal).read_text()
    assert nothing_waits(scene.journal)
    assert scene.waiting == []


def test_a_file_that_changes_during_its_upload_leaves_nothing_in_the_store(scene: Scene) -> None:
    record = scene.checkpoint(1)
    path = scene.folder / "checkpoint-1" / "model.bin"

    class Changing(MemorySink):
        def log_artifact(self, *args: Any) -> None:
            with path.open("ab") as file:
                file.write(b"!")
            super().log_artifact(*args)

    scene.sink = Changing()
    scene.write(record, *END)
    scene.deliver()
    assert scene.run.artifacts == {}


def test_an_interrupted_upload_goes_on_with_the_files_that_are_missing(scene: Scene) -> None:
    files = []
    for name in ("a", "b", "c"):
        path = scene.file(1, name.encode()).rename(scene.folder / name)
        files.append(listing.link(scene.journal, ListedFile.of(name, str(path), path.stat())))
    scene.write(scene.record(1, files), *END)
    assert scene.main.run()

    class Dying(MemorySink):
        def log_artifact(self, *args: Any) -> None:
            if self.calls.count("log_artifact") == 2:
                raise KeyboardInterrupt
            super().log_artifact(*args)

    dying = Dying()
    dying.runs, scene.sink = scene.sink.runs, dying
    with pytest.raises(KeyboardInterrupt):
        run_lane(scene.lane)
    assert scene.contents == [b"a", b"b"]
    scene.sink = MemorySink()
    scene.sink.runs = dying.runs
    run_lane(next(iter(new_lane(scene))))
    assert scene.contents == [b"a", b"b", b"c"]
    assert scene.sink.calls.count("log_artifact") == 2  # the third file and the manifest


def new_lane(scene: Scene) -> list[SideLane]:
    """The lane of a delivery that starts anew."""
    lanes = side_lanes(scene.journal, lambda _: scene.sink)
    return [lane for lane in lanes if lane.name == "checkpoints"]


def test_trouble_of_the_store_loses_nothing(scene: Scene) -> None:
    scene.sink.troubles += [
        Trouble(TransientError("S3 is down"), method)
        for method in ("artifact_sizes", "log_artifact", "log_model")
    ]
    scene.write(scene.checkpoint(1), *END)
    assert scene.main.run()
    for _ in range(4):
        run_lane(scene.lane)
    assert (scene.steps, len(scene.run.models)) == ([1], 1)


# -- journals from elsewhere -----------------------------------------------------------------------


def test_files_that_lie_on_another_machine_are_waited_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path, replace(HEAD, writer=replace(GONE, host="elsewhere")))
    scene.write(scene.checkpoint(1, linked=False), *END)
    (scene.folder / "checkpoint-1" / "model.bin").unlink()
    assert scene.main.run()
    assert not run_lane(scene.lane)
    assert scene.lane.ack.held
    assert "run orbiter-mlflow sync on elsewhere" in scene.lane.ack.problem
    assert not nothing_waits(scene.journal)
    assert "not delivered yet: checkpoints/step-1.json" in scene.run.tags[names.CHECKPOINTS_MISSING]


def test_links_that_were_carried_along_are_taken_if_their_times_were(tmp_path: Path) -> None:
    scene = Scene(tmp_path, replace(HEAD, writer=replace(GONE, host="elsewhere")))
    first, second = scene.checkpoint(1), scene.checkpoint(2)
    scene.write(first, second, *END)
    for record, kept in ((first, True), (second, False)):
        (file,) = listing.read(scene.journal, record)
        assert file.link is not None
        link = scene.journal.with_suffix(".files") / file.link
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)  # as a copy has another inode
        link.chmod(0o600)
        if kept:
            os.utime(link, ns=(file.changed, file.changed // 10**9 * 10**9))
    scene.deliver()
    assert scene.steps == [1]


def test_a_journal_that_others_could_have_written_gets_no_file_elsewhere_read(
    scene: Scene,
) -> None:
    scene.write(scene.checkpoint(1, linked=False), *END)
    scene.journal.parent.chmod(0o777)
    assert scene.main.run()
    assert not run_lane(scene.lane)
    assert scene.lane.ack.held
    assert scene.run.artifacts == {}


@pytest.mark.parametrize("link", ["../secret", "/etc/passwd", "..", ""])
def test_a_link_that_leads_out_of_the_spool_is_refused(scene: Scene, link: str) -> None:
    (scene.journal.parent / "secret").write_text("secret")
    status = (scene.journal.parent / "secret").stat()
    file = replace(ListedFile.of("model.bin", "", status), path=None, link=link)
    scene.write(scene.record(1, [file]), *END)
    scene.deliver()
    assert scene.run.artifacts == {}
    assert (scene.journal.parent / "secret").exists()


def test_a_forged_list_of_files_is_refused(scene: Scene) -> None:
    record = scene.checkpoint(1)
    scene.write(record, *END)
    path = scene.journal.with_suffix(".files") / record.file
    path.write_bytes(path.read_bytes().replace(b"model", b"mobel"))
    scene.deliver()
    assert scene.run.artifacts == {}


def test_a_link_of_the_file_system_in_the_place_of_a_file_is_not_followed(scene: Scene) -> None:
    scene.write(scene.checkpoint(1, linked=False), *END)
    path = scene.folder / "checkpoint-1" / "model.bin"
    path.rename(scene.folder / "moved")
    path.symlink_to(scene.folder / "moved")
    scene.deliver()
    assert scene.run.artifacts == {}
    assert "has changed" in spool.quarantine_path(scene.journal).read_text()


def test_a_digest_names_the_content(scene: Scene) -> None:
    scene.write(scene.checkpoint(1, b"x"), *END)
    scene.deliver()
    digest = hashlib.sha256(b"x").hexdigest()
    assert scene.run.artifacts[f"checkpoints/files/{digest}"] == b"x"
