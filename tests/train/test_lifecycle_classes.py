"""Classes that may be trainers, existing backends among them, and classes that are refused."""

import inspect
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from unittest import mock

import pytest

from lifecycle_recorder import Recorder, Watched, run
from orbiter.train import TrainConfig, Trainer, TrainerError, TrainerState, TrainMetrics

METHODS = ("check_agent", "check_dataset", "check_reward", "check_config", "train", "evaluate")


# -- existing backends -----------------------------------------------------------------------------


class Legacy(Trainer):
    """A backend written for the contract before it was enforced."""

    __slots__ = ("_agent", "_config", "_rewards", "_runtime", "_state", "_test", "_train")

    def __init__(self, agent: str, *rewards: float, seed: int = 0) -> None:
        self._agent = agent
        self._rewards = rewards
        self._runtime = "vllm"

    def check_agent(self, agent: Any) -> None:
        if not agent:
            raise TrainerError("agent is required")
        self._agent = agent

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None:
        self._train, self._test = train_data, test_data

    def check_reward(self, reward_fn: Any = None) -> None: ...

    def check_config(self, config: Any = None) -> None:
        self._config = config or TrainConfig(epochs=2)

    async def train(self) -> TrainMetrics:
        self._require_validated()
        self._state = TrainerState.TRAINING
        try:
            if not self._rewards:
                raise ValueError("no rewards")
            before = await self.evaluate(self._test)
            metrics = TrainMetrics(loss=before.loss / 2, steps=self._config.epochs)
        except Exception as error:
            self._state = TrainerState.FAILED
            raise TrainerError(f"training failed: {error}") from error
        self._state = TrainerState.COMPLETED
        return metrics

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        return TrainMetrics(loss=sum(self._rewards), extra={"on": test_data})


class TrackedLegacy(Watched, Legacy):
    pass


def checked(trainer: Legacy) -> Legacy:
    trainer.check_agent("agent")
    trainer.check_dataset([1, 2], [3])
    trainer.check_reward()
    trainer.check_config(TrainConfig(epochs=5))
    trainer.mark_validated()
    return trainer


@pytest.mark.parametrize("kind", [Legacy, TrackedLegacy])
async def test_a_legacy_backend_runs_unchanged(kind: type[Legacy]) -> None:
    trainer = kind("policy", 1.0, 2.0, seed=3)
    assert trainer.config == TrainConfig()
    assert (await trainer.evaluate("fresh")).extra == {"on": "fresh"}
    checked(trainer)
    assert trainer.config.epochs == 5
    assert await trainer.train() == TrainMetrics(loss=1.5, steps=5)
    assert trainer.state is TrainerState.COMPLETED
    assert await trainer.evaluate() == TrainMetrics(loss=3.0, extra={"on": None})
    kept: Any = trainer._runtime
    assert kept == "vllm"
    with pytest.raises(TrainerError):
        await trainer.train()


async def test_the_hooks_of_a_legacy_backend_are_called() -> None:
    trainer = TrackedLegacy("policy", 1.0)
    await checked(trainer).train()
    metrics = TrainMetrics(loss=1.0, extra={"on": [3]})
    assert trainer.events == [
        ("check", "check_agent", {"agent": "agent"}),
        ("check", "check_dataset", {"train_data": [1, 2], "test_data": [3]}),
        ("check", "check_reward", {}),
        ("check", "check_config", {"config": TrainConfig(epochs=5)}),
        ("move", TrainerState.CREATED, TrainerState.VALIDATED),
        ("move", TrainerState.VALIDATED, TrainerState.TRAINING),
        ("evaluating", [3]),
        ("evaluated", metrics, [3]),
        ("move", TrainerState.TRAINING, TrainerState.COMPLETED),
        ("trained", TrainMetrics(loss=0.5, steps=5)),
    ]


