"""Rollouts of GRPO: what TRL gives to the reward functions, and what they return."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orbiter.train.rollouts import Rollout
from orbiter.train.trl.rewards import NOT_OF_A_ROW, Reward

__all__ = ["RolloutCollector"]

_NO_EXTRA = NOT_OF_A_ROW | {"prompts", "completions"}


class RolloutCollector:
    """Reports the completions of a step when all reward functions have been called with them.

    In a distributed training these are the completions of rank 0. Those of a training are reported
    for the steps whose metrics TRL logs, those of an evaluation always.

    Args:
        report: `report_rollouts` of a trainer.
        every: steps from one log to the next.

    Attributes:
        model: the model; it is in evaluation mode during an evaluation.
    """

    def __init__(self, report: Callable[..., None], every: int) -> None:
        self._report, self._every = report, every
        self._functions: frozenset[str] = frozenset()
        self._returned: dict[str, Sequence[Any]] = {}
        self.model: Any = None

    def watched(self, rewards: Iterable[Reward]) -> list[Any]:
        """The rewards as TRL gets them; models are not watched."""
        found = list(rewards)
        self._functions = frozenset(one.name for one in found if one.is_function)
        return [self._watched(one) if one.is_function else one.given for one in found]

    def _watched(self, reward: Reward) -> Callable[..., Any]:
        function = reward.given
        if reward.is_async:

            async def watched_async(**given: Any) -> Any:
                returned = await function(**given)
                return self._collected(reward.name, given, returned)

            watched_async.__name__ = reward.name  # TRL reports it by this name
            return watched_async

        def watched(**given: Any) -> Any:
            return self._collected(reward.name, given, function(**given))

        watched.__name__ = reward.name
        return watched

    def _collected(self, name: str, given: Mapping[str, Any], returned: Any) -> Any:
        values = self._returned[name] = list(returned)
        if self._returned.keys() == self._functions:
            rewards, self._returned = self._returned, {}
            self._step_ended(given, rewards)
        return values

    def _step_ended(self, given: Mapping[str, Any], rewards: Mapping[str, Sequence[Any]]) -> None:
        state = given["trainer_state"]
        if not state.is_world_process_zero:
            return
        rollouts = functools.partial(_rollouts, given, rewards)
        if not self.model.training:
            self._report(rollouts(), step=state.global_step, phase="eval")
        elif (state.global_step + 1) % self._every == 0:  # TRL samples before the step is counted
            self._report(rollouts(), step=state.global_step + 1)


def _rollouts(given: Mapping[str, Any], rewards: Mapping[str, Sequence[Any]]) -> list[Rollout]:
    columns = {key: values for key, values in given.items() if key not in _NO_EXTRA}
    found = []
    for at, completion in enumerate(given["completions"]):
        prompt = given["prompts"][at]
        by_name = {
            name: float(values[at])
            for name, values in rewards.items()
            if at < len(values) and values[at] is not None
        }
        found.append(
            Rollout(
                prompt=prompt if isinstance(prompt, str) else "",
                messages=() if isinstance(prompt, str) else prompt,
                completion=completion,
                rewards=by_name,
                tokens=len(given["completion_ids"][at]),
                extra={key: values[at] for key, values in columns.items()},
            )
        )
    return found
