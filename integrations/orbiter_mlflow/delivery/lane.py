"""The common part of all lanes of a journal: attempts that never raise, the waits between them, and
the retries of refused entries."""

import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from orbiter_mlflow.delivery import retry
from orbiter_mlflow.delivery.ack import Ack, LaneAck, RefusedEntry
from orbiter_mlflow.errors import DeliveryError, RejectedError, TransientError, UnsupportedError

_AckT = TypeVar("_AckT", Ack, LaneAck)


class Lane(ABC, Generic[_AckT]):
    """The delivery of some kinds of records of one journal.

    Args:
        journal: the file.
        ack: how far an earlier delivery came.
        clock: seconds, monotonic.
        now: seconds since the epoch.
        rng: source of the jitter of the waits.

    Attributes:
        journal: the file.
        ack: how far it is delivered, as last written to disk.
        not_before: time on `clock` before which no attempt should be made.
    """

    def __init__(
        self,
        journal: Path,
        ack: _AckT,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.journal = journal
        self.ack: _AckT = ack
        self._written: _AckT = ack
        self.not_before = 0.0
        self._clock = clock
        self._now = now
        self._rng = rng or random.Random()  # noqa: S311  jitter, no secret
        self._failures = 0
        self._failed_at = 0.0

    def wake(self) -> None:
        """Try again soon, however long the store has been in trouble, because somebody waits."""
        self.not_before = min(self.not_before, self._failed_at + retry.WAITED_FOR)

    def next_retry(self) -> float | None:
        """Seconds until the next retry of a refused entry; None where there is none."""
        if not self.ack.aside:
            return None
        return max(0.0, min(one.at for one in self.ack.aside) - self._now())

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Run `action`; False if something stopped it, with the reason in `ack.problem`."""
        try:
            action()
            if self.ack.problem:
                self._write(problem="", held=False)
        except (DeliveryError, OSError, ValueError) as error:
            # Errors that end up here are retried: a refusal concerns a read or a status, and an
            # endpoint that every server has is missing only where a gateway answers in its place.
            held = not isinstance(
                error, TransientError | RejectedError | UnsupportedError | OSError
            )
            self._failed_at = self._clock()
            if isinstance(error, TransientError) and error.soon:
                wait = retry.FIRST
            else:
                self._failures += 1
                wait = retry.HELD if held else retry.delay(self._failures, self._rng)
            self.not_before = self._failed_at + wait
            with contextlib.suppress(OSError):  # the disk of the spool may be what is full
                self._write(problem=str(error) or type(error).__name__, held=held)
            return False
        self._failures = 0
        return True

    def _put_aside(
        self, refused: list[tuple[dict[str, Any], DeliveryError]], **changes: object
    ) -> None:
        """Schedule retries of refused entries, and write `changes` of the ack in the same step."""
        now = self._now()
        aside: list[RefusedEntry] = [*self.ack.aside]
        aside += [RefusedEntry.first(entry, error, now) for entry, error in refused]
        if len(aside) > retry.MOST_ASIDE:
            raise TransientError(
                f"the store refuses one entry after the other ({refused[-1][1]}): "
                f"{len(self.ack.aside)} are being retried, and the next ones wait for them"
            )
        self._write(aside=tuple(aside), **changes)

    def _retry_aside(self) -> None:
        """Retry the refused entries whose time has come."""
        for one in self.ack.aside:
            if one.at > self._now():
                continue
            rest: tuple[RefusedEntry, ...] = tuple(
                other for other in self.ack.aside if other is not one
            )
            try:
                self._send_again(one.entry)
            except UnsupportedError as error:
                raise TransientError(str(error)) from error
            except (RejectedError, TransientError) as error:
                self._require_refusal(error)
                again = one.again(error, self._now())
                if again is None:
                    self._quarantine(replace(one, reason=str(error)), rest)
                else:
                    self._write(aside=(*rest, again))
            else:
                self._write(aside=rest)

    def _require_refusal(self, error: DeliveryError) -> None:
        """Return if the content may be the cause of `error`; raise it if the store is."""
        if isinstance(error, TransientError):
            if not error.answered:
                raise error
            self._write_something_harmless()

    @abstractmethod
    def _send_again(self, entry: dict[str, Any]) -> None:
        """Send one entry.

        Raises:
            DeliveryError: as the sink does.
        """

    @abstractmethod
    def _quarantine(self, refused: RefusedEntry, rest: tuple[RefusedEntry, ...]) -> None:
        """Quarantine an entry; `rest` are the others that are retried."""

    @abstractmethod
    def _write_something_harmless(self) -> None:
        """Find out whether the store takes writes at all, as one that is read-only for a while
        still answers reads.

        Raises:
            DeliveryError: it does not.
        """

    @abstractmethod
    def _save(self, ack: _AckT) -> None:
        """Write an ack to disk."""

    def _write(self, **changes: object) -> None:
        fresh = replace(self.ack, **changes)  # type: ignore[arg-type]  # names checked by tests
        if fresh != self._written:
            self._save(fresh)
            self.ack = self._written = fresh
