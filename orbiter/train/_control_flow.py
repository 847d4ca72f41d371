"""Exceptions by which a host framework stops a training on purpose: no failure, and not ours.

A pruned trial, a rescheduled task: whoever called `train` waits for that very exception.
"""

from typing import Any

__all__ = ["require_exceptions", "stops_on_purpose"]

_OF_FRAMEWORKS = frozenset(
    {
        "celery.exceptions.TaskPredicate",  # Ignore, Reject, Retry
        "distributed.exceptions.Reschedule",  # dask
        "optuna.exceptions.TrialPruned",
        "unittest.case.SkipTest",
    }
)
"""Known by name, so that nothing is imported for it."""


def stops_on_purpose(trainer: type[Any], error: BaseException) -> bool:
    """Whether `error` leaves `train` and `evaluate` of a trainer's class as it is, and is no
    failure: one of its `passes_through`, or one that a known framework stops a training by."""
    if not isinstance(error, Exception):
        return False
    declared = tuple(kind for kind in trainer.passes_through if isinstance(kind, type))
    return isinstance(error, declared) or any(
        f"{kind.__module__}.{kind.__qualname__}" in _OF_FRAMEWORKS for kind in type(error).__mro__
    )


def require_exceptions(cls: type[Any]) -> None:
    """Refuse a `passes_through` that is no tuple of exception classes.

    Raises:
        TypeError: naming the class and what stands there.
    """
    found = cls.passes_through
    if not isinstance(found, tuple) or not all(
        isinstance(kind, type) and issubclass(kind, Exception) for kind in found
    ):
        raise TypeError(
            f"{cls.__qualname__}.passes_through must be a tuple of exception classes, as in "
            f"`passes_through = (MyStop,)`, not {found!r}"
        )
