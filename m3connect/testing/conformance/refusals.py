"""What would be mangled is refused by name, and then nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from m3connect.contract import Connector
from m3connect.errors import InputError
from m3connect.filters import And, Filter, Not
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import check_records, refusal
from m3connect.types import (
    Embeddings,
    FloatArray,
    MultiVectors,
    Query,
    RecordBatch,
    Rrf,
    SparseVector,
    SparseVectors,
    TokenArray,
    Weighted,
)

ROW = 3
"""The bad record's place in its batch."""


def _dense(value: float) -> Callable[[RecordBatch], RecordBatch]:
    def spoil(batch: RecordBatch) -> RecordBatch:
        assert batch.embeddings.dense is not None
        dense = batch.embeddings.dense.copy()
        dense[ROW, 2] = value
        return _with(batch, dense=dense)

    return spoil


def _sparse(row: dict[int, float] | SparseVector) -> Callable[[RecordBatch], RecordBatch]:
    def spoil(batch: RecordBatch) -> RecordBatch:
        sparse = batch.embeddings.sparse
        assert sparse is not None
        rows = [sparse[i] if i != ROW else row for i in range(len(batch))]
        return _with(batch, sparse=SparseVectors.from_rows(rows))

    return spoil


def _tokens(row: TokenArray) -> Callable[[RecordBatch], RecordBatch]:
    def spoil(batch: RecordBatch) -> RecordBatch:
        multi = batch.embeddings.multivector
        assert multi is not None
        rows = [multi[i] if i != ROW else row for i in range(len(batch))]
        return _with(batch, multivector=MultiVectors.from_rows(rows))

    return spoil


def _payload(value: Any) -> Callable[[RecordBatch], RecordBatch]:
    def spoil(batch: RecordBatch) -> RecordBatch:
        payloads = list(batch.payloads)
        payloads[ROW] = value
        return replace(batch, payloads=payloads)

    return spoil


def _id(value: Any) -> Callable[[RecordBatch], RecordBatch]:
    def spoil(batch: RecordBatch) -> RecordBatch:
        ids = list(batch.ids)
        ids[ROW] = value
        return replace(batch, ids=ids)

    return spoil


def _with(batch: RecordBatch, **parts: Any) -> RecordBatch:
    embeddings: Embeddings = replace(batch.embeddings, **parts)
    return replace(batch, embeddings=embeddings)


def _token_values(value: float) -> FloatArray:
    return np.array([[value] * 8, [0.5] * 8], np.float32)


RECORDS: dict[str, Callable[[RecordBatch], RecordBatch]] = {
    "dense NaN": _dense(np.nan),
    "dense infinity": _dense(-np.inf),
    "dense missing": lambda batch: _with(batch, dense=None),
    "dense too narrow": lambda batch: _with(batch, dense=np.ones((len(batch), 15), np.float32)),
    "sparse missing": lambda batch: _with(batch, sparse=None),
    "sparse NaN": _sparse({1: np.nan}),
    "sparse infinity": _sparse({1: np.inf}),
    "sparse negative": _sparse({1: -0.5}),
    "sparse zero": _sparse({1: 0.0}),
    "sparse index twice": _sparse(
        SparseVector(np.array([5, 6, 5], np.uint32), np.array([1, 1, 1], np.float32))
    ),
    "multivector missing": lambda batch: _with(batch, multivector=None),
    "multivector NaN": _tokens(_token_values(np.nan)),
    "multivector infinity": _tokens(_token_values(np.inf)),
    "multivector beyond float16": _tokens(_token_values(70_000.0)),
    "multivector without tokens": _tokens(np.zeros((0, 8), np.float32)),
    "multivector too wide": lambda batch: _with(
        batch, multivector=MultiVectors.from_rows([np.ones((2, 9), np.float32)] * len(batch))
    ),
    "payload reserved key": _payload({"_m3_id": "x"}),
    "payload not JSON": _payload({"bytes": b"x"}),
    "payload NaN": _payload({"nested": [{"value": float("nan")}]}),
    "payload infinity": _payload({"value": float("inf")}),
    "payload key not a string": _payload({1: "one"}),
    "payload nested key not a string": _payload({"nested": [{1: "one"}]}),
    "payload not unicode": _payload({"text": "\ud800"}),
    "id empty": _id(""),
    "id not a string": _id(7),
    "id not unicode": _id("\udfff"),
}
WHOLE_BATCH = {"missing", "too narrow", "too wide"}
"""Faults that every record of the batch shares, so that none is named."""

