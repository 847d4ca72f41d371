"""Artifacts through the prefix: the names and contents are those of plain MLflow, and no call waits
for the store."""

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from journals import entries
from orbiter_mlflow.delivery.records import Artifact
from orbiter_mlflow.plugin.artifact_repository import JournalArtifacts
from servers import free_port, running_server
from waiting import eventually

Contents = dict[str, bytes]


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    """A plain tracking URI."""
    name = "sqlite_uri" if request.param == "sqlite" else "server_uri"
    return str(request.getfixturevalue(name))


def proxied(uri: str) -> str:
    """An experiment whose artifacts go through the server: those of `Default` are on a disk."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name("proxied")
    return str(found.experiment_id if found else client.create_experiment("proxied"))


@pytest.fixture
def logging_to() -> Iterator[Callable[[str], str]]:
    """Sets the tracking URI of the fluent API until the test ends, and starts a run there."""

    def start(uri: str) -> str:
        mlflow.end_run()
        mlflow.set_tracking_uri(uri)
        experiment_id = proxied(uri) if "http" in uri else None
        return str(mlflow.start_run(experiment_id=experiment_id).info.run_id)

    yield start
    mlflow.end_run()
    mlflow.set_tracking_uri(None)


def stored(uri: str, run_id: str) -> Contents:
    """The artifacts of a run, read by another client."""
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run_id, tracking_uri=uri))
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def ours_and_plain(
    uri: str, start: Callable[[str], str], program: Callable[[], object]
) -> tuple[Contents, Contents]:
    """What a program leaves in the store with the prefix, and without it."""
    found = []
    for prefix in ("journal+", ""):
        run_id = start(prefix + uri)
        program()
        mlflow.get_run(run_id)  # waits
        found.append(stored(uri, run_id))
    return found[0], found[1]


def tree(folder: Path) -> Path:
    """A folder with files of many kinds."""
    root = folder / "a tree"
    for name in ("top.txt", ".hidden", "empty", "d e/ö ü.json", "d e/.git/x", "deep/er/est/y.bin"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"" if name == "empty" else os.urandom(100))
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "z").write_text("linked")
    (root / "link to file").symlink_to(elsewhere / "z")
    (root / "link to folder").symlink_to(elsewhere)
    return root


# -- as plain MLflow stores them -------------------------------------------------------------------


def test_files_are_named_as_plain_mlflow_names_them_and_may_be_deleted_at_once(
    uri: str, logging_to: Callable[[str], str], tmp_path: Path
) -> None:
    root = tree(tmp_path)
    copy = tmp_path / "copy" / root.name

    def program() -> None:
        shutil.copytree(root, copy, symlinks=True)
        mlflow.log_artifacts(str(copy))
        mlflow.log_artifacts(copy, "to/there")
        mlflow.log_artifact(str(copy))
        mlflow.log_artifact(str(copy), "as folder")
        mlflow.log_artifact(str(copy / "top.txt"))
        mlflow.log_artifact(copy / "d e" / "ö ü.json", "x/y z")
        mlflow.log_artifact(str(copy / "link to file"), "x")
        mlflow.log_artifact("/proc/version", "x")
        shutil.rmtree(copy.parent)

    ours, plain = ours_and_plain(uri, logging_to, program)
    assert ours == plain
    assert ours["x/link to file"] == b"linked"
    assert "x/y z/ö ü.json" in ours
    assert "a tree/deep/er/est/y.bin" in ours


def test_the_last_file_of_a_name_stays(uri: str, logging_to: Callable[[str], str]) -> None:
    def program() -> None:
        for number in range(5):
            mlflow.log_text(str(number), "same.txt")

    ours, plain = ours_and_plain(uri, logging_to, program)
    assert ours == plain == {"same.txt": b"4"}


def test_local_files_keep_their_mode_and_time(
    sqlite_uri: str, logging_to: Callable[[str], str], tmp_path: Path
) -> None:
    found = []
    source = tmp_path / "tool"
    source.write_text("#!/bin/sh")
    source.chmod(0o754)
    os.utime(source, (1_000_000, 2_000_000))
    for prefix in ("journal+", ""):
        run_id = logging_to(prefix + sqlite_uri)
        mlflow.log_artifact(str(source))
        status = Path(mlflow.get_run(run_id).info.artifact_uri, "tool").stat()
        found.append((stat.S_IMODE(status.st_mode), status.st_mtime))
    assert found[0] == found[1] == (0o754, 2_000_000)


@pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes")  # of MLflow's
def test_texts_figures_images_and_tables_are_logged_like_files(
    uri: str, logging_to: Callable[[str], str]
) -> None:
    from matplotlib.figure import Figure
    from PIL import Image

    def program() -> None:
        mlflow.log_dict({"a": [1, 2]}, "d/x.json")
        mlflow.log_dict({"a": [1, 2]}, "d/x.yaml")
        mlflow.log_text("ö", "text/x.txt")
        figure = Figure()
        figure.subplots().plot([1, 2])
        mlflow.log_figure(figure, "figure.png", save_kwargs={"metadata": {"Software": None}})
        image = Image.new("RGB", (4, 4), "red")
        mlflow.log_image(image, "image.png")
        for step in range(3):
            mlflow.log_image(image, key="dogs", step=step, timestamp=7)
        mlflow.log_image(image, key="dogs", step=9, timestamp=7, synchronous=True)
        mlflow.flush_artifact_async_logging()
        for number in range(2):
            mlflow.log_table({"q": [f"question {number}"], "a": ["answer"]}, "table.json")

    def without_ids(contents: Contents) -> list[tuple[str, bytes]]:
        return sorted((re.sub(r"[0-9a-f-]{36}", "ID", name), contents[name]) for name in contents)

    ours, plain = ours_and_plain(uri, logging_to, program)
    assert without_ids(ours) == without_ids(plain)
    assert len([name for name in ours if name.startswith("images/dogs")]) == 8
    assert ours["table.json"].count(b"question") == 2


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")  # of MLflow's
def test_models_are_logged_registered_and_loaded(
    uri: str, logging_to: Callable[[str], str]
) -> None:
    from sklearn.linear_model import LinearRegression

    run_id = logging_to(f"journal+{uri}")
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    logged = mlflow.sklearn.log_model(model, name="model", input_example=[[0.0]])
    assert mlflow.sklearn.load_model(logged.model_uri).predict([[3.0]]) == pytest.approx(6)
    version = mlflow.register_model(f"runs:/{run_id}/model", f"registered-{run_id}")
    assert version.run_id == run_id
    again = mlflow.sklearn.load_model(f"models:/registered-{run_id}/{version.version}")
    assert again.predict([[3.0]]) == pytest.approx(6)
    plain = MlflowClient(uri).get_model_version(version.name, version.version)
    assert (plain.run_id, plain.source) == (run_id, version.source)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: mlflow.log_artifact("missing.txt"),
        lambda: mlflow.log_text("x", "../x.txt"),
        lambda: mlflow.log_artifacts(".", "/absolute"),
        lambda: mlflow.log_artifact("present.txt", "a//b"),
    ],
    ids=["missing", "outside", "absolute", "double slash"],
)
def test_wrong_calls_raise_what_mlflow_raises(
    wrong: Callable[[], object], sqlite_uri: str, logging_to: Callable[[str], str]
) -> None:
    Path("present.txt").touch()
    raised = []
    for prefix in ("journal+", ""):
        run_id = logging_to(prefix + sqlite_uri)
        with pytest.raises((OSError, MlflowException)) as error:
            wrong()
        raised.append((error.type, str(error.value).replace(run_id, "ID")))
    assert raised[0] == raised[1]


# -- delivery --------------------------------------------------------------------------------------


def test_delivery_in_a_thread_uploads_each_file_once(
    server_uri: str, logging_to: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORBITER_MLFLOW_DELIVERY", "thread")
    monkeypatch.setenv("ORBITER_MLFLOW_KEEP_JOURNALS", "true")
    run_id = logging_to(f"journal+{server_uri}/")  # a URI with settings of its own
    mlflow.log_text("x", "x.txt")
    mlflow.get_run(run_id)
    mlflow.end_run()
    assert stored(server_uri, run_id) == {"x.txt": b"x"}
    journals = [*Path("state").rglob("*.jsonl")]
    records = [record for journal in journals for record in entries(journal)]
    assert len([one for one in records if isinstance(one, Artifact)]) == 1


def test_files_logged_before_the_server_is_up_arrive_and_their_run_can_be_registered(
    empty_store: Path,
    tmp_path: Path,
    logging_to: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORBITER_MLFLOW_ANSWER_TIMEOUT", "0.1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # our own waits are shorter
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    client = MlflowClient(f"journal+{uri}")
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, "early", "early.txt")
    (tmp_path / "files").mkdir()
    store = tmp_path / "server.db"
    store.write_bytes(empty_store.read_bytes())
    # A shell that has the prefix in its environment may start the server, too.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"journal+{uri}")
    with running_server(f"sqlite:///{store}", tmp_path, port):
        plain = MlflowClient(uri)
        found = eventually(lambda: plain.search_runs(["0"], max_results=1))[0].info.run_id
        assert found != run_id
        eventually(lambda: [one.path for one in plain.list_artifacts(found)] == ["early.txt"])
        client.create_registered_model("m")
        version = client.create_model_version("m", plain.get_run(found).info.artifact_uri, run_id)
        assert version.run_id == found


# -- with the parts around it replaced -------------------------------------------------------------


class Parts:
    """The parts around a repository: two journals, and a store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.journals = [folder / "spool" / "a.jsonl", folder / "spool" / "b.jsonl"]
        self.journals[0].parent.mkdir()
        for journal in self.journals:
            journal.touch()
        self.appended: list[tuple[Path, Artifact]] = []
        self.flushed = 0
        self.made = 0
        self.store = LocalArtifactRepository(str(folder / "store"))

    def append(self, journal: Path, record: Artifact) -> bool:
        self.appended.append((journal, record))
        return True

    def flush(self) -> None:
        self.flushed += 1

    def inner(self) -> LocalArtifactRepository:
        self.made += 1
        return self.store

    def repository(self, **other: Any) -> JournalArtifacts:
        parts: dict[str, Any] = {
            "journal": lambda: self.journals[0],
            "append": self.append,
            "flush": self.flush,
            "inner": self.inner,
        }
        return JournalArtifacts("mlflow-artifacts:/0/x/artifacts", **(parts | other))

    def kept(self) -> list[Path]:
        return [*self.journals[0].parent.glob("*.files/*")]


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.txt"
    path.write_text("content")
    return path


