"""Read the rollouts of a run: which steps it has, those of a step, the same prompts of two runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orbiter_mlflow import names
from orbiter_mlflow.errors import StoreError
from orbiter_mlflow.text import artifact_paths

if TYPE_CHECKING:
    from orbiter_mlflow.runs.store import RunStore

__all__ = [
    "PromptPair",
    "StoredRollout",
    "pairs",
    "ranked",
    "rewards_of",
    "rollouts_at",
    "steps_of",
]

_MAX_BYTES = 256 << 20
"""A larger table is not read."""


@dataclass(frozen=True, slots=True)
class StoredRollout:
    """One row of a table of rollouts.

    Attributes:
        number: of the rollout in its report, from 1.
        prompt, completion: as people read them.
        rewards: those that are numbers, by name.
        tokens: of the completion; None where they are unknown.
    """

    number: int
    prompt: str
    completion: str
    rewards: Mapping[str, float]
    tokens: float | None = None

    def reward(self, by: str | None) -> float | None:
        """The reward of that name, without a name the sum of all; None where it is missing."""
        if by is not None:
            return self.rewards.get(by)
        return sum(self.rewards.values()) if self.rewards else None


@dataclass(frozen=True, slots=True)
class PromptPair:
    """The rollouts of two runs with the same prompt that have the reward, the lowest first."""

    prompt: str
    before: tuple[StoredRollout, ...]
    after: tuple[StoredRollout, ...]

    def means(self, by: str | None) -> tuple[float, float]:
        """The mean reward of either run."""
        return _mean(self.before, by), _mean(self.after, by)

    def change(self, by: str | None) -> float:
        """By how much the second run's mean reward is larger."""
        before, after = self.means(by)
        return after - before


def steps_of(store: "RunStore", run_id: str, phase: str) -> dict[int, list[str]]:
    """The paths of a run's tables by their step, in ascending order.

    Where a resumed run repeats a step, its latest life counts: the rollouts of the policy that the
    training goes on with.

    Raises:
        StoreError: the store cannot be read.
    """
    found: dict[int, list[tuple[tuple[int, int, int], str]]] = {}
    for path in store.artifacts(run_id, artifact_paths.rollouts_folder(phase)):
        parts = artifact_paths.step_file_parts(path.rpartition("/")[2])
        if parts is not None:
            found.setdefault(parts[0], []).append((parts, path))
    return {step: _of_last_life(found[step]) for step in sorted(found)}


def _of_last_life(tables: Sequence[tuple[tuple[int, int, int], str]]) -> list[str]:
    last = max(life for (_, _, life), _ in tables)
    return [path for (_, _, life), path in sorted(tables) if life == last]


def rollouts_at(store: "RunStore", run_id: str, paths: Iterable[str]) -> list[StoredRollout]:
    """The rollouts of tables, in their order.

    Raises:
        StoreError: a table cannot be read, or is none.
    """
    found: list[StoredRollout] = []
    for path in paths:
        content = store.artifact(run_id, path, max_bytes=_MAX_BYTES)
        try:
            table = json.loads(content or b"")
            rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
            found += map(_rollout, rows)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} of run {run_id} is no table of rollouts: {error}") from error
    return found


def rewards_of(rollouts: Iterable[StoredRollout]) -> dict[str, float]:
    """The mean of each reward."""
    values: dict[str, list[float]] = {}
    for one in rollouts:
        for name, value in one.rewards.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def pairs(
    before: Sequence[StoredRollout], after: Sequence[StoredRollout], by: str | None
) -> list[PromptPair]:
    """The prompts of both runs, the one whose mean reward fell most first.

    A prompt for which a run has no rollout with the reward is left out.
    """
    found = []
    groups = _by_prompt(before, by), _by_prompt(after, by)
    for prompt in groups[0]:
        if prompt in groups[1]:
            found.append(PromptPair(prompt, groups[0][prompt], groups[1][prompt]))
    return sorted(found, key=lambda pair: pair.change(by))


def ranked(rollouts: Iterable[StoredRollout], by: str | None) -> list[StoredRollout]:
    """The rollouts that have the reward, the lowest first."""
    found = [(reward, one) for one in rollouts if (reward := one.reward(by)) is not None]
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _by_prompt(
    rollouts: Sequence[StoredRollout], by: str | None
) -> dict[str, tuple[StoredRollout, ...]]:
    found: dict[str, list[StoredRollout]] = {}
    for one in ranked(rollouts, by):
        found.setdefault(one.prompt, []).append(one)
    return {prompt: tuple(group) for prompt, group in found.items()}


def _rollout(row: Mapping[str, Any]) -> StoredRollout:
    rewards = {
        names.reward_of(name): float(value)
        for name, value in row.items()
        if names.is_reward(name) and isinstance(value, int | float)
    }
    tokens = row.get(names.TOKENS)
    return StoredRollout(
        number=int(row[names.ROLLOUT]),
        prompt=str(row[names.PROMPT]),
        completion=str(row[names.COMPLETION]),
        rewards=rewards,
        tokens=tokens if isinstance(tokens, int | float) else None,
    )


def _mean(rollouts: Sequence[StoredRollout], by: str | None) -> float:
    return sum(one.reward(by) or 0.0 for one in rollouts) / len(rollouts)
