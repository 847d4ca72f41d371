"""Every exception of this package, and what to do about each.

OrbiterMLflowError
├── TrackingError          tracking cannot do what was asked for: do what the message says
├── SweepError             a sweep cannot be opened, or not be asked now: do what the message says
├── ConfigError            a config cannot be rebuilt: read `problems`, pass `overrides=`
├── UnreadableError        one text cannot be read as a config value: correct the text
├── StoreError             a tracking store cannot be read: check the URI, the server, the login
│   ├── RunNotFoundError   no run, or several, have that name: give an id
│   └── FilterError        MLflow does not understand the search filter: correct it
├── GateError              the gate cannot give a verdict
│   ├── PolicyError        the policy cannot be used: change what the message names
│   ├── CannotCompareError candidate or baseline is missing or incomplete: do what the message says
│   ├── BlessError         these runs cannot be a baseline: choose others
│   └── ReportFileError    a report cannot be written there: choose another file
├── GitHubError            GitHub does not take a comment: the job's summary has the report
├── DeliveryError          a request to the tracking store failed
│   ├── TransientError     no answer, or not MLflow's (5xx, 408, 429): try again later
│   ├── RejectedError      the store refuses this content: find the entry, and try it again
│   ├── UnsupportedError   the server has no such endpoint: do without
│   └── HeldError          a person must act: wrong password, no permission, deleted run
├── JournalError           a journal cannot be read
│   ├── DamagedLineError   one line is damaged: skip it and count it
│   └── UnknownFormatError a newer version wrote it: upgrade before you sync
└── ProvenanceError        a fact about the run's origin cannot be found: the run does without
    ├── GitError           git is missing, timed out, or found no repository
    └── GpuError           the driver's tool failed
"""

from collections.abc import Mapping

from orbiter.train.trainer import TrainerError, TrainMetrics

__all__ = [
    "BlessError",
    "CannotCompareError",
    "ConfigError",
    "DamagedLineError",
    "DeliveryError",
    "FilterError",
    "GateError",
    "GitError",
    "GitHubError",
    "GpuError",
    "HeldError",
    "JournalError",
    "OrbiterMLflowError",
    "PolicyError",
    "ProvenanceError",
    "RejectedError",
    "ReportFileError",
    "RunNotFoundError",
    "StoreError",
    "SweepError",
    "TrackingError",
    "TransientError",
    "UnknownFormatError",
    "UnreadableError",
    "UnsupportedError",
]


class OrbiterMLflowError(Exception):
    """Root of all exceptions that this package raises."""


class TrackingError(OrbiterMLflowError, TrainerError):
    """Tracking cannot do what was asked for, or failed and `on_failure="raise"` asks for an
    exception. The training itself did not fail.

    Attributes:
        metrics: the result whose delivery failed; None where there is none.
    """

    def __init__(self, message: str, metrics: TrainMetrics | None = None) -> None:
        super().__init__(message)
        self.metrics = metrics


class SweepError(OrbiterMLflowError):
    """A sweep cannot be opened as was asked, or is not open; the message says what to do."""


# -- configs -------------------------------------------------------------------------------------


class ConfigError(OrbiterMLflowError, ValueError):
    """The params do not give back the config. No message shows a value.

    Attributes:
        config_type: the config's class, as `module:qualname`.
        problems: everything that is wrong: path of the param -> reason.
    """

    def __init__(self, config_type: str, problems: Mapping[str, str]) -> None:
        self.config_type = config_type
        self.problems = dict(problems)
        lines = (f"\n  {path}: {reason}" for path, reason in self.problems.items())
        super().__init__(f"{config_type} cannot be rebuilt from these params:{''.join(lines)}")

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, dict[str, str]]]:
        return type(self), (self.config_type, self.problems)


class UnreadableError(OrbiterMLflowError, ValueError):
    """One text or JSON value cannot be read. The message says why and never shows the value."""


# -- reading a store -----------------------------------------------------------------------------


class StoreError(OrbiterMLflowError):
    """A tracking store cannot be read, or lacks what was asked for."""


class RunNotFoundError(StoreError):
    """No run, or more than one, has the name that was given."""


class FilterError(StoreError):
    """MLflow does not understand the search filter."""


# -- the gate ------------------------------------------------------------------------------------


class GateError(OrbiterMLflowError):
    """The gate cannot give a verdict."""


class PolicyError(GateError, ValueError):
    """The policy cannot be used; the message is one line and says what to change."""


class CannotCompareError(GateError):
    """Candidate or baseline is missing or incomplete; the message says what to do."""


class BlessError(GateError):
    """These runs cannot become a baseline; the message says why."""


class ReportFileError(GateError, ValueError):
    """A report cannot be written to that file."""


class GitHubError(OrbiterMLflowError):
    """GitHub does not take a comment, or this is no GitHub workflow; the message says why.

    Attributes:
        status: the HTTP status of a refusal; None if GitHub did not answer, or was not asked.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


# -- delivery ------------------------------------------------------------------------------------


class DeliveryError(OrbiterMLflowError):
    """A request to the tracking store failed."""


class TransientError(DeliveryError):
    """The store was out of reach or could not do it; the request may have been committed.

    Attributes:
        answered: the server failed at the request itself (HTTP 500), which its content may cause.
        soon: another delivery of this machine is about to remove the cause.
    """

    def __init__(self, message: str, *, answered: bool = False, soon: bool = False) -> None:
        super().__init__(message)
        self.answered = answered
        self.soon = soon


class RejectedError(DeliveryError):
    """The store refused the content of the request.

    Attributes:
        definite: MLflow's own validation refused it. Where False, it may be a race in the store's
            database or a limit of a proxy, and is tried for some minutes before it is believed.
    """

    def __init__(self, message: str, *, definite: bool = False) -> None:
        super().__init__(message)
        self.definite = definite


class UnsupportedError(DeliveryError):
    """The server has no such endpoint: it is older, or only compatible with MLflow."""


class HeldError(DeliveryError):
    """The store refuses every request until somebody changes something; nothing is dropped."""


class JournalError(OrbiterMLflowError, ValueError):
    """A journal cannot be read."""


class DamagedLineError(JournalError):
    """A line is incomplete, or does not match its checksum."""


class UnknownFormatError(JournalError):
    """A newer version of this package wrote the journal."""


# -- provenance ----------------------------------------------------------------------------------


class ProvenanceError(OrbiterMLflowError):
    """A fact about the run's origin could not be found; the message is the reason."""


class GitError(ProvenanceError):
    """Git is missing, took too long, or refused."""


class GpuError(ProvenanceError):
    """The driver's tool failed; the message says how."""
