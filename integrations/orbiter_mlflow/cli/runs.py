"""`orbiter-mlflow reproduce` and `diff`: restore a run, and show what differs between runs.

Exit codes of both: 0 success, 1 failure, 2 wrong usage or no such run. `reproduce --check` exits
with 1 if this machine differs, and with 3 if it cannot be compared.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orbiter_mlflow import names
from orbiter_mlflow.cli.options import NoAnswerError, console, opened_runs, store_options
from orbiter_mlflow.config.codec.markers import REDACTED, TEXT
from orbiter_mlflow.config.codec.splitting import join_value
from orbiter_mlflow.errors import ConfigError, StoreError
from orbiter_mlflow.runs.model import StoredRun
from orbiter_mlflow.text.escaping import plain

if TYPE_CHECKING:
    from orbiter_mlflow.runs.diff import Difference, RunDiff
    from orbiter_mlflow.runs.store import RunStore

_store_options = store_options(
    "Where a run is looked up by its name.  [default: $MLFLOW_EXPERIMENT_NAME]"
)


@click.command()
@click.argument("run")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["yaml", "json", "python"]),
    default="yaml",
    show_default=True,
    help="Format of the config: text for config_from_text, or a program that creates `config`.",
)
@click.option("--check", is_flag=True, help="Only compare this machine with the run.")
@_store_options
def reproduce(
    run: str, output_format: str, check: bool, tracking_uri: str | None, experiment: str | None
) -> None:
    """Print the config of RUN, and the steps that restore its code and packages.

    RUN is an id, the start of an id, or a name in the experiment. The config goes to standard
    output, the steps to standard error. With --check the exit code is 0 if commit, uncommitted
    diff, Python and packages are the run's; 1 if one differs or was not recorded; 3 if that cannot
    be determined.
    """
    if check:
        try:
            store, (found,) = opened_runs(tracking_uri, experiment, [run])
            sys.exit(_check(store, found))
        except click.UsageError:
            raise
        except click.ClickException as error:
            raise NoAnswerError(error.message) from error
    store, (found,) = opened_runs(tracking_uri, experiment, [run])
    try:
        config = _config(found, output_format)
    except ConfigError as error:
        _print_notes(_restore_steps(store, found))
        lines = str(error).splitlines()
        raise click.ClickException("\n".join(map(plain, lines))) from error
    click.echo(config.encode(), nl=False)
    sys.stdout.flush()
    _print_notes(["", *_restore_steps(store, found), *_placeholders(found)])


def _config(run: StoredRun, output_format: str) -> str:
    from orbiter_mlflow.config.text import json_text, python_text, yaml_text
    from orbiter_mlflow.runs.load_config import config_params

    params, problems = config_params(run)
    if problems:
        raise ConfigError(f"the config of run {run.run_id}", problems)
    fields = _listed(run, names.CONFIG_FIELDS)
    if output_format == "python":
        return python_text(params, run.tags.get(names.CONFIG_TYPE, ""), fields)
    return (json_text if output_format == "json" else yaml_text)(params, fields)


def _restore_steps(store: "RunStore", run: StoredRun) -> list[str]:
    from orbiter_mlflow.runs.reproduction import ARTIFACTS, steps
    from orbiter_mlflow.ui.pages import command_path

    artifacts: dict[str, bytes] = {}
    problem = ""
    for name, tag in ARTIFACTS.items():
        if tag in run.tags and not problem:
            try:
                content = store.artifact(run.run_id, f"{names.PROVENANCE}/{name}")
            except StoreError as error:
                problem = f"# The artifacts of the run cannot be read: {error}"
            else:
                artifacts |= {} if content is None else {name: content}
    mlflow = command_path("mlflow")
    mlflow = str(Path(mlflow).absolute()) if os.sep in mlflow else mlflow
    lines = steps(run, artifacts, store.shown_uri, mlflow)
    return [*lines, *([plain(problem)] if problem else [])]


def _placeholders(run: StoredRun) -> list[str]:
    """Notes about placeholders in the printed config."""
    lines = []
    if redacted := _listed(run, names.CONFIG_REDACTED):
        lines += [
            "",
            f'# Secrets in the config were redacted: put them in place of {{"{REDACTED}": ...}},',
            "# or pass them to load_config as `secrets`:",
            *(f"#   {path}" for path in redacted),
        ]
    if unencodable := _listed(run, names.CONFIG_UNENCODABLE):
        lines += [
            "",
            f'# Logged only as text: put values in place of {{"{TEXT}": ...}}:',
            *(f"#   {path}" for path in unencodable),
        ]
    return [plain(line) for line in lines]


def _listed(run: StoredRun, tag: str) -> list[str]:
    """A JSON list in a tag, or in the pieces of a split tag; empty if it is not a list."""
    try:
        found = json.loads(join_value(run.tags, tag) or "[]")
    except ValueError:
        return []
    return [str(item) for item in found] if type(found) is list else []


def _print_notes(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(plain(line), err=True)


def _check(store: "RunStore", run: StoredRun) -> int:
    from orbiter_mlflow.runs.reproduction import check, this_machine

    try:
        here = this_machine(Path.cwd())
    except OSError as error:
        raise click.ClickException(f"this machine cannot be described: {error}") from error
    listed = None
    if run.tags.get(names.PACKAGES, here.tags[names.PACKAGES]) != here.tags[names.PACKAGES]:
        listed = _requirements(store, run)
    found = check(run, here, listed)
    for row in found:
        click.echo(plain(_difference_line(row)))
    if here.problem:
        click.echo(f"unknown about this machine: {plain(here.problem)}")
    if not found:
        click.echo(f"same as in run {run.run_id}: commit, uncommitted diff, Python and packages")
    if here.untracked:
        click.echo("not compared: the content of untracked files; a run records only their names")
    return 1 if found else 0


def _difference_line(row: "Difference") -> str:
    then, now = row.values
    known = "not recorded" if then is None else f"run {then}"
    return f"{row.name}: {known}, here {now or 'unknown'}"


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "markdown", "json"]),
    default="table",
    show_default=True,
    help="For a terminal, for a comment, or for a program (`schema` 1).",
)
@_store_options
def diff(
    runs: tuple[str, ...], output_format: str, tracking_uri: str | None, experiment: str | None
) -> None:
    """Show only what differs between runs: status, config, code, packages, data, metrics.

    A run is given by its id, the start of its id, or its name in the experiment. Changes of metrics
    are against the first run. The exit code is 0 whether or not the runs differ.
    """
    from orbiter_mlflow.cli.diff_report import json_report, markdown_report
    from orbiter_mlflow.runs.diff import diff_runs, packages_differ
    from orbiter_mlflow.ui.links import compare_page
    from orbiter_mlflow.ui.pages import server_command, ui_address

    if len(runs) < 2:
        raise click.UsageError("one run has nothing to differ from: give two or more")
    store, found = opened_runs(tracking_uri, experiment, runs)
    lists: Mapping[str, str | None] = {}
    if packages_differ(found):
        lists = {run.run_id: _requirements(store, run) for run in found}
    result = diff_runs(found, lists)
    uri = store.shown_uri
    link = compare_page(
        ui_address(uri), [run.experiment_id for run in found], [run.run_id for run in found]
    )
    serve = server_command(uri)
    if output_format == "table":
        _show(result, link, serve)
    else:
        write = json_report if output_format == "json" else markdown_report
        # For other people, a link to a server on this machine leads nowhere.
        click.echo(write(result, link if serve is None else None).encode(), nl=False)


def _show(result: "RunDiff", link: str, serve: str | None) -> None:
    from orbiter_mlflow.cli.diff_report import terminal_report

    console().print(terminal_report(result))
    if serve is not None:
        click.echo(f"\nStart the UI:\n  {serve}")
    click.echo(f"\nSide by side:\n  {link}")


def _requirements(store: "RunStore", run: StoredRun) -> str | None:
    if names.PACKAGES not in run.tags:
        return None
    try:
        content = store.artifact(run.run_id, f"{names.PROVENANCE}/{names.REQUIREMENTS_FILE}")
    except StoreError as error:
        raise click.ClickException(plain(str(error))) from error
    return None if content is None else content.decode("utf-8", "replace")
