"""`orbiter-mlflow download`: bring a checkpoint of a run back, and verify it.

Exit codes: 0 success, 1 the store cannot be read or a file is damaged, 2 wrong usage or no such
run or checkpoint.
"""

from pathlib import Path
from typing import Literal

import click

from orbiter_mlflow.cli.options import opened_runs, store_errors, store_options
from orbiter_mlflow.errors import StoreError
from orbiter_mlflow.text.escaping import plain

Which = Literal["last", "best"] | int


def _which(context: click.Context, option: click.Parameter, value: str) -> Which:
    if value == "last" or value == "best":
        return "last" if value == "last" else "best"
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is none of last, best, and the number of a step"
        ) from None


@click.command()
@click.argument("run")
@click.option(
    "--checkpoint",
    "which",
    callback=_which,
    default="last",
    metavar="last|best|STEP",
    show_default=True,
    help="Which one; the best by the metric that the training named.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Where the folder of the checkpoint goes.  [default: here]",
)
@store_options("Where the run is looked up by its name.  [default: $MLFLOW_EXPERIMENT_NAME]")
def download(
    run: str,
    which: Which,
    to: Path,
    tracking_uri: str | None,
    experiment: str | None,
) -> None:
    """Download a checkpoint of RUN, and verify each file by its SHA-256.

    The folder is there once all of it is; what is there already is verified, and not fetched again.
    RUN is given by its id, the start of its id, or its name in the experiment.
    """
    from orbiter_mlflow.runs import checkpoints

    with store_errors():
        store, (found,) = opened_runs(tracking_uri, experiment, [run])
        stored = checkpoints.checkpoints_of(store, found.run_id)
        try:
            chosen = checkpoints.chosen(stored, which)
        except StoreError as error:
            raise click.UsageError(plain(str(error))) from error
        try:
            folder = checkpoints.download(store, chosen, to)
        except OSError as error:
            raise click.ClickException(plain(str(error))) from error
    manifest = chosen.manifest
    count, size = len(manifest.files), manifest.size
    value = "" if manifest.value is None else f", {manifest.metric} {manifest.value:.4g}"
    files = "1 file" if count == 1 else f"{count} files"
    click.echo(f"step {manifest.step}{plain(value)}: {files}, {size:,} bytes, verified")
    click.echo(str(folder).encode(errors="surrogateescape") + b"\n", nl=False)
