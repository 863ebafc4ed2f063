"""Progress on stderr: a bar a stage where someone may look, and a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from m3connect.progress import Progress

EVERY = 30.0
"""Seconds between two lines of a stage in a log."""


@contextmanager
def progress_bar(
    totals: Mapping[str, int | None] = MappingProxyType({}),
) -> Iterator[Progress]:
    """What the package's functions are given as ``progress``.

    Args:
        totals: of stages that do not know theirs; these are shown from the start.
    """
    if not sys.stderr.isatty():
        yield Lines(totals)
        return
    with _bars(totals) as progress:
        yield progress


@contextmanager
def _bars(totals: Mapping[str, int | None]) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class SpeedColumn(ProgressColumn):
        """Units a second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{_number(speed)}/s", "progress.data.speed")

    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=600,  # a group of long passages may take a minute
    ) as bars:
        by_stage: dict[str, TaskID] = {
            stage: bars.add_task(stage, total=total) for stage, total in totals.items()
        }

        def report(stage: str, done: int, total: int | None) -> None:
            known = totals.get(stage) if total is None else total
            if stage not in by_stage:
                by_stage[stage] = bars.add_task(stage, total=known)
            bars.update(by_stage[stage], completed=done, total=known)

        yield report


class Lines:
    """A line of each stage every :data:`EVERY` seconds, none of work that is shorter.

    Args:
        totals: of stages that do not know theirs.
        clock: seconds, for tests.
    """

    def __init__(
        self, totals: Mapping[str, int | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._totals = totals
        self._clock = clock
        start = clock()
        # Of each stage: when it began, how far it was then, how far it is, when it was last told of.
        self._stages = dict.fromkeys(totals, (start, 0, 0, start))

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """As :class:`m3connect.progress.Progress`."""
        now = self._clock()
        start, first, before, told = self._stages.get(stage, (now, done, done, now))
        if done < before:  # the stage of the next piece of work, such as another dataset's
            start, first, told = now, done, now
        quiet = now - told < EVERY
        self._stages[stage] = start, first, done, told if quiet else now
        if quiet:
            return
        known = self._totals.get(stage) if total is None else total
        speed = (done - first) / (now - start)
        line = f"{stage}: {done:,}" + (f" of {known:,}" if known else "") + f", {_number(speed)}/s"
        if known and speed:
            line += f", {duration(max(known - done, 0) / speed)} left"
        typer.echo(line, err=True)


def _number(speed: float) -> str:
    """Of units a second.

    >>> _number(0.25), _number(12345.6)
    ('0.2', '12,346')
    """
    return f"{speed:,.1f}" if speed < 10 else f"{speed:,.0f}"


def duration(seconds: float) -> str:
    """About how long.

    >>> duration(42), duration(1000), duration(10000)
    ('42 s', '17 min', '2.8 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
