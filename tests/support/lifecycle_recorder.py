"""A trainer that writes down what its hooks are told, for the tests of the lifecycle."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal

from orbiter.train import TrainConfig, Trainer, TrainerState, TrainMetrics

Event = tuple[Any, ...]


class Watched(Trainer):
    """Hooks only, as a mixin has them; `told` is there whatever `__init__` does."""

    @property
    def told(self) -> list[Event]:
        told: list[Event] = self.__dict__.setdefault("_told", [])
        return told

    def heard(self, *events: str) -> list[Event]:
        return [event for event in self.told if event[0] in events]

    def _on_check_passed(self, check: str, arguments: Mapping[str, Any]) -> None:
        super()._on_check_passed(check, arguments)
        self.told.append(("check", check, dict(arguments)))

    def _on_transition(self, before: TrainerState, after: TrainerState) -> None:
        super()._on_transition(before, after)
        self.told.append(("move", before, after))

    def _on_report(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        super()._on_report(metrics, step)
        self.told.append(("report", metrics, step))

    def _on_evaluation_report(
        self, metrics: Mapping[str, Any] | TrainMetrics, step: int, data: Any
    ) -> None:
        super()._on_evaluation_report(metrics, step, data)
        self.told.append(("evaluation report", metrics, step, data))

    def _on_step(self, step: int) -> None:
        super()._on_step(step)
        self.told.append(("step", step))

    def _on_evaluate_started(self, test_data: Any) -> None:
        super()._on_evaluate_started(test_data)
        self.told.append(("evaluating", test_data))

    async def _on_train_result(self, metrics: TrainMetrics) -> None:
        await super()._on_train_result(metrics)
        self.told.append(("trained", metrics))

    async def _on_evaluate_result(self, metrics: TrainMetrics, test_data: Any) -> None:
        await super()._on_evaluate_result(metrics, test_data)
        self.told.append(("evaluated", metrics, test_data))

    async def _on_error(self, phase: Literal["train", "evaluate"], error: BaseException) -> None:
        await super()._on_error(phase, error)
        self.told.append(("error", phase, error))


class Recorder(Watched):
    """Says nothing about its state, and trains by what is put in `body`."""

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
    """Run a coroutine that never suspends, with no event loop that would take in its exception."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("the coroutine suspended")
