"""What the lanes of a journal share: attempts that never raise, the waits between them, and the
entries that the store refused and that are under trial."""

import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from orbiter_mlflow.delivery import retry, spool
from orbiter_mlflow.delivery.suspects import Suspect, refused_again, suspect
from orbiter_mlflow.errors import DeliveryError, RejectedError, TransientError, UnsupportedError

_AckT = TypeVar("_AckT", spool.Ack, spool.LaneAck)


class Lane(ABC, Generic[_AckT]):
    """One lane of one journal.

    Args:
        journal: the file.
        ack: how far an earlier delivery has come.
        clock: seconds, monotonic.
        now: seconds since the epoch.
        rng: the jitter of the waits.

    Attributes:
        ack: how far it is delivered, as last written.
        not_before: the clock's time before which another attempt would be too early.
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
        """Somebody waits: try again soon, however long the store has been in trouble."""
        self.not_before = min(self.not_before, self._failed_at + retry.WAITED_FOR)

    def next_trial(self) -> float | None:
        """Seconds until an entry under trial is to be tried again; None where there is none."""
        if not self.ack.aside:
            return None
        return max(0.0, min(one.at for one in self.ack.aside) - self._now())

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Whether `action` was carried out; what stopped it stands in `ack.problem`."""
        try:
            action()
            if self.ack.problem:
                self._write(problem="", held=False)
        except (DeliveryError, OSError, ValueError) as error:
            # Try again what nobody has dealt with: a refusal is one of a read or of a status, and
            # an endpoint that each server has is lacking where a gateway answers in its place.
            held = not isinstance(
                error, TransientError | RejectedError | UnsupportedError | OSError
            )
            self._failures += 1
            self._failed_at = self._clock()
            wait = retry.HELD if held else retry.delay(self._failures, self._rng)
            self.not_before = self._failed_at + wait
            with contextlib.suppress(OSError):  # the disk of the spool may be what is full
                self._write(problem=str(error) or type(error).__name__, held=held)
            return False
        self._failures = 0
        return True

    def _put_aside(
        self, bad: list[tuple[dict[str, Any], DeliveryError]], **changes: object
    ) -> None:
        """Put refused entries under trial, and write `changes` of the ack in the same step."""
        aside = (*self.ack.aside, *(suspect(entry, error, self._now()) for entry, error in bad))
        if len(aside) > retry.MOST_ASIDE:
            raise TransientError(
                f"the store refuses one entry after the other ({bad[-1][1]}): "
                f"{len(self.ack.aside)} are under trial, and the next ones wait for them"
            )
        self._write(aside=aside, **changes)

    def _try_aside(self) -> None:
        """Try again the entries under trial whose time has come."""
        for one in self.ack.aside:
            if one.at > self._now():
                continue
            rest: tuple[Suspect, ...] = tuple(other for other in self.ack.aside if other is not one)
            try:
                self._send_again(one.entry)
            except UnsupportedError as error:
                raise TransientError(str(error)) from error
            except (RejectedError, TransientError) as error:
                self._require_refusal(error)
                again = refused_again(one, error, self._now())
                if again is None:
                    self._give_up(replace(one, reason=str(error)), rest)
                else:
                    self._write(aside=(*rest, again))
            else:
                self._write(aside=rest)

    def _require_refusal(self, error: DeliveryError) -> None:
        """Return where the content may be the cause of `error`; raise it where the store is."""
        if isinstance(error, TransientError):
            if not error.answered:
                raise error
            self._write_something_harmless()

    @abstractmethod
    def _send_again(self, entry: dict[str, Any]) -> None:
        """Send one entry; raises a `DeliveryError` as the sink does."""

    @abstractmethod
    def _give_up(self, bad: Suspect, rest: tuple[Suspect, ...]) -> None:
        """Quarantine an entry; `rest` is what stays under trial."""

    @abstractmethod
    def _write_something_harmless(self) -> None:
        """Raise a `DeliveryError` where the store takes no write at all: a database that is
        read-only for a while answers reads."""

    @abstractmethod
    def _save(self, ack: _AckT) -> None: ...

    def _write(self, **changes: object) -> None:
        fresh = replace(self.ack, **changes)  # type: ignore[arg-type]  # names checked by tests
        if fresh != self._written:
            self._save(fresh)
            self.ack = self._written = fresh
