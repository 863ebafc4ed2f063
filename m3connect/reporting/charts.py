"""Charts as SVG text, drawn by matplotlib without a display. Every chart has a text for readers."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m3connect.errors import ConfigError

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


Bar = tuple[float, float, float]
"""A mean and the ends of its interval: ``(mean, low, high)``."""
_FEW = 40
"""Up to so many points, a curve shows each; a single one would be invisible without."""


def dots(title: str, metric: str, lines: Mapping[str, Mapping[str, Bar]]) -> str:
    """One line a dataset or language, one mark a row, with its interval.

    Args:
        title: of the chart.
        metric: below the axis.
        lines: bars by line and row.
    """
    rows = list(dict.fromkeys(row for marks in lines.values() for row in marks))
    # At least as high as the legend, which has a line a row.
    figure, axes = _figure(title, height=max(1.2 + 0.42 * len(lines), 0.8 + 0.18 * len(rows)))
    for number, row in enumerate(rows):
        shift = (number - (len(rows) - 1) / 2) * 0.6 / max(1, len(rows))
        bars = [(line, *marks[row]) for line, marks in enumerate(lines.values()) if row in marks]
        axes.errorbar(
            [mean for _, mean, _, _ in bars],
            [line + shift for line, _, _, _ in bars],
            xerr=[
                [mean - low for _, mean, low, _ in bars],
                [high - mean for _, mean, _, high in bars],
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
        members = [point for point in points if point.group == group]
        axes.plot(
            [point.x for point in members],
            [point.y for point in members],
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


def curves(title: str, x_label: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A curve a line, over a common axis.

    Args:
        title: of the chart.
        x_label: below the axis.
        lines: points ``(x, y)`` by name, by rising x.
    """
    figure, axes = _figure(title, height=2.8)
    for number, (name, points) in enumerate(lines.items()):
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            marker=MARKERS[number % len(MARKERS)] if len(points) <= _FEW else "",
            markersize=4,
            color=COLOURS[number % len(COLOURS)],
            label=name,
        )
    axes.set_xlabel(x_label)
    return _finished(figure, axes, title)


def _figure(title: str, *, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError('charts need matplotlib: pip install "m3connect[eval]"') from error

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
