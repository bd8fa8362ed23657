"""Rank 0's output while it trains: log lines, and a bar on a terminal. Imports no torch."""

import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TextIO


def number(value: float) -> str:
    """Write a figure in few digits: 0.4123, 12.35, 1.00e-03."""
    if value and (abs(value) < 1e-2 or abs(value) >= 1e5):
        return f"{value:.2e}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def figures(values: Mapping[str, float]) -> str:
    """Write named figures on one line."""
    return "  ".join(f"{name} {number(value)}" for name, value in values.items())


def span(seconds: float) -> str:
    """Write a duration: 0:12:03, or 2 days, 1:00:00."""
    return str(timedelta(seconds=round(seconds)))


def progress_line(
    clock: int,
    images: int,
    *,
    losses: Mapping[str, float],
    rates: Mapping[str, float],
    norms: Mapping[str, float],
    images_per_s: float,
    data_wait: float,
    memory_mb: float,
    left: float,
) -> str:
    """Compose the log line of a progress report. `data_wait`: share of the time 0..1; `left`: seconds."""
    share, left = min(100.0, 100 * clock / max(images, 1)), max(0.0, left)  # the last batch may pass the end
    return (
        f"{clock:>11,} {share:5.1f}%  {figures(losses)} | {figures(rates)}  {figures(norms)} | "
        f"{images_per_s:,.1f} img/s  wait {100 * data_wait:.0f}%  {memory_mb:,.0f} MB  left {span(left)}"
    )


class Console:
    """Lines on stdout, on a terminal above a bar with the time left."""

    def __init__(self, clock: int, images: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._progress: Any = None
        if self._stream.isatty():
            from rich.console import Console as Terminal
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TaskProgressColumn(),
                TextColumn("{task.completed:,}/{task.total:,} images"),
                TextColumn("{task.fields[speed]}"),
                console=Terminal(file=self._stream),
                auto_refresh=False,  # no thread beside the training: the bar moves with the log lines
            )
            self._bar = self._progress.add_task("training", total=images, completed=clock, speed="")
            self._progress.start()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def advance(self, clock: int, images_per_s: float, left: float) -> None:
        """Move the bar."""
        if self._progress is not None:
            speed = f"{images_per_s:,.0f}/s, {span(max(0.0, left))} left"
            self._progress.update(self._bar, completed=clock, speed=speed, refresh=True)

    def close(self) -> None:
        """Remove the bar from the terminal's control; the last state stays visible."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
