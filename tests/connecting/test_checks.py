"""What every connector refuses."""

from typing import Any

import numpy as np
import pytest

from m3connect.connecting.checks import check_ids, check_query, check_records
from m3connect.contract import CollectionSchema, Limits
from m3connect.errors import InputError
from m3connect.types import (
    Embeddings,
    MultiVectors,
    Query,
    RecordBatch,
    SparseVector,
    SparseVectors,
)

SCHEMA = CollectionSchema(2, sparse=True, multivector_width=3)


def records(**changes):
    """Two good records; keyword arguments replace parts of them."""
    parts: dict[str, Any] = {
        "dense": np.ones((2, 2), np.float32),
        "sparse": SparseVectors.from_rows([{1: 0.5}, {}]),
        "multivector": MultiVectors.from_rows([np.ones((2, 3), np.float32)] * 2),
        "ids": ["a", "b"],
        "payloads": [{"x": 1}, {}],
    } | changes
    ids, payloads = parts.pop("ids"), parts.pop("payloads")
    embeddings = Embeddings(
        **parts, n_tokens=np.full(2, 3, np.int32), truncated=np.zeros(2, np.bool_)
    )
    return RecordBatch(ids, payloads, embeddings)


def test_good_records_pass():
    """The base of the table below is itself good."""
    check_records(records(), SCHEMA, Limits())


nan = np.array([[1, 2], [np.nan, 1]], np.float32)
wide = MultiVectors.from_rows([np.ones((2, 4), np.float32)] * 2)
bare = MultiVectors.from_rows([np.ones((2, 3), np.float32), np.ones((0, 3), np.float32)])
infinite = MultiVectors.from_rows([np.ones((1, 3)), np.array([[1, np.inf, 1]])])
twice = SparseVectors(np.array([0, 1, 3]), np.array([1, 7, 7], np.uint32), np.ones(3, np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["a", ""]}, "record 1: id must be a non-empty"),
        ({"ids": ["a", 7]}, "record 1: id must be"),
        ({"ids": ["a", "\ud800"]}, "not valid unicode"),
        ({"ids": ["a", "b" * 11]}, "has 11 bytes"),
        ({"payloads": [{}, {"_m3_id": 1}]}, "record 'b': payload key '_m3_id'"),
        ({"payloads": [{}, {1: 1}]}, "record 'b': payload has a key that is not"),
        ({"payloads": [{}, {"x": {1, 2}}]}, "record 'b': payload is not JSON"),
        ({"payloads": [{}, {"x": float("nan")}]}, "record 'b': payload is not JSON"),
        ({"payloads": [{}, {"x": "y" * 100}]}, "record 'b': payload has"),
        ({"dense": np.ones((2, 3), np.float32)}, "dense vectors are 3 wide"),
        ({"dense": nan}, "record 'b': dense holds NaN"),
        ({"dense": None}, "records hold"),
        ({"multivector": wide}, "multivector vectors are 4 wide"),
        ({"multivector": bare}, "record 'b': multivector has no token"),
        ({"multivector": infinite}, "record 'b': multivector holds NaN"),
        ({"sparse": twice}, "record 'b': sparse index 7 occurs twice"),
        ({"sparse": SparseVectors.from_rows([{1: 1.0}, {2: -1.0}])}, "record 'b': sparse weight"),
        ({"sparse": SparseVectors.from_rows([{1: 1.0}, {2: np.inf}])}, "record 'b': sparse weight"),
    ],
)
def test_bad_records_are_named(changes, message):
    """The error names the record and what is wrong with it."""
    limits = Limits(id_bytes=10, payload_bytes=100)
    with pytest.raises(InputError, match=message):
        check_records(records(**changes), SCHEMA, limits)


def test_a_multivector_at_the_limit_is_refused():
    """The limit is exclusive, as Qdrant's is."""
    check_records(records(), SCHEMA, Limits(multivector_floats=7))
    with pytest.raises(InputError, match="2 x 3 values"):
        check_records(records(), SCHEMA, Limits(multivector_floats=6))


dense = np.ones(2, np.float32)
late = np.ones((1, 3), np.float32)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(), "at least one"),
        (Query(dense=np.ones(3, np.float32)), "3 wide"),
        (Query(dense=np.ones((1, 2), np.float32)), "one dimension"),
        (Query(dense=np.array([1, np.nan], np.float32)), "NaN"),
        (Query(multivector=np.ones((0, 3), np.float32)), "at least one token"),
        (Query(multivector=np.full((1, 3), np.inf, np.float32)), "NaN or infinity"),
        (Query(dense=dense, multivector=late), "need a fusion"),
        (Query(multivector=late, rerank=3), "rerank needs"),
        (Query(dense=dense, multivector=late, rerank=0), "rerank must be"),
        (Query(dense=dense, limit=0), "limit must be"),
        (Query(dense=dense, limit=2**70), "limit must be at most"),
        (
            Query(sparse=SparseVector(np.array([1, 1], np.uint32), np.ones(2, np.float32))),
            "occurs twice",
        ),
    ],
)
def test_bad_queries_are_refused(query, message):
    """The error says which part of the query is bad."""
    with pytest.raises(InputError, match=message):
        check_query(query, SCHEMA)


def test_a_leg_that_is_not_stored_is_refused():
    """A collection without multi-vectors cannot be asked for them."""
    with pytest.raises(InputError, match="collection stores"):
        check_query(Query(multivector=late), CollectionSchema(2, True, None))


@pytest.mark.parametrize(
    ("ids", "message"),
    [("r7", r"write \['r7'\]"), (b"r7", "list"), (["r7", 7], "got 7"), (["\udfff"], "unicode")],
)
def test_what_is_no_list_of_ids_is_refused(ids, message):
    """One string is no list of its characters, and what is listed are strings."""
    with pytest.raises(InputError, match=message):
        check_ids(ids)


def test_records_have_a_list_of_ids():
    """One string is no list of the ids of its length."""
    with pytest.raises(InputError, match="list"):
        check_records(records(ids="ab"), SCHEMA, Limits())
