"""Faults in the files of a delivery: cut short, removed meanwhile, on a full disk."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from journals import HEAD, journal_of
from memory_sink import MemorySink, Trouble
from orbiter_mlflow import names
from orbiter_mlflow.delivery import drain, retry, spool
from orbiter_mlflow.delivery.ack import Ack, write_ack
from orbiter_mlflow.delivery.drain import Drain
from orbiter_mlflow.delivery.hosts import drain_loop
from orbiter_mlflow.delivery.records import Close, Metrics, Record, Status, Tags
from orbiter_mlflow.errors import HeldError, TransientError
from waiting import eventually

RUN: list[Record] = [
    Tags({names.STATE: "training"}),
    *[Metrics(step, step, {"train/loss": step / 7}) for step in range(50)],
]
END: list[Record] = [Tags({names.STATE: "completed"}), Status("FINISHED", 99), Close()]


@pytest.mark.parametrize(
    "content", [b"", b'{"offset":12', bytes(64)], ids=["empty", "half", "zeros"]
)
def test_an_ack_that_a_power_failure_cut_short_makes_no_second_run(
    tmp_path: Path, content: bytes
) -> None:
    journal, store = journal_of(tmp_path / "r.jsonl", [*RUN, *END]), MemorySink()
    assert Drain(journal, lambda _: store).run()
    journal.with_suffix(".ack").write_bytes(content)
    assert Drain(journal, lambda _: store).run()
    (run,) = store.runs.values()
    assert [point.step for point in run.points] == list(range(50))
    assert run.tags[names.STATE] == "completed"


def test_a_delivery_killed_while_it_removes_a_journal_delivers_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    journal, store = journal_of(tmp_path / "r.jsonl", [*RUN, *END]), MemorySink()
    unlink = Path.unlink

    def dying(path: Path, **how: bool) -> None:
        unlink(path, **how)
        raise Killed

    busy = drain_loop.DrainLoop(lambda _: store)
    busy.add(journal, "")
    with monkeypatch.context() as patch:
        busy.turn()
        eventually(lambda: not spool.is_waiting(journal))
        patch.setattr(Path, "unlink", dying)
        with pytest.raises(Killed):
            busy.turn()
    busy.forget()
    again = drain_loop.DrainLoop(lambda _: store)
    again.add(journal, "", orphaned=True)
    again.turn()
    assert len(store.runs) == 1


def test_a_journal_that_is_removed_while_its_lock_is_taken_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, open_ = journal_of(tmp_path / "r.jsonl", RUN), os.open

    def slow(*args: int, **kwargs: int) -> int:
        fd = open_(*args, **kwargs)  # type: ignore[arg-type]
        spool.remove(journal)
        return fd

    monkeypatch.setattr(spool.os, "open", slow)  # type: ignore[attr-defined]
    with pytest.raises(FileNotFoundError):
        spool.take(journal)
    assert list(tmp_path.iterdir()) == []


def test_acks_that_a_full_disk_refuses_delay_the_delivery_but_do_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, store = journal_of(tmp_path / "r.jsonl", RUN), MemorySink()
    now = 0.0
    drain_ = Drain(journal, lambda _: store, clock=lambda: now)
    write = write_ack

    def full(path: Path, ack: Ack) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for allowed in range(3):  # the disk is full at the first, the second, the third ack

        def filling(path: Path, ack: Ack, left: list[int] = [allowed]) -> None:  # noqa: B006  a count
            left[0] -= 1
            (write if left[0] >= 0 else full)(path, ack)

        monkeypatch.setattr(drain, "write_ack", filling)
        assert not drain_.run()
        assert drain_.not_before > now
        now = drain_.not_before
    monkeypatch.setattr(drain, "write_ack", write)
    assert drain_.run()
    (run,) = store.runs.values()
    assert [point.step for point in run.points] == list(range(50))


def test_ending_a_dead_trainers_run_is_retried_with_pauses(tmp_path: Path) -> None:
    journal, store = journal_of(tmp_path / "r.jsonl", RUN), MemorySink()
    now = 100.0
    drain_ = Drain(journal, lambda _: store, clock=lambda: now)
    assert drain_.run()
    store.troubles.append(Trouble(TransientError("down"), "set_status"))
    assert not drain_.abandon()
    assert drain_.not_before > now
    assert drain_.abandon()
    (run,) = store.runs.values()
    assert run.status.status == "KILLED"
    assert run.tags[names.STATE] == "failed"


def test_a_waiting_caller_shortens_the_wait_for_the_next_attempt(tmp_path: Path) -> None:
    journal, store = journal_of(tmp_path / "r.jsonl", RUN), MemorySink()
    now = 100.0
    drain_ = Drain(journal, lambda _: store, clock=lambda: now)
    store.troubles += [Trouble(HeldError("401"), "create_run")]
    assert not drain_.run()
    assert drain_.not_before == now + retry.HELD
    drain_.wake()
    assert drain_.not_before == now + retry.WAITED_FOR
    now += 0.5
    drain_.wake()
    assert drain_.not_before == now + 0.5
    assert drain_.run()
    drain_.wake()


def test_an_interrupted_search_for_the_run_still_finds_the_twin(tmp_path: Path) -> None:
    journal, store = journal_of(tmp_path / "r.jsonl", [*RUN, *END]), MemorySink()
    now = 0.0
    drain_ = Drain(journal, lambda _: store, clock=lambda: now)
    store.troubles += [
        Trouble(TransientError("timed out"), "create_run"),
        Trouble(TransientError("dropped"), "create_run", committed=True),
    ]
    assert not drain_.run()  # will be carried out late
    assert not drain_.run()  # was carried out, its answer lost
    find = store.find_runs

    def late(head: object) -> object:
        found = find(HEAD)
        store.find_runs = find  # type: ignore[method-assign]
        store.create_run(HEAD)
        return found

    store.find_runs = late  # type: ignore[method-assign, assignment]
    assert drain_.run()
    (run,) = store.runs.values()
    assert len(run.points) == 50


def test_journals_wait_for_a_free_descriptor(tmp_path: Path) -> None:
    script = """
    import resource, sys
    from pathlib import Path
    from orbiter_mlflow.delivery import retry
    from orbiter_mlflow.delivery.hosts.drain_loop import DrainLoop

    retry.PAUSE = 0.0
    names = [Path(f"{number}.jsonl") for number in range(100)]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    loop = DrainLoop(lambda uri: None)
    for name in names:
        name.touch()
        loop.add(name, "http://127.0.0.1:9")
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    taken = set()
    loop._advance = lambda job, size: taken.add(job.journal)
    loop.turn()
    assert 0 < len(taken) < 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop.turn()
    assert taken == set(names), len(taken)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Too many open files" in done.stderr
