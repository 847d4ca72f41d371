"""Trainers on MLflow's basic-auth app, with passwords that are or become wrong:
`make test-servers`."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

from faults import POINTS, ack_of, arrived, expected, in_trouble, training
from orbiter_mlflow import names
from orbiter_mlflow.delivery import spool
from servers import running_server
from trainers import Tracked, journals, tracked

ADMIN, USER = ("admin", "the-password-of-the-admin"), "trainer"


@dataclass(frozen=True)
class AuthServer:
    """The server, and what its administrator does there."""

    uri: str

    def ask(self, method: str, what: str, *, version: str = "2.0", **content: str) -> None:
        address = f"{self.uri}/api/{version}/mlflow/{what}"
        requests.request(method, address, json=content, auth=ADMIN, timeout=60).raise_for_status()

    def create_user(self, password: str) -> None:
        self.ask("POST", "users/create", username=USER, password=password)

    def set_password(self, password: str) -> None:
        self.ask("PATCH", "users/update-password", username=USER, password=password)

    def delete_user(self) -> None:
        self.ask("DELETE", "users/delete", username=USER)

    def permit(self, experiment: str) -> None:
        """Let the user write to an experiment that another one has created."""
        with as_admin():
            found = MlflowClient(self.uri).get_experiment_by_name(experiment)
        assert found is not None
        self.ask(
            "POST",
            "users/permissions/grant",
            version="3.0",
            username=USER,
            resource_type="experiment",
            resource_id=found.experiment_id,
            permission="MANAGE",
        )


@contextlib.contextmanager
def as_admin() -> Iterator[None]:
    """MLflow's clients of this process have the administrator's credentials."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN[0])
        patch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN[1])
        yield


@pytest.fixture(scope="module")
def server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthServer]:
    folder = tmp_path_factory.mktemp("auth")
    (folder / "store.db").write_bytes(empty_store.read_bytes())
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder}/users.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(),
    }
    with running_server(
        f"sqlite:///{folder}/store.db",
        folder,
        options=["--app-name", "basic-auth"],
        environment=environment,
    ) as uri:
        yield AuthServer(uri)


@pytest.fixture
def right(server: AuthServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user with this password, which the trainer has, too."""
    password = secrets.token_hex()
    server.create_user(password)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    yield password
    for journal in journals():
        spool.remove(journal)
    server.delete_user()


async def told(trainer: Tracked) -> None:
    """Delivery is held, and says that it is by the credentials."""
    await in_trouble(trainer)
    ack = ack_of(trainer)
    assert ack.held
    assert "401" in ack.problem
    assert "check the credentials" in ack.problem


def assert_whole(server: AuthServer, trainer: Tracked) -> None:
    with as_admin():
        client = MlflowClient(server.uri)
        assert trainer.run_id is not None
        run = client.get_run(trainer.run_id)
        points = client.get_metric_history(trainer.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == expected()
    assert run.info.status == "FINISHED"
    assert not {names.QUARANTINED, names.LOST} & run.data.tags.keys()
    assert run.data.metrics["train/final/loss"] == POINTS / 7


async def test_a_wrong_password_is_told_and_all_arrives_with_the_right_one(
    server: AuthServer, right: str
) -> None:
    os.environ["MLFLOW_TRACKING_PASSWORD"] = "not the password"

    async def correct(trainer: Tracked) -> None:
        await told(trainer)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = right

    trainer = tracked(server.uri, None, training(correct), experiment="wrong")
    trainer.mark_validated()
    await trainer.train()
    await arrived(trainer)
    assert_whole(server, trainer)


async def test_a_password_that_is_changed_in_the_middle_is_taken_over(
    server: AuthServer, right: str
) -> None:
    async def change(trainer: Tracked) -> None:
        await arrived(trainer)
        server.set_password("the-password-from-now-on")
        trainer.report({"other": 1.0}, step=0)
        await told(trainer)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = "the-password-from-now-on"

    trainer = tracked(server.uri, None, training(change), experiment="changed")
    trainer.mark_validated()
    await trainer.train()
    await arrived(trainer)
    assert_whole(server, trainer)


async def test_an_account_that_expires_holds_the_run_until_it_is_renewed(
    server: AuthServer, right: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def expire(trainer: Tracked) -> None:
        await arrived(trainer)
        server.delete_user()
        trainer.report({"other": 1.0}, step=0)
        await told(trainer)

    trainer = tracked(server.uri, None, training(expire), experiment="expired", flush_timeout=1)
    trainer.mark_validated()
    await trainer.train()
    assert not trainer.delivered
    (warning,) = [r for r in caplog.messages if "check the credentials" in r]
    assert "nothing is lost" in warning
    server.create_user(right)
    server.permit("expired")
    await arrived(trainer)
    assert_whole(server, trainer)
