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
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from weakref import WeakSet

from orbiter.train.states import TrainerError, TrainerState

if TYPE_CHECKING:
    from orbiter.train.trainer import Trainer

Phase = Literal["train", "evaluate"]
Method = Callable[..., Any]

# The wrappers made here. A mark on the function would be copied by a user's functools.wraps.
_enforced: "WeakSet[Method]" = WeakSet()

# The calls that this task or thread is inside of: (id of the trainer, name of the method).
_inside: ContextVar[frozenset[tuple[int, str]]] = ContextVar("orbiter_inside", default=frozenset())


def enforce(cls: "type[Trainer]", contract: Mapping[str, Any]) -> None:
    """Wrap the lifecycle methods that `cls` defines, or takes from a base that is no `Trainer`.

    `contract` holds the abstract methods as `Trainer` declares them, by name.

    Raises:
        TypeError: for a method of the wrong kind, or a `_state` of the class' own.
    """
    if "_state" in vars(cls):
        raise TypeError(
            f"{cls.__qualname__} defines `_state`: the lifecycle keeps it; assign `self._state`"
        )
    for name, (wrap, is_async) in _LIFECYCLE.items():
        method = inspect.getattr_static(cls, name)
        declared = contract[name]
        if method is declared or (inspect.isfunction(method) and method in _enforced):
            continue
        if not inspect.isfunction(method) or inspect.iscoroutinefunction(method) is not is_async:
            wanted = f"async def {name}" if is_async else f"def {name}"
            raise TypeError(f"{cls.__qualname__}.{name} must be a method written `{wanted}(...)`")
        wrapper = wrap(method, functools.partial(_bound, inspect.signature(declared), method))
        _enforced.add(wrapper)
        setattr(cls, name, wrapper)


def _reached_by_super(trainer: "Trainer", wrapper: Method) -> bool:
    """Whether `wrapper` runs on behalf of an outermost call that is already under way.

    `self.evaluate()` from inside `evaluate` reaches the class' own method and is a call of its own;
    `super().evaluate()` reaches another one.
    """
    name = wrapper.__name__
    own = inspect.getattr_static(type(trainer), name)
    return (id(trainer), name) in _inside.get() and wrapper is not own


@contextmanager
def _outermost(trainer: "Trainer", name: str) -> Iterator[None]:
    token = _inside.set(_inside.get() | {(id(trainer), name)})
    try:
        yield
    finally:
        # A coroutine closed from another context (its loop is gone) has nothing to put back there.
        with suppress(ValueError):
            _inside.reset(token)


def _bound(
    declared: inspect.Signature, method: Method, trainer: "Trainer", *args: Any, **kwargs: Any
) -> Mapping[str, Any]:
    """The arguments of a call, by the contract's names; others by the method's own."""
    own = inspect.signature(method)
    for signature in (declared, own):
        try:
            arguments = signature.bind(trainer, *args, **kwargs).arguments
        except TypeError:
            continue
        names = dict(zip(signature.parameters, declared.parameters, strict=False))
        named = {names.get(name, name): value for name, value in arguments.items()}
        named.pop("self", None)
        return named
    return {}  # the call itself is about to fail


def _wrap_check(method: Method, bound: Callable[..., Mapping[str, Any]]) -> Method:
    @functools.wraps(method)
    def wrapper(self: "Trainer", /, *args: Any, **kwargs: Any) -> Any:
        if _reached_by_super(self, wrapper):
            return method(self, *args, **kwargs)
        name = wrapper.__name__
        if self.state is not TrainerState.CREATED:
            raise TrainerError(
                f"{type(self).__name__}.{name} must be called before mark_validated() "
                f"(state={self.state}): make a new trainer"
            )
        with _outermost(self, name):
            result = method(self, *args, **kwargs)
        self._on_check_passed(name, bound(self, *args, **kwargs))
        return result

    return wrapper


def _wrap_train(method: Method, bound: Callable[..., Mapping[str, Any]]) -> Method:
    @functools.wraps(method)
    async def wrapper(self: "Trainer", /, *args: Any, **kwargs: Any) -> Any:
        if _reached_by_super(self, wrapper):
            return await method(self, *args, **kwargs)
        runtime = self._runtime
        if self.state is not TrainerState.VALIDATED or not runtime.admit_train():
            hint = "" if self.state is TrainerState.CREATED else ": a trainer trains once"
            raise TrainerError(
                f"Trainer must be validated before training (state={self.state}){hint}"
            )
        try:
            with _outermost(self, "train"):
                self._state = TrainerState.TRAINING
                metrics = await method(self, *args, **kwargs)
            _settle(self, TrainerState.COMPLETED)
        except BaseException as error:
            _settle(self, TrainerState.FAILED)
            runtime.training = False
            await _leave(self, "train", error)
        runtime.training = False
        await self._on_train_result(metrics)
        return metrics

    return wrapper


def _wrap_evaluate(method: Method, bound: Callable[..., Mapping[str, Any]]) -> Method:
    @functools.wraps(method)
    async def wrapper(self: "Trainer", /, *args: Any, **kwargs: Any) -> Any:
        if _reached_by_super(self, wrapper):
            return await method(self, *args, **kwargs)
        if self.state is TrainerState.FAILED:
            raise TrainerError(
                f"{type(self).__name__}.evaluate is refused (state={self.state}): "
                "make a new trainer"
            )
        test_data = bound(self, *args, **kwargs).get("test_data")
        self._on_evaluate_started(test_data)
        try:
            with _outermost(self, "evaluate"):
                metrics = await method(self, *args, **kwargs)
        except BaseException as error:
            await _leave(self, "evaluate", error)
        await self._on_evaluate_result(metrics, test_data)
        return metrics

    return wrapper


def _settle(trainer: "Trainer", end: TrainerState) -> None:
    """Give `train` its final state, unless the subclass has already said FAILED."""
    if trainer.state is not TrainerState.FAILED:
        trainer._state = end


async def _leave(trainer: "Trainer", phase: Phase, error: BaseException) -> NoReturn:
    """Tell the hooks, then raise what the caller is promised to see."""
    await trainer._on_error(phase, error)
    if isinstance(error, Exception) and not isinstance(error, TrainerError):
        raise TrainerError(
            f"{type(trainer).__name__}.{phase} failed: {type(error).__name__}: {_said(error)}"
        ) from error
    raise error


def _said(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # an exception whose own __str__ raises must not hide that training failed
        return "(its message could not be read)"


_LIFECYCLE: Mapping[str, tuple[Callable[[Method, Callable[..., Mapping[str, Any]]], Method], bool]]
_LIFECYCLE = {
    "check_agent": (_wrap_check, False),
    "check_dataset": (_wrap_check, False),
    "check_reward": (_wrap_check, False),
    "check_config": (_wrap_check, False),
    "train": (_wrap_train, True),
    "evaluate": (_wrap_evaluate, True),
}
"""The methods whose order is enforced: how each is wrapped, and whether it is `async`."""
