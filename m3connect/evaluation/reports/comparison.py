"""What a model gained over another on the same queries: by dataset, by language, and in the mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import InputError
from m3connect.evaluation.measure import Result, Row
from m3connect.evaluation.significance import Comparison, compare_means
from m3connect.reporting.pages import Cell, Table


@dataclass(frozen=True, slots=True)
class Gain:
    """One mode or baseline on one dataset or language.

    Args:
        queries: how many.
        mean: of the new evaluation.
        base: mean of the old one; None where it has no such row.
        gain: new minus old.
    """

    queries: int
    mean: float
    base: float | None
    gain: Comparison | None


Lines = dict[str, dict[str, Gain]]
"""Gains by line (a dataset or a language) and row (a mode or a baseline)."""


@dataclass(frozen=True, slots=True)
class Gains:
    """Two evaluations compared in one metric.

    Args:
        metric: its name.
        datasets: a line each; the last of several lines is ``mean``, in which all count the same.
        languages: a line for each language of the queries. Under ``mean`` it is the mean over the
            datasets that have the language; datasets with several languages have tables of their own.
    """

    metric: str
    datasets: Lines
    languages: Mapping[str, Lines]


def join(evaluations: Iterable[Sequence[Result]]) -> list[Result]:
    """Several evaluations as one: rows that were measured on the same dataset stand together.

    Raises:
        InputError: two have the same row of a dataset, or different queries.
    """
    joined: dict[str, Result] = {}
    for result in (result for results in evaluations for result in results):
        held = joined.setdefault(result.dataset, replace(result, rows=()))
        _check_queries(held, result)
        if twice := {row.name for row in held.rows} & {row.name for row in result.rows}:
            raise InputError(f"{result.dataset}: two of the folders measured {sorted(twice)}")
        joined[result.dataset] = replace(held, rows=(*held.rows, *result.rows))
    return list(joined.values())


def only(results: Sequence[Result], rows: Sequence[str]) -> list[Result]:
    """The same results with these rows, in this order.

    Raises:
        InputError: no result has one of them.
    """
    known = dict.fromkeys(row.name for result in results for row in result.rows)
    if unknown := [name for name in rows if name not in known]:
        raise InputError(f"nothing was measured for {unknown}; there are {list(known)}")
    return [
        replace(result, rows=tuple(row for name in rows for row in result.rows if row.name == name))
        for result in results
    ]


def compare(base: Sequence[Result], new: Sequence[Result], metric: str) -> Gains:
    """Every row of the new results beside the old results' row of the same name.

    Args:
        base, new: of the same datasets; what only one of them has is left out.
        metric: that both have.

    Raises:
        InputError: no common dataset, different queries, or the metric is missing.
    """
    old = {result.dataset: result for result in base}
    pairs = [_pair(old[result.dataset], result, metric) for result in new if result.dataset in old]
    if not pairs:
        raise InputError(
            f"no dataset in common: {[result.dataset for result in new]} and {list(old)}"
        )
    datasets = {pair.dataset: _cells([pair]) for pair in pairs}
    several = {pair.dataset: pair for pair in pairs if len(pair.languages()) > 1}
    languages = {name: _by_language([pair]) for name, pair in several.items()}
    if len(pairs) > 1:
        datasets["mean"] = _cells(pairs)
        languages = {"mean": _by_language(pairs), **languages}
    return Gains(metric, datasets, languages)


def unlike(results: Iterable[Result]) -> list[str]:
    """Datasets whose queries were asked of corpora of different sizes, which no figure shows.

    Args:
        results: all that is compared or stands together.
    """
    sizes: dict[str, set[int]] = {}
    for result in results:
        sizes.setdefault(result.dataset, set()).add(result.documents)
    return [
        f"{dataset}: evaluations of {' and '.join(map(str, sorted(counts)))} documents: the smaller "
        "corpus is the easier"
        for dataset, counts in sizes.items()
        if len(counts) > 1
    ]


def short(gains: Gains) -> list[Table]:
    """A table of datasets and modes, and one by language where there are several.

    A cell is the new mean with its difference from the old one; ``=`` marks a difference that the
    paired test does not see (p >= 0.05).
    """
    return [_short(title, lines) for title, lines in _titled(gains).items()]


def long(gains: Gains) -> list[Table]:
    """The same tables with a line a cell: both means, the difference, its interval and p-value."""
    return [_long(title, lines) for title, lines in _titled(gains).items()]


def to_json(gains: Gains) -> dict[str, Any]:
    """As JSON values: ``mean``, ``base``, ``gain`` and ``queries`` of every line and row."""
    return asdict(gains)


@dataclass(frozen=True, slots=True)
class _Pair:
    """The figures of one dataset's queries, by row, in both evaluations."""

    dataset: str
    language: tuple[str, ...]
    new: Mapping[str, NDArray[np.float64]]
    base: Mapping[str, NDArray[np.float64]]

    def languages(self) -> list[str]:
        return sorted(set(self.language))

    def only(self, language: str) -> _Pair:
        kept = np.array([each == language for each in self.language])
        return replace(
            self,
            new={name: values[kept] for name, values in self.new.items()},
            base={name: values[kept] for name, values in self.base.items()},
        )


