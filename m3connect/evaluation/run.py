"""The main path: dataset and encoder -> embeddings on disk -> every mode's answers -> figures."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from m3connect.contract import Encoder, Kind
from m3connect.datasets.beir import Dataset
from m3connect.evaluation import baselines, compression, metrics, requires, shards
from m3connect.evaluation.baselines import Baseline
from m3connect.evaluation.measure import Recorder, Result, Row, check, cutoff, measure
from m3connect.evaluation.offline import OfflineSearch
from m3connect.evaluation.shards import EmbeddingStore, Progress, silent
from m3connect.searching.modes import Preset, legs_of, needed, parse_mode, preset_for
from m3connect.searching.names import MODES, Mode, ModeName
from m3connect.types import Embeddings, Leg


def evaluate(
    dataset: Dataset,
    encoder: Encoder,
    *,
    modes: Sequence[ModeName] = MODES,
    beside: Sequence[Baseline] = (),
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
        beside: baselines to put beside.
        storages: smaller forms of the multi-vectors to try in the mode ``multivector``.
        preset: depths, weights and candidates; default: what :func:`m3connect.search` does.
        names: metrics; ``answer_recall@K`` needs queries with answers.
        cache: folder that keeps embeddings between runs; None keeps none.
        progress: told what goes on.
        record: given every answer, for a run file.

    Raises:
        ConfigError: the extra ``eval`` is missing, or a metric is unknown.
        InputError: the encoder gives NaN, or a metric lacks its data.
    """
    requires.check()
    check(names, dataset)
    for name in storages:
        compression.parse(name)
    preset = preset or preset_for(encoder.info)
    limit = cutoff(names)
    rows: list[Row] = []
    warnings = list(dataset.warnings)
    measured = [parse_mode(mode) for mode in modes]
    searched: list[Mode] = list(measured)
    searched += ["multivector"] if storages else []
    searched += ["dense"] if "dense+bm25" in beside else []
    with tempfile.TemporaryDirectory() as scratch:
        search = None
        if searched:
            legs = needed(searched, preset, available=encoder.info.fingerprint.legs)
            corpus, queries = encode(
                dataset, encoder, legs, cache or Path(scratch), progress=progress
            )
            warnings += _truncation(corpus, queries)
            search = OfflineSearch(
                dataset.ids, corpus, queries, preset, limit=limit, progress=progress
            )
            rows += _mode_rows(dataset, search, measured, names, record)
            rows += _storage_rows(dataset, search, storages, names, record, Path(scratch))
        rows += baselines.rows(
            dataset, encoder, beside, search, names=names, record=record, progress=progress
        )
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
        legs: the representations that are needed; what an earlier run cached may hold more.
        cache: folder of all stores.
        progress: told of every shard.
    """

    def stored(kind: Kind, texts: Iterable[str], total: int, content: str) -> EmbeddingStore:
        folder, kept = shards.place(cache, encoder, content, kind=kind, legs=legs)
        return shards.encode(folder, encoder, texts, total, kind=kind, legs=kept, progress=progress)

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
    sizes = compression.bytes_per_document(search.store.shards, "float16")
    for mode in modes:
        row = measure(mode, dataset, search.run(mode), names, record)
        yield replace(
            row, size=sum(sizes[leg] for leg in legs_of(mode, search.preset) if leg in sizes)
        )


def _storage_rows(
    dataset: Dataset,
    search: OfflineSearch,
    storages: Sequence[str],
    names: Sequence[str],
    record: Recorder | None,
    scratch: Path,
) -> Iterator[Row]:
    for name in storages:
        smaller = compression.convert(search.store, name, scratch / name, progress=search.progress)
        answers = search.over(smaller).run("multivector")
        row = measure(f"multivector {name}", dataset, answers, names, record)
        sizes = compression.bytes_per_document(smaller.shards, name)
        legs = legs_of("multivector", search.preset)
        yield replace(row, size=sum(sizes[leg] for leg in legs if leg in sizes))


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
