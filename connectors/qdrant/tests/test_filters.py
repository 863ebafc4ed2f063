"""Filters look at facts, and mean on every engine what ``m3connect.filters.matches`` says."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import RestToGrpc
from qdrant_client.local.payload_filters import check_filter

from connectors.qdrant.tests.strict_mode import keys_read
from m3connect.contract import CollectionSchema, FieldKind
from m3connect.errors import InputError, InvalidFilter
from m3connect.filters import And, Eq, Exists, F, Filter, In, Not, Or, Range, matches
from m3connect.types import Embeddings, RecordBatch
from m3connect_qdrant import QdrantConnector, connect
from m3connect_qdrant.filters import _fine, compile_filter, facts, indexes, is_stored_exactly

SCHEMA = CollectionSchema(dense_width=2, sparse=False, multivector_width=None)


def of_client(condition: Any) -> models.Filter:
    """A filter in the client's own classes."""
    return models.Filter(**condition)


# --------------------------------------------------------------------------------------- facts


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({}, {}),
        ({"a": None, "b": [], "c": [None, [None]]}, {}),
        ({"a": {}}, {"a": {"values": ["o"]}}),
        ({"a": True}, {"a": {"values": ["b1"]}}),
        ({"a": [1, 1.0, [2.5]]}, {"a": {"values": ["np800$", "np8014$"], "numbers": [1, 2.5]}}),
        ({"a": "1"}, {"a": {"values": ["s1"]}}),
        ({"a.b": 1, "": 2, "c": {"d.e": 3, "": 4}}, {"c": {"values": ["o"]}}),
        (
            {"a": [{"b": "x"}, [{"b": ["y", None]}]]},
            {"a": {"values": ["o"]}, "a.b": {"values": ["sx", "sy"]}},
        ),
        ({'q"[0]/é': False}, {"q%22%5B0%5D%2F%C3%A9": {"values": ["b0"]}}),
        (
            {"a": "2024-02-29T01:00+01:00"},
            {
                "a": {
                    "values": ["s2024-02-29T01:00+01:00"],
                    "dates": ["2024-02-29T00:00:00+00:00"],
                }
            },
        ),
        (
            {"a": 2**53 + 1},
            {
                "a": {
                    "values": ["np83500000000000008$"],
                    "fine": [{"high": 1128267776.0, "low": 1.0}],
                }
            },
        ),
    ],
)
def test_facts_of_a_payload(payload: dict[str, Any], expected: Any) -> None:
    """Lists are flattened, nulls and unreachable keys left out, values told apart by type."""
    assert facts(payload) == expected


def test_a_long_string_is_known_by_its_hash() -> None:
    """A passage's text does not double in size, and differs from any text that looks like one."""
    (token,) = facts({"text": "word " * 1000})["text"]["values"]
    assert len(token) == 33
    assert facts({"text": token})["text"]["values"] == [f"s{token}"]


@pytest.mark.parametrize(
    ("number", "exactly"),
    [
        (0, True),
        (-0.0, True),
        (0.1, True),
        (1700000000.123456, True),
        (0.30000000000000004, False),
        (9007199254740991.0, False),
        (1e22, True),
        (1e23, False),
        (5e-324, False),
        (2**63 - 1, True),
        (2**63, False),
        (-(2**63), True),
    ],
)
def test_which_numbers_are_stored_exactly(number: float, exactly: bool) -> None:
    """Up to 2**53 and 10**22 a decimal is read exactly; integers are kept up to 64 bits."""
    assert is_stored_exactly(number) is exactly


