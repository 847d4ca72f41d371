"""The command `python -m benchmarks`. Exit code 0 if all ran, even if a target was missed."""

import os
import sys
import tempfile
import time
from dataclasses import asdict, fields
from pathlib import Path

import click
from rich.console import Console

from benchmarks import (
    encoding,
    fleet,
    gate_best,
    gate_check,
    gate_examples,
    gate_power,
    imports,
    landing,
    latency,
    load,
    million,
    mlflow_clients,
    outage,
    redelivery,
    render,
    rollouts,
    slowdown,
    tracking,
    trl,
    whole_process,
)
from benchmarks.results import Result
from benchmarks.sizes import FULL, QUICK, changed

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

_BENCHMARKS = {
    module.NAME: module.run
    for module in (
        tracking,
        mlflow_clients,
        latency,
        slowdown,
        imports,
        redelivery,
        rollouts,
        trl,
        outage,
        whole_process,
        encoding,
        gate_power,
        gate_check,
        gate_best,
        gate_examples,
        landing,
        million,
        load,
        fleet,
    )
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--quick",
    is_flag=True,
    help="Small sizes, to check that everything runs. The figures mean nothing.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(_BENCHMARKS)),
    help="Run this table only; repeatable.",
)
@click.option(
    "--size",
    "changes",
    multiple=True,
    type=(click.Choice([field.name for field in fields(FULL)]), str),
    help="Another value for one of the sizes in benchmarks/sizes.py, as JSON; repeatable.",
)
@click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_name("results.json"),
    show_default="benchmarks/results.json",
    help="File for all figures.",
)
def main(
    quick: bool, only: tuple[str, ...], changes: tuple[tuple[str, str], ...], path: Path
) -> None:
    """Measure the cost of tracking, compared with other ways to log."""
    from benchmarks.stores import Stores

    console = Console(width=None if sys.stdout.isatty() else 160)
    errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    start = time.monotonic()
    sizes = changed(QUICK if quick else FULL, changes)
    facts = render.facts() | {"quick": quick, "sizes": asdict(sizes)}
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        stores = Stores(Path(folder))
        for name in only or tuple(_BENCHMARKS):

            def say(text: str, name: str = name) -> None:
                errors.print(f"{time.monotonic() - start:6.0f} s  {name}: {text}")

            result = _BENCHMARKS[name](stores, sizes, say)
            results.append(result)
            render.show(console, result)
            render.write(path, facts | {"load_at_end": render.load()}, results)
    missed = [check for result in results for check in result.checks if not check.met]
    checks = sum(len(result.checks) for result in results)
    console.print(f"{checks - len(missed)} of {checks} targets met; all figures are in {path}")


if __name__ == "__main__":
    main()
