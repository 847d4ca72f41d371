"""A trainer that records the calls of its hooks, for the tests of the lifecycle."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal

from orbiter.train import Rollout, TrainConfig, Trainer, TrainerState, TrainMetrics
from orbiter.train.hooks import Phase, TrainerHooks

Event = tuple[Any, ...]


class HookRecorder(TrainerHooks):
    """An integration; `events` exists even if `__init__` is never called."""

    @property
    def events(self) -> list[Event]:
        events: list[Event] = self.__dict__.setdefault("_events", [])
        return events

    def events_of(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event[0] in kinds]

    def _on_check_passed(self, check: str, arguments: Mapping[str, Any]) -> None:
        super()._on_check_passed(check, arguments)
        self.events.append(("check", check, dict(arguments)))

    def _on_transition(self, before: TrainerState, after: TrainerState) -> None:
        super()._on_transition(before, after)
        self.events.append(("move", before, after))

    def _on_report(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        super()._on_report(metrics, step)
        self.events.append(("report", metrics, step))

    def _on_evaluation_report(
        self, metrics: Mapping[str, Any] | TrainMetrics, step: int, data: Any
    ) -> None:
        super()._on_evaluation_report(metrics, step, data)
        self.events.append(("evaluation report", metrics, step, data))

    def _on_step(self, step: int) -> None:
        super()._on_step(step)
        self.events.append(("step", step))

    def _on_rollouts(
        self, rollouts: Sequence[Rollout], step: int, phase: Literal["train", "eval"]
    ) -> None:
        super()._on_rollouts(rollouts, step, phase)
        self.events.append(("rollouts", [*rollouts], step, phase))

    def _on_checkpoint(self, path: str, step: int) -> None:
        super()._on_checkpoint(path, step)
        self.events.append(("checkpoint", path, step))

    def _on_evaluate_started(self, test_data: Any) -> None:
        super()._on_evaluate_started(test_data)
        self.events.append(("evaluating", test_data))

    async def _on_train_result(self, metrics: TrainMetrics) -> None:
        await super()._on_train_result(metrics)
        self.events.append(("trained", metrics))

    async def _on_evaluate_result(self, metrics: TrainMetrics, test_data: Any) -> None:
        await super()._on_evaluate_result(metrics, test_data)
        self.events.append(("evaluated", metrics, test_data))

    async def _on_error(self, phase: Phase, error: BaseException) -> None:
        await super()._on_error(phase, error)
        self.events.append(("error", phase, error))


class Watched(HookRecorder, Trainer):
    """A trainer with the integration, still abstract."""


class Recorder(Watched):
    """Leaves its state to the contract, and trains by running `body`."""

    def __init__(
        self,
        body: Callable[["Recorder"], Awaitable[Any]] | None = None,
        config: TrainConfig | None = None,
    ) -> None:
        super().__init__(config)
        self.body = body
        self.trained = TrainMetrics(loss=0.5, steps=10)
        self.evaluated = TrainMetrics(accuracy=0.75)

    def check_agent(self, agent: Any) -> None: ...

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None: ...

    def check_reward(self, reward_fn: Any = None) -> None: ...

    def check_config(self, config: Any = None) -> None: ...

    async def train(self) -> TrainMetrics:
        if self.body is not None:
            await self.body(self)
        return self.trained

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        return self.evaluated


def raising(error: BaseException) -> Callable[[Trainer], Coroutine[Any, Any, None]]:
    """A body of `train` that ends with `error`."""

    async def body(_: Trainer) -> None:
        raise error

    return body


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends, without an event loop to swallow its exception."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("the coroutine suspended")
