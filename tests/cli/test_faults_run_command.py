"""`orbiter-mlflow run`: real programs, as they are started from a shell."""

import fcntl
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from mlflow import MlflowClient

from orbiter_mlflow.delivery.hosts.environment import DELIVERY_DEFAULTS
from orbiter_mlflow.delivery.store_uri import PREFIX
from orbiter_mlflow.runs.store import RunStore
from proxy import Proxy
from scripts import PRELUDE, ended
from servers import LateStore
from trainers import journals
from waiting import eventually

COMMAND = Path(sys.executable).with_name("orbiter-mlflow")
DEFAULTS = ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", *DELIVERY_DEFAULTS)
PROMPT = {
    "ORBITER_MLFLOW_FLUSH_TIMEOUT": "60",
    "ORBITER_MLFLOW_ANSWER_TIMEOUT": "1",
    "ORBITER_MLFLOW_SKIP_PROVENANCE": "git,command,machine,packages,seeds",
}
"""Settings of all programs here."""


def starting(
    script: str,
    *options: str,
    arguments: tuple[str, ...] = (),
    environ: Mapping[str, str] = MappingProxyType({}),
    prelude: str = PRELUDE,
    **how: Any,
) -> "subprocess.Popen[str]":
    """Start `orbiter-mlflow run` with a Python script, in the working folder of the test."""
    file = Path("a script.py")
    file.write_text(prelude + textwrap.dedent(script))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [COMMAND, "run", *options, "--", sys.executable, str(file), *arguments],
        env={**os.environ, **PROMPT, **environ},
        text=True,
        **{**pipes, **how},
    )


def ran(script: str, *options: str, given: str = "", **how: Any) -> "tuple[int, str, str]":
    """Exit code, output and error output of a script."""
    process = starting(script, *options, **how)
    out, err = process.communicate(given, timeout=120)
    print(err, file=sys.stderr)
    return process.returncode, out, err


def of_report(err: str) -> list[str]:
    """The lines of the report."""
    return [
        line.removeprefix("orbiter-mlflow: ")
        for line in err.splitlines()
        if line.startswith("orbiter-mlflow: ")
    ]


# -- what a program gets ---------------------------------------------------------------------------


def test_a_program_gets_its_arguments_input_and_output() -> None:
    script = """
        print(sys.argv[1:], sys.stdin.read())
        print("to stderr", file=sys.stderr)
        sys.exit(7)
    """
    code, out, err = ran(script, given="typed", arguments=("--lr", "1 2", "--", "-h", "*"))
    assert (code, out) == (7, "['--lr', '1 2', '--', '-h', '*'] typed\n")
    assert err == "to stderr\norbiter-mlflow: the program has written no run\n"


def test_a_program_gets_the_environment_with_a_journaled_tracking_uri(tmp_path: Path) -> None:
    script = """
        for name in sorted(os.environ):
            if "MLFLOW" in name:
                print(name, os.environ[name], sep="=")
    """
    environ = {
        "ORBITER_MLFLOW_TRACKING_URI": "http://not.here:1",
        "ORBITER_MLFLOW_EXPERIMENT_ID": "7",
        "MLFLOW_EXPERIMENT_ID": "8",
        "MLFLOW_RUN_ID": "a" * 32,
    }
    options = ("--tracking-uri", "sqlite:///mlflow.db", "--experiment", "mine")
    _, out, _ = ran(script, *options, environ=environ)
    found = dict(line.split("=", 1) for line in out.splitlines())
    del found["ORBITER_MLFLOW_OPENED"]
    for name in DEFAULTS:  # a command that ran in this process before has set them
        found.pop(name, None)
    assert found == {
        **PROMPT,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_TRACKING_URI": f"journal+sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": "mine",
        "MLFLOW_RUN_ID": "a" * 32,
    }


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "ORBITER_MLFLOW_TRACKING_URI"])
def test_the_tracking_uri_of_the_environment_gets_the_prefix_once(variable: str) -> None:
    script = "print(os.environ['MLFLOW_TRACKING_URI'])"
    for given in ("http://h:1", "journal+http://h:1"):
        _, out, _ = ran(script, environ={variable: given})
        assert out == "journal+http://h:1\n"


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [
        (("no-such-program",), 127, "no-such-program cannot be run: No such file"),
        (("./data.txt",), 126, "./data.txt cannot be run: Permission denied"),
        ((), 2, "Missing argument 'PROGRAM...'"),
        (("--experimnt", "e", "true"), 2, "--experimnt"),
        (("--tracking-uri", "sqlite://", "true"), 2, "tracking_uri"),
    ],
)
def test_a_program_that_cannot_be_run_is_named(
    program: tuple[str, ...], code: int, why: str
) -> None:
    Path("data.txt").touch(mode=0o644)
    process = subprocess.run([COMMAND, "run", *program], capture_output=True, text=True, timeout=60)
    assert process.returncode == code
    assert why in process.stderr
    assert len(process.stderr.splitlines()) == 1


