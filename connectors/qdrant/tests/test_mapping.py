"""Collections and records in Qdrant's terms, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from m3connect.contract import CollectionSchema
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import check_records
from m3connect.types import RecordBatch
from m3connect_qdrant import mapping
from m3connect_qdrant.mapping import MultivectorStorage, Point


def one(payload: dict[str, Any]) -> Point:
    batch = replace(corpus.records(1, 1), payloads=[payload])
    (point,) = mapping.points(batch, corpus.SCHEMA)
    return point


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"k": value}
    return value


def test_points_are_the_records() -> None:
    """What is written as points is read as the same records, in order."""
    batch = corpus.records(2, 30)
    points = [*mapping.points(batch, corpus.SCHEMA)]
    check_records(batch, mapping.records(points, corpus.SCHEMA, corpus.SCHEMA.legs), corpus.SCHEMA)
    bare = mapping.records(points, corpus.SCHEMA, ())
    assert bare.embeddings.legs == ()
    assert list(bare.ids) == list(batch.ids)
    assert np.array_equal(bare.embeddings.n_tokens, batch.embeddings.n_tokens)


def test_no_points_are_an_empty_batch() -> None:
    """An empty answer has the collection's legs and widths."""
    empty = mapping.records([], corpus.SCHEMA, corpus.SCHEMA.legs)
    assert (len(empty), empty.embeddings.legs) == (0, corpus.SCHEMA.legs)
    assert empty.embeddings.dense is not None
    assert empty.embeddings.dense.shape == (0, 16)
    assert empty.embeddings.multivector is not None
    assert empty.embeddings.multivector.vectors.shape == (0, 8)
    assert empty.embeddings.multivector.vectors.dtype == np.float16


def test_ids_become_uuids_for_good() -> None:
    """A record's point id never changes: a collection written by one version is read by the next."""
    assert mapping.point_id("handbook.md#3") == "2f6624c1-1a96-5f41-a102-37c68c6ffeea"
    assert mapping.point_id("\u00e4") != mapping.point_id("a\u0308")


def test_the_payload_lies_flat_beside_one_reserved_key() -> None:
    """Other tools see the payload as it was given."""
    payload = {"text": "Guten Tag", "year": 2024, "price": 9.99, "tags": ["a", {"b": None}]}
    stored = one(payload).payload
    assert {key: value for key, value in stored.items() if key != "_m3"} == payload
    assert sorted(stored["_m3"]) == ["facts", "id", "rows", "tokens", "truncated"]


@pytest.mark.parametrize(
    "payload",
    [
        {"score": 0.9127555772777217, "text": "x"},
        {"count": 2**63},
        {"list": [[1, {"deep": -(2**63) - 1}]]},
        nested(31),
        {"list": [nested(29)]},
    ],
)
def test_a_payload_that_qdrant_would_change_is_kept_as_text(payload: dict[str, Any]) -> None:
    """Doubles of 17 digits, large integers and deep nesting come back from JSON text."""
    stored = one(payload).payload
    assert [*stored] == ["_m3"]
    assert json.loads(stored["_m3"]["json"]) == payload
    assert mapping.user_payload(stored) == payload


def test_nesting_up_to_the_limit_stays_flat() -> None:
    """30 levels pass through a message to a server."""
    assert "json" not in one(nested(30)).payload["_m3"]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_token_vectors_are_rounded_before_they_are_sent(dtype: Any) -> None:
    """Engines that keep float32 hold what those with float16 do."""
    schema = replace(corpus.SCHEMA, multivector_dtype=dtype)
    batch = corpus.records(3, 2)
    multi = batch.embeddings.multivector
    assert multi is not None
    exact = replace(multi, vectors=np.full(multi.vectors.shape, 0.1, np.float32))
    batch = replace(batch, embeddings=replace(batch.embeddings, multivector=exact))
    (point, _) = mapping.points(batch, schema)
    assert point.vectors["multivector"].dtype == dtype
    assert float(point.vectors["multivector"][0, 0]) == float(np.array(0.1, dtype))


def test_a_record_without_terms_may_come_back_without_a_sparse_vector() -> None:
    """An engine that drops empty sparse vectors changes nothing."""
    schema = CollectionSchema(dense_width=None, sparse=True, multivector_width=None)
    point = Point("x", {}, one({}).payload)
    read = mapping.records([point], schema, schema.legs)
    assert isinstance(read, RecordBatch)
    assert read.embeddings.sparse is not None
    assert len(read.embeddings.sparse[0]) == 0


@pytest.mark.parametrize(
    ("storage", "datatype"),
    [(None, "float16"), ("float32", "float32"), ("turbo4", "turbo4"), ("turbo16", "turbo16")],
)
def test_a_collection_has_three_named_vectors(
    storage: MultivectorStorage | None, datatype: str
) -> None:
    """Inner products, MaxSim without a graph, no IDF; token values stored as asked."""
    params = mapping.vector_params(corpus.SCHEMA, storage)
    assert params["dense"] == {"size": 16, "distance": "Dot"}
    multi = models.VectorParams(**params["multivector"])
    assert (multi.size, multi.distance, multi.datatype) == (8, "Dot", datatype)
    assert multi.hnsw_config == models.HnswConfigDiff(m=0)
    assert multi.multivector_config is not None
    assert multi.multivector_config.comparator == "max_sim"
    assert mapping.sparse_params(corpus.SCHEMA) == {"sparse": {}}


def test_what_is_not_stored_has_no_parameters() -> None:
    """A collection of one representation has one named vector."""
    schema = CollectionSchema(dense_width=None, sparse=True, multivector_width=None)
    assert mapping.vector_params(schema) == {}
    assert mapping.sparse_params(replace(schema, sparse=False, dense_width=3)) == {}
