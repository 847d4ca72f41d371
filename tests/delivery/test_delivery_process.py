"""Orders of a training process to its delivery process: none is lost on the way."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.hosts import launch
from orbiter_mlflow.delivery.hosts.process import DeliveryProcess
from orbiter_mlflow.delivery.hosts.thread import DeliveryThread

STORE = "http://user:token@127.0.0.1:9"


class Reader:
    """Stands in for delivery processes: keeps the pipes open, and reads when it is told to."""

    def __init__(self) -> None:
        self.pipes: list[int] = []
        self.text = b""

    def start(self, reading: int, *_: object) -> None:
        self.pipes.append(os.dup(reading))

    def read(self) -> int:
        """The number of journals named so far."""
        os.set_blocking(self.pipes[-1], False)
        try:
            while block := os.read(self.pipes[-1], 65536):
                self.text += block
        except BlockingIOError:
            pass
        return self.text.count(b'"journal"')

    def die(self) -> None:
        os.close(self.pipes.pop())


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    reader = Reader()
    monkeypatch.setattr(launch, "start", reader.start)
    monkeypatch.setattr(retry, "ENVIRONMENT_POLL", 0.0)
    yield reader
    while reader.pipes:
        reader.die()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    return folder


def deliver(host: DeliveryProcess, spool: Path, name: str) -> None:
    journal = spool / f"{name}.jsonl"
    journal.touch()
    host.deliver(journal, STORE, 1.0)


def test_what_a_full_pipe_does_not_take_goes_out_with_the_next_records(
    reader: Reader, spool: Path
) -> None:
    host, count = DeliveryProcess(), 0
    while not host._queue or count < 3:
        count += 1
        deliver(host, spool, str(count))
    assert reader.read() < count
    host.appended()
    assert reader.read() == count
    host.forget()


@pytest.mark.parametrize("works", [True, False], ids=["", "none can be started"])
def test_a_journal_that_comes_while_a_process_is_started_is_delivered(
    works: bool, reader: Reader, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, go_on = threading.Event(), threading.Event()

    def start(reading: int, *_: object) -> None:
        starting.set()
        assert go_on.wait(30)
        if not works:
            raise BlockingIOError("cannot fork")
        reader.start(reading)

    monkeypatch.setattr(launch, "start", start)
    host = DeliveryProcess()
    first = threading.Thread(target=deliver, args=(host, spool, "first"))
    first.start()
    assert starting.wait(30)
    deliver(host, spool, "second")
    go_on.set()
    first.join(30)
    if works:
        assert reader.read() >= 2
        assert b"first.jsonl" in reader.text
        assert b"second.jsonl" in reader.text
    else:
        assert isinstance(host._fallback, DeliveryThread)
        assert {path.stem for path in host._fallback._journals} >= {"first", "second"}
    host.forget()


def test_deaths_that_lie_days_apart_do_not_end_in_a_thread(reader: Reader, spool: Path) -> None:
    host = DeliveryProcess()
    deliver(host, spool, "j")
    for _ in range(retry.MAX_STARTS - 1):
        reader.die()
        host.appended()
    host._started -= retry.LIVED_LONG + 1
    reader.die()
    host.appended()
    assert host._fallback is None
    assert reader.read() >= 1
    host.forget()


def test_quick_deaths_do(reader: Reader, spool: Path) -> None:
    host = DeliveryProcess()
    deliver(host, spool, "j")
    for _ in range(retry.MAX_STARTS):
        reader.die()
        host.appended()
    assert isinstance(host._fallback, DeliveryThread)


def test_threads_that_append_while_delivery_dies_raise_nothing(reader: Reader, spool: Path) -> None:
    host = DeliveryProcess()
    deliver(host, spool, "j")
    raised: list[BaseException] = []
    ended = threading.Event()

    def append(call: Callable[[], None]) -> None:
        try:
            while not ended.is_set():
                call()
        except BaseException as error:
            raised.append(error)

    calls = [host.appended, host.appended, host.look, host.wake]
    threads = [threading.Thread(target=append, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for _ in range(200):
        host._close()
        host._starts = 0
    ended.set()
    for thread in threads:
        thread.join(30)
    assert raised == []
    host.forget()