# -- what is reported ------------------------------------------------------------------------------


def test_the_runs_of_a_program_are_reported_as_the_store_has_them(sqlite_uri: str) -> None:
    script = """
        trainer = validated(TrainConfig(extra={"seed": 3}))
        Path("notes.txt").write_text("x")
        trainer.log_artifact("notes.txt")
        asyncio.run(trainer.train())
    """
    code, out, err = ran(script, "--tracking-uri", sqlite_uri)
    assert (code, out) == (0, "")
    (run,) = MlflowClient(sqlite_uri).search_runs(["0"])
    counts = f"{len(run.data.metrics)} metrics, {len(run.data.params)} params, 1 artifact"
    assert of_report(err) == [f"run {run.info.run_id} ({run.info.run_name}): FINISHED, {counts}"]
    assert journals() == []


def test_where_there_is_a_server_a_run_has_its_page(server_uri: str) -> None:
    options = ("--tracking-uri", PREFIX + server_uri, "--experiment", "run command")
    code, _, err = ran("trained(run_name='by run')", *options)
    client = MlflowClient(server_uri)
    experiment = client.get_experiment_by_name("run command").experiment_id
    (run,) = client.search_runs([experiment])
    line, page = of_report(err)
    assert code == 0
    assert line.startswith(f"run {run.info.run_id} (by run): FINISHED, ")
    assert page.strip() == (
        f"{server_uri}/#/experiments/{experiment}/runs/{run.info.run_id}"
        "?workflowType=machine_learning"
    )


def test_the_runs_of_child_processes_are_reported(sqlite_uri: str) -> None:
    script = """
        import subprocess
        if sys.argv[1:]:
            trained(run_name="by a child")
        elif (pid := os.fork()) == 0:
            trained(run_name="by a fork")
            import multiprocessing.util
            sys.exit()
        else:
            os.waitpid(pid, 0)
            subprocess.run([sys.executable, sys.argv[0], "child"], check=True)
            trained(run_name="by the program")
    """
    code, _, err = ran(script, "--tracking-uri", sqlite_uri)
    assert code == 0
    found = [re.search(r"\((.*)\): (\w+)", line) for line in of_report(err)]
    assert [match and match.groups() for match in found] == [
        ("by a fork", "FINISHED"),
        ("by a child", "FINISHED"),
        ("by the program", "FINISHED"),
    ]


def test_a_run_that_is_resumed_is_reported_once(sqlite_uri: str) -> None:
    script = """
        first = trained()
        run_id = first.run_id
        trained(run_id=run_id)
        print(run_id)
    """
    code, out, err = ran(script, "--tracking-uri", sqlite_uri)
    assert code == 0
    (line,) = of_report(err)
    assert line.startswith(f"run {out.strip()} ")


def test_a_run_inside_a_run_is_reported_by_both(sqlite_uri: str) -> None:
    script = f"""
        import subprocess
        if sys.argv[1:]:
            trained()
            sys.exit(4)
        command = [{str(COMMAND)!r}, "run", "--", sys.executable, sys.argv[0], "inner"]
        ended = subprocess.run(command, capture_output=True, text=True)
        print(ended.stderr, end="")
        sys.exit(ended.returncode)
    """
    code, out, err = ran(script, "--tracking-uri", sqlite_uri)
    assert code == 4
    assert len(of_report(out)) == 1
    assert of_report(out) == of_report(err)


