"""Exceptions by which a host framework ends a training on purpose, such as a pruned trial.

They are not failures: the caller of `train` waits for that very exception, so it is not wrapped.
"""

from typing import Any

__all__ = ["require_exceptions", "stops_on_purpose"]

_FRAMEWORK_EXCEPTIONS = frozenset(
    {
        "celery.exceptions.TaskPredicate",  # Ignore, Reject, Retry
        "distributed.exceptions.Reschedule",  # dask
        "optuna.exceptions.TrialPruned",
        "unittest.case.SkipTest",
    }
)
"""Matched by name, so that no framework has to be imported."""


def stops_on_purpose(trainer: type[Any], error: BaseException) -> bool:
    """Whether `error` is control flow, not a failure, for this class of trainers.

    True for the exceptions in its `passes_through` and for those that a known framework uses.
    """
    if not isinstance(error, Exception):
        return False
    declared = tuple(kind for kind in trainer.passes_through if isinstance(kind, type))
    return isinstance(error, declared) or any(
        f"{kind.__module__}.{kind.__qualname__}" in _FRAMEWORK_EXCEPTIONS
        for kind in type(error).__mro__
    )


def require_exceptions(cls: type[Any]) -> None:
    """Require that `passes_through` is a tuple of exception classes.

    Raises:
        TypeError: naming the class and its value.
    """
    found = cls.passes_through
    if not isinstance(found, tuple) or not all(
        isinstance(kind, type) and issubclass(kind, Exception) for kind in found
    ):
        raise TypeError(
            f"{cls.__qualname__}.passes_through must be a tuple of exception classes, as in "
            f"`passes_through = (MyStop,)`, not {found!r}"
        )
