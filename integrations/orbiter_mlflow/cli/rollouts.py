"""`orbiter-mlflow rollouts`: read in the terminal what the agent said, in one run or in two.

Exit codes: 0 success, 1 failure, 2 wrong usage or no such run, step or reward.
"""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from orbiter_mlflow import names
from orbiter_mlflow.cli.options import opened_runs, store_errors, store_options
from orbiter_mlflow.runs.rollouts import (
    PromptPair,
    StoredRollout,
    pairs,
    ranked,
    rewards_of,
    rollouts_at,
    steps_of,
)
from orbiter_mlflow.text.escaping import plain
from orbiter_mlflow.text.shortening import without_middle
from orbiter_mlflow.text.suggestions import did_you_mean

if TYPE_CHECKING:
    from orbiter_mlflow.runs.model import StoredRun
    from orbiter_mlflow.runs.store import RunStore

_SHOWN = 600
"""Characters of a text that are shown: its first and last ones."""
_INDENT = "    "
_STEPS_NAMED = 8


@click.command()
@click.argument("run")
@click.argument("other", required=False)
@click.option("--step", type=int, help="Step of the rollouts.  [default: the last one]")
@click.option(
    "--phase", type=click.Choice([names.TRAIN, names.EVAL]), default=names.TRAIN, show_default=True
)
@click.option("--worst", type=click.IntRange(1), help="How many to show, lowest reward first.")
@click.option("--best", type=click.IntRange(1), help="How many to show, highest reward first.")
@click.option("--by", metavar="REWARD", help="The reward that counts.  [default: the sum of all]")
@click.option("--full", is_flag=True, help="Show long texts whole.")
@store_options("Where a run is looked up by its name.  [default: $MLFLOW_EXPERIMENT_NAME]")
def rollouts(
    run: str,
    other: str | None,
    step: int | None,
    phase: str,
    worst: int | None,
    best: int | None,
    by: str | None,
    full: bool,
    tracking_uri: str | None,
    experiment: str | None,
) -> None:
    """Show rollouts of RUN at a step: by default the 5 with the lowest reward.

    With a second run, show the prompts that both have at the step, side by side: the 5 whose mean
    reward fell most from RUN to OTHER, each with the worst completion of either. A run is given by
    its id, the start of its id, or its name in the experiment.
    """
    if worst is not None and best is not None:
        raise click.UsageError("--worst and --best exclude each other")
    with store_errors():
        texts = [run] if other is None else [run, other]
        store, found = opened_runs(tracking_uri, experiment, texts)
        tables = [steps_of(store, one.run_id, phase) for one in found]
        at = _step(found, tables, step, phase)
        read = [
            rollouts_at(store, one.run_id, paths[at])
            for one, paths in zip(found, tables, strict=True)
        ]
        _require_reward(read, by)
        for one, its_rollouts in zip(found, read, strict=True):
            click.echo(_headline(one, its_rollouts, phase, at))
        click.echo()
        count = best or worst or 5
        if other is None:
            lines = _of_one(_ordered(read[0], by, best is not None)[:count], full)
        else:
            before, after = read
            paired = _paired(before, after, by, at)
            lines = _of_two((paired[::-1] if best else paired)[:count], by, full, found)
        for line in lines:
            click.echo(line.encode() + b"\n", nl=False)
        _print_link(store, found[-1], phase, at)


def _paired(
    before: Sequence[StoredRollout], after: Sequence[StoredRollout], by: str | None, step: int
) -> list[PromptPair]:
    """The prompts of both runs; there is at least one."""
    found = pairs(before, after, by)
    if not found:
        reward = f" with the reward {by!r}" if by else ""
        raise click.ClickException(
            plain(f"the runs have no prompt in common at step {step}{reward}")
        )
    return found