def test_a_write_asks_the_store_for_nothing(parts: Parts, file: Path) -> None:
    parts.repository().log_artifact(str(file), "folder")
    [(journal, record)] = parts.appended
    assert (record.name, record.folder, record.size) == ("x.txt", "folder", 7)
    assert parts.kept()[0].read_text() == "content"
    assert journal == parts.journals[0]
    assert (parts.flushed, parts.made) == (0, 0)


def test_a_disk_of_this_machine_has_the_file_at_once(
    sqlite_uri: str, logging_to: Callable[[str], str], file: Path
) -> None:
    logging_to(f"journal+{sqlite_uri}")
    root = Path(mlflow.get_artifact_uri())
    mlflow.log_artifact(str(file), "folder")
    assert (root / "folder" / "x.txt").read_text() == "content"


def test_a_file_that_cannot_be_kept_is_uploaded_at_once(
    parts: Parts, file: Path, tmp_path: Path
) -> None:
    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    parts.repository(append=full).log_artifact(str(file), "record")
    parts.repository(journal=lambda: tmp_path / "no" / "a.jsonl").log_artifact(str(file), "copy")
    bad = tmp_path / os.fsdecode(b"\xff.txt")
    bad.write_text("name")
    parts.repository().log_artifact(str(bad))
    for folder in ("record", "copy"):
        assert (tmp_path / "store" / folder / "x.txt").read_text() == "content"
    assert (tmp_path / "store" / bad.name).read_text() == "name"
    assert parts.flushed == 3
    assert parts.kept() == []
    assert parts.appended == []


