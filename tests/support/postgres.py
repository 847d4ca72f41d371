"""A real PostgreSQL on loopback, which can be killed and started again."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from servers import free_port
from waiting import eventually

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""The programs of each version of Debian's package; empty where it is not installed."""
PASSWORD = "only-for-this-test"


class Postgres:
    """A cluster in a folder of its own, with the role `postgres` and nothing else.

    It refuses to run as root, so there it runs as the user `postgres` of Debian's package.

    Args:
        options: settings of the server, `name=value`. By default it does not sync to the disk.
    """

    def __init__(self, *options: str) -> None:
        if not BINARIES:
            pytest.skip("this machine has no PostgreSQL: apt-get install postgresql")
        self.port = free_port()
        self._user = "postgres" if os.geteuid() == 0 else None
        # Not in pytest's folder, which only its own user may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="orbiter-postgres-"))
        self._options = [
            *(part for option in ("fsync=off", *options) for part in ("-c", option)),
            *("-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._folder)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Postgres":
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            for path in (self._folder, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        made = [*("-D", str(self._folder / "data"), "-U", "postgres", "-E", "UTF8", "-N")]
        made += ["--auth", "scram-sha-256", "--pwfile", str(password)]
        subprocess.run(
            [BINARIES[-1] / "initdb", *made],
            check=True,
            capture_output=True,
            user=self._user,
            cwd=self._folder,
        )
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        data = self._folder / "data"
        (data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [BINARIES[-1] / "postgres", "-D", data, *self._options],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self._folder,
                start_new_session=True,
            )
        ready = [str(BINARIES[-1] / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        eventually(lambda: subprocess.run(ready, capture_output=True).returncode == 0)

    @property
    def pid(self) -> int | None:
        """The main process; its children are those of the connections. None if it does not run."""
        return None if self._process is None else self._process.pid

    def kill(self) -> None:
        """Kill the server and all processes of its connections."""
        process, self._process = self._process, None
        if process is not None:
            for pid in (process.pid, *_children(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()

    def query(self, text: str) -> None:
        """Run a statement as the role `postgres`."""
        psql = [str(BINARIES[-1] / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-c", text]
        environment = {**os.environ, **self.environment()}
        subprocess.run(psql, check=True, capture_output=True, env=environment)

    def environment(self, user: str = "postgres", password: str = PASSWORD) -> dict[str, str]:
        """The variables by which clients of PostgreSQL find this one."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": user,
            "PGPASSWORD": password,
        }

    def uri(self, database: str = "postgres", user: str = "postgres") -> str:
        """The URI of a database for SQLAlchemy, without a password."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(folder.name))
    return found