def test_the_embedded_engine_changes_some_doubles(tmp_path: Path) -> None:
    """Why that matters: a double of 17 digits may come back as its neighbour."""
    import qdrant_edge

    vectors = {"v": qdrant_edge.EdgeVectorParams(size=1, distance=qdrant_edge.Distance.Dot)}
    shard = qdrant_edge.EdgeShard.create(str(tmp_path), qdrant_edge.EdgeConfig(vectors=vectors))
    rng = np.random.default_rng(0)
    numbers = [float(x) for x in rng.normal(size=2000)] + [
        round(float(x), 6) for x in rng.normal(size=2000)
    ]
    point = qdrant_edge.Point(1, {"v": [1.0]}, {"numbers": numbers})
    shard.update(qdrant_edge.UpdateOperation.upsert_points([point]))
    (record,) = shard.retrieve([1], True, False)
    assert record.payload is not None
    changed = {a for a, b in zip(numbers, record.payload["numbers"], strict=True) if a != b}
    shard.close()
    assert changed
    assert not any(is_stored_exactly(number) for number in changed)


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63),
    st.integers(2**53 - 3, 2**53 + 3),
    st.integers(-3, 3).map(lambda n: float(2**62 + n * 512)),
    st.integers(-5, 5),
)


@given(NUMBERS, NUMBERS)
@settings(derandomize=True, deadline=None)
def test_fine_pairs_order_as_their_numbers(one: float, other: float) -> None:
    """A pair is less, equal or greater exactly when its number is."""
    assert (_fine(one) < _fine(other)) == (one < other)
    assert (_fine(one) == _fine(other)) == (one == other)


def test_fine_pairs_are_stored_exactly() -> None:
    """The numbers of a pair survive where the number itself would not."""
    bits = np.random.default_rng(1).bytes(8 * 500)
    doubles = [d for (d,) in struct.iter_unpack(">d", bits) if math.isfinite(d)]
    pairs = [part for number in [*doubles, 2**63 - 1, -(2**63)] for part in _fine(number)]
    assert all(is_stored_exactly(part) for part in pairs)


# ---------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (
            F("lang") == "de",
            {"must": [{"key": "_m3.facts.lang.values", "match": {"any": ["sde"]}}]},
        ),
        (
            In("a.b", (1, True)),
            {"must": [{"key": '_m3.facts."a.b".values', "match": {"any": ["np800$", "b1"]}}]},
        ),
        (In("a", ()), {"must": [{"has_id": []}]}),
        (Or(()), {"must": [{"has_id": []}]}),
        (And(()), {"must": []}),
        (Exists("a"), {"must_not": [{"is_empty": {"key": "_m3.facts.a.values"}}]}),
        (Not(Or((Exists("a"),))), {
            "must_not": [
                {"should": [{"must_not": [{"is_empty": {"key": "_m3.facts.a.values"}}]}]}
            ]
        }),
        (
            Range("when", gte=date(2024, 2, 29), lt=datetime(2024, 3, 1, 1, tzinfo=UTC)),
            {
                "must": [
                    {
                        "key": "_m3.facts.when.dates",
                        "range": {
                            "gte": "2024-02-29T00:00:00+00:00",
                            "lt": "2024-03-01T01:00:00+00:00",
                        },
                    }
                ]
            },
        ),
    ],
)  # fmt: skip
def test_conditions(where: Filter, expected: Any) -> None:
    """Each node of a filter in Qdrant's terms."""
    assert compile_filter(where) == expected


def test_a_range_of_numbers_is_on_doubles_or_pairs() -> None:
    """What an index answers comes first; pairs are compared in one element of a list."""
    compiled = compile_filter(F("year") >= 2020)
    numbers, fine = compiled["should"]
    assert numbers == {"key": "_m3.facts.year.numbers", "range": {"gte": 2020.0}}
    near, nested = fine["must"]
    assert near["key"] == "_m3.facts.year.fine[].high"
    assert nested["nested"]["key"] == "_m3.facts.year.fine"


def test_what_is_no_filter_is_refused() -> None:
    """Something else than a filter is the caller's mistake."""
    with pytest.raises(InputError):
        compile_filter(Filter())


def test_a_filter_too_deep_for_a_server_is_refused() -> None:
    """As deep as a gRPC message takes, ranges included; deeper is refused on every engine."""
    where: Filter = F("year") >= 2020
    for _ in range(29):
        where = ~where
    message = RestToGrpc.convert_filter(of_client(compile_filter(where)))
    inner = grpc.PrefetchQuery(prefetch=[grpc.PrefetchQuery(filter=message)])
    sent = grpc.QueryBatchPoints(query_points=[grpc.QueryPoints(prefetch=[inner])])
    assert grpc.QueryBatchPoints.FromString(sent.SerializeToString()) == sent
    with pytest.raises(InvalidFilter):
        compile_filter(~where)


