"""The main path: dataset and encoder -> embeddings on disk -> every mode's answers -> figures."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from m3connect.contract import Encoder, Kind
from m3connect.errors import InputError
from m3connect.evaluation import answers, bm25, extra, metrics, storage, store
from m3connect.evaluation.datasets import Dataset, TextQuery
from m3connect.evaluation.metrics import Figures
from m3connect.evaluation.modes import MODES, Mode, Preset, legs_of, preset_for
from m3connect.evaluation.offline import OfflineSearch
from m3connect.evaluation.store import EmbeddingStore, Progress, silent
from m3connect.types import LEGS, Embeddings, Leg

Baseline = Literal["bm25", "bm25-model"]
"""BM25 over stemmed words, and over the model's own tokens."""

Answer = Mapping[str, float]
Recorder = Callable[[str, str, Answer], None]
"""Called with a row's name, a query's id and the query's answer."""


@dataclass(frozen=True, slots=True)
class Row:
    """One mode or baseline on one dataset.

    Args:
        name: of the mode or baseline.
        figures: ``float64 [Q]`` by metric.
        seconds: that its search took; encoding is not in it.
        size: mean bytes of what the row needs of a document, None where it is not known.
        live: what only a database has: latency percentiles and agreement with exact search.
    """

    name: str
    figures: Figures
    seconds: float
    size: float | None = None
    live: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured on one dataset.

    Args:
        dataset: its name.
        documents: how many it has.
        queries: in the order of the figures.
        rows: one a mode and baseline.
        settings: what it was measured with, as JSON values.
        warnings: what was odd.
    """

    dataset: str
    documents: int
    queries: tuple[TextQuery, ...]
    rows: tuple[Row, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def languages(self) -> dict[str, list[int]]:
        """The places of each language's queries, when they name two languages or more."""
        places: dict[str, list[int]] = {}
        for place, query in enumerate(self.queries):
            places.setdefault(query.language, []).append(place)
        return dict(sorted(places.items())) if len(places) > 1 else {}


def evaluate(
    dataset: Dataset,
    encoder: Encoder,
    *,
    modes: Sequence[Mode] = MODES,
    baselines: Sequence[Baseline] = (),
    storages: Sequence[str] = (),
    preset: Preset | None = None,
    names: Sequence[str] = metrics.DEFAULT,
    cache: Path | None = None,
    progress: Progress = silent,
    record: Recorder | None = None,
) -> Result:
    """Measure an encoder on a dataset, exactly.

    Args:
        dataset: corpus, queries and judgements.
        encoder: the model.
        modes: what to measure.
        baselines: lexical rows to put beside.
        storages: smaller forms of the multi-vectors to try in the mode ``multivector``.
        preset: depths, weights and candidates; default: the paper's, with the model's weights.
        names: metrics; ``answer_recall@K`` needs queries with answers.
        cache: folder that keeps embeddings between runs; None keeps none.
        progress: told what goes on.
        record: given every answer, for a run file.

    Raises:
        ConfigError: the extra ``eval`` is missing, or a metric is unknown.
        InputError: the encoder gives NaN, or a metric lacks its data.
    """
    extra.check()
    check(names, dataset)
    for name in storages:
        storage.parse(name)
    preset = preset or preset_for(encoder.info)
    limit = cutoff(names)
    rows: list[Row] = []
    warnings = list(dataset.warnings)
    if modes or storages:
        legs = needed((*modes, "multivector") if storages else modes)
        with tempfile.TemporaryDirectory() as scratch:
            corpus, queries = encode(
                dataset, encoder, legs, cache or Path(scratch), progress=progress
            )
            warnings += _truncation(corpus, queries)
            search = OfflineSearch(
                dataset.ids, corpus, queries, preset, limit=limit, progress=progress
            )
            rows += _mode_rows(dataset, search, modes, names, record)
            rows += _storage_rows(dataset, search, storages, names, record, Path(scratch))
    for baseline in baselines:
        analyse = bm25.words if baseline == "bm25" else bm25.tokens(encoder.tokenizer)
        index = bm25.Bm25(dataset.documents(), len(dataset.ids), analyse, progress=progress)
        found = index.run(dataset.queries, limit)
        rows.append(measure(baseline, dataset, found, names, record))
    return Result(
        dataset.name,
        len(dataset.ids),
        dataset.queries,
        tuple(rows),
        {"model": encoder.info.fingerprint.to_json(), "preset": asdict(preset)},
        tuple(warnings),
    )