def _step(
    runs: Sequence["StoredRun"],
    tables: Sequence[dict[int, list[str]]],
    wanted: int | None,
    phase: str,
) -> int:
    """The step to show: the one that was asked for, or the last that all runs have."""
    for one, steps in zip(runs, tables, strict=True):
        if not steps:
            raise click.UsageError(
                f"run {one.run_id} has no rollouts of phase {phase}: report them with "
                "trainer.report_rollouts, and deliver them (orbiter-mlflow sync)"
            )
    shared = sorted(set.intersection(*(set(steps) for steps in tables)))
    if wanted is None and shared:
        return shared[-1]
    if wanted in shared:
        return int(wanted)
    if not shared:
        raise click.UsageError("the runs have no step with rollouts in common")
    near = sorted(shared, key=lambda step: abs(step - (wanted or 0)))[:_STEPS_NAMED]
    raise click.UsageError(
        f"there are no rollouts at step {wanted}; the nearest are at "
        f"{', '.join(map(str, sorted(near)))}"
    )


def _require_reward(read: Sequence[Sequence[StoredRollout]], by: str | None) -> None:
    known = {name: name for one in read for rollout in one for name in rollout.rewards}
    if by is not None and by not in known:
        near = did_you_mean(by, known)
        there = near or f"; there are {', '.join(known) or 'none'}"
        raise click.UsageError(plain(f"no rollout has the reward {by!r}{there}"))


def _ordered(found: Sequence[StoredRollout], by: str | None, best: bool) -> Sequence[StoredRollout]:
    """The rollouts that have the reward, in order; all as they are where none has any."""
    return ranked(found, by)[:: -1 if best else 1] if by or rewards_of(found) else found


def _headline(run: "StoredRun", found: Sequence[StoredRollout], phase: str, step: int) -> str:
    means = ", ".join(f"{name} {mean:.4g}" for name, mean in rewards_of(found).items())
    mean = f", mean {means}" if means else ""
    name = run.name or run.run_id
    return plain(f"{name}: {len(found)} rollouts, {phase} step {step}{mean}")


def _of_one(found: Sequence[StoredRollout], full: bool) -> Iterator[str]:
    for one in found:
        yield plain(f"#{one.number}  {_facts(one)}")
        yield from _text("prompt", one.prompt, full)
        yield from _text("completion", one.completion, full)
        yield ""


def _of_two(
    found: Sequence[PromptPair], by: str | None, full: bool, runs: Sequence["StoredRun"]
) -> Iterator[str]:
    titles = [run.name or run.run_id for run in runs]
    for pair in found:
        before, after = pair.means(by)
        yield plain(f"{by or 'reward'} {before:.4g} -> {after:.4g} ({pair.change(by):+.4g})")
        yield from _text("prompt", pair.prompt, full)
        for title, group in zip(titles, (pair.before, pair.after), strict=True):
            title = f"{title}, the worst of {len(group)}: {_facts(group[0])}"
            yield from _text(title, group[0].completion, full)
        yield ""


def _facts(one: StoredRollout) -> str:
    facts = [f"{name} {value:.4g}" for name, value in one.rewards.items()]
    facts += [] if one.tokens is None else [f"{one.tokens:g} tokens"]
    return "  ".join(facts)


def _text(title: str, text: str, full: bool) -> Iterator[str]:
    yield plain(f"  {title}")
    if not full:
        text = without_middle(text, _SHOWN, "characters, --full shows them")
    for line in text.splitlines() or [""]:
        yield f"{_INDENT}{plain(line)}".rstrip()


def _print_link(store: "RunStore", run: "StoredRun", phase: str, step: int) -> None:
    from orbiter_mlflow.ui.links import traces_page
    from orbiter_mlflow.ui.pages import server_command, ui_address

    serve = server_command(store.shown_uri)
    if serve is not None:
        click.echo(f"Start the UI:\n  {serve}\n")
    base = ui_address(store.shown_uri)
    name = names.trace_name(phase, step)
    few = ", if it has some: short steps have fewer" if _short_of_traces(run) else ""
    page = traces_page(base, run.experiment_id, run.run_id, name)
    click.echo(f"Traces of the step{few}:\n  {page}")


def _short_of_traces(run: "StoredRun") -> bool:
    """Whether a life of the run had short steps, some of whose rollouts became no traces."""
    return any(
        _has_traces_left_out(text)
        for tag, text in run.tags.items()
        if names.is_of_any_life(tag, names.ROLLOUTS_LEFT_OUT)
    )


def _has_traces_left_out(text: str) -> bool:
    try:
        return bool(json.loads(text)["traces"])
    except (LookupError, TypeError, ValueError):
        return False