def test_a_file_goes_to_the_next_journal_if_one_is_closed_meanwhile(
    parts: Parts, file: Path
) -> None:
    current = iter(parts.journals)

    def append(journal: Path, record: Artifact) -> bool:
        return journal == parts.journals[1] and parts.append(journal, record)

    parts.repository(journal=lambda: next(current), append=append).log_artifact(str(file))
    [(journal, record)] = parts.appended
    assert journal == parts.journals[1]
    assert parts.kept() == [journal.with_suffix(".files") / record.file]


def test_a_read_waits_for_what_was_written_and_asks_the_store(parts: Parts, file: Path) -> None:
    parts.store.log_artifact(str(file), "d")
    repository = parts.repository()
    assert [one.path for one in repository.list_artifacts("d")] == ["d/x.txt"]
    assert Path(repository.download_artifacts("d/x.txt")).read_text() == "content"
    assert repository.get_local_path("d/x.txt") is not None
    repository._download_file("d/x.txt", "here")
    assert Path("here").read_text() == "content"
    repository.delete_artifacts("d/x.txt")
    assert repository.list_artifacts("d") == []
    repository.flush_async_logging()
    assert (parts.flushed, parts.made) == (7, 1)


def test_an_image_that_cannot_be_written_fails_as_mlflows_queue_does(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(MlflowException, match="FileNotFoundError"):
        parts.repository()._log_artifact_async("missing.png").wait()
    assert "artifact 'missing.png' cannot be logged" in caplog.text
