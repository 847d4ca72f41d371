"""The training process' end of the delivery of one run: append, ask how far it is, wait for it.

Appending never waits. Waiting polls the ack beside the journal, so it works with any host, and in
an event loop it never blocks the loop.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from orbiter_mlflow.delivery.hosts.base import Host
from orbiter_mlflow.delivery.records import Head, Record
from orbiter_mlflow.delivery.spool import LANES, Ack, open_journal, read_ack, read_lane_ack

_logger = logging.getLogger(__name__)

_POLL = 0.02
"""Seconds between looks at the ack while somebody waits."""


class RunWriter:
    """The journal of one run, under delivery by `host`.

    Args:
        folder: the spool.
        head: the first record.
        tracking_uri: with credentials, where it holds any; `head` has it without.
        patience: seconds that the user is willing to wait for delivery.

    Raises:
        OSError: the journal cannot be made.
    """

    def __init__(
        self, folder: Path, head: Head, host: Host, *, tracking_uri: str, patience: float
    ) -> None:
        self.uid = head.uid
        self._journal = open_journal(folder, head)
        self._host = host
        self._run_id: str | None = None
        self._refused = 0
        self._kept = ""
        self._tracking_uri = tracking_uri
        host.deliver(self.path, tracking_uri, patience)

    @property
    def path(self) -> Path:
        """The journal."""
        return self._journal.path

    def append(self, record: Record) -> None:
        """Keep a record. Never waits for the network, never raises."""
        self._journal.append(record)
        self._host.appended()

    def close(self) -> None:
        """Give the journal's file back."""
        self._journal.close()

    def run_id(self) -> str | None:
        """The run's id, once the run exists; does not wait."""
        if self._run_id is None:
            self._run_id = read_ack(self.path).run_id
        return self._run_id

    def wait_run_id(self, within: float) -> str | None:
        """The run's id; waits up to `within` seconds, then None."""
        for _ in self._looks(within):
            if self.run_id() is not None:
                break
            time.sleep(_POLL)
        return self._run_id

    async def wait_run_id_async(self, within: float) -> str | None:
        """The run's id; the event loop goes on for up to `within` seconds, then None."""
        for _ in self._looks(within):
            if self.run_id() is not None:
                break
            await asyncio.sleep(_POLL)
        return self._run_id

    def delivered(self) -> bool:
        """Whether all that was appended is in the store; who asks is taken to wait for it."""
        self._host.wake()
        size = self._journal.size
        if read_ack(self.path).offset < size:
            return False
        lanes = [read_lane_ack(self.path, lane) for lane in LANES]
        return all(ack.offset >= size and not ack.aside for ack in lanes)

    async def flush(self, within: float) -> str | None:
        """Wait until all metrics, params, tags and statuses are in the store.

        Datasets and artifacts follow by themselves: a broken artifact store holds up nobody.

        Returns None then, and where nothing is delivered for now. Otherwise what the trouble is,
        once `_looks` has given up.
        """
        if not self._host.waits:
            return None
        target = self._journal.size
        ack = Ack()
        for ack in self._looks(within):
            if ack.offset >= target:
                self._tell_refused(ack)
                self._tell_kept(ack)
                return None
            await asyncio.sleep(_POLL)
        problem = ack.problem or "delivery has not finished"
        self._host.tell(self.path, problem)
        return problem

    def _tell_refused(self, ack: Ack) -> None:
        if ack.quarantined > self._refused:
            self._refused = ack.quarantined
            _logger.warning(
                "MLflow refused %d entries of run %s for good: what and why stands in %s",
                ack.quarantined,
                ack.run_id,
                self.path.with_suffix(".quarantine"),
            )

    def _tell_kept(self, ack: Ack) -> None:
        if ack.kept != self._kept:
            self._kept = ack.kept
            _logger.warning(
                "run %s keeps %s: the params of a run do not change; start a new run, without "
                "run_id, to log another config",
                ack.run_id,
                ack.kept,
            )

    def _looks(self, within: float) -> Iterator[Ack]:
        """The ack, looked at again and again, at least once.

        Gives up after `within` seconds; at once where only a person can mend it, and at once too
        where an earlier wait met the same outage.
        """
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
        if within > 0:  # who does not wait has met no outage
            _outages.note(self._tracking_uri, self.path, ack)


class _Outages:
    """The stores that a wait has given up on, so that a sweep does not wait for each of its runs.

    An outage is over once the journal that was waited for gets on.
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
