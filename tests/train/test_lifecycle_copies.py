"""Copies of trainers: each gets its own `Runtime`, however it was made."""

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lifecycle_recorder import Recorder, run
from orbiter.train import TrainConfig, TrainerError, TrainerState
from orbiter.train import _runtime as runtime_module
from orbiter.train._runtime import Runtime, runtime_of


class Simple(Recorder):
    pass


class SharesItsDict(Recorder):
    """Returns its own `__dict__`, not a copy."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__


class Chooses(Recorder):
    """Pickles in a format of its own."""

    def __getstate__(self) -> dict[str, Any]:
        return {"kept": {**self.__dict__, "_events": []}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state["kept"])


class SetsAttributes(Recorder):
    """Restores one attribute after the other."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class Slotted(Recorder):
    __slots__ = ("_config", "_state", "weights")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.weights = [1, 2]


def pickled(trainer: Recorder) -> Recorder:
    body, trainer.body = trainer.body, None  # a local function cannot be pickled
    try:
        made = pickle.loads(pickle.dumps(trainer))
    finally:
        trainer.body = body
    assert isinstance(made, Recorder)
    return made


Way = Callable[[Recorder], Recorder]
WAYS: list[Way] = [copy.copy, copy.deepcopy, pickled]
KINDS: list[type[Recorder]] = [Simple, SharesItsDict, Chooses, Slotted]


def own_runtime(made: Recorder, trainer: Recorder) -> None:
    assert runtime_of(made) is not runtime_of(trainer)
    assert runtime_of(made) is runtime_of(made)
    assert runtime_of(made).attached == {}
    assert not runtime_of(made).training
    assert runtime_of(trainer).attached == {"run": "r1"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_a_validated_trainer_trains_on_its_own(kind: type[Recorder], way: Way) -> None:
    trainer = kind(None, TrainConfig(epochs=4))
    trainer.mark_validated()
    runtime_of(trainer).attached["run"] = "r1"
    made = way(trainer)
    own_runtime(made, trainer)
    assert type(made) is kind
    assert made.config.epochs == 4
    run(trainer.train())
    assert made.state is TrainerState.VALIDATED
    assert run(made.train()) == made.trained
    with pytest.raises(TrainerError, match="state=completed"):
        run(made.train())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_made_while_training_does_not_train(kind: type[Recorder], way: Way) -> None:
    copies: list[Recorder] = []

    async def body(trainer: Recorder) -> None:
        made = way(trainer)
        copies.append(made)
        own_runtime(made, trainer)
        assert made.state is TrainerState.TRAINING
        with pytest.raises(TrainerError):
            made._require_validated()
        with pytest.raises(TrainerError):
            await made.train()
        assert runtime_of(trainer).training
        trainer._require_validated()

    trainer = kind(body)
    trainer.mark_validated()
    runtime_of(trainer).attached["run"] = "r1"
    run(trainer.train())
    assert trainer.state is TrainerState.COMPLETED
    [made] = copies
    assert made.state is TrainerState.TRAINING
    assert run(made.evaluate()) == made.evaluated


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_a_trained_trainer_is_trained(kind: type[Recorder], way: Way) -> None:
    trainer = kind()
    trainer.mark_validated()
    run(trainer.train())
    runtime_of(trainer).attached["run"] = "r1"
    made = way(way(trainer))
    own_runtime(made, trainer)
    assert made.state is TrainerState.COMPLETED
    with pytest.raises(TrainerError):
        made._state = TrainerState.FAILED


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_made_attribute_by_attribute(way: Way) -> None:
    trainer = SetsAttributes()
    trainer.mark_validated()
    made = way(trainer)
    assert made.state is TrainerState.VALIDATED
    run(made.train())
    assert trainer.state is TrainerState.VALIDATED


def test_a_bound_method_pickles() -> None:
    trainer = Simple()
    trainer.mark_validated()
    train = pickle.loads(pickle.dumps(trainer.train))
    run(train())
    assert train.__self__.state is TrainerState.COMPLETED
    assert trainer.state is TrainerState.VALIDATED


def test_threads_that_race_for_a_copy_find_one_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Simple()
    runtime_of(trainer)
    made = copy.copy(trainer)
    both = threading.Barrier(2)

    class Late(Runtime):
        """Waits for the other thread to make one too, which must not happen."""

        def __init__(self, owner: object | None = None) -> None:
            super().__init__(owner)
            try:
                both.wait(0.2)
            except threading.BrokenBarrierError:
                return
            raise AssertionError("two threads made a runtime for one trainer")

    monkeypatch.setattr(runtime_module, "Runtime", Late)
    found: list[Runtime] = []
    threads = [threading.Thread(target=lambda: found.append(runtime_of(made))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 2
    assert found[0] is found[1]