async def test_a_legacy_backend_that_fails() -> None:
    trainer = TrackedLegacy("policy")
    with pytest.raises(TrainerError, match="agent is required"):
        trainer.check_agent(None)
    assert trainer.events == []
    checked(trainer)
    with pytest.raises(TrainerError, match=r"^training failed: no rewards$") as caught:
        await trainer.train()
    assert isinstance(caught.value.__cause__, ValueError)
    assert trainer.state is TrainerState.FAILED
    assert trainer.events_of("error", "trained") == [("error", "train", caught.value)]


async def test_a_legacy_backend_used_in_the_wrong_order() -> None:
    trainer = TrackedLegacy("policy", 1.0)
    says = r"^Trainer must be validated before training \(state=created\)$"
    with pytest.raises(TrainerError, match=says):
        await trainer.train()
    assert trainer.events == []


@dataclass
class AsDataclass(Recorder):
    agent: str = "policy"
    seeds: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        Recorder.__init__(self)


@dataclass(slots=True, eq=True)
class AsSlottedDataclass(Recorder):
    agent: str = "policy"

    def __post_init__(self) -> None:
        Recorder.__init__(self)

    async def train(self) -> TrainMetrics:
        self._require_validated()
        return self.trained


Item = TypeVar("Item")


class AsGeneric(Recorder, Generic[Item]):
    def check_agent(self, agent: Item) -> None: ...