def test_a_run_that_another_process_goes_on_with_is_reported_as_that(sqlite_uri: str) -> None:
    script = """
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            for fd in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), fd)
            trainer = validated()
            trainer.run_id
            os.write(write, b"x")
            while not Path("end").exists():
                time.sleep(0.05)
            asyncio.run(trainer.train())
            sys.exit()
        os.read(read, 1)
    """
    code, _, err = ran(script, "--tracking-uri", sqlite_uri)
    Path("end").touch()
    assert code == 0
    (line,) = of_report(err)
    assert ": RUNNING, " in line
    assert line.endswith("; another process still writes it")
    (run,) = MlflowClient(sqlite_uri).search_runs(["0"])
    eventually(lambda: MlflowClient(sqlite_uri).get_run(run.info.run_id).info.status == "FINISHED")


def test_names_of_runs_act_on_no_terminal(sqlite_uri: str) -> None:
    code, _, err = ran(r"trained(run_name='\x1b[31m::error::x')", "--tracking-uri", sqlite_uri)
    assert code == 0
    assert "\x1b" not in err
    assert "::error" not in err


# -- programs that know nothing of orbiter ---------------------------------------------------------

PLAIN = """
import mlflow, sys
with mlflow.start_run(run_name="plain") as run:
    mlflow.log_params({"lr": 0.1, "epochs": 2})
    for step in range(20):
        mlflow.log_metrics({"loss": 1 / (step + 1), "acc": 0.5}, step=step)
    mlflow.set_tag("kind", "test")
    print(run.info.run_id)
    if sys.argv[1:]:
        raise RuntimeError("on purpose")
"""


def test_a_plain_script_writes_through_the_journal_and_is_reported(sqlite_uri: str) -> None:
    environ = {"ORBITER_MLFLOW_KEEP_JOURNALS": "true"}
    code, out, err = ran_plain(PLAIN, "--tracking-uri", sqlite_uri, environ=environ)
    assert code == 0
    assert of_report(err) == [
        f"run {out.strip()} (plain): FINISHED, 2 metrics, 2 params, 0 artifacts"
    ]
    assert len(journals()) == 1
    client = MlflowClient(sqlite_uri)
    assert len(client.get_metric_history(out.strip(), "loss")) == 20
    assert client.get_run(out.strip()).data.tags["kind"] == "test"


def test_a_plain_script_that_raises_is_reported_as_failed(sqlite_uri: str) -> None:
    code, out, err = ran_plain(PLAIN, "--tracking-uri", sqlite_uri, arguments=("raise",))
    assert code == 1
    assert "on purpose" in err
    (line,) = of_report(err)
    assert line.startswith(f"run {out.strip()} (plain): FAILED, ")


def test_a_plain_script_without_a_server_waits_in_its_journal(server_uri: str) -> None:
    with Proxy(server_uri) as proxy:
        proxy.refuse()
        environ = {
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "ORBITER_MLFLOW_FLUSH_TIMEOUT": "0.2",
        }
        code, out, err = ran_plain(PLAIN, "--tracking-uri", proxy.uri, environ=environ)
        assert code == 0
        lines = of_report(err)
        assert any(
            "not delivered yet: 40 points of a run that is not there yet" in one for one in lines
        )
        (line,) = [line for line in lines if line.startswith("  deliver it with: ")]
        assert "--trust-uri" in line
        proxy.open()
        eventually(lambda: not journals())  # the delivery process goes on trying
        provisional = RunStore(server_uri).get(out.split()[0])
    assert (provisional.name, provisional.status) == ("plain", "FINISHED")


def ran_plain(script: str, *options: str, **how: Any) -> tuple[int, str, str]:
    """The same for a script that does not import orbiter."""
    return ran(script, *options, prelude="", **how)


# -- a store that is down --------------------------------------------------------------------------


