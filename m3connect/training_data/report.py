"""What mining gave, for people: counts, the distribution of scores, and samples to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from m3connect.disk import aside
from m3connect.reporting import charts, pages
from m3connect.reporting.pages import Table
from m3connect.training_data.mining import Mined, Tally

SAMPLES = 5
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_SHOWN = 160
_LEAD = (
    "Hard negatives: passages that rank high for a query and that nobody calls positive. Where their "
    "scores reach those of the positives, some are positives that nobody has judged."
)


@dataclass(slots=True)
class Report:
    """What a run of mining kept and dropped; scores and samples are gathered while results stream by.

    Args:
        tally: counts.
        texts: of all documents.
        warnings: what was odd.
    """

    tally: Tally
    texts: Mapping[str, str]
    positives: list[float] = field(default_factory=list)
    negatives: list[float] = field(default_factory=list)
    samples: list[Mined] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def watch(self, mined: Iterable[Mined]) -> Iterator[Mined]:
        """Pass results on and remember their scores."""
        for each in mined:
            self.positives += each.positives.values()
            self.negatives += each.negatives.values()
            if len(self.samples) < SAMPLES:
                self.samples.append(each)
            yield each

    def tables(self) -> list[Table]:
        """Counts, quantiles of the scores, and samples."""
        quantiles = [
            ["positives", *(f"{score:.3f}" for score in _quantiles(self.positives))],
            ["negatives", *(f"{score:.3f}" for score in _quantiles(self.negatives))],
        ]
        return [
            Table.of(["count", ""], [[what, f"{count}"] for what, count in self._counts()]),
            Table.of(["scores", *(f"{q} %" for q in _QUANTILES)], quantiles),
            Table.of(["query", "", "score", "passage"], [*self._samples()]),
        ]

    def markdown(self) -> str:
        """The tables as Markdown."""
        return "\n\n".join(table.markdown() for table in self.tables()) + "\n"

    def page(self) -> str:
        """The tables and a chart as one HTML page.

        Raises:
            ConfigError: matplotlib or jinja2 is not installed.
        """
        lines = {
            name: [*zip(_QUANTILES, _quantiles(scores), strict=True)]
            for name, scores in (("positives", self.positives), ("negatives", self.negatives))
        }
        chart = charts.curves("Scores by quantile", "% of them score less", lines)
        return pages.page("Mined negatives", _LEAD, tables=self.tables(), charts=[chart])

    def write(self, path: Path) -> None:
        """Write the page, or where the name ends in ``.md`` its tables alone.

        Raises:
            ConfigError: the path is a folder.
            M3ConnectError: there is no room.
        """
        text = self.markdown() if path.suffix == ".md" else self.page()
        with aside(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {
            "queries": self.tally.queries,
            "negatives": self.tally.negatives,
            "short": self.tally.short,
            "left_out": self.tally.left_out,
            "dropped": dict(self.tally.dropped),
            "warnings": list(self.warnings),
        }

    def _counts(self) -> Iterator[tuple[str, int | str]]:
        yield "queries with negatives", self.tally.queries
        yield "negatives", self.tally.negatives
        yield "queries with fewer negatives than asked", self.tally.short
        yield "queries left out (no positive, or no negative allowed)", self.tally.left_out
        for warning in self.warnings:
            yield warning, ""
        for why, count in self.tally.dropped.most_common():
            yield f"candidates dropped: {why}", count
        if np.isfinite(self.tally.max_score):
            yield "most that a negative scores, by the percentile", f"{self.tally.max_score:.3f}"

    def _samples(self) -> Iterator[list[str]]:
        for sample in self.samples:
            for mark, scores in (("+", sample.positives), ("-", sample.negatives)):
                for id_, score in list(scores.items())[:3]:
                    yield [_line(sample.query), mark, f"{score:.3f}", _line(self.texts[id_])]


def _quantiles(scores: Sequence[float]) -> list[float]:
    if not scores:
        return [float("nan")] * len(_QUANTILES)
    return [float(score) for score in np.percentile(scores, _QUANTILES)]


def _line(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _SHOWN else f"{plain[: _SHOWN - 1]}…"