SPARSE_ONE = SparseVector(np.array([1], np.uint32), np.array([1], np.float32))
QUERIES: dict[str, Query] = {
    "no leg": Query(),
    "dense too narrow": Query(dense=np.ones(15, np.float32)),
    "dense a matrix": Query(dense=np.ones((1, 16), np.float32)),
    "dense NaN": Query(dense=np.full(16, np.nan, np.float32)),
    "sparse infinity": Query(
        sparse=SparseVector(np.array([1], np.uint32), np.array([np.inf], np.float32))
    ),
    "sparse negative": Query(
        sparse=SparseVector(np.array([1], np.uint32), np.array([-1], np.float32))
    ),
    "sparse index twice": Query(
        sparse=SparseVector(np.array([1, 1], np.uint32), np.array([1, 2], np.float32))
    ),
    "multivector too wide": Query(multivector=np.ones((2, 9), np.float32)),
    "multivector one vector": Query(multivector=np.ones(8, np.float32)),
    "multivector without tokens": Query(multivector=np.ones((0, 8), np.float32)),
    "multivector NaN": Query(multivector=np.full((1, 8), np.nan, np.float32)),
    "limit 0": Query(sparse=SPARSE_ONE, limit=0),
    "depth 0": corpus.query(1, "dense", "sparse", fusion=Rrf(), dense_depth=0),
    "rerank 0": corpus.query(1, "dense", "multivector", rerank=0),
    "rerank without tokens": corpus.query(1, "dense", rerank=5),
    "rerank alone": corpus.query(1, "multivector", rerank=5),
    "two legs without fusion": corpus.query(1, "dense", "sparse"),
    "rerank of two legs without fusion": corpus.query(1, rerank=5),
    "k of 0": corpus.query(1, fusion=Rrf(k=0)),
    "weight NaN": corpus.query(1, fusion=Weighted(sparse=np.nan)),
    "weight negative": corpus.query(1, fusion=Rrf(dense=-1)),
}


class NoFilter(Filter):
    """A node that no connector knows."""


class RefusalTests:
    """Part of :class:`m3connect.testing.conformance.ConnectorConformance`."""

    def test_bad_records_are_refused(self, connector: Connector) -> None:
        """A bad record is named in an InputError, and its whole batch is not written."""
        connector.ensure(corpus.SCHEMA)
        good = corpus.records(41, 6)
        connector.upsert(good)
        for name, spoil in RECORDS.items():
            bad = spoil(corpus.records(42, 6, prefix="bad"))
            error = refusal(InputError, partial(connector.upsert, bad), name)
            if not any(name.endswith(fault) for fault in WHOLE_BATCH):
                named = f"record {ROW}" if name.startswith("id") else repr(bad.ids[ROW])
                assert named in str(error), f"{name}: {error} does not name the record"
            assert connector.count() == 6, f"{name}: a part of the batch was written"
        check_records(good, connector.fetch(good.ids), corpus.SCHEMA)

    def test_bad_queries_are_refused(self, connector: Connector) -> None:
        """A bad query raises InputError, before the engine sees it."""
        connector.ensure(corpus.SCHEMA)
        connector.upsert(corpus.records(43, 6))
        connector.flush()
        for name, query in QUERIES.items():
            both = [corpus.query(43, "dense"), query]
            refusal(InputError, partial(connector.search, both), name)

    def test_what_is_no_filter_is_refused(self, connector: Connector) -> None:
        """A node that is no filter raises InputError wherever a filter is taken."""
        connector.ensure(corpus.SCHEMA)
        connector.upsert(corpus.records(47, 3))
        for none in (NoFilter(), And((NoFilter(),)), Not(NoFilter())):
            attempts: dict[str, Callable[[], object]] = {
                "count": partial(connector.count, none),
                "scan": partial(next, connector.scan(none)),
                "delete": partial(connector.delete, none),
                "search": partial(connector.search, [corpus.query(47, "dense", filter=none)]),
            }
            for name, attempt in attempts.items():
                error = refusal(InputError, attempt, f"{name} by {none!r}")
                assert "is no filter" in str(error)
        assert connector.count() == 3

    def test_one_string_is_no_list_of_ids(self, connector: Connector) -> None:
        """An id where ids are due raises InputError; it is not taken for its characters."""
        connector.ensure(corpus.SCHEMA)
        good = replace(corpus.records(45, 3), ids=["a", "b", "ab"])
        connector.upsert(good)
        number: Any = 7
        attempts: dict[str, Callable[[], object]] = {
            "delete a string": partial(connector.delete, "ab"),
            "delete a number": partial(connector.delete, ["a", number]),
            "fetch a string": partial(connector.fetch, "ab"),
            "fetch no unicode": partial(connector.fetch, ["\udfff"]),
            "upsert a string": partial(connector.upsert, replace(good[:2], ids="ab")),
        }
        for name, attempt in attempts.items():
            refusal(InputError, attempt, name)
        assert connector.count() == 3

    def test_what_exceeds_a_declared_limit_is_refused(self, connector: Connector) -> None:
        """A record just beyond a declared limit is named in an InputError; none is written."""
        limits = connector.capabilities.limits
        connector.ensure(corpus.SCHEMA)
        batch = corpus.records(44, 6)
        bad: dict[str, RecordBatch] = {}
        if limits.id_bytes is not None:
            bad["id_bytes"] = _id("i" * (limits.id_bytes + 1))(batch)
        if limits.payload_bytes is not None:
            bad["payload_bytes"] = _payload({"text": "x" * limits.payload_bytes})(batch)
        if limits.multivector_floats is not None:
            tokens = np.ones((limits.multivector_floats // 8 + 1, 8), np.float16)
            bad["multivector_floats"] = _tokens(tokens)(batch)
        for name, spoiled in bad.items():
            error = refusal(InputError, partial(connector.upsert, spoiled), name)
            assert spoiled.ids[ROW][:20] in str(error), f"{name}: {error}"
        assert connector.count() == 0
