"""Wraps the lifecycle methods of each `Trainer` subclass, so that the order holds by itself.

Only the outermost call of a method is admitted and told to the hooks; calls that reach a parent's
method by `super()` pass straight through. Which calls are under way is kept in a context variable,
so that concurrent tasks and threads do not mistake each other's calls for their own.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, ParamSpec
from weakref import WeakSet

from orbiter.train._control_flow import require_exceptions, stops_on_purpose
from orbiter.train._log_throttle import quiet_logger
from orbiter.train._runtime import runtime_of
from orbiter.train.states import TrainerError, TrainerState

if TYPE_CHECKING:
    from orbiter.train.trainer import Trainer

Phase = Literal["train", "evaluate"]
Method = Callable[..., Any]
P = ParamSpec("P")

_logger = quiet_logger(__name__)


class _Call:
    """An outermost call; it is over once it has no `trainer`.

    A task started by a call inherits the context and may outlive the call: that a call is found in
    the context does not say that it is still under way.
    """

    def __init__(self, trainer: "Trainer", name: str) -> None:
        self.trainer: Trainer | None = trainer
        self.name = name


# The calls that this task or thread was started inside of, or is inside of itself.
_inside: ContextVar[tuple[_Call, ...]] = ContextVar("orbiter_inside", default=())

# The wrappers made here. A mark on the function would be copied by a user's functools.wraps.
_enforced: "WeakSet[Method]" = WeakSet()


# The classes that have been seen to.
_classes: "WeakSet[type[Any]]" = WeakSet()


def enforce(cls: type[Any], contract: Mapping[str, Any]) -> None:
    """Wrap the lifecycle methods that `cls` defines, or takes from a base that is no `Trainer`.

    `contract` holds what `Trainer` declares, by name. To do this again wraps what a class decorator
    has put in since.

    Raises:
        TypeError: for a method of the wrong kind, a `_state` of the class' own, or a
            `passes_through` that is no tuple of exceptions.
    """
    if inspect.ismemberdescriptor(vars(cls).get("_state")):
        del cls._state  # named in `__slots__`: it would hide the property
    if inspect.getattr_static(cls, "_state") is not contract["_state"]:
        raise TypeError(
            f"{cls.__qualname__} defines `_state`: the lifecycle keeps it; assign `self._state`"
        )
    require_exceptions(cls)
    for name, (wrap, is_async) in _LIFECYCLE.items():
        method = inspect.getattr_static(cls, name)
        if method is contract[name] or (inspect.isfunction(method) and method in _enforced):
            continue
        if cls in _classes and not _is_method(method):
            continue  # a mock that a test has patched in
        if not _is_method(method) or _is_async(method, cls, deep=is_async) is not is_async:
            wanted = f"async def {name}" if is_async else f"def {name}"
            raise TypeError(f"{cls.__qualname__}.{name} must be a method written `{wanted}(...)`")
        wrapper = wrap(name, method, inspect.signature(contract[name]))
        _enforced.add(wrapper)
        setattr(cls, name, wrapper)
    _classes.add(cls)


def _is_method(method: object) -> bool:
    return inspect.isfunction(method) or isinstance(method, staticmethod | classmethod)


def _is_async(method: Any, cls: type, *, deep: bool) -> bool:
    """Whether a call gives a coroutine, as far as the code tells.

    `deep` looks under decorators too: `@torch.no_grad()` hides that what it wraps is `async`.
    """
    function = method.__get__(None, cls)
    return inspect.iscoroutinefunction(function) or (
        deep and inspect.iscoroutinefunction(inspect.unwrap(function))
    )


def _reached_by_super(trainer: "Trainer", name: str, wrapper: Method) -> bool:
    """Whether `wrapper` runs on behalf of an outermost call that is already under way.

    `self.evaluate()` from inside `evaluate` reaches the class' own method and is a call of its own;
    `super().evaluate()` reaches another one.
    """
    return wrapper is not inspect.getattr_static(type(trainer), name) and any(
        call.trainer is trainer and call.name == name for call in _inside.get()
    )


@contextmanager
def _outermost(trainer: "Trainer", name: str) -> Iterator[None]:
    call = _Call(trainer, name)
    under_way = (other for other in _inside.get() if other.trainer is not None)
    token = _inside.set((*under_way, call))
    try:
        yield
    finally:
        call.trainer = None
        # A coroutine closed from another context (its loop is gone) has nothing to put back there.
        with suppress(ValueError):
            _inside.reset(token)


def _arguments(
    declared: inspect.Signature, call: Method, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The arguments of a call, by the contract's names; others by the method's own.

    `call` is the bound method, `declared` the contract's signature with `self` still in it. A
    parameter that stands where the contract has one of another name is that one, renamed.
    """
    try:
        own = inspect.signature(call)
        given = own.bind(*args, **kwargs).arguments
    except Exception:  # no signature to read, or the call itself is about to fail
        return {}
    contract = list(declared.parameters)[1:]
    positional = [
        name
        for name, parameter in own.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    meant = {
        mine: theirs
        for mine, theirs in zip(positional, contract, strict=False)
        if theirs not in own.parameters
    }
    named: dict[str, Any] = {}
    for name, value in given.items():
        kind = own.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            named.update(zip(contract[len(positional) :], value, strict=False))
        else:
            named[meant.get(name, name)] = value
    return named


def _wrap_check(name: str, method: Any, declared: inspect.Signature) -> Method:
    @functools.wraps(method)
    def wrapper(self: "Trainer", /, *args: Any, **kwargs: Any) -> Any:
        call = method.__get__(self, type(self))
        if _reached_by_super(self, name, wrapper):
            return call(*args, **kwargs)
        if self._state is not TrainerState.CREATED:
            raise TrainerError(
                f"{type(self).__name__}.{name} must be called before mark_validated() "
                f"(state={self._state}): make a new trainer"
            )
        with _outermost(self, name):
            result = call(*args, **kwargs)
        tell(self._on_check_passed, name, _arguments(declared, call, args, kwargs))
        return result

    return wrapper


def _wrap_train(name: str, method: Any, declared: inspect.Signature) -> Method:
    @functools.wraps(method)
    async def wrapper(self: "Trainer", /, *args: Any, **kwargs: Any) -> Any:
        call = method.__get__(self, type(self))
        if _reached_by_super(self, name, wrapper):
            return await call(*args, **kwargs)
        runtime = runtime_of(self)
        if self._state is not TrainerState.VALIDATED or not runtime.admit_train():
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
            await _tell_error(self, "train", error)
            if _passes(self, error):
                raise
            raise _failure(self, "train", error) from error
        runtime.training = False
        await self._on_train_result(metrics)
        return metrics

    return wrapper


def _wrap_evaluate(name: str, method: Any, declared: inspect.Signature) -> Method:
    @functools.wraps(method)
    async def wrapper(self: "Trainer", /, *args: Any, **kwargs: Any) -> Any:
        call = method.__get__(self, type(self))
        if _reached_by_super(self, name, wrapper):
            return await call(*args, **kwargs)
        if self._state is TrainerState.FAILED:
            raise TrainerError(
                f"{type(self).__name__}.evaluate is refused (state={self._state}): "
                "make a new trainer"
            )
        test_data = _arguments(declared, call, args, kwargs).get("test_data")
        tell(self._on_evaluate_started, test_data)
        try:
            with _outermost(self, name):
                metrics = await call(*args, **kwargs)
        except BaseException as error:
            await _tell_error(self, "evaluate", error)
            if _passes(self, error):
                raise
            raise _failure(self, "evaluate", error) from error
        await self._on_evaluate_result(metrics, test_data)
        return metrics

    return wrapper


def _settle(trainer: "Trainer", end: TrainerState) -> None:
    """Give `train` its final state, unless the subclass has already said FAILED."""
    if trainer._state is not TrainerState.FAILED:
        trainer._state = end


def tell(hook: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call a hook; what it raises is logged, for who watches a training must not break it."""
    try:
        hook(*args, **kwargs)
    except Exception:
        _logger.exception("the hook %s failed", getattr(hook, "__qualname__", hook))


async def _tell_error(trainer: "Trainer", phase: Phase, error: BaseException) -> None:
    try:
        await trainer._on_error(phase, error)
    except Exception:  # must not take the place of `error`
        _logger.exception("the hook %s._on_error failed", type(trainer).__qualname__)


def _passes(trainer: "Trainer", error: BaseException) -> bool:
    """Whether the caller is promised this very exception, not a `TrainerError` made of it."""
    if isinstance(error, TrainerError) or not isinstance(error, Exception):
        return True
    return stops_on_purpose(type(trainer), error)


def _failure(trainer: "Trainer", phase: Phase, error: BaseException) -> TrainerError:
    try:
        said = str(error)
    except Exception:  # an exception whose own __str__ raises must not hide that training failed
        said = "(its message could not be read)"
    return TrainerError(f"{type(trainer).__name__}.{phase} failed: {type(error).__name__}: {said}")


_LIFECYCLE: Mapping[str, tuple[Callable[[str, Any, inspect.Signature], Method], bool]]
_LIFECYCLE = {
    "check_agent": (_wrap_check, False),
    "check_dataset": (_wrap_check, False),
    "check_reward": (_wrap_check, False),
    "check_config": (_wrap_check, False),
    "train": (_wrap_train, True),
    "evaluate": (_wrap_evaluate, True),
}
"""The methods whose order is enforced: how each is wrapped, and whether it is `async`."""
