"""What can stop a delivery, named for what the drain does next.

DeliveryError
├── TransientError   try again later: refused, timed out, 5xx, 408, 429, a locked database
├── RejectedError    this content will never be taken: halve it, quarantine what is left
└── HeldError        a person must act: wrong password, no permission, deleted run or experiment
"""


class DeliveryError(Exception):
    """A request to the tracking store failed."""


class TransientError(DeliveryError):
    """The store could not be reached or could not do it; the request may have been committed.

    Attributes:
        answered: the store did answer, with an error of its own: it may be the content after all.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class RejectedError(DeliveryError):
    """The store refused the content of the request, and will refuse it each time."""


class HeldError(DeliveryError):
    """The store refuses whatever is sent until somebody changes something; nothing is dropped."""
