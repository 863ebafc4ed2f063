"""Charts as SVG text, drawn by matplotlib without a display. Every chart has a text for readers."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3connect.evaluation.significance import Interval

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's, told apart by the colour-blind too."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


@dataclass(frozen=True, slots=True)
class Point:
    """One labelled point of a scatter chart."""

    label: str
    x: float
    y: float
    group: str


def dots(title: str, metric: str, lines: Mapping[str, Mapping[str, Interval]]) -> str:
    """One line a dataset or language, one mark a row, with its 95 % interval.

    Args:
        title: of the chart.
        metric: below the axis.
        lines: intervals by line and row.
    """
    rows = list(dict.fromkeys(row for marks in lines.values() for row in marks))
    figure, axes = _figure(title, height=1.2 + 0.42 * len(lines))
    for number, row in enumerate(rows):
        shift = (number - (len(rows) - 1) / 2) * 0.6 / max(1, len(rows))
        held = [(place, marks[row]) for place, marks in enumerate(lines.values()) if row in marks]
        axes.errorbar(
            [found.mean for _, found in held],
            [place + shift for place, _ in held],
            xerr=[
                [found.mean - found.low for _, found in held],
                [found.high - found.mean for _, found in held],
            ],
            fmt=MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            label=row,
            markersize=5,
            elinewidth=1,
        )
    axes.set_yticks(range(len(lines)), list(lines))
    axes.invert_yaxis()
    axes.set_xlabel(metric)
    return _finished(figure, axes, title)


def scatter(title: str, x_label: str, y_label: str, points: Sequence[Point]) -> str:
    """Labelled points, a colour a group, the horizontal axis logarithmic."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure, axes = _figure(title, height=4.2)
    for number, group in enumerate(dict.fromkeys(point.group for point in points)):
        held = [point for point in points if point.group == group]
        axes.plot(
            [point.x for point in held],
            [point.y for point in held],
            linestyle="none",
            marker=MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            label=group,
        )
    for point in points:
        axes.annotate(
            point.label,
            (point.x, point.y),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return _finished(figure, axes, title)


def _figure(title: str, *, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _finished(figure: Any, axes: Any, title: str) -> str:
    from matplotlib import rc_context

    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    target = io.StringIO()
    # Text stays text, and the same figures give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Title": title})
    return re.sub(r"^.*?(?=<svg)", "", target.getvalue(), count=1, flags=re.DOTALL)
