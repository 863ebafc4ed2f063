"""The main path: dataset and encoder -> embeddings on disk -> every mode's answers -> figures.

With a chunker the corpus is cut into passages first, and a document counts by its best one.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from m3connect.contract import Encoder, Kind
from m3connect.datasets.beir import Dataset
from m3connect.evaluation import baselines, compression, metrics, requires, shards
from m3connect.evaluation.baselines import Baseline
from m3connect.evaluation.measure import Recorder, Result, Row, check, cutoff, measure
from m3connect.evaluation.offline import OfflineSearch, passages_for
from m3connect.evaluation.passages import Passages, cut
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.ingestion.chunking import Chunker
from m3connect.progress import Progress, silent
from m3connect.searching.modes import Preset, legs_of, needed, parse_mode, preset_for
from m3connect.searching.names import MODES, Mode, ModeName
from m3connect.types import Compression, Embeddings, Leg


def evaluate(
    dataset: Dataset,
    encoder: Encoder,
    *,
    modes: Sequence[ModeName] = MODES,
    beside: Sequence[Baseline] = (),
    storages: Sequence[str] = (),
    preset: Preset | None = None,
    passages: Chunker | None = None,
    names: Sequence[str] = metrics.DEFAULT,
    cache: Path | None = None,
    progress: Progress = silent,
    record: Recorder | None = None,
) -> Result:
    """Measure an encoder on a dataset, exactly.

    Args:
        dataset: corpus, queries and judgements.
        encoder: the model; texts longer than it reads are cut off, unless ``passages`` are made.
        modes: what to measure.
        beside: baselines to put beside.
        storages: smaller forms to try (:mod:`m3connect.evaluation.compression`), each in the mode of
            the representations that it makes smaller.
        preset: depths, weights and candidates; default: what :func:`m3connect.search` does.
        passages: cuts the documents as ingestion does; each counts by its best passage. Baselines
            read whole documents all the same.
        names: metrics; ``answer_recall@K`` needs queries with answers.
        cache: folder that keeps embeddings between runs; None keeps none.
        progress: told what goes on.
        record: given every answer, for a run file.

    Raises:
        ConfigError: the extra ``eval`` is missing, or a metric is unknown.
        InputError: the encoder gives NaN, a metric lacks its data, or ingestion would refuse a
            document.
    """
    requires.check()
    check(names, dataset)
    smaller = {name: compression.parse(name) for name in storages}
    for kept in smaller.values():
        kept.check(encoder.info.fingerprint.dense_width, encoder.info.fingerprint.multivector_width)
    preset = preset or preset_for(encoder.info)
    rows: list[Row] = []
    warnings = list(dataset.warnings)
    settings = {"model": encoder.info.fingerprint.to_json(), "preset": asdict(preset)}
    measured = [parse_mode(mode) for mode in modes]
    searched: list[Mode] = list(measured)
    searched += [compression.mode_of(kept) for kept in smaller.values()]
    searched += ["dense"] if "dense+bm25" in beside else []
    with tempfile.TemporaryDirectory() as scratch:
        search = None
        if searched:
            legs = needed(searched, preset, available=encoder.info.fingerprint.legs)
            made = None if passages is None else cut(dataset, passages)
            search = exact_search(
                dataset,
                encoder,
                legs,
                preset,
                cache or Path(scratch),
                documents=cutoff(names),
                passages=made,
                progress=progress,
            )
            warnings += search.cut_off("documents" if made is None else "passages")
            if made is not None:
                warnings += made.left_out(dataset.ids)
                settings["passages"] = {"cut_as": made.cut_as, "count": len(made.ids)}
            rows += _mode_rows(dataset, search, measured, names, record)
            rows += _storage_rows(dataset, search, smaller, names, record, Path(scratch))
        rows += baselines.rows(
            dataset, encoder, beside, search, names=names, record=record, progress=progress
        )
    return Result(
        dataset.name,
        len(dataset.ids),
        dataset.queries,
        tuple(rows),
        settings,
        tuple(warnings),
    )


def exact_search(
    dataset: Dataset,
    encoder: Encoder,
    legs: Sequence[Leg],
    preset: Preset,
    cache: Path,
    *,
    documents: int,
    passages: Passages | None = None,
    progress: Progress = silent,
) -> OfflineSearch:
    """Exact search of a dataset's queries over its corpus, both encoded or taken from the cache.

    Args:
        dataset: corpus and queries.
        encoder: the model.
        legs: the representations that are needed.
        preset: depths, weights and candidates.
        cache: folder of all stores.
        documents: to find for each query; of passages as many are asked for as make them.
        passages: to search in place of the documents.
        progress: told of every part that is encoded, and every block.
    """
    store, queries = encode(dataset, encoder, legs, cache, passages=passages, progress=progress)
    return OfflineSearch(
        dataset.ids if passages is None else passages.ids,
        store,
        queries,
        preset,
        limit=passages_for(documents, records=len(store), corpus=len(dataset.ids)),
        document_of={} if passages is None else passages.document_of,
        progress=progress,
    )


def encode(
    dataset: Dataset,
    encoder: Encoder,
    legs: Sequence[Leg],
    cache: Path,
    *,
    passages: Passages | None = None,
    progress: Progress = silent,
) -> tuple[EmbeddingStore, Embeddings]:
    """The corpus's embeddings on disk and the queries' in memory; what is cached is not redone.

    The corpus may have more representations than are needed, as an earlier run may have left it; the
    queries, which say what is searched, have no others.

    Args:
        dataset: gives the texts.
        encoder: the model.
        legs: the representations that are needed; what an earlier run cached may hold more.
        cache: folder of all stores.
        passages: to encode in place of the documents.
        progress: told of every part that is encoded.
    """

    def stored(kind: Kind, texts: Iterable[str], total: int, content: str) -> EmbeddingStore:
        folder, kept = shards.place(cache, encoder, content, kind=kind, legs=legs)
        return shards.encode(folder, encoder, texts, total, kind=kind, legs=kept, progress=progress)

    asked = [query.text for query in dataset.queries]
    digest = hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()
    queries = Embeddings.concat(stored("query", asked, len(asked), digest).shards).only(legs)
    if passages is not None:
        texts, total, content = passages.encoded(), len(passages.ids), passages.content
    else:
        texts = (document.text for document in dataset.documents())
        total, content = len(dataset.ids), dataset.content
    return stored("passage", texts, total, content), queries


def _mode_rows(
    dataset: Dataset,
    search: OfflineSearch,
    modes: Sequence[Mode],
    names: Sequence[str],
    record: Recorder | None,
) -> Iterator[Row]:
    sizes = compression.bytes_per_document(search.store.shards, len(dataset.ids))
    for mode in modes:
        row = measure(mode, dataset, search.run_by_document(mode), names, record)
        yield replace(
            row, size=sum(sizes[leg] for leg in legs_of(mode, search.preset) if leg in sizes)
        )


def _storage_rows(
    dataset: Dataset,
    search: OfflineSearch,
    storages: Mapping[str, Compression],
    names: Sequence[str],
    record: Recorder | None,
    scratch: Path,
) -> Iterator[Row]:
    for name, kept in storages.items():
        mode = compression.mode_of(kept)
        store = compression.convert(search.store, kept, scratch / name, progress=search.progress)
        answers = search.compressed(kept, store).run_by_document(mode)
        row = measure(f"{mode} {name}", dataset, answers, names, record)
        dtype = kept.multivector_dtype or "float16"
        sizes = compression.bytes_per_document(store.shards, len(dataset.ids), dtype)
        legs = legs_of(mode, search.preset)
        yield replace(row, size=sum(sizes[leg] for leg in legs if leg in sizes))
