"""`orbiter-mlflow check` and `bless`: judge runs by a policy, make runs the baseline.

Exit codes of `check`: 0 pass or warn, 1 regression, 2 used wrongly or a wrong policy, 3 could not
compare, 4 inconclusive where the policy calls that a failure.
"""

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orbiter_mlflow import names
from orbiter_mlflow.cli.options import console, store_settings, unforeseen, with_options
from orbiter_mlflow.gate.options import JUDGING, STORE, TRACKING_URI, Option
from orbiter_mlflow.text.escaping import plain

if TYPE_CHECKING:
    from orbiter_mlflow.gate.model import GateReport


@click.command()
@click.argument("policy", type=click.Path(path_type=Path))
@click.argument("more", nargs=-1, metavar="")
@click.option(
    "--candidate",
    "candidates",
    multiple=True,
    metavar="RUN_OR_FILTER...",
    help="Runs to judge: ids, starts of ids, names, or filters such as \"tags.commit = '3f2a'\".",
)
@with_options(*STORE, *JUDGING)
def check(
    policy: Path,
    more: tuple[str, ...],
    candidates: tuple[str, ...],
    tracking_uri: str | None,
    experiment: str | None,
    bootstrap: bool,
    baseline_ref: str | None,
    **files: Path | None,
) -> None:
    """Judge runs by a policy file, against its baseline.

    Exit code: 0 pass or warn, 1 regression, 2 wrong use or policy, 3 could not compare,
    4 inconclusive where the policy says that this fails.
    """
    from orbiter_mlflow.errors import FilterError, PolicyError, ReportFileError
    from orbiter_mlflow.gate.check import Question, answer, refused
    from orbiter_mlflow.gate.policy import load_policy
    from orbiter_mlflow.gate.reports.files import require_writable

    wanted = {kind: path for kind, path in files.items() if path is not None}
    texts = [*candidates, *more]
    if not all(text.strip() for text in texts) or not texts:
        what = "one of the candidates is empty" if texts else "there is no candidate"
        raise click.UsageError(f"{what}: name the runs to judge with --candidate")
    try:
        loaded = load_policy(policy)
        read = [policy, policy.parent / (loaded.baseline.file or policy.name)]
        require_writable(wanted, read=read)
        question = Question(
            policy=loaded,
            candidates=texts,
            settings=store_settings(tracking_uri, experiment),
            bootstrap=bootstrap,
            baseline_ref=baseline_ref,
            policy_file=policy,
        )
    except (PolicyError, ReportFileError) as error:
        raise click.UsageError(plain(str(error))) from error
    try:
        report = answer(question)
    except (PolicyError, FilterError) as error:
        raise click.UsageError(plain(str(error))) from error
    except Exception as error:
        # A fault of ours is no reason to let a change through, nor to keep quiet about it.
        report = refused(question, f"the gate itself failed: {unforeseen(error)}")
    sys.exit(_given_out(report, wanted))


def _given_out(report: "GateReport", files: Mapping[str, Path]) -> int:
    """Write all reports and show the table; the exit code.

    The files first, each whatever becomes of the others: a full disk or a closed pipe turns no
    regression into anything else, and a pass that could not be told into a failure.
    """
    from orbiter_mlflow.gate.reports import terminal
    from orbiter_mlflow.gate.reports.files import render, write

    code = report.outcome.exit_code
    for kind, path in files.items():
        try:
            write(path, render(report, [kind])[kind])
        except Exception as error:
            click.echo(f"orbiter-mlflow: --{kind} {path} was not written: {error}", err=True)
            code = code or 2
    # rich exits with 1 where the reader of a pipe is gone: `check ... | head`.
    with suppress(OSError, SystemExit):
        console().print(terminal(report))
    return code


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN_OR_FILTER...")
@click.option("--reason", required=True, help="Why: for those who ask later.")
@click.option(
    "--name",
    help="Of the baseline: the value of the tag `baseline`, as a policy's filter has it.  "
    "[default: main]",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write them there, as JSON to review and commit, in place of tagging them.",
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    help="Only these metrics are needed, at the points and with the fields that it names.",
)
@with_options(
    TRACKING_URI,
    Option(
        "experiment",
        "Where names and filters are looked up.  [default: $MLFLOW_EXPERIMENT_NAME, else Default]",
    ),
)
def bless(
    runs: tuple[str, ...],
    reason: str,
    name: str | None,
    file: Path | None,
    policy: Path | None,
    tracking_uri: str | None,
    experiment: str | None,
) -> None:
    """Make runs the baseline.

    They must be FINISHED and whole, on the same data, without NaN. To do it twice changes nothing.
    """
    from orbiter_mlflow.errors import (
        BlessError,
        CannotCompareError,
        FilterError,
        PolicyError,
        StoreError,
    )
    from orbiter_mlflow.gate.bless import Order, carry_out
    from orbiter_mlflow.gate.policy import load_policy

    if not reason.strip():
        raise click.UsageError("--reason is empty: say why these runs are the baseline")
    if name is not None and file is not None:
        raise click.UsageError("--name is for tags, --file for a file: leave one out")
    if name is not None and not re.fullmatch(r"[\w./-]+", name):
        raise click.UsageError(f"--name {name!r}: take letters, digits, and any of . _ / -")
    try:
        order = Order(
            runs=runs,
            reason=reason,
            name=name or names.BASELINE_NAME,
            file=file,
            policy=None if policy is None else load_policy(policy),
            settings=store_settings(tracking_uri, experiment),
        )
        lines = carry_out(order)
    except (PolicyError, FilterError) as error:
        raise click.UsageError(plain(str(error))) from error
    except (BlessError, CannotCompareError, StoreError, OSError) as error:
        lines = str(error).splitlines()
        raise click.ClickException("\n".join(map(plain, lines))) from error
    for line in lines:
        click.echo(plain(line))
