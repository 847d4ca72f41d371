"""What can stop a delivery, named for what the drain does next.

DeliveryError
├── TransientError     try again later: no answer, an answer that is not MLflow's, 5xx, 408, 429
├── RejectedError      the store does not take this content: find the entry, and try it again
├── UnsupportedError   the server has no such endpoint: do without
└── HeldError          a person must act: wrong password, no permission, deleted run
"""


class DeliveryError(Exception):
    """A request to the tracking store failed."""


class TransientError(DeliveryError):
    """The store could not be reached or could not do it; the request may have been committed.

    Attributes:
        answered: the server failed at the request itself (HTTP 500), which its content may cause.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class RejectedError(DeliveryError):
    """The store refused the content of the request.

    Attributes:
        definite: MLflow's own validation refused it. Where False it may be a race in the store's
            database, or a limit on the way, and is tried for some minutes before it is believed.
    """

    def __init__(self, message: str, *, definite: bool = False) -> None:
        super().__init__(message)
        self.definite = definite


class UnsupportedError(DeliveryError):
    """The server has no such endpoint: it is older, or only compatible with MLflow."""


class HeldError(DeliveryError):
    """The store refuses whatever is sent until somebody changes something; nothing is dropped."""
