"""`orbiter-mlflow rollouts`: the worst of a step, and the same prompts in two runs."""

import re
from typing import Any

import pytest

from journals import done
from orbiter.train import Rollout
from orbiter_mlflow import names
from orbiter_mlflow.runs.rollouts import StoredRollout, pairs, steps_of
from trainers import stored, tracked, trained

HOSTILE = "::error::x\x1b[31m ##[error]z\rend"


def reported(uri: str, name: str, *reports: tuple[int, list[Rollout]], phase: Any = "train") -> str:
    """The id of a run with these rollouts."""
    trainer = tracked(
        uri, experiment="e", run_name=name, delivery="thread", skip_provenance=["git", "packages"]
    )
    trainer.mark_validated()
    for step, rollouts in reports:
        trainer.report_rollouts(rollouts, step=step, phase=phase)
    return str(stored(uri, trainer).info.run_id)


def said(prompt: str, completion: str, right: float, **more: Any) -> Rollout:
    return Rollout(prompt, completion, rewards={"right": right, "short": 1 - right / 2}, **more)


@pytest.fixture
def uri(sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "e")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # as `main` does
    return sqlite_uri


def test_the_worst_rollouts_of_a_step_come_first(uri: str) -> None:
    numbers = [said(f"{n} + {n}?", f"It is {2 * n}.", n / 10, tokens=n) for n in range(10)]
    run_id = reported(uri, "mine", (9, numbers), (100, numbers[:3]), (100, numbers[3:4]))

    code, output = done("rollouts", "mine", "--step", 9, "--worst", 2, "--by", "right")
    assert code == 0, output
    assert output.splitlines()[:14] == [
        "mine: 10 rollouts, train step 9, mean right 0.45, short 0.775",
        "",
        "#1  right 0  short 1  0 tokens",
        "  prompt",
        "    0 + 0?",
        "  completion",
        "    It is 0.",
        "",
        "#2  right 0.1  short 0.95  1 tokens",
        "  prompt",
        "    1 + 1?",
        "  completion",
        "    It is 2.",
        "",
    ]
    assert f"/runs/{run_id}/traces?filter=trace_name%3A%3A%3D%3A%3Atrain%2F000009%3A%3A" in output

    code, output = done("rollouts", run_id[:10], "--best", 1)
    assert output.startswith("mine: 4 rollouts, train step 100")  # both reports of the last step
    assert re.findall(r"^#\d+  right [\d.]+", output, re.MULTILINE) == ["#1  right 0.3"]

    for arguments, message in {
        ("mine", "--step", "50"): "no rollouts at step 50; the nearest are at 9, 100",
        ("mine", "--by", "rigth"): "no rollout has the reward 'rigth'; did you mean right?",
        ("mine", "--phase", "eval"): "has no rollouts of phase eval",
        ("other",): "other",
        ("mine", "--worst", "1", "--best", "1"): "exclude each other",
    }.items():
        code, output = done("rollouts", *arguments)
        assert code == 2
        assert message in output


