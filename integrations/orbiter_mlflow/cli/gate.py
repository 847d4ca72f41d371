"""`orbiter-mlflow check` and `bless`: judge runs by a policy, and make runs the baseline.

Exit codes of `check`: 0 pass or warn, 1 regression, 2 wrong usage or policy, 3 cannot compare,
4 inconclusive if the policy makes that a failure.
"""

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orbiter_mlflow import names
from orbiter_mlflow.cli.options import (
    console,
    store_options,
    store_settings,
    unexpected_error,
    with_options,
)
from orbiter_mlflow.gate.options import JUDGING, STORE
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
    accept_policy_change: bool,
    **files: Path | None,
) -> None:
    """Judge runs by a policy file, against its baseline.

    Exit code: 0 pass or warn, 1 regression, 2 wrong usage or policy, 3 cannot compare,
    4 inconclusive if the policy makes that a failure.
    """
    texts = [*candidates, *more]
    if not all(text.strip() for text in texts) or not texts:
        what = "one of the candidates is empty" if texts else "there is no candidate"
        raise click.UsageError(f"{what}: name the runs to judge with --candidate")
    if accept_policy_change and baseline_ref is None:
        raise click.UsageError("--accept-policy-change needs --baseline-ref, whose policy it skips")
    reports = {name: path for name, path in files.items() if path is not None}
    writable: dict[str, Path] = {}
    try:
        report = _judge(
            policy,
            reports,
            writable,
            candidates=texts,
            settings=store_settings(tracking_uri, experiment),
            bootstrap=bootstrap,
            baseline_ref=baseline_ref,
            accept_policy_change=accept_policy_change,
        )
    except (click.ClickException, click.Abort, KeyboardInterrupt):
        raise
    except BaseException as error:  # libraries raise SystemExit, and panics of Rust
        report = _failed(policy, error)
    sys.exit(_publish(report, writable))


def _judge(
    policy: Path, reports: Mapping[str, Path], writable: dict[str, Path], **fields: Any
) -> "GateReport":
    """Judge by the policy in this file.

    Args:
        writable: gets the reports as soon as it is known that none replaces an input.
        fields: of `CheckRequest`.
    """
    from orbiter_mlflow.errors import FilterError, PolicyError, ReportFileError
    from orbiter_mlflow.gate.check import CheckRequest, run_check
    from orbiter_mlflow.gate.policy import load_policy
    from orbiter_mlflow.gate.reports.formats import require_writable

    try:
        loaded = load_policy(policy)
        inputs = [policy, policy.parent / (loaded.baseline.file or policy.name)]
        require_writable(reports, inputs=inputs)
        writable |= reports
        return run_check(CheckRequest(policy=loaded, policy_file=policy, **fields))
    except (PolicyError, FilterError, ReportFileError) as error:
        raise click.UsageError(plain(str(error))) from error


def _failed(policy: Path, error: BaseException) -> "GateReport":
    """The report if the gate itself failed: a bug must let no change through, and be reported."""
    from orbiter_mlflow.gate.check import without_policy

    return without_policy(str(policy), f"the gate itself failed: {unexpected_error(error)}")


def _publish(report: "GateReport", files: Mapping[str, Path]) -> int:
    """Write all report files and print the report; returns the exit code.

    Each file is written even if another one fails. A full disk or a closed pipe never changes a
    regression, and turns a pass into a failure if its report could not be written.
    """
    from orbiter_mlflow.gate.reports.formats import render, write

    code = report.outcome.exit_code
    for name, path in files.items():
        try:
            write(path, render(report, name))
        except Exception as error:
            reason = str(error) if isinstance(error, OSError) else unexpected_error(error)
            failure = f"orbiter-mlflow: --{name} {path} was not written: {reason}"
            with suppress(OSError):
                click.echo(plain(failure), err=True)
            code = code or (2 if isinstance(error, OSError) else 3)
    try:
        _print(report)
    except Exception as error:
        headline = f"{report.outcome.value}; not printed: {unexpected_error(error)}"
        with suppress(OSError):
            click.echo(plain(f"orbiter-mlflow: {headline}"), err=True)
        code = code or 3
    return code


def _print(report: "GateReport") -> None:
    from orbiter_mlflow.gate.reports import terminal

    # rich exits with 1 if the reader of a pipe has gone: `check ... | head`.
    with suppress(OSError, SystemExit):
        console().print(terminal.renderable(report))


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN_OR_FILTER...")
@click.option("--reason", required=True, help="Why these runs are the baseline.")
@click.option(
    "--name",
    help="The baseline's name: the value of the tag `baseline`, for a policy's filter.  "
    "[default: main]",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the runs to this file, as JSON to review and commit, instead of tagging them.",
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    help="The runs need only the metrics, points and fields of this policy, and may be worse than "
    "the present baseline only by what it tolerates.",
)
@click.option(
    "--accept-lower",
    multiple=True,
    metavar="METRIC",
    help="Let this metric be worse than the policy tolerates; may be given several times.",
)
@store_options(
    "Where names and filters are looked up.  [default: $MLFLOW_EXPERIMENT_NAME, else Default]"
)
def bless(
    runs: tuple[str, ...],
    reason: str,
    name: str | None,
    file: Path | None,
    policy: Path | None,
    accept_lower: tuple[str, ...],
    tracking_uri: str | None,
    experiment: str | None,
) -> None:
    """Make runs the baseline.

    The runs of one call are the baseline together, and replace the one before. They must be
    FINISHED and complete, on the same data, without NaN. Blessing twice changes nothing.
    """
    from orbiter_mlflow.errors import (
        BlessError,
        CannotCompareError,
        FilterError,
        PolicyError,
        StoreError,
    )
    from orbiter_mlflow.gate.bless import BlessRequest, bless_runs
    from orbiter_mlflow.gate.policy import load_policy

    if not reason.strip():
        raise click.UsageError("--reason is empty: say why these runs are the baseline")
    if name is not None and file is not None:
        raise click.UsageError("--name is for tags, --file for a file: use one of them")
    if accept_lower and policy is None:
        raise click.UsageError("--accept-lower needs --policy, which says what is tolerated")
    if name is not None and not re.fullmatch(r"[\w./-]+", name):
        raise click.UsageError(f"--name {name!r}: use letters, digits, and . _ / -")
    try:
        request = BlessRequest(
            runs=runs,
            reason=reason,
            name=name or names.BASELINE_NAME,
            file=file,
            policy=None if policy is None else load_policy(policy),
            settings=store_settings(tracking_uri, experiment),
            accept_lower=accept_lower,
        )
        lines = bless_runs(request)
    except (PolicyError, FilterError) as error:
        raise click.UsageError(plain(str(error))) from error
    except (BlessError, CannotCompareError, StoreError, OSError) as error:
        lines = str(error).splitlines()
        raise click.ClickException("\n".join(map(plain, lines))) from error
    for line in lines:
        click.echo(plain(line))