RANGES = {"numbers": "float", "fine[].high": "float", "fine[].low": "float"}


@pytest.mark.parametrize(
    ("kind", "schemas"),
    [
        ("keyword", {"values": "keyword"}),
        ("boolean", {"values": "keyword"}),
        ("integer", {"values": "keyword", **RANGES}),
        ("float", {"values": "keyword", **RANGES}),
        ("datetime", {"values": "keyword", "dates": "datetime"}),
    ],
)
def test_indexes_are_on_what_filters_look_at(kind: FieldKind, schemas: dict[str, str]) -> None:
    """Each kind of field has the indexes that its filters use."""
    wanted = {f'_m3.facts."a%20b".{fact}': schema for fact, schema in schemas.items()}
    assert indexes("a b", kind) == wanted
    filters = [F("a b") == 1, F("a b").exists(), F("a b") >= 1, F("a b") < date(2024, 1, 1)]
    used = {key for where in filters for key in keys_read(of_client(compile_filter(where)))}
    assert set(wanted) <= used


# ------------------------------------------------------------------------------------ meaning

NUMBER_POOL = [
    *(0, -0.0, 1, 1.0, -1, 2.5, 0.3, 0.1 + 0.2, 1e-300, 5e-324, 1.7e308, -1e23, 1e23),
    *(2**53 - 1, 2**53, 2**53 + 1, float(2**53), float(2**53 + 2), 2**53 + 2, -(2**53) - 1),
    *(2**62, 2**62 + 1, 2**62 + 2, float(2**62 + 512), 2**63 - 1, 2**63, -(2**63), 2**70 + 1),
]
STRING_POOL = ["", "x", "X", "x y", "1", "true", "1.0", "n1", "é", "long " * 40, "long " * 40 + "."]
DATE_POOL = [
    *("2024-02-29", "2024-02-29T00:00:00Z", "2024-02-29 01:00+01:00", "2024-02-28T23:59:59.999999"),
    *("2024-02-29T00:00:00.000001", "2024-2-29", "2024-02-29T00", "2023-02-29", "20240229"),
    *("2024-02-29T00:00:00z", " 2024-02-29", "0001-01-01", "9999-12-31T23:59:59.999999Z"),
]
MOMENTS: list[date] = [
    *(date(2024, 2, 29), datetime(2024, 2, 29, tzinfo=UTC), date(2024, 3, 1), date(1, 1, 1)),
    *(datetime(2024, 2, 28, 23, 59, 59, 999999, UTC), datetime(2024, 2, 29, 0, 0, 0, 1, UTC)),
]
SIDES = ("gt", "gte", "lt", "lte")
POOL: list[Any] = [None, True, False, {}, [], *NUMBER_POOL, *STRING_POOL, *DATE_POOL]


def known(payload: dict[str, Any]) -> dict[str, Any]:
    """A point's payload, as far as filters look at it."""
    return {"_m3": {"facts": facts(payload)}}


def test_every_value_against_every_comparison() -> None:
    """By the rules of the client's memory mode, conditions match what the filters match."""
    payloads = [{"a": value} for value in POOL] + [
        {"a": [one, other]} for one in NUMBER_POOL[::4] for other in NUMBER_POOL[1::6]
    ]
    points = [known(payload) for payload in payloads]
    scalars = [value for value in POOL if isinstance(value, str | int | float)]
    bounds: list[Any] = [*NUMBER_POOL, *MOMENTS]
    conditions = [
        Exists("a"),
        *(Eq("a", value) for value in scalars),
        *(In("a", (value, "x")) for value in scalars),
        *(Range("a", **{side: b}) for side in SIDES for b in bounds),
        *(Range("a", gt=low, lte=high) for low in NUMBER_POOL[::5] for high in NUMBER_POOL[2::5]),
        *(Range("a", gte=low, lt=high) for low in MOMENTS for high in MOMENTS),
    ]
    for where in conditions:
        compiled = of_client(compile_filter(where))
        for payload, point in zip(payloads, points, strict=True):
            assert check_filter(compiled, point, 1, {}) == matches(where, payload), (where, payload)


