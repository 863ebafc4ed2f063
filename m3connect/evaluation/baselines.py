"""Rows to compare with: BM25, and the best that rank fusion makes of BM25 and the dense vector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from m3connect.contract import Encoder
from m3connect.datasets.beir import Dataset
from m3connect.evaluation import bm25
from m3connect.evaluation.measure import Answer, Recorder, Row, cutoff, measure
from m3connect.evaluation.offline import OfflineSearch
from m3connect.progress import Progress, silent
from m3connect.searching import fusion
from m3connect.types import Leg

Baseline = Literal["bm25", "bm25-model", "dense+bm25"]
"""BM25 over stemmed words; over the model's own tokens; the first fused with the dense vector."""

WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Of BM25 beside the dense vector's 1."""


def rows(
    dataset: Dataset,
    encoder: Encoder,
    beside: Sequence[Baseline],
    search: OfflineSearch | None,
    *,
    names: Sequence[str],
    record: Recorder | None = None,
    progress: Progress = silent,
) -> Iterator[Row]:
    """One row a baseline.

    Args:
        dataset: corpus, queries and judgements.
        encoder: gives the tokenizer.
        beside: what to measure.
        search: gives the dense answers, for ``dense+bm25``.
        names: metrics.
        record: given every answer.
        progress: told what goes on.
    """
    limit = cutoff(names)
    if {"bm25", "dense+bm25"} & set(beside):
        index = bm25.Bm25(dataset.documents(), len(dataset.ids), progress=progress)
        lexical = list(index.run(dataset.queries, limit))
        if "bm25" in beside:
            yield measure("bm25", dataset, lexical, names, record)
        if "dense+bm25" in beside:
            assert search is not None, "made for it"
            dense = list(search.run_by_document("dense"))
            yield _best_fusion(dataset, dense, lexical, names, record)
    if "bm25-model" in beside:
        analyse = bm25.tokens(encoder.tokenizer)
        index = bm25.Bm25(dataset.documents(), len(dataset.ids), analyse, progress=progress)
        yield measure("bm25-model", dataset, index.run(dataset.queries, limit), names, record)


def _best_fusion(
    dataset: Dataset,
    dense: Sequence[Answer],
    lexical: Sequence[Answer],
    names: Sequence[str],
    record: Recorder | None,
) -> Row:
    """The best of ``WEIGHTS`` in the first metric, chosen on these very queries: an upper bound."""

    def fused(weight: float) -> Iterable[Mapping[str, float]]:
        for ours, theirs in zip(dense, lexical, strict=True):
            rankings: dict[Leg, list[str]] = {"dense": list(ours), "sparse": list(theirs)}
            scores = fusion.rrf(rankings, {"dense": 1.0, "sparse": weight})
            yield {id_: scores[id_] for id_ in fusion.top(scores, cutoff(names))}

    means = {
        weight: measure("dense+bm25", dataset, fused(weight), names[:1]).figures[names[0]].mean()
        for weight in WEIGHTS
    }
    best = max(WEIGHTS, key=means.__getitem__)
    return measure("dense+bm25", dataset, fused(best), names, record)
