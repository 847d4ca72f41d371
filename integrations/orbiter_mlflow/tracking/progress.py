"""A progress bar on the terminal or in a notebook, moved by `report`.

It has no thread of its own, draws at most ten times a second, and draws nothing if standard error
is neither. A terminal's is drawn by rich; a notebook's is HTML, which needs no widgets.
"""

import html
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from orbiter.train import TrainMetrics
from orbiter.train.hooks import left_at_default
from orbiter_mlflow.text.escaping import plain

if TYPE_CHECKING:
    from rich.console import Console

_INTERVAL = 0.1
"""Seconds between two redraws."""
_SHOWN = 3
"""Metrics beside the step; more would not fit."""


class Bar(Protocol):
    """The part of a progress bar that a run uses."""

    def moved(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None: ...
    def stop(self) -> None: ...


def open_bar(title: str, steps: int | None, console: "Console | None" = None) -> Bar | None:
    """A bar on the terminal or in the notebook; None if there is neither.

    Args:
        title: stands before the bar.
        steps: the total; None if it is not known.
        console: where to draw. Default: standard error.
    """
    from rich.console import Console

    console = console or Console(stderr=True)
    if console.is_jupyter:
        return _NotebookBar(plain(title), steps)
    return _RichBar(plain(title), steps, console) if console.is_terminal else None


class TrainingBar:
    """The bar of a trainer, which is there while it trains.

    Args:
        title: stands before the bar.
        progress: whether to show one; a number is the total of the steps.
    """

    def __init__(self, title: str, progress: bool | int) -> None:
        self._title, self._progress = title, progress
        self._bar: Bar | None = None

    def show(self, trains: bool) -> None:
        """Open the bar when the training begins, and close it when it ends."""
        if trains and self._progress:
            self._bar = open_bar(self._title, None if self._progress is True else self._progress)
        elif self._bar is not None:
            self._bar.stop()
            self._bar = None

    def moved(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        """The training has reported these metrics at a step."""
        if self._bar is not None:
            self._bar.moved(metrics, step)


class _DrawnBar(ABC):
    """Keeps the latest report, and draws it when it is time to."""

    def __init__(self) -> None:
        self._step = 0
        self._metrics: Mapping[str, Any] | TrainMetrics = {}
        self._drawn = 0.0

    def moved(self, metrics: Mapping[str, Any] | TrainMetrics, step: int) -> None:
        self._metrics, self._step = metrics, step
        now = time.monotonic()
        if now - self._drawn >= _INTERVAL:
            self._drawn = now
            self._draw(step, plain(_values(metrics)))

    def stop(self) -> None:
        self._draw(self._step, plain(_values(self._metrics)))

    @abstractmethod
    def _draw(self, step: int, values: str) -> None: ...


class _RichBar(_DrawnBar):
    def __init__(self, title: str, steps: int | None, console: "Console") -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        super().__init__()
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
        self._task = self._progress.add_task(title, total=steps, values="")
        self._progress.start()

    def stop(self) -> None:
        super().stop()
        self._progress.stop()

    def _draw(self, step: int, values: str) -> None:
        self._progress.update(self._task, completed=step, values=values)
        self._progress.refresh()


class _NotebookBar(_DrawnBar):
    def __init__(self, title: str, steps: int | None) -> None:
        from IPython.display import display

        super().__init__()
        self._title, self._steps = title, steps
        self._started = time.monotonic()
        self._handle = display(self._shown(0, ""), raw=True, display_id=True)

    def _draw(self, step: int, values: str) -> None:
        self._handle.update(self._shown(step, values), raw=True)

    def _shown(self, step: int, values: str) -> dict[str, str]:
        seconds = int(time.monotonic() - self._started)
        total = "" if self._steps is None else f" of {self._steps}"
        words = f"step {step}{total}  {values}  {seconds // 60}:{seconds % 60:02}"
        ends = "" if self._steps is None else f' value="{step}" max="{self._steps}"'
        bar = f"{html.escape(self._title)} <progress{ends}></progress> {html.escape(words)}"
        return {"text/plain": f"{self._title}  {words}", "text/html": bar}


def _values(metrics: Mapping[str, Any] | TrainMetrics) -> str:
    if isinstance(metrics, TrainMetrics):
        unset = left_at_default(metrics)
        metrics = {
            name: getattr(metrics, name) for name in ("loss", "accuracy") if name not in unset
        }
    numbers = [(key, value) for key, value in metrics.items() if isinstance(value, int | float)]
    return "  ".join(f"{key} {value:.4g}" for key, value in numbers[:_SHOWN])