class Unorderly(Recorder):
    """Compares equal to everything, has no hash and no truth."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True

    def __bool__(self) -> bool:
        raise ValueError("no truth")

    async def train(self) -> TrainMetrics:
        return await super().train()


class HidesState(Recorder):
    """Defines a `state` of its own, which the contract ignores."""

    @property
    def state(self) -> Any:
        return {"weights": []}


@pytest.mark.parametrize(
    "kind",
    [
        AsDataclass,
        AsSlottedDataclass,
        AsGeneric[int],
        Unorderly,
        HidesState,
        type("Made", (Recorder,), {}),
        type("Made", (AsSlottedDataclass,), {"train": Recorder.train}),
    ],
)
def test_every_way_to_make_a_class_makes_a_trainer(kind: Callable[[], Recorder]) -> None:
    trainer = kind()
    with pytest.raises(TrainerError):
        run(trainer.train())
    trainer.check_agent(1)
    trainer.mark_validated()
    with pytest.raises(TrainerError):
        trainer.check_agent(1)
    assert run(trainer.train()) is trainer.trained
    assert trainer._state is TrainerState.COMPLETED
    assert [event[0] for event in trainer.events] == ["check", "move", "move", "move", "trained"]


def test_the_signature_of_a_trainer_is_that_of_its_init() -> None:
    class Simple(Watched):
        pass

    assert list(inspect.signature(Simple).parameters) == ["config"]
    assert list(inspect.signature(Legacy).parameters) == ["agent", "rewards", "seed"]
    assert list(inspect.signature(Legacy.check_dataset).parameters)[1:] == [
        "train_data",
        "test_data",
    ]
    assert inspect.iscoroutinefunction(Legacy.train)


def test_calling_init_again_does_not_reset_the_state() -> None:
    trainer = Recorder()
    trainer.mark_validated()
    trainer.__init__(config=TrainConfig(epochs=9))  # type: ignore[misc]
    assert trainer.state is TrainerState.VALIDATED
    assert trainer.config.epochs == 9


# -- bases and mixins ------------------------------------------------------------------------------


class Plain:
    """The six methods in a class that does not derive from Trainer."""

    log: list[str]

    def check_agent(self, agent: Any) -> None: ...

    def check_dataset(self, train_data: Any, test_data: Any = None) -> None: ...

    def check_reward(self, reward_fn: Any = None) -> None: ...

    def check_config(self, config: Any = None) -> None: ...

    async def train(self) -> TrainMetrics:
        return TrainMetrics(steps=1)

    async def evaluate(self, test_data: Any = None) -> TrainMetrics:
        return TrainMetrics(steps=0)


async def test_methods_of_a_plain_mixin_are_enforced() -> None:
    class Mixed(Plain, Watched):
        pass

    trainer = Mixed()
    with pytest.raises(TrainerError):
        await trainer.train()
    trainer.check_agent("a")
    trainer.mark_validated()
    with pytest.raises(TrainerError):
        trainer.check_agent("a")
    await trainer.train()
    assert [event[0] for event in trainer.events] == ["check", "move", "move", "move", "trained"]
    assert "check_agent" in vars(Mixed)
    assert run(Plain().train()) == TrainMetrics(steps=1)  # the mixin itself is left as it was


def test_a_plain_mixin_behind_the_trainer_does_not_fill_in_its_methods() -> None:
    class Mixed(Watched, Plain):
        pass

    assert Mixed.__abstractmethods__ == set(METHODS)
    with pytest.raises(TypeError, match="abstract"):
        Mixed()  # type: ignore[abstract]


@pytest.mark.parametrize("first", [True, False])
async def test_a_plain_mixin_around_a_backend(first: bool) -> None:
    class Timed:
        timed = 0

        async def train(self) -> TrainMetrics:
            self.timed += 1
            result: TrainMetrics = await super().train()  # type: ignore[misc]
            return result

    kind: Any = type("Mixed", (Timed, Recorder) if first else (Recorder, Timed), {})
    trainer = kind()
    with pytest.raises(TrainerError):
        await trainer.train()
    assert trainer.timed == 0
    trainer.mark_validated()
    await trainer.train()
    assert trainer.timed == (1 if first else 0)
    assert [event[0] for event in trainer.events] == ["move", "move", "move", "trained"]


def test_abstract_classes_in_between_may_leave_methods_out() -> None:
    class Between(Watched):
        @abstractmethod
        async def train(self) -> TrainMetrics: ...

        @abstractmethod
        def rollout(self) -> int: ...

    class Full(Plain, Between):
        def rollout(self) -> int:
            return 1

    assert Between.__abstractmethods__ == {*METHODS, "rollout"}
    with pytest.raises(TypeError, match="abstract"):
        Between()  # type: ignore[abstract]
    trainer = Full()
    trainer.mark_validated()
    assert run(trainer.train()) == TrainMetrics(steps=1)
    assert trainer.state is TrainerState.COMPLETED


def test_an_abstract_method_with_a_body_may_be_built_upon() -> None:
    class Between(Recorder):
        @abstractmethod
        async def train(self) -> TrainMetrics:
            return TrainMetrics(steps=7)

    class Full(Between):
        async def train(self) -> TrainMetrics:
            return await super().train()

    trainer = Full()
    trainer.mark_validated()
    assert run(trainer.train()) == TrainMetrics(steps=7)
    assert [event[0] for event in trainer.events] == ["move", "move", "move", "trained"]


@pytest.mark.parametrize("where", ["a base", "a plain mixin"])
def test_a_class_whose_init_subclass_forgets_super_is_enforced(where: str) -> None:
    known: list[type] = []

    class Registry:
        def __init_subclass__(cls) -> None:
            known.append(cls)

    base: Any = type("Base", (Recorder,), {"__init_subclass__": Registry.__init_subclass__})
    bases = (base,) if where == "a base" else (Registry, Recorder)

    async def train(self: Recorder) -> TrainMetrics:
        return self.trained

    kind: Any = type("Hidden", bases, {"train": train})
    assert known
    trainer = kind()
    with pytest.raises(TrainerError):
        run(trainer.train())
    trainer.mark_validated()
    run(trainer.train())
    assert trainer.state is TrainerState.COMPLETED
    assert len(trainer.events_of("trained")) == 1


async def test_a_users_test_may_patch_a_method_with_a_mock() -> None:
    with mock.patch.object(Recorder, "evaluate", mock.AsyncMock(return_value=TrainMetrics(0.5))):
        assert (await Recorder().evaluate()).loss == 0.5
    assert (await Recorder().evaluate()).loss != 0.5
