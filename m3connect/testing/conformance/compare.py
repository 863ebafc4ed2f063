"""What it means to be right: answers held against the batch written, or against the oracle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from m3connect.contract import CollectionSchema
from m3connect.filters import EVERY_TENANT
from m3connect.stores.memory import MemoryConnector
from m3connect.types import (
    Embeddings,
    Hit,
    Leg,
    LegScores,
    MultiVectors,
    Query,
    RecordBatch,
    Rrf,
    SparseVector,
    SparseVectors,
)
from m3connect.types.tokens import array_dtype, rounded

E = TypeVar("E", bound=Exception)


def oracle(batch: RecordBatch, schema: CollectionSchema) -> MemoryConnector:
    """The in-memory connector, holding these records."""
    memory = MemoryConnector(collection="oracle")
    memory.ensure(schema)
    memory.upsert(batch)
    return memory


def refusal(wanted: type[E], attempt: Callable[[], object], about: str) -> E:
    """The error that ``attempt`` raises; not to raise it is a failure."""
    try:
        attempt()
    except wanted as error:
        return error
    raise AssertionError(f"{about}: no {wanted.__name__} was raised")


def same_json(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> bool:
    """Whether two payloads are the same JSON: 1 is neither 1.0 nor true."""
    texts = [json.dumps(dict(value), sort_keys=True) for value in (wanted, got)]
    return texts[0] == texts[1]


def check_records(wanted: RecordBatch, got: RecordBatch, schema: CollectionSchema) -> None:
    """Assert that ``got`` is exactly what was written, in its stored precision."""
    assert list(got.ids) == list(wanted.ids), (
        f"wanted the ids {list(wanted.ids)[:5]}..., got {list(got.ids)[:5]}... "
        f"({len(wanted)} and {len(got)} of them)"
    )
    for id_, old, new in zip(wanted.ids, wanted.payloads, got.payloads, strict=True):
        assert same_json(old, new), (
            f"record {id_!r}: payload {old!r:.500} came back as {new!r:.500}"
        )
    was, now = (_canonical(batch.embeddings, schema) for batch in (wanted, got))
    assert now.legs == was.legs, f"wanted the legs {was.legs}, got {now.legs}"
    for row, id_ in enumerate(wanted.ids):
        assert now[row] == was[row], f"record {id_!r}: {was[row]} came back as {now[row]}"
    if got.embeddings.multivector is not None:
        dtype = got.embeddings.multivector.vectors.dtype
        assert dtype == array_dtype(schema.multivector_dtype), f"token vectors came back as {dtype}"


def by_id(batches: Iterable[RecordBatch]) -> RecordBatch:
    """All records of a scan, ordered by id."""
    batch = RecordBatch.concat(list(batches))
    return batch.take(np.array(sorted(range(len(batch)), key=lambda row: batch.ids[row]), np.intp))


def _canonical(embeddings: Embeddings, schema: CollectionSchema) -> Embeddings:
    """Terms in order, token values as the schema stores them."""
    sparse, multi = embeddings.sparse, embeddings.multivector
    if sparse is not None:
        sparse = SparseVectors.from_rows([_sorted(sparse[row]) for row in range(len(sparse))])
    if multi is not None:
        multi = MultiVectors(multi.offsets, rounded(multi.vectors, schema.multivector_dtype))
    return replace(embeddings, sparse=sparse, multivector=multi)


def _sorted(vector: SparseVector) -> SparseVector:
    order = np.argsort(vector.indices)
    return SparseVector(vector.indices[order], vector.values[order])


# ------------------------------------------------------------------------------------- searches


def check_hits(memory: MemoryConnector, query: Query, hits: Sequence[Hit], about: str) -> None:
    """Assert that ``hits`` answer ``query`` as the oracle does.

    Scores agree within a tolerance. Hits closer to each other than the tolerance may swap, and
    any of them may be the last; but equal scores are ordered by id.
    """
    everyone = replace(
        query, limit=max(1, memory.count(EVERY_TENANT)), leg_scores=True, payload=False
    )
    (full,) = memory.search([everyone])
    truth = {hit.id: hit for hit in full}
    ids = [hit.id for hit in hits]
    expected = full[: query.limit]
    shown = f"{about}: wanted {_shown(expected)}, got {_shown(hits)}"
    assert len(ids) == len(set(ids)) == len(expected), f"{len(expected)} hits wanted; {shown}"
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1)), f"ranks; {shown}"
    assert ids == sorted_ids(hits), f"not sorted by (-score, id); {shown}"
    for hit, best in zip(hits, expected, strict=True):
        assert hit.id in truth, f"{hit.id!r} should not be found; {shown}"
        right = truth[hit.id]
        near = tolerance(query, right.score)
        assert abs(hit.score - right.score) <= near, (
            f"{hit.id!r} scores {hit.score!r}, not {right.score!r}; {shown}"
        )
        assert abs(right.score - best.score) <= near, f"{best.id!r} is missed; {shown}"
        if query.leg_scores:
            _check_leg_scores(right, hit, about)
    stored = memory.fetch(ids, vectors=False).payloads if query.payload else [{} for _ in ids]
    for hit, payload in zip(hits, stored, strict=True):
        assert same_json(payload, hit.payload), (
            f"{hit.id!r} has the payload {payload!r:.300}, got {hit.payload!r:.300}; {about}"
        )


def sorted_ids(hits: Sequence[Hit]) -> list[str]:
    """The ids as the contract orders them."""
    return [hit.id for hit in sorted(hits, key=lambda hit: (-hit.score, hit.id))]


def tolerance(query: Query, score: float) -> float:
    """How far a score may be off: 1e-4, or 1e-6 for reciprocal ranks, which are small."""
    if isinstance(query.fusion, Rrf) and query.rerank is None:
        return 1e-6
    return 1e-4 * max(1.0, abs(score))


def decided(memory: MemoryConnector, query: Query) -> bool:
    """Whether ranks and cuts inside a fused query are clear, so that one answer is right.

    Where two candidates nearly tie at a leg's depth, engines may rightly differ in the candidates.
    """
    if len(query.legs) == 1:
        return True
    depths: dict[Leg, int] = {"dense": query.dense_depth, "sparse": query.sparse_depth}
    searched = [leg for leg in query.legs if leg != "multivector"]
    for leg in searched:
        alone = Query(
            **{leg: getattr(query, leg)},
            filter=query.filter,
            within=query.within,
            limit=depths[leg] + 1,
            payload=False,
        )
        if _tied([hit.score for hit in memory.search([alone])[0]], 1e-5):
            return False
    if query.rerank is None:
        everyone = replace(
            query, limit=max(1, memory.count(EVERY_TENANT)), leg_scores=True, payload=False
        )
        by_hit = [hit.scores or LegScores() for hit in memory.search([everyone])[0]]
        late = [scores.multivector for scores in by_hit if scores.multivector is not None]
        return not _tied(sorted(late, reverse=True), 1e-5)
    if len(searched) == 1:
        return True
    first = replace(query, multivector=None, rerank=None, limit=query.rerank + 1)
    scores = [hit.score for hit in memory.search([first])[0]]
    return not _tied(scores[query.rerank - 1 :], 1e-7 if isinstance(query.fusion, Rrf) else 1e-5)


def _tied(falling: Sequence[float], near: float) -> bool:
    return any(high - low < near for high, low in pairwise(falling))


def _check_leg_scores(right: Hit, hit: Hit, about: str) -> None:
    wanted, got = right.scores, hit.scores
    assert wanted is not None
    assert got is not None, f"{hit.id!r} lacks the legs' scores; {about}"
    for leg in ("dense", "sparse", "multivector"):
        was, now = getattr(wanted, leg), getattr(got, leg)
        same = (
            was is now if was is None or now is None else abs(was - now) <= 1e-4 * max(1, abs(was))
        )
        assert same, f"{hit.id!r}: {leg} scores {now!r}, not {was!r}; {about}"


def _shown(hits: Sequence[Hit]) -> str:
    return "[" + ", ".join(f"{hit.id} {hit.score:.6g}" for hit in hits[:12]) + "]"
