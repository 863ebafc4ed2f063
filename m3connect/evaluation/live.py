"""The same queries through a connector: figures, latency, and agreement with exact search.

The reference needs no encoding of the corpus: the collection's own vectors are read back and searched
exactly. What differs is then the database's doing: an approximate index, rounded vectors, its fusion.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from m3connect.contract import Connector, Encoder
from m3connect.datasets.beir import Dataset
from m3connect.errors import FingerprintMismatch, InputError
from m3connect.evaluation import measure, metrics, requires, shards
from m3connect.evaluation.measure import Answer, Recorder, Result, Row
from m3connect.evaluation.offline import OfflineSearch, by_document, cut_off, passages_for
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.filters import AnyFilter, as_filter
from m3connect.ingestion.chunking import Chunker
from m3connect.progress import Progress, silent
from m3connect.searching import planner, search
from m3connect.searching.modes import Preset, for_database, needed, parse_mode, to_query
from m3connect.searching.names import MODES, Mode, ModeName
from m3connect.types import Embeddings, Hit, Leg

OVERLAP = 10
"""The first so many records are compared with exact search."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a collection holds, read back.

    Args:
        ids: of the records.
        document_of: each record's document.
        store: the records' vectors.
    """

    ids: tuple[str, ...]
    document_of: Mapping[str, str]
    store: EmbeddingStore

    @property
    def documents(self) -> set[str]:
        """The documents that the records are of."""
        return set(self.document_of.values())


def evaluate(
    dataset: Dataset,
    encoder: Encoder,
    connector: Connector,
    *,
    modes: Sequence[ModeName] = MODES,
    preset: Preset | None = None,
    depth: int | None = None,
    filter: AnyFilter | None = None,  # noqa: A002 - the field's word
    passages: Chunker | None = None,
    names: Sequence[str] = metrics.DEFAULT,
    reference: bool = True,
    progress: Progress = silent,
    record: Recorder | None = None,
) -> Result:
    """Measure a collection that holds a dataset's corpus.

    Records are counted as their documents (``document_id`` in the payload, else the record's id),
    a document by its best record. Queries are sent one at a time.

    Args:
        dataset: its queries and judgements; its corpus, if it has one, is what the collection should hold.
        encoder: the collection's model.
        connector: the collection.
        modes: what to measure.
        preset: gives fusions and depths; its pools become the union. Default: what
            :func:`m3connect.search` does with this collection, tuned settings included.
        depth: candidates that each leg brings instead.
        filter: which records are searched, such as those of the tenant whose corpus it is.
        passages: how the collection should have been cut; None takes it as it is.
        names: metrics.
        reference: also search the collection's vectors exactly, and compare.
        progress: told what goes on.
        record: given every answer, for a run file.

    Raises:
        FingerprintMismatch: the collection was made by another model, or cut in another way than
            ``passages``.
        InputError: the collection holds none of the dataset's documents.
        ConnectorError: the database failed.
    """
    requires.check()
    measure.check(names, dataset)
    info = connector.describe()
    require(connector, encoder, passages)
    measured = [parse_mode(mode) for mode in modes]
    preset = for_database(preset or search.served_preset(encoder.info, info), depth)
    legs = needed(measured, preset, available=info.schema.legs)
    texts = [query.text for query in dataset.queries]
    queries = search.encode_as_stored(info, encoder, texts, kind="query", legs=legs)
    with tempfile.TemporaryDirectory() as folder:
        kept = legs if reference else ()
        contents = read(connector, kept, Path(folder), filter=filter, progress=progress)
        warnings = [
            *differences(dataset, contents),
            *cut_off("records", contents.store.shards),
            *cut_off("queries", [queries]),
        ]
        limit = _limit(contents, names, connector)
        exact = None
        if reference:
            exact = OfflineSearch(
                contents.ids,
                contents.store,
                queries,
                preset,
                limit=limit,
                document_of=contents.document_of,
                progress=progress,
            )
        rows = []
        for mode in measured:
            timed = _TimedQueries(connector, mode, preset, queries, limit, filter, progress)
            row = measure.measure(mode, dataset, timed.answers(contents), names, record)
            rows.append(replace(row, live=_live(row, timed, exact, contents, dataset, names)))
    return Result(
        dataset.name,
        len(dataset.ids or contents.documents),
        dataset.queries,
        tuple(rows),
        {
            "model": encoder.info.fingerprint.to_json(),
            "preset": asdict(preset),
            "target": connector.name,
            "engine": info.engine,
            "collection": info.name,
            "records": len(contents.ids),
        },
        (*dataset.warnings, *warnings),
    )


def require(connector: Connector, encoder: Encoder, passages: Chunker | None = None) -> None:
    """See that a collection was made by this model, if it says by which, and cut like this, if asked.

    Raises:
        FingerprintMismatch: it was made by another model, or cut in another way.
    """
    info = connector.describe()
    search.require(info, encoder)
    stored = info.schema.fingerprint
    cut_as = stored.chunker if stored is not None else ""
    if passages is not None and cut_as != passages.description:
        raise FingerprintMismatch(
            f"collection {info.name!r} was cut as {cut_as or 'records that came ready-made'!r}, the "
            f"options of --passages say {passages.description!r}: leave --passages out to measure "
            "the collection as it is"
        )


def read(
    connector: Connector,
    legs: Sequence[Leg],
    folder: Path,
    *,
    filter: AnyFilter | None = None,  # noqa: A002 - the field's word
    progress: Progress = silent,
) -> Contents:
    """Everything a collection holds, its vectors in files of their own.

    Args:
        connector: the collection.
        legs: the representations to keep.
        folder: for the files.
        filter: which records are meant.
        progress: told of every batch.
    """
    ids: list[str] = []
    document_of: dict[str, str] = {}
    kept: list[Embeddings] = []
    total = connector.count(filter)
    for number, batch in enumerate(
        connector.scan(filter, vectors=legs, batch_size=shards.SHARD_ROWS if legs else 256)
    ):
        ids += batch.ids
        document_of |= {
            id_: Hit(id_, 0.0, 1, payload).document_id
            for id_, payload in zip(batch.ids, batch.payloads, strict=True)
        }
        path = folder / f"{number:09d}.arrow"
        shards.write(path, batch.embeddings.only(legs))
        kept.append(shards.read(path))
        progress("reading the collection", len(ids), total)
    return Contents(tuple(ids), document_of, EmbeddingStore.of(kept))


class _TimedQueries:
    """One mode's queries, sent one by one and timed."""

    def __init__(
        self,
        connector: Connector,
        mode: Mode,
        preset: Preset,
        queries: Embeddings,
        limit: int,
        where: AnyFilter | None,
        progress: Progress,
    ) -> None:
        self.connector = connector
        self.mode = mode
        self.preset = preset
        self.queries = queries
        self.limit = limit
        self.where = as_filter(where)
        self.progress = progress
        self.seconds: list[float] = []
        self.records: list[list[str]] = []

    def answers(self, contents: Contents) -> Iterator[Answer]:
        """Each query's documents; keeps the records' ids and the time."""
        for row in range(len(self.queries)):
            query = to_query(
                self.mode, self.preset, self.queries[row], limit=self.limit, filter=self.where
            )
            start = time.perf_counter()
            (hits,) = planner.run(self.connector, [query])
            self.seconds.append(time.perf_counter() - start)
            self.records.append([hit.id for hit in hits[:OVERLAP]])
            yield by_document({hit.id: hit.score for hit in hits}, contents.document_of)
            self.progress(f"{self.mode} live", row + 1, len(self.queries))


def _live(
    row: Row,
    timed: _TimedQueries,
    exact: OfflineSearch | None,
    contents: Contents,
    dataset: Dataset,
    names: Sequence[str],
) -> dict[str, float]:
    """Milliseconds, and agreement with exact search over the same vectors."""
    p50, p95, p99 = np.percentile(np.array(timed.seconds) * 1000, [50, 95, 99])
    figures = {"p50 ms": float(p50), "p95 ms": float(p95), "p99 ms": float(p99)}
    if exact is None:
        return figures
    overlaps = []
    answers: list[Answer] = []
    for records, expected in zip(timed.records, exact.run(timed.mode), strict=True):
        overlaps.append(_overlap(records, list(expected)[:OVERLAP]))
        answers.append(by_document(expected, contents.document_of))
    reference = measure.measure(row.name, dataset, answers, names)
    first = names[0]
    return {
        **figures,
        f"overlap@{OVERLAP}": float(np.mean(overlaps)),
        f"{first} exact": float(reference.figures[first].mean()),
    }


def _overlap(records: Sequence[str], exact: Sequence[str]) -> float:
    """Share of the exact answer among the records; none is right where there is nothing.

    >>> _overlap(["a", "x"], ["a", "b"]), _overlap([], []), _overlap(["x"], [])
    (0.5, 1.0, 0.0)
    """
    if not exact:
        return float(not records)
    return len(set(records) & set(exact)) / len(exact)


def _limit(contents: Contents, names: Sequence[str], connector: Connector) -> int:
    """Records to ask for, so that they make as many documents as the metrics look at."""
    most = connector.capabilities.limits.results
    records, documents = len(contents.ids), len(contents.documents)
    limit = passages_for(measure.cutoff(names), records=records, corpus=documents)
    return limit if most is None else min(limit, most)


def differences(dataset: Dataset, contents: Contents) -> list[str]:
    """Where collection and corpus differ; without a corpus, the documents that are judged relevant.

    Raises:
        InputError: they have nothing in common.
    """
    stored = contents.documents
    corpus = set(dataset.ids) or {
        id_ for judged in dataset.qrels.values() for id_, grade in judged.items() if grade > 0
    }
    if not corpus & stored:
        examples = sorted(stored)[:3]
        raise InputError(
            f"the collection holds none of the documents of {dataset.name!r}: its documents are "
            f"named like {examples}; ingest the corpus with its ids (--id-field)"
        )
    counts = {
        "documents of the dataset are not in the collection": len(corpus - stored),
        "documents of the collection are not in the dataset": len(
            stored - corpus if dataset.ids else ()
        ),
    }
    return [f"{count} {what}" for what, count in counts.items() if count]
