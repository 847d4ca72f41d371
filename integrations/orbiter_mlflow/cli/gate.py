"""`orbiter-mlflow check` and `bless`: judge runs by a policy, and make runs the baseline.

Exit codes of `check`: 0 pass or warn, 1 regression, 2 wrong usage or policy, 3 cannot compare,
4 inconclusive if the policy makes that a failure.
"""

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

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
    **files: Path | None,
) -> None:
    """Judge runs by a policy file, against its baseline.

    Exit code: 0 pass or warn, 1 regression, 2 wrong usage or policy, 3 cannot compare,
    4 inconclusive if the policy makes that a failure.
    """
    from orbiter_mlflow.errors import FilterError, PolicyError, ReportFileError
    from orbiter_mlflow.gate.check import CheckRequest, cannot_compare, run_check
    from orbiter_mlflow.gate.policy import load_policy
    from orbiter_mlflow.gate.reports.formats import require_writable

    reports = {name: path for name, path in files.items() if path is not None}
    texts = [*candidates, *more]
    if not all(text.strip() for text in texts) or not texts:
        what = "one of the candidates is empty" if texts else "there is no candidate"
        raise click.UsageError(f"{what}: name the runs to judge with --candidate")
    try:
        loaded = load_policy(policy)
        inputs = [policy, policy.parent / (loaded.baseline.file or policy.name)]
        require_writable(reports, inputs=inputs)
        request = CheckRequest(
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
        report = run_check(request)
    except (PolicyError, FilterError) as error:
        raise click.UsageError(plain(str(error))) from error
    except Exception as error:
        # A bug in the gate must not let a change through, and must be reported.
        report = cannot_compare(request, f"the gate itself failed: {unexpected_error(error)}")
    sys.exit(_publish(report, reports))


def _publish(report: "GateReport", files: Mapping[str, Path]) -> int:
    """Write all report files and print the report; returns the exit code.

    Each file is written even if another one fails. A full disk or a closed pipe never changes a
    regression, and turns a pass into a failure if its report could not be written.
    """
    from orbiter_mlflow.gate.reports import terminal
    from orbiter_mlflow.gate.reports.formats import render, write

    code = report.outcome.exit_code
    for name, path in files.items():
        try:
            write(path, render(report, name))
        except Exception as error:
            click.echo(f"orbiter-mlflow: --{name} {path} was not written: {error}", err=True)
            code = code or 2
    # rich exits with 1 if the reader of a pipe has gone: `check ... | head`.
    with suppress(OSError, SystemExit):
        console().print(terminal.renderable(report))
    return code


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