def test_a_link_to_traces_says_that_short_steps_may_have_none(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORBITER_MLFLOW_TRACES_PER_MINUTE", "0.1")
    reports = [(step, [said("1?", "1", 1.0)] * 16) for step in range(9)]
    reported(uri, "short", *reports)
    _, output = done("rollouts", "short", "--step", 8)
    assert "Traces of the step, if it has some: short steps have fewer:" in output


async def test_a_link_to_traces_says_so_too_where_a_later_life_had_short_steps(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await trained(tracked(uri, experiment="e", run_name="resumed"))
    run_id = stored(uri, first).info.run_id
    monkeypatch.setenv("ORBITER_MLFLOW_TRACES_PER_MINUTE", "0.1")
    again = tracked(uri, experiment="e", run_id=run_id)
    again.mark_validated()
    for step in range(9):
        again.report_rollouts([said("1?", "1", 1.0)] * 16, step=step)
    tags = stored(uri, again).data.tags
    assert names.ROLLOUTS_LEFT_OUT not in tags
    assert names.in_life(names.ROLLOUTS_LEFT_OUT, 2) in tags
    code, output = done("rollouts", run_id)
    assert code == 0, output
    assert "Traces of the step, if it has some: short steps have fewer:" in output


def test_two_runs_are_compared_on_the_prompts_of_both(uri: str) -> None:
    before = [said("a", "good", 1.0), said("a", "bad", 0.0), said("b", "fine", 0.5)]
    after = [said("b", "worse", 0.25), said("a", "better", 1.0), said("c", "new", 0.0)]
    reported(uri, "before", (1, before), (2, before))
    reported(uri, "after", (2, after), (3, after))
    code, output = done("rollouts", "before", "after", "--by", "right")
    assert code == 0, output
    assert output.splitlines()[:16] == [
        "before: 3 rollouts, train step 2, mean right 0.5, short 0.75",
        "after: 3 rollouts, train step 2, mean right 0.4167, short 0.7917",
        "",
        "right 0.5 -> 0.25 (-0.25)",
        "  prompt",
        "    b",
        "  before, the worst of 1: right 0.5  short 0.75",
        "    fine",
        "  after, the worst of 1: right 0.25  short 0.875",
        "    worse",
        "",
        "right 0.5 -> 1 (+0.5)",
        "  prompt",
        "    a",
        "  before, the worst of 2: right 0  short 1",
        "    bad",
    ]
    reported(uri, "apart", (2, [said("z", "", 0.0)]), (9, [said("a", "", 0.0)]))
    assert "no prompt in common at step 2" in done("rollouts", "before", "apart")[1]
    reported(uri, "later", (77, after))
    assert "no step with rollouts in common" in done("rollouts", "before", "later")[1]


def test_what_an_agent_says_acts_on_no_terminal_and_long_texts_are_cut(uri: str) -> None:
    rollout = Rollout(HOSTILE, "first\n" + "x" * 2000 + "\nlast", rewards={HOSTILE: 1.0})
    reported(uri, "mine", (1, [rollout]), phase="eval")
    code, output = done("rollouts", "mine", "--phase", "eval")
    assert code == 0, output
    assert not re.search(r"::(?=\S)|##\[|[\x00-\x08\x0b-\x1f]", output.partition("Traces of")[0])
    assert "    first\n" in output
    assert "    ... (1411 characters, --full shows them) ...\n" in output
    assert "x" * 2000 in done("rollouts", "mine", "--phase", "eval", "--full")[1]


def test_pairs_put_the_largest_fall_first() -> None:
    def one(prompt: str, value: float) -> StoredRollout:
        return StoredRollout(1, prompt, "", {"r": value, "s": 1.0})

    found = pairs([one("a", 1), one("b", 1), one("c", 1)], [one("b", 0), one("a", 0.5)], "r")
    assert [(pair.prompt, pair.means("r"), pair.change(None)) for pair in found] == [
        ("b", (1.0, 0.0), -1.0),
        ("a", (1.0, 0.5), -0.5),
    ]


def test_a_rollout_without_the_reward_is_neither_worst_nor_best(uri: str) -> None:
    def rewarded(prompt: str, completion: str, **rewards: float) -> Rollout:
        return Rollout(prompt, completion, rewards=rewards)

    some = [rewarded("a", "none"), rewarded("a", "less", r=-2), rewarded("b", "more", r=-1)]
    reported(uri, "mine", (1, [*some, rewarded("b", "other", s=5)]))
    for way, shown in {"--worst": ["-2", "-1"], "--best": ["-1", "-2"]}.items():
        code, output = done("rollouts", "mine", way, "4", "--by", "r")
        assert code == 0, output
        assert re.findall(r"^#\d+  r (\S+)", output, re.MULTILINE) == shown
        assert "none" not in output
    other = [rewarded("a", "good", r=1), rewarded("b", "unrewarded")]
    reported(uri, "other", (1, other))
    code, output = done("rollouts", "mine", "other", "--by", "r")
    assert re.findall(r"^r .*", output, re.MULTILINE) == ["r -2 -> 1 (+3)"]
    reported(uri, "bare", (1, [rewarded("a", "nobody rewards")]))
    assert "nobody rewards" in done("rollouts", "bare")[1]


def test_a_step_that_two_lives_of_a_run_have_is_that_of_the_later_one() -> None:
    class Store:
        def artifacts(self, run_id: str, folder: str) -> list[str]:
            files = ("0.json", "300.json", "300.2.json", "300.2.life-3.json", "300.life-3.json")
            return [f"{folder}/step-{one}" for one in (*files, "300.life-2.json")]

    store: Any = Store()
    assert steps_of(store, "run", "eval") == {
        0: ["rollouts/eval/step-0.json"],
        300: ["rollouts/eval/step-300.life-3.json", "rollouts/eval/step-300.2.life-3.json"],
    }