def test_what_waits_is_reported_with_the_command_that_delivers_it(late_store: LateStore) -> None:
    environ = {"ORBITER_MLFLOW_FLUSH_TIMEOUT": "0.2"}
    script = "trained(); sys.exit(3)"
    code, _, err = ran(script, "--tracking-uri", late_store.uri, environ=environ)
    assert code == 3
    lines = of_report(err)
    assert any(line.startswith("not delivered yet: ") and " points " in line for line in lines)
    (line,) = [line for line in lines if line.startswith("  deliver it with: orbiter-mlflow sync")]
    late_store.appear()
    command = shlex.split(line.partition(": ")[2])
    # The delivery process, which goes on trying, may have been faster.
    subprocess.run([COMMAND, *command[1:]], timeout=120, capture_output=True)
    run = eventually(lambda: ended(MlflowClient(late_store.uri)))
    assert run.info.status == "FINISHED"


def test_offline_journals_are_reported_without_a_wait(sqlite_uri: str) -> None:
    environ = {"ORBITER_MLFLOW_DELIVERY": "offline", "ORBITER_MLFLOW_FLUSH_TIMEOUT": "3600"}
    code, _, err = ran("trained()", "--tracking-uri", sqlite_uri, environ=environ)
    assert code == 0
    first, second = of_report(err)
    assert first.startswith("not delivered yet: ")
    assert first.endswith("(delivery is offline)")
    assert str(journals()[0]) in second


def test_ctrl_c_ends_the_wait_and_keeps_the_exit_code(late_store: LateStore) -> None:
    environ = {"ORBITER_MLFLOW_ANSWER_TIMEOUT": "3600", "ORBITER_MLFLOW_FLUSH_TIMEOUT": "3600"}
    script = "trained(flush_timeout=0); Path('pid').write_text(str(os.getpid())); os._exit(6)"
    options = ("--tracking-uri", late_store.uri)
    process = starting(script, *options, environ=environ)
    pid = eventually(lambda: Path("pid").exists() and int(Path("pid").read_text() or 0))
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    eventually(lambda: not catches(signal.SIGTERM, process.pid))  # as while the program runs
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 6
    assert any(line.startswith("not delivered yet") for line in of_report(err))


def catches(number: signal.Signals, pid: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = re.findall(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


# -- signals ---------------------------------------------------------------------------------------

COUNTING = """
    counts = {}
    def count(number, _):
        counts[number] = counts.get(number, 0) + 1
        os.write(1, f"{signal.Signals(number).name} {counts[number]}\\n".encode())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, count)
    def end(*_):
        os.write(1, f"{sum(counts.values())}\\n".encode())
        os._exit(9)
    signal.signal(signal.SIGUSR1, end)
    os.write(1, b"ready\\n")  # a handler must not print: it may come in the middle of this
    while True:
        signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_passed_on_once(number: signal.Signals) -> None:
    process = starting(COUNTING, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == f"{number.name} 1\n"
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=60)[0] == "1\n"
    assert process.returncode == 9


def test_ctrl_c_at_a_terminal_reaches_the_program_once() -> None:
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = starting(COUNTING, stdin=theirs, preexec_fn=take_terminal)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.write(ours, b"\x03")
    assert process.stdout.readline() == "SIGINT 1\n"
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=60)[0] == "1\n"
    assert process.returncode == 9
    os.close(ours)
    os.close(theirs)


def test_a_signal_that_is_ignored_stays_ignored_in_the_program() -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    script = "print(signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM))"
    _, out, _ = ran(script, preexec_fn=nohup)
    assert out == f"{signal.SIG_IGN} {signal.SIG_DFL}\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_that_a_signal_ends_gives_128_and_its_number(
    sqlite_uri: str, number: signal.Signals
) -> None:
    script = f"""
        async def die():
            os.kill(os.getpid(), {int(number)})
            await forever()
        Tracked.inside = staticmethod(die)
        trained()
    """
    code, _, err = ran(script, "--tracking-uri", sqlite_uri)
    assert code == 128 + number
    (line,) = of_report(err)
    assert ": KILLED, " in line