def _pair(base: Result, new: Result, metric: str) -> _Pair:
    _check_queries(base, new)
    language = tuple(query.language for query in new.queries)
    return _Pair(new.dataset, language, _figures(new.rows, metric), _figures(base.rows, metric))


def _figures(rows: Iterable[Row], metric: str) -> dict[str, NDArray[np.float64]]:
    figures = {}
    for row in rows:
        if metric not in row.figures:
            raise InputError(f"{metric!r} was not measured; there are {list(row.figures)}")
        figures[row.name] = row.figures[metric]
    return figures


def _check_queries(first: Result, other: Result) -> None:
    ids, others = ([query.id for query in result.queries] for result in (first, other))
    if ids != others:
        raise InputError(
            f"{first.dataset}: the evaluations have {len(ids)} and {len(others)} queries, "
            f"{len(set(ids) & set(others))} in common; take the same --qrels, --limit-queries, --seed"
        )


def _by_language(pairs: Sequence[_Pair]) -> Lines:
    languages = sorted({language for pair in pairs for language in pair.languages()})
    return {
        language or "?": _cells(
            [pair.only(language) for pair in pairs if language in pair.language]
        )
        for language in languages
    }


def _cells(pairs: Sequence[_Pair]) -> dict[str, Gain]:
    """The rows that all datasets have."""
    names = [name for name in pairs[0].new if all(name in pair.new for pair in pairs)]
    cells = {}
    for name in names:
        new = [pair.new[name] for pair in pairs]
        queries, mean = sum(map(len, new)), _mean_of_means(new)
        if all(name in pair.base for pair in pairs):
            base = [pair.base[name] for pair in pairs]
            cells[name] = Gain(queries, mean, _mean_of_means(base), compare_means(new, base))
        else:
            cells[name] = Gain(queries, mean, None, None)
    return cells


def _mean_of_means(figures: Sequence[NDArray[np.float64]]) -> float:
    return float(np.mean([values.mean() for values in figures]))


# ---------------------------------------------------------------------------------------- tables


def _titled(gains: Gains) -> dict[str, Lines]:
    titled = {gains.metric: gains.datasets}
    for name, lines in gains.languages.items():
        where = "mean over datasets" if name == "mean" else name
        titled[f"{gains.metric}, {where}, by language of the query"] = lines
    return titled


def _short(title: str, lines: Lines) -> Table:
    rows = list(dict.fromkeys(name for gains in lines.values() for name in gains))
    return Table.of(
        [title, *rows],
        [
            [_name(line), *(_gain(gains[name]) if name in gains else "" for name in rows)]
            for line, gains in lines.items()
        ],
    )


def _gain(gain: Gain) -> str:
    if gain.gain is None:
        return f"{gain.mean:.3f}"
    same = " =" if gain.gain.p_value >= 0.05 else ""
    return f"{gain.mean:.3f} ({gain.gain.difference.mean:+.3f}{same})"


def _long(title: str, lines: Lines) -> Table:
    return Table.of(
        [title, "mode", "queries", "base", "new", "difference", "95 % interval", "p"],
        [
            [_name(line), name, str(gain.queries), *_both(gain)]
            for line, gains in lines.items()
            for name, gain in gains.items()
        ],
    )


def _both(gain: Gain) -> list[str]:
    if gain.base is None or gain.gain is None:
        return ["", f"{gain.mean:.3f}", "", "", ""]
    difference = gain.gain.difference
    return [
        f"{gain.base:.3f}",
        f"{gain.mean:.3f}",
        f"{difference.mean:+.3f}",
        f"{difference.low:+.3f} to {difference.high:+.3f}",
        f"{gain.gain.p_value:.3f}",
    ]


def _name(line: str) -> Cell:
    return Cell(line, "strong" if line == "mean" else "")
