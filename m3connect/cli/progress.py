"""Progress as bars on stderr, a bar a stage."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m3connect.progress import Progress


@contextmanager
def progress_bar(total: int | None = None) -> Iterator[Progress]:
    """What the package's functions are given as ``progress``; draws only where someone may look.

    Args:
        total: of the stages that do not know theirs.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    ) as bars:
        by_stage: dict[str, TaskID] = {}
        totals = total

        def report(stage: str, done: int, total: int | None) -> None:
            known = totals if total is None else total
            if stage not in by_stage:
                by_stage[stage] = bars.add_task(stage, total=known)
            bars.update(by_stage[stage], completed=done, total=known)

        yield report
