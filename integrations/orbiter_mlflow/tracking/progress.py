"""A line on the terminal that says how far a training is; moved by `report`, drawn by rich.

It has no thread of its own, draws at most ten times a second, and nothing where standard error is
no terminal.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from orbiter.train import TrainMetrics
from orbiter.train.hooks import left_at_default
from orbiter_mlflow.text.escaping import plain

if TYPE_CHECKING:
    from rich.console import Console

_INTERVAL = 0.1
"""Seconds between two drawings."""
_SHOWN = 3
"""Metrics beside the step; more would not fit."""


class Bar(Protocol):
    """What a run needs of a progress bar."""

    def moved(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None: ...
    def stop(self) -> None: ...


def open_bar(title: str, steps: int | None, console: "Console | None" = None) -> Bar | None:
    """A bar on the terminal; None where there is no terminal.

    Args:
        title: stands before the bar.
        steps: how many there will be, where that is known.
        console: where to draw; standard error where left out.
    """
    from rich.console import Console

    console = console or Console(stderr=True)
    return _RichBar(title, steps, console) if console.is_terminal else None


class _RichBar:
    def __init__(self, title: str, steps: int | None, console: "Console") -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        ends = () if steps is None else (Remaining(),)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("step {task.completed:g}" + ("" if steps is None else f" of {steps}")),
            TextColumn("{task.fields[values]}", markup=False),
            TimeElapsedColumn(),
            *ends,
            console=console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task(plain(title), total=steps, values="")
        self._drawn = 0.0
        self._progress.start()

    def moved(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        now = time.monotonic()
        if now - self._drawn >= _INTERVAL:
            self._drawn = now
            self._progress.update(self._task, completed=step, values=plain(_values(metrics)))
            self._progress.refresh()
        else:
            self._progress.update(self._task, completed=step)

    def stop(self) -> None:
        self._progress.stop()  # draws the last state


def _values(metrics: Mapping[str, Any] | TrainMetrics) -> str:
    if isinstance(metrics, TrainMetrics):
        unset = left_at_default(metrics)
        metrics = {
            name: getattr(metrics, name) for name in ("loss", "accuracy") if name not in unset
        }
    numbers = [(key, value) for key, value in metrics.items() if isinstance(value, int | float)]
    return "  ".join(f"{key} {value:.4g}" for key, value in numbers[:_SHOWN])