KEYS = st.sampled_from(["a", "a", "b", "a.b", "", 'q"', "é x", "[0]", "a[]", "values", "%"])
PATHS = st.lists(KEYS.filter(lambda key: key and "." not in key), min_size=1, max_size=3).map(
    ".".join
)
LEAVES = st.sampled_from([None, True, 1, "x", 2**53 + 1, "2024-02-29", 0.9127555772777217, 2**70])
PAYLOADS = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)
COMPARISONS = st.one_of(
    st.builds(Exists, PATHS),
    st.builds(Eq, PATHS, st.sampled_from([True, 1, "x", 2**53 + 1, 0.9127555772777217, 2**70])),
    st.builds(Range, PATHS, gte=st.just(0.9127555772777217), lt=st.just(2**53 + 2)),
    st.builds(Range, PATHS, gte=st.just(date(2024, 2, 29))),
)
FILTERS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts))),
    ),
    max_leaves=4,
)


@given(PAYLOADS, FILTERS)
@settings(max_examples=4 * settings().max_examples)
def test_paths_and_nesting_mean_what_matches_says(payload: dict[str, Any], where: Filter) -> None:
    """Through lists, objects, odd keys and and, or, not, a filter selects what it matches."""
    compiled = of_client(compile_filter(where))
    assert check_filter(compiled, known(payload), 1, {}) == matches(where, payload)


def batch_of(payloads: list[dict[str, Any]]) -> RecordBatch:
    n = len(payloads)
    embeddings = Embeddings(
        np.ones((n, 2), np.float32), None, None, np.ones(n, np.int32), np.zeros(n, np.bool_)
    )
    return RecordBatch([str(row) for row in range(n)], payloads, embeddings)


@pytest.mark.parametrize("indexed", [False, True], ids=["plain", "indexed"])
def test_the_embedded_engine_agrees(indexed: bool, tmp_path: Path) -> None:
    """Random payloads come back as they were, and filters select them, with indexes or without."""
    kinds: dict[str, FieldKind] = {
        "a": "integer",
        "b": "datetime",
        "a.b": "float",
        "a.a": "keyword",
    }
    schema = CollectionSchema(2, False, None, payload_fields=kinds if indexed else {})
    with connect(collection="docs", path=str(tmp_path)) as connector:
        connector.ensure(schema)

        @given(st.lists(PAYLOADS, min_size=1, max_size=8), FILTERS)
        def check(payloads: list[dict[str, Any]], where: Filter) -> None:
            check_engine(connector, payloads, where)

        check()


def check_engine(connector: QdrantConnector, payloads: list[dict[str, Any]], where: Filter) -> None:
    connector.delete(And(()))
    connector.upsert(batch_of(payloads))
    fetched = connector.fetch([str(row) for row in range(len(payloads))]).payloads
    assert [json.dumps(p, sort_keys=True) for p in fetched] == [
        json.dumps(p, sort_keys=True) for p in payloads
    ]
    for condition in (where, ~where):
        wanted = {str(row) for row, p in enumerate(payloads) if matches(condition, p)}
        found = {id_ for part in connector.scan(condition) for id_ in part.ids}
        assert found == wanted, condition


def test_two_elements_never_make_one_match(tmp_path: Path) -> None:
    """Both bounds must hold for one element, for numbers kept as pairs as for the others."""
    pairs = [[1, 10], [0.1 + 0.2, 1e300], [2**60 + 1, -(2**60) - 1], [2**60 + 1, 5]]
    for path in (":memory:", str(tmp_path)):
        with connect(collection="docs", path=path) as connector:
            connector.ensure(SCHEMA)
            connector.upsert(batch_of([{"a": pair} for pair in pairs]))
            assert connector.count(Range("a", gt=2, lt=5)) == 0
            assert connector.count(Range("a", gt=0.31, lt=0.9e300)) == 3