def encode(
    dataset: Dataset,
    encoder: Encoder,
    legs: Sequence[Leg],
    cache: Path,
    *,
    progress: Progress = silent,
) -> tuple[EmbeddingStore, Embeddings]:
    """The corpus's embeddings on disk and the queries' in memory; what is cached is not redone.

    Args:
        dataset: gives the texts.
        encoder: the model.
        legs: the representations to keep.
        cache: folder of all stores.
        progress: told of every shard.
    """

    def stored(kind: Kind, texts: Iterable[str], total: int, content: str) -> EmbeddingStore:
        folder = cache / store.key(encoder, content, kind=kind, legs=legs)
        return store.encode(folder, encoder, texts, total, kind=kind, legs=legs, progress=progress)

    asked = [query.text for query in dataset.queries]
    digest = hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()
    queries = Embeddings.concat(stored("query", asked, len(asked), digest).shards)
    texts = (document.text for document in dataset.documents())
    return stored("passage", texts, len(dataset.ids), dataset.content), queries


def _mode_rows(
    dataset: Dataset,
    search: OfflineSearch,
    modes: Sequence[Mode],
    names: Sequence[str],
    record: Recorder | None,
) -> Iterator[Row]:
    sizes = storage.bytes_per_document(search.store.shards, "float16")
    for mode in modes:
        row = measure(mode, dataset, search.run(mode), names, record)
        yield replace(row, size=sum(sizes[leg] for leg in legs_of(mode)))


def _storage_rows(
    dataset: Dataset,
    search: OfflineSearch,
    storages: Sequence[str],
    names: Sequence[str],
    record: Recorder | None,
    scratch: Path,
) -> Iterator[Row]:
    for name in storages:
        smaller = storage.convert(search.store, name, scratch / name, progress=search.progress)
        found = search.over(smaller).run("multivector")
        row = measure(f"multivector {name}", dataset, found, names, record)
        sizes = storage.bytes_per_document(smaller.shards, name)
        yield replace(row, size=sizes["dense"] + sizes["multivector"])


def measure(
    name: str,
    dataset: Dataset,
    found: Iterable[Answer],
    names: Sequence[str],
    record: Recorder | None = None,
) -> Row:
    """A row from one answer a query, in the order of the dataset's queries."""
    start = time.perf_counter()
    run: Iterable[tuple[str, Answer]] = _recorded(name, dataset, found, record)
    plain, by_answer = _kinds(names)
    if by_answer:
        run = list(run)
    figures = metrics.evaluate(run, dataset.qrels, plain)
    if by_answer:
        figures |= answers.evaluate(list(run), dataset.queries, dataset.documents(), by_answer)
    return Row(name, {metric: figures[metric] for metric in names}, time.perf_counter() - start)


def check(names: Sequence[str], dataset: Dataset) -> None:
    """See that metrics exist and that the queries have what they need.

    Raises:
        ConfigError: an unknown metric.
        InputError: no judgements, or a query without answers.
    """
    plain, by_answer = _kinds(names)
    metrics.check(plain)
    if plain and not any(dataset.qrels.values()):
        raise InputError(f"{dataset.name} has no judgements: measure answer_recall@K")
    if by_answer:
        answers.check(dataset.queries)


def needed(modes: Iterable[Mode]) -> tuple[Leg, ...]:
    """The representations that modes need.

    >>> needed(["dense+sparse", "dense"])
    ('dense', 'sparse')
    """
    wanted = {leg for mode in modes for leg in legs_of(mode)}
    return tuple(leg for leg in LEGS if leg in wanted)


def cutoff(names: Sequence[str]) -> int:
    """The deepest rank that metrics look at.

    >>> cutoff(["ndcg@10", "answer_recall@20"])
    20
    """
    return max(metrics.cut(name) for name in names)


def _kinds(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The metrics that need judgements, and those that need answers."""
    by_answer = [name for name in names if name.partition("@")[0] == "answer_recall"]
    return [name for name in names if name not in by_answer], by_answer


def _recorded(
    name: str, dataset: Dataset, found: Iterable[Answer], record: Recorder | None
) -> Iterator[tuple[str, Answer]]:
    for query, answer in zip(dataset.queries, found, strict=True):
        if record is not None:
            record(name, query.id, answer)
        yield query.id, answer


def _truncation(corpus: EmbeddingStore, queries: Embeddings) -> list[str]:
    counts = {
        "documents": (sum(int(shard.truncated.sum()) for shard in corpus.shards), len(corpus)),
        "queries": (int(np.sum(queries.truncated)), len(queries)),
    }
    return [
        f"{cut} of {total} {what} are longer than the model reads and were cut"
        for what, (cut, total) in counts.items()
        if cut
    ]
