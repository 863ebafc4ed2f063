"""Two evaluations compared, as Markdown: short for a model card, long with every interval."""

from __future__ import annotations

from m3connect.evaluation.reports.comparison import Cell, Gains, Table


def short(gains: Gains) -> str:
    """A table of datasets and modes, and one by language where there are several.

    A cell is the new mean with its difference from the old one; ``=`` marks a difference that the
    paired test does not see (p >= 0.05).
    """
    return "\n\n".join(_short(title, table) for title, table in _titled(gains).items())


def long(gains: Gains) -> str:
    """The same tables with a line a cell: both means, the difference, its interval and p-value."""
    return "\n\n".join(_long(title, table) for title, table in _titled(gains).items())


def _titled(gains: Gains) -> dict[str, Table]:
    tables = {gains.metric: gains.datasets}
    for name, table in gains.languages.items():
        where = "mean over datasets" if name == "mean" else name
        tables[f"{gains.metric}, {where}, by language of the query"] = table
    return tables


def _short(title: str, table: Table) -> str:
    rows = list(dict.fromkeys(name for cells in table.values() for name in cells))
    lines = [f"| {title} | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for line, cells in table.items():
        shown = [_cell(cells[name]) if name in cells else "" for name in rows]
        lines.append(f"| {_line(line)} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    if cell.gain is None:
        return f"{cell.mean:.3f}"
    same = " =" if cell.gain.p_value >= 0.05 else ""
    return f"{cell.mean:.3f} ({cell.gain.difference.mean:+.3f}{same})"


def _long(title: str, table: Table) -> str:
    lines = [
        f"| {title} | mode | queries | base | new | difference | 95 % interval | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line, cells in table.items():
        for name, cell in cells.items():
            lines.append(f"| {_line(line)} | {name} | {cell.queries} | {_figures(cell)} |")
    return "\n".join(lines)


def _figures(cell: Cell) -> str:
    if cell.base is None or cell.gain is None:
        return f" | {cell.mean:.3f} | | |"
    gain = cell.gain.difference
    return (
        f"{cell.base:.3f} | {cell.mean:.3f} | {gain.mean:+.3f} | "
        f"{gain.low:+.3f} to {gain.high:+.3f} | {cell.gain.p_value:.3f}"
    )


def _line(name: str) -> str:
    return f"**{name}**" if name == "mean" else name
