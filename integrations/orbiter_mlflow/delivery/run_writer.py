"""The training process' side of the delivery of one run: append, ask how far it is, wait for it.

Appending never waits. Waiting polls the ack beside the journal, so it works with any host, and in
an event loop it never blocks the loop.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.ack import Ack, read_ack, read_lane_ack
from orbiter_mlflow.delivery.durability import EachRecord
from orbiter_mlflow.delivery.hosts.base import Host
from orbiter_mlflow.delivery.records import SIDE_LANES, Head, Record
from orbiter_mlflow.delivery.spool import open_journal, problem_of, quarantine_path

_logger = logging.getLogger(__name__)


class RunWriter:
    """The journal of one run, delivered by a host.

    Args:
        folder: the spool.
        head: the first record.
        host: delivers the journal.
        tracking_uri: the store, with its credentials; `head` has it without.
        flush_timeout: seconds that the user is willing to wait for delivery.
        ack: what delivery has to know from the start; see `spool.open_journal`.
        sync_each: whether each append waits until the disk has the record.

    Attributes:
        uid: of the head.

    Raises:
        OSError: the journal cannot be created.
    """

    def __init__(
        self,
        folder: Path,
        head: Head,
        host: Host,
        *,
        tracking_uri: str,
        flush_timeout: float,
        ack: Ack | None = None,
        sync_each: bool = False,
    ) -> None:
        self.uid = head.uid
        self._journal = open_journal(folder, head, ack)
        self._each = EachRecord(self._journal) if sync_each else None
        self._host = host
        self._run_id: str | None = None if ack is None else ack.run_id
        self._told = 0
        self._delivered = 0
        self._quarantined = 0
        self._kept = ""
        self._tracking_uri = tracking_uri
        host.deliver(self.path, tracking_uri, flush_timeout)

    @property
    def path(self) -> Path:
        """The journal."""
        return self._journal.path

    def append(self, record: Record) -> None:
        """Append a record. Never waits for the network, never raises."""
        self._about_to_append(record)
        self._journal.append(record)
        self._appended()

    def offer(self, record: Record) -> list[Record]:
        """Append a record, or return the parts that the disk refuses; see `Journal.offer`."""
        self._about_to_append(record)
        refused = self._journal.offer(record)
        self._appended()
        return refused

    def _about_to_append(self, record: Record) -> None:
        if self._each is not None:
            self._each.about_to_append(record)

    def _appended(self) -> None:
        if self._each is not None:
            self._each.appended()
        self._host.appended()
        size = self._journal.size
        if size - self._told >= retry.FULL:
            self._told = size
            self._host.look()

    def close(self) -> None:
        """Close the journal's file; delivery goes on."""
        self._journal.close()

    def run_id(self) -> str | None:
        """The run's id, or None before the run exists; does not wait."""
        if self._run_id is None:
            self._run_id = read_ack(self.path).run_id
        return self._run_id

    def wait_run_id(self, within: float) -> str | None:
        """Wait for the run's id, up to `within` seconds; None after that."""
        for _ in self._poll(within):
            if self.run_id() is not None:
                break
            time.sleep(retry.ACK_POLL)
        return self._run_id

    async def wait_run_id_async(self, within: float) -> str | None:
        """Wait for the run's id as `wait_run_id` does, without blocking the event loop."""
        for _ in self._poll(within):
            if self.run_id() is not None:
                break
            await asyncio.sleep(retry.ACK_POLL)
        return self._run_id

    def delivered(self) -> bool:
        """Whether everything appended is in the store. Also speeds delivery up, as a caller who
        asks is taken to wait for it."""
        self._host.wake()
        size = self._journal.size
        if read_ack(self.path).offset < size:
            return False
        lanes = [read_lane_ack(self.path, lane) for lane in SIDE_LANES]
        return all(ack.offset >= size and not ack.aside for ack in lanes)

    async def flush(self, within: float) -> str | None:
        """Wait until all metrics, params, tags and statuses are in the store.

        Datasets and artifacts are not waited for: a broken artifact store holds up nobody.

        Returns:
            None on success, and if the host delivers nothing for now. Otherwise the problem, after
            at most `within` seconds; sooner if only a person can fix it, or if an earlier wait met
            the same outage.
        """
        if not self._host.waits:
            return None
        target = self._journal.size
        ack = Ack()
        began = time.monotonic()
        for ack in self._poll(within):
            if ack.offset >= target:
                self._warn_of_quarantined(ack)
                self._warn_of_kept_params(ack)
                return None
            await asyncio.sleep(_pause(retry.ACK_POLL, began))
        problem = ack.problem or "delivery has not finished"
        self._host.warn_undelivered(self.path, problem)
        return problem

    def wait(self, within: float, *, patience: float, lanes: Collection[str]) -> bool:
        """Wait until what was appended so far is in the store, for a caller that cannot await.

        Args:
            within: seconds, at most.
            patience: seconds, at most, once delivery has a problem.
            lanes: the side lanes that count.

        Returns:
            Whether all of it is in the store.
        """
        target = self._journal.size
        if self._delivered >= target and self._lanes_at(target, lanes):
            return True
        troubled: float | None = None
        began = time.monotonic()
        for ack in self._poll(within):
            here = ack.offset >= target and not ack.aside and self._lanes_at(target, lanes)
            if here or not self.path.exists():  # removed once all of it was delivered
                self._delivered = target
                return True
            if not (ack.problem or problem_of(self.path)):
                troubled = None
            elif troubled is None:
                troubled = time.monotonic()
            elif time.monotonic() > troubled + patience:
                _outages.note(self._tracking_uri, self.path, ack)
                break
            time.sleep(_pause(retry.READ_POLL, began))
        return False

    def _lanes_at(self, target: int, lanes: Collection[str]) -> bool:
        acks = (read_lane_ack(self.path, lane) for lane in lanes)
        return all(ack.offset >= target and not ack.aside for ack in acks)

    def _warn_of_quarantined(self, ack: Ack) -> None:
        if ack.quarantined > self._quarantined:
            self._quarantined = ack.quarantined
            _logger.warning(
                "MLflow refused %d entries of run %s for good: %s has them and the reasons",
                ack.quarantined,
                ack.run_id,
                quarantine_path(self.path),
            )

    def _warn_of_kept_params(self, ack: Ack) -> None:
        if ack.kept != self._kept:
            self._kept = ack.kept
            _logger.warning(
                "run %s keeps %s: the params of a run do not change; start a new run, without "
                "run_id, to log another config",
                ack.run_id,
                ack.kept,
            )

    def _poll(self, within: float) -> Iterator[Ack]:
        """Read the ack repeatedly, at least once, for up to `within` seconds."""
        if _outages.goes_on(self._tracking_uri) or not self._host.waits:
            within = 0.0
        deadline = time.monotonic() + within
        while True:
            self._host.wake()  # each time: a delivery process that was killed is started anew
            yield (ack := read_ack(self.path))
            if ack.held:  # may concern this run alone: no outage of the store
                return
            if time.monotonic() >= deadline:
                break
        if within > 0:  # a caller that does not wait has met no outage
            _outages.note(self._tracking_uri, self.path, ack)


def _pause(shortest: float, began: float) -> float:
    """Seconds until the next look by a wait that began at `began`. Each look takes time from
    delivery, which shares the machine with perhaps many that wait. So a wait ends up to 2 % later.
    """
    return max(shortest, (time.monotonic() - began) / 50)


class _Outages:
    """Stores for which a wait has timed out, so that a sweep does not wait for each of its runs.

    An outage is over once the journal that was waited for makes progress.
    """

    def __init__(self) -> None:
        self._stuck: dict[str, tuple[Path, Ack]] = {}

    def note(self, tracking_uri: str, journal: Path, ack: Ack) -> None:
        self._stuck.setdefault(tracking_uri, (journal, ack))

    def goes_on(self, tracking_uri: str) -> bool:
        if tracking_uri not in self._stuck:
            return False
        journal, then = self._stuck[tracking_uri]
        if journal.exists() and read_ack(journal).offset == then.offset:
            return True
        del self._stuck[tracking_uri]
        return False


_outages = _Outages()
