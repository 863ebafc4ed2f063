"""Moving a collection between databases, and proving that it arrived."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from m3connect.contract import CollectionSchema, Connector
from m3connect.errors import FingerprintMismatch
from m3connect.filters import EVERY_TENANT, Exists, Filter
from m3connect.progress import Progress, silent
from m3connect.searching import planner
from m3connect.searching.modes import DEPTH, MIRACL, for_database, scored_legs, to_query
from m3connect.searching.names import MODES, Mode
from m3connect.types import LEGS, Embeddings, Payload, Query, RecordBatch, SparseVector

_ROUNDING = 1e-5
"""The largest difference that normalising in float32 makes."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did: ``read = written + skipped``.

    Args:
        read: records of the source.
        written: records that were sent.
        skipped: records that the target held already, equal in payload and vectors.
        seconds: wall time.
    """

    read: int
    written: int
    skipped: int
    seconds: float


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """How two collections compare.

    Args:
        source_count, target_count: records on each side.
        missing, superfluous: ids on one side only.
        payloads_differ, vectors_differ: ids whose payload or vectors differ.
        queries: queries that were sampled, each a stored record's own vectors.
        overlap: mean share of common ids in the two top tens, by mode.
    """

    source_count: int
    target_count: int
    missing: tuple[str, ...]
    superfluous: tuple[str, ...]
    payloads_differ: tuple[str, ...]
    vectors_differ: tuple[str, ...]
    queries: int
    overlap: dict[str, float]

    @property
    def equal(self) -> bool:
        """Whether every record arrived unchanged."""
        return not (self.missing or self.superfluous or self.payloads_differ or self.vectors_differ)


def copy(
    source: Connector,
    target: Connector,
    *,
    batch_size: int = 256,
    progress: Progress = silent,
) -> CopyReport:
    """Copy ids, payloads, all representations, the fingerprint and the notes.

    A copy that was cut off is simply run again: what the target holds already is skipped.

    Args:
        source: an existing collection.
        target: created if it does not exist.
        batch_size: records read at a time.
        progress: told of every batch.

    Raises:
        SchemaMismatch: the target exists with another schema.
        FingerprintMismatch: the target was made by another model.
        InputError: the target's limits exclude a record; names it.
        ConnectorError: a database failed.
    """
    start = time.monotonic()
    info = source.describe()
    target.ensure(info.schema)
    existing = target.describe()
    if info.schema.fingerprint != existing.schema.fingerprint:
        raise FingerprintMismatch(
            f"collection {existing.name!r} carries another fingerprint than {info.name!r}: "
            f"{existing.schema.fingerprint} instead of {info.schema.fingerprint}. Copy into a new "
            "collection."
        )
    read = written = 0
    total = source.count(EVERY_TENANT)
    known = _ids(target)
    tolerance = _tolerance(info.schema)
    for batch in source.scan(EVERY_TENANT, vectors=True, batch_size=batch_size):
        news = _without_equals(batch, target, known, tolerance)
        if len(news):
            target.upsert(news)
        read += len(batch)
        written += len(news)
        progress("copying", read, total)
    if info.notes and info.notes != existing.notes:  # a finished file takes none
        target.annotate(info.notes)
    target.flush()
    return CopyReport(read, written, read - written, time.monotonic() - start)


def verify(
    source: Connector,
    target: Connector,
    *,
    samples: int = 50,
    seed: int = 0,
    batch_size: int = 256,
    progress: Progress = silent,
) -> VerifyReport:
    """Compare two collections record by record, and the top ten of sampled queries.

    Token vectors are equal when they agree to the coarser of the two stored precisions, all others to 1e-5.

    Args:
        source, target: existing collections.
        samples: stored records whose own vectors are used as queries.
        seed: of the sample.
        batch_size: records compared at a time.
        progress: told of every batch.

    Raises:
        ConnectorError: a database failed.
    """
    tolerance = max(_tolerance(side.describe().schema) for side in (source, target))
    differences: tuple[list[str], list[str], list[str]] = ([], [], [])
    seen: set[str] = set()
    total = source.count(EVERY_TENANT)
    for batch in source.scan(EVERY_TENANT, vectors=True, batch_size=batch_size):
        seen.update(batch.ids)
        progress("comparing", len(seen), total)
        ids_by_kind = _differences(batch, target.fetch(batch.ids), tolerance)
        for differing, ids in zip(differences, ids_by_kind, strict=True):
            differing.extend(ids)
    missing, payloads_differ, vectors_differ = differences
    superfluous = sorted(_ids(target) - seen)
    common = sorted(seen - set(missing))
    chosen = np.random.default_rng(seed).permutation(len(common))[:samples]
    field = source.describe().schema.tenant_field
    every_tenant = None if field is None else Exists(field)
    overlap = _overlap(source, target, [common[row] for row in chosen], every_tenant)
    return VerifyReport(
        total,
        target.count(EVERY_TENANT),
        tuple(missing),
        tuple(superfluous),
        tuple(payloads_differ),
        tuple(vectors_differ),
        len(chosen),
        overlap,
    )


def _ids(connector: Connector) -> set[str]:
    if not connector.count(EVERY_TENANT):  # also of a file in progress, which cannot be read yet
        return set()
    return {id_ for batch in connector.scan(EVERY_TENANT) for id_ in batch.ids}


def _differences(
    batch: RecordBatch, other: RecordBatch, tolerance: float
) -> tuple[list[str], list[str], list[str]]:
    """The ids that ``other`` lacks, holds with another payload, and with other vectors."""
    missing, payloads, vectors = [], [], []
    rows = {id_: row for row, id_ in enumerate(other.ids)}
    for row, id_ in enumerate(batch.ids):
        twin = rows.get(id_)
        if twin is None:
            missing.append(id_)
            continue
        if _json(batch.payloads[row]) != _json(other.payloads[twin]):
            payloads.append(id_)
        if not _close(batch.embeddings[row], other.embeddings[twin], tolerance):
            vectors.append(id_)
    return missing, payloads, vectors


def _json(payload: Payload) -> str:
    """By which types are told apart, too: 1, 1.0 and True are equal in Python."""
    return json.dumps(payload, sort_keys=True)


def _without_equals(
    batch: RecordBatch, target: Connector, known: set[str], tolerance: float
) -> RecordBatch:
    """The records that the target lacks or holds differently."""
    if known.isdisjoint(batch.ids):
        return batch
    held = target.fetch([id_ for id_ in batch.ids if id_ in known])
    changed = {id_ for ids in _differences(batch, held, tolerance) for id_ in ids}
    return batch.take(
        np.array([row for row, id_ in enumerate(batch.ids) if id_ in changed], np.intp)
    )


def _tolerance(schema: CollectionSchema) -> float:
    """The largest difference that storing makes to token vectors, where they are float16."""
    return 1e-3 if schema.multivector_dtype == "float16" else _ROUNDING


def _close(source: Embeddings, target: Embeddings, tolerance: float) -> bool:
    return (
        _dense_close(source, target)
        and _sparse_close(source, target)
        and _multivector_close(source, target, tolerance)
    )


def _dense_close(source: Embeddings, target: Embeddings) -> bool:
    if source.dense is None or target.dense is None:
        return source.dense is target.dense
    return source.dense.shape == target.dense.shape and np.allclose(
        source.dense, target.dense, rtol=_ROUNDING, atol=_ROUNDING
    )


def _sparse_close(source: Embeddings, target: Embeddings) -> bool:
    if source.sparse is None or target.sparse is None:
        return source.sparse is target.sparse
    left, right = _sorted(source.sparse[0]), _sorted(target.sparse[0])
    return np.array_equal(left.indices, right.indices) and np.allclose(
        left.values, right.values, rtol=_ROUNDING, atol=_ROUNDING
    )


def _sorted(vector: SparseVector) -> SparseVector:
    """Databases may return terms in another order."""
    order = np.argsort(vector.indices)
    return SparseVector(vector.indices[order], vector.values[order])


def _multivector_close(source: Embeddings, target: Embeddings, tolerance: float) -> bool:
    if source.multivector is None or target.multivector is None:
        return source.multivector is target.multivector
    left = source.multivector.vectors.astype(np.float32)
    right = target.multivector.vectors.astype(np.float32)
    return left.shape == right.shape and np.allclose(left, right, rtol=tolerance, atol=tolerance)


def _overlap(
    source: Connector, target: Connector, ids: Sequence[str], where: Filter | None
) -> dict[str, float]:
    """Mean overlap of the top tens when stored records are used as queries, by mode."""
    if not ids:
        return {}
    preset = for_database(MIRACL, DEPTH)
    queries: dict[Mode, list[Query]] = {}
    for record in source.fetch(ids):
        for mode in _modes(record.embeddings):
            query = to_query(mode, preset, record.embeddings, limit=10, filter=where)
            queries.setdefault(mode, []).append(replace(query, payload=False))
    return {mode: _shared(source, target, asked) for mode, asked in queries.items()}


def _modes(record: Embeddings) -> tuple[Mode, ...]:
    """The modes in which a record's own vectors can ask: without terms there is no sparse query."""
    legs = {leg for leg in LEGS if getattr(record, leg) is not None}
    if record.sparse is not None and not len(record.sparse[0]):
        legs -= {"sparse"}
    return tuple(mode for mode in MODES if legs >= set(scored_legs(mode)))


def _shared(source: Connector, target: Connector, queries: Sequence[Query]) -> float:
    left, right = planner.run(source, queries), planner.run(target, queries)
    shares = [
        len({hit.id for hit in hits} & {hit.id for hit in other}) / max(len(hits), len(other), 1)
        for hits, other in zip(left, right, strict=True)
    ]
    return float(np.mean(shares))
