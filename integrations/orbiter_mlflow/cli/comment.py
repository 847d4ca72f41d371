"""`orbiter-mlflow comment`: put a report of the gate on a pull request.

The comment of a policy is updated, not repeated. Where GitHub does not take it, as for a pull
request from a fork, the report goes into the job's summary, and the build does not fail for it.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orbiter_mlflow.text.escaping import plain

if TYPE_CHECKING:
    from orbiter_mlflow.cli.github import Workflow

_MAX_FILE = 1_000_000
"""Bytes of a report; those of `check` are below a tenth of it."""
_CUT = "\n\n_... cut for length: see the other reports of the job_\n"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--github",
    is_flag=True,
    required=True,
    help="Comment on the pull request of this GitHub workflow, with the token $GITHUB_TOKEN.",
)
def comment(file: Path, github: bool) -> None:
    """Put the report FILE of `check --markdown FILE` on the pull request.

    One comment for each policy, which the next run updates. Without a pull request or a token that
    may write, the report goes into the job's summary. Exit code 0 in both cases.
    """
    from orbiter_mlflow.cli.github import MAX_COMMENT, Workflow, publish
    from orbiter_mlflow.errors import GitHubError

    report = _report(file)
    try:
        workflow = Workflow.from_environment(os.environ)
    except GitHubError as error:
        raise click.UsageError(plain(str(error))) from error
    end = _end(workflow)
    if len(report) + len(end) > MAX_COMMENT:
        end = _CUT + end
        report = report[: MAX_COMMENT - len(end)].rpartition("\n")[0]
    reason = _obstacle(workflow)
    if not reason:
        try:
            address, updated = publish(workflow, report + end)
        except GitHubError as error:
            reason = f"{error}{_hint(workflow, error.status)}"
        else:
            click.echo(plain(f"{'updated' if updated else 'posted'} the comment {address}"))
            return
    _summarize(workflow, report + end, reason)


def _report(file: Path) -> str:
    """The text of the report.

    Raises:
        click.UsageError: it cannot be read, or is no report, whose comment would be found again.
    """
    from orbiter_mlflow.gate.reports.markdown import MARKER

    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_FILE).decode("utf-8", "replace").replace("\r\n", "\n")
    except (OSError, ValueError) as error:  # ValueError: a name with NUL
        raise click.UsageError(plain(f"{file} cannot be read: {error}")) from error
    if not MARKER.fullmatch(text.partition("\n")[0]):
        raise click.UsageError(
            plain(f"{file} is not a report: write it with `orbiter-mlflow check ... --markdown`")
        )
    return text


def _obstacle(workflow: "Workflow") -> str:
    """Why there can be no comment; empty if there can."""
    if workflow.pull_request is None:
        return f"the event {workflow.event} belongs to no pull request"
    if not workflow.token:
        return "$GITHUB_TOKEN is not set: `env: {GITHUB_TOKEN: ${{ github.token }}}` sets it"
    return ""


def _hint(workflow: "Workflow", status: int | None) -> str:
    if status not in (401, 403, 404):
        return ""
    if workflow.fork:
        return ", as it does for a pull request from a fork, whose token cannot write"
    return "; the job needs `permissions: {pull-requests: write}`"


def _end(workflow: "Workflow") -> str:
    """The end of the comment: which commit it is about, because the comment is updated."""
    commit = f"Commit {workflow.commit}, " if workflow.commit else ""
    return f"\n{commit}[run of the workflow](<{workflow.page}>)\n"


def _summarize(workflow: "Workflow", text: str, reason: str) -> None:
    """Append the report to the job's summary instead, and say why."""
    from orbiter_mlflow.gate.reports.formats import write

    if workflow.summary is None:
        raise click.ClickException(plain(f"{reason}; and there is no $GITHUB_STEP_SUMMARY"))
    try:
        write(workflow.summary, text)
    except OSError as error:
        raise click.ClickException(
            plain(f"{reason}; and the summary cannot be written: {error}")
        ) from error
    click.echo(plain(f"no comment, but the job's summary has the report: {reason}"))
