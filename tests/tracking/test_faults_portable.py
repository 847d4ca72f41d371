"""Systems that lack what only POSIX has: all works there with delivery by a thread.

A subprocess takes these names away before it imports us. That is what Windows looks like to our
code; what Windows does otherwise, such as files that cannot be removed while they are open, it
cannot show.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orbiter_mlflow.delivery.spool_folder import default_spool
from scripts import PRELUDE

# What the interpreter itself and mlflow load on this system, and their own Windows branches do not
# show, comes first.
LIKE_WINDOWS = """
import asyncio, concurrent.futures, multiprocessing.util, os, shutil, signal, subprocess, sys
import tempfile
{first}
shutil._use_fd_functions = False  # as decided when it was imported; Python 3.13 uses O_NONBLOCK
for name in (
    "chown", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getpgid",
    "getuid", "killpg", "lchown", "pidfd_open", "posix_fallocate", "register_at_fork", "setsid",
    "uname", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY", "O_TMPFILE",
    "sched_getaffinity", "sysconf", "ttyname", "wait3", "wait4", "WNOHANG",
):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "SIGXFSZ"):
    delattr(signal, name)
for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
"""


def like_windows(script: str, first: str = "", **environment: str) -> str:
    """What a script says on its standard error there."""
    path = Path("script.py").absolute()
    path.write_text(LIKE_WINDOWS.format(first=first) + textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, str(path)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "orbiter.train",
        "orbiter_mlflow",
        "orbiter_mlflow.mixin",
        "orbiter_mlflow.cli.main",
        "orbiter_mlflow.pytest_plugin",
        "orbiter_mlflow.delivery.hosts.child",
        "orbiter_mlflow.tracking.provenance_collector",
    ],
)
def test_it_can_be_imported(module: str) -> None:
    assert like_windows(f"import {module}") == ""


@pytest.mark.parametrize("delivery", ["thread", "process"])
def test_a_training_is_tracked_from_end_to_end(delivery: str, sqlite_uri: str) -> None:
    script = PRELUDE + textwrap.dedent(
        """
        trainer = validated(TrainConfig(epochs=7))
        asyncio.run(trainer.train())
        Path("file.txt").write_text("kept")
        trainer.log_artifact("file.txt")
        asyncio.run(trainer.evaluate())
        assert load_config(trainer.run_id).epochs == 7
        """
    )
    given = {"MLFLOW_TRACKING_URI": sqlite_uri, "ORBITER_MLFLOW_DELIVERY": delivery}
    given["ORBITER_MLFLOW_FLUSH_TIMEOUT"] = "100"
    said = like_windows(script, "import mlflow", **given).splitlines()
    # Windows has locks of its own, which cannot be had here.
    said = [line for line in said if "has no flock" not in line]
    assert len(said) == (delivery == "process")
    assert all("a thread delivers instead" in line for line in said)
    client = MlflowClient(sqlite_uri)
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 100
    assert run.data.metrics["eval/accuracy"] == 0.5
    assert [one.path for one in client.list_artifacts(run.info.run_id)].count("file.txt") == 1
    assert list(default_spool().iterdir()) == []


def test_offline_journals_are_listed_and_delivered(sqlite_uri: str) -> None:
    script = PRELUDE + "asyncio.run(validated().train())\n"
    given = {"MLFLOW_TRACKING_URI": sqlite_uri, "ORBITER_MLFLOW_DELIVERY": "offline"}
    like_windows(script, **given)
    (journal,) = default_spool().glob("*.jsonl")
    command = """
    import sys
    from orbiter_mlflow.cli.main import main
    for words in (["status"], ["sync", "--dry-run"], ["sync"]):
        sys.argv[1:] = words
        try:
            main()
        except SystemExit as error:
            assert not error.code, words
    """
    like_windows(command, "import mlflow", **given)
    assert not journal.exists()
    (run,) = MlflowClient(sqlite_uri).search_runs(["0"])
    assert run.info.status == "FINISHED"
