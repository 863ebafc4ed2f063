"""What mining gave, for people: counts, the distribution of scores, and samples to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from m3connect.pages import Table
from m3connect.training_data.mining import Mined, Tally

SAMPLES = 5
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_SHOWN = 160


@dataclass(slots=True)
class Scores:
    """Scores and the first few results, gathered while they stream by."""

    positives: list[float] = field(default_factory=list)
    negatives: list[float] = field(default_factory=list)
    samples: list[Mined] = field(default_factory=list)

    def watch(self, mined: Iterable[Mined]) -> Iterable[Mined]:
        """Pass results on and remember their scores."""
        for each in mined:
            self.positives += each.positives.values()
            self.negatives += each.negatives.values()
            if len(self.samples) < SAMPLES:
                self.samples.append(each)
            yield each


def markdown(tally: Tally, scores: Scores, texts: Mapping[str, str]) -> str:
    """The report: a table of counts, one of quantiles, and samples."""
    counts = {
        "queries with negatives": tally.queries,
        "negatives": tally.negatives,
        "queries with fewer negatives than asked": tally.short,
        "queries left out (no positive, or no negative allowed)": tally.left_out,
        **{f"candidates dropped: {why}": n for why, n in tally.dropped.most_common()},
    }
    rows = [[what, str(count)] for what, count in counts.items()]
    parts = [Table.of(["count", ""], rows).markdown(), ""]
    if np.isfinite(tally.max_score):
        parts += [f"No negative scores more than {tally.max_score:.3f}, the percentile.", ""]
    quantiles = [
        ["positives", *_quantiles(scores.positives)],
        ["negatives", *_quantiles(scores.negatives)],
    ]
    parts.append(Table.of(["scores", *(f"{q} %" for q in _QUANTILES)], quantiles).markdown())
    for sample in scores.samples:
        parts += ["", f"**{_line(sample.query)}**", ""]
        for mark, found in (("+", sample.positives), ("-", sample.negatives)):
            parts += [
                f"- `{mark} {score:.3f}` {_line(texts[id_])}"
                for id_, score in list(found.items())[:3]
            ]
    return "\n".join(parts) + "\n"


def _quantiles(values: Sequence[float]) -> list[str]:
    cut = np.percentile(values, _QUANTILES) if values else np.full(len(_QUANTILES), np.nan)
    return [f"{value:.3f}" for value in cut]


def _line(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _SHOWN else f"{plain[: _SHOWN - 1]}…"
