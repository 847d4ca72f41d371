"""Wrap the lifecycle methods of each `Trainer` subclass, so that it cannot break the order.

Only the outermost call of a method is checked and passed to the hooks; calls that reach a parent's
method by `super()` go straight through. The calls in progress are kept in a context variable, so
concurrent tasks and threads do not mistake each other's calls for their own.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, ClassVar, ParamSpec
from weakref import WeakSet

from orbiter.train._control_flow import require_exceptions, stops_on_purpose
from orbiter.train._log_throttle import quiet_logger
from orbiter.train._runtime import runtime_of
from orbiter.train.hooks import TrainerHooks
from orbiter.train.states import CALLS, Phase, TrainerError, TrainerState

Method = Callable[..., Any]
P = ParamSpec("P")

_logger = quiet_logger(__name__)


class Enforced(TrainerHooks):
    """The part of a trainer that the wrappers use: its hooks, its state, its exceptions."""

    passes_through: ClassVar[tuple[type[Exception], ...]] = ()
    """Exceptions that `train` and `evaluate` let through unchanged because they are control flow,
    not failures: they tell the caller to stop, or to continue elsewhere. Those of known frameworks,
    such as `optuna.TrialPruned`, need not be listed.
    """

    _state: TrainerState


class _Call:
    """An outermost call; `trainer` becomes None when it is over.

    A task started by a call inherits its context and may outlive it, so a call that is found in the
    context need not be in progress.
    """

    def __init__(self, trainer: Enforced, name: str) -> None:
        self.trainer: Enforced | None = trainer
        self.name = name


# The calls that this task or thread is inside of, or was started inside of.
_inside: ContextVar[tuple[_Call, ...]] = ContextVar("orbiter_inside", default=())

# The wrappers made here. A user's functools.wraps would copy a mark on the function.
_enforced: "WeakSet[Method]" = WeakSet()

# The classes whose methods are wrapped.
_classes: "WeakSet[type[Any]]" = WeakSet()


def enforce(cls: type[Any], contract: Mapping[str, Any]) -> None:
    """Wrap the lifecycle methods that `cls` defines, or inherits from a class that is no `Trainer`.

    A second call wraps the methods that a class decorator has replaced since the first.

    Args:
        cls: the subclass of `Trainer`.
        contract: the attributes of `Trainer` itself.

    Raises:
        TypeError: for a method of the wrong kind, a class that defines `_state`, or a
            `passes_through` that is no tuple of exceptions.
    """
    if inspect.ismemberdescriptor(vars(cls).get("_state")):
        del cls._state  # declared in `__slots__`, it would hide the property
    if inspect.getattr_static(cls, "_state") is not contract["_state"]:
        raise TypeError(
            f"{cls.__qualname__} defines `_state`: it is the lifecycle's; only assign to it"
        )
    require_exceptions(cls)
    for name, (wrap, is_async) in _LIFECYCLE.items():
        method = inspect.getattr_static(cls, name)
        if method is contract[name] or (inspect.isfunction(method) and method in _enforced):
            continue
        if cls in _classes and not _is_method(method):
            continue  # a mock that a test has patched in
        if not _is_method(method) or _is_async(method, cls, deep=is_async) is not is_async:
            expected = f"async def {name}" if is_async else f"def {name}"
            raise TypeError(f"{cls.__qualname__}.{name} must be a method written `{expected}(...)`")
        wrapper = wrap(name, method, inspect.signature(contract[name]))
        _enforced.add(wrapper)
        setattr(cls, name, wrapper)
    _classes.add(cls)


def _is_method(method: object) -> bool:
    return inspect.isfunction(method) or isinstance(method, staticmethod | classmethod)


def _is_async(method: Any, cls: type, *, deep: bool) -> bool:
    """Whether a call returns a coroutine, as far as one can see without calling.

    `deep` looks under decorators too: `@torch.no_grad()` hides that the method it wraps is `async`.
    """
    function = method.__get__(None, cls)
    return inspect.iscoroutinefunction(function) or (
        deep and inspect.iscoroutinefunction(inspect.unwrap(function))
    )


def _reached_by_super(trainer: Enforced, name: str, wrapper: Method) -> bool:
    """Whether this is a `super()` call inside an outermost call in progress.

    `self.evaluate()` inside `evaluate` reaches the class's own method and is a new outermost call;
    `super().evaluate()` reaches a parent's.
    """
    return wrapper is not inspect.getattr_static(type(trainer), name) and any(
        call.trainer is trainer and call.name == name for call in _inside.get()
    )


@contextmanager
def _outermost(trainer: Enforced, name: str) -> Iterator[None]:
    call = _Call(trainer, name)
    in_progress = (other for other in _inside.get() if other.trainer is not None)
    token = _inside.set((*in_progress, call))
    try:
        yield
    finally:
        call.trainer = None
        # A coroutine closed from another context (its loop is gone) has nothing to reset there.
        with suppress(ValueError):
            _inside.reset(token)


def _arguments(
    declared: inspect.Signature, call: Method, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The arguments of a call, by the contract's parameter names; extra ones by their own.

    `call` is the bound method, `declared` the contract's signature, `self` included. A parameter
    in the position of a contract's parameter counts as that one, renamed.
    """
    try:
        own = inspect.signature(call)
        bound = own.bind(*args, **kwargs).arguments
    except Exception:  # no readable signature, or the call itself is about to fail
        return {}
    contract = list(declared.parameters)[1:]
    positional = [
        name
        for name, parameter in own.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    renamed = {
        mine: theirs
        for mine, theirs in zip(positional, contract, strict=False)
        if theirs not in own.parameters
    }
    named: dict[str, Any] = {}
    for name, value in bound.items():
        kind = own.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            named.update(zip(contract[len(positional) :], value, strict=False))
        else:
            named[renamed.get(name, name)] = value
    return named


def _wrap_check(name: str, method: Any, declared: inspect.Signature) -> Method:
    @functools.wraps(method)
    def wrapper(self: Enforced, /, *args: Any, **kwargs: Any) -> Any:
        call = method.__get__(self, type(self))
        if _reached_by_super(self, name, wrapper):
            return call(*args, **kwargs)
        if self._state not in CALLS[name]:
            raise TrainerError(
                f"{type(self).__name__}.{name} must be called before mark_validated() "
                f"(state={self._state}): make a new trainer"
            )
        with _outermost(self, name):
            result = call(*args, **kwargs)
        notify(self._on_check_passed, name, _arguments(declared, call, args, kwargs))
        return result

    return wrapper


def _wrap_train(name: str, method: Any, declared: inspect.Signature) -> Method:
    @functools.wraps(method)
    async def wrapper(self: Enforced, /, *args: Any, **kwargs: Any) -> Any:
        call = method.__get__(self, type(self))
        if _reached_by_super(self, name, wrapper):
            return await call(*args, **kwargs)
        runtime = runtime_of(self)
        if self._state not in CALLS[name] or not runtime.admit_train():
            hint = "" if self._state is TrainerState.CREATED else ": a trainer trains once"
            raise TrainerError(
                f"Trainer must be validated before training (state={self._state}){hint}"
            )
        try:
            with _outermost(self, name):
                self._state = TrainerState.TRAINING
                metrics = await call(*args, **kwargs)
            _settle(self, TrainerState.COMPLETED)
        except BaseException as error:
            _settle(self, TrainerState.FAILED)
            runtime.training = False
            await _notify_error(self, "train", error)
            if _passes(self, error):
                raise
            raise _failure(self, "train", error) from error
        runtime.training = False
        await self._on_train_result(metrics)
        return metrics

    return wrapper


def _wrap_evaluate(name: str, method: Any, declared: inspect.Signature) -> Method:
    @functools.wraps(method)
    async def wrapper(self: Enforced, /, *args: Any, **kwargs: Any) -> Any:
        call = method.__get__(self, type(self))
        if _reached_by_super(self, name, wrapper):
            return await call(*args, **kwargs)
        if self._state not in CALLS[name]:
            raise TrainerError(
                f"{type(self).__name__}.evaluate is refused (state={self._state}): "
                "make a new trainer"
            )
        test_data = _arguments(declared, call, args, kwargs).get("test_data")
        notify(self._on_evaluate_started, test_data)
        try:
            with _outermost(self, name):
                metrics = await call(*args, **kwargs)
        except BaseException as error:
            await _notify_error(self, "evaluate", error)
            if _passes(self, error):
                raise
            raise _failure(self, "evaluate", error) from error
        await self._on_evaluate_result(metrics, test_data)
        return metrics

    return wrapper


def _settle(trainer: Enforced, end: TrainerState) -> None:
    """Set the final state of `train`, unless the subclass has set FAILED."""
    if trainer._state is not TrainerState.FAILED:
        trainer._state = end


def notify(hook: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call a hook and log what it raises: an observer must not break the training."""
    try:
        hook(*args, **kwargs)
    except Exception:
        _logger.exception("the hook %s failed", getattr(hook, "__qualname__", hook))


async def _notify_error(trainer: Enforced, phase: Phase, error: BaseException) -> None:
    try:
        await trainer._on_error(phase, error)
    except Exception:  # must not hide `error`
        _logger.exception("the hook %s._on_error failed", type(trainer).__qualname__)


def _passes(trainer: Enforced, error: BaseException) -> bool:
    """Whether the caller gets this very exception, not a `TrainerError` that wraps it."""
    if isinstance(error, TrainerError) or not isinstance(error, Exception):
        return True
    return stops_on_purpose(type(trainer), error)


def _failure(trainer: Enforced, phase: Phase, error: BaseException) -> TrainerError:
    try:
        text = str(error)
    except Exception:  # an exception whose own __str__ raises must not hide the failure
        text = "(its message could not be read)"
    return TrainerError(f"{type(trainer).__name__}.{phase} failed: {type(error).__name__}: {text}")


_LIFECYCLE: Mapping[str, tuple[Callable[[str, Any, inspect.Signature], Method], bool]]
_LIFECYCLE = {
    "check_agent": (_wrap_check, False),
    "check_dataset": (_wrap_check, False),
    "check_reward": (_wrap_check, False),
    "check_config": (_wrap_check, False),
    "train": (_wrap_train, True),
    "evaluate": (_wrap_evaluate, True),
}
"""The methods whose order is enforced: the wrapper for each, and whether it is `async`."""
