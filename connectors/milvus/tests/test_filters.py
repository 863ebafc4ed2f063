"""Filters as expressions: exact on the engine in both forms, and closed to injection."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.milvus.tests.masquerade import masquerade
from m3connect.contract import CollectionSchema
from m3connect.errors import InputError
from m3connect.filters import And, Eq, Exists, F, Filter, In, Not, Or, Range, matches
from m3connect.types import Embeddings, RecordBatch
from m3connect_milvus import connect
from m3connect_milvus.filters import expression
from m3connect_milvus.storing.facts import MOST, facts
from m3connect_milvus.storing.keys import digest
from m3connect_milvus.storing.layout import Layout

PATHS = ["a", "b", "a.b", "a.b.c", "ä", "x" * 300, 'q"', "%", "_"]
numbers = (
    st.integers(-3, 3)
    | st.sampled_from([2**53, 2**53 + 1, float(2**53), -(10**30), 1 << 2000])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.1, -0.0, 5e-324, 1.7e308])
)
texts = st.text(max_size=3) | st.sampled_from(["", "x", "1", "true", "a\0b", '"', "%", "x" * 9000])
dates = st.sampled_from(
    [
        "2024-02-29",
        "2024-02-29T12:00:00Z",
        "2024-02-29 13:00+01:00",
        "2023-02-29",
        "0001-01-01",
        "9999-12-31T23:59:59.999999Z",
    ]
)
scalars = st.booleans() | numbers | texts | dates
values = st.recursive(
    st.none() | scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "b.c", ""]), inner, max_size=3)
    ),
    max_leaves=6,
)
payloads = st.dictionaries(st.sampled_from([*PATHS, ""]), values, max_size=4)
moments = st.datetimes() | st.dates() | st.sampled_from([np.datetime64("2024-02-29").item()])
sides = st.sets(st.sampled_from(["gt", "gte", "lt", "lte"]), min_size=1)


@st.composite
def ranges(draw):
    """A range of numbers or of dates, with any bounds."""
    bounds = draw(st.sampled_from([numbers, moments]))
    return Range(draw(st.sampled_from(PATHS)), **{side: draw(bounds) for side in draw(sides)})


paths = st.sampled_from(PATHS)
conditions = st.recursive(
    st.builds(Eq, paths, scalars)
    | st.builds(In, paths, st.lists(scalars, max_size=3).map(tuple))
    | st.builds(Exists, paths)
    | ranges(),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=4,
)
SCHEMA = CollectionSchema(2, False, None)
LAYOUTS = {
    form: Layout(SCHEMA, form, "FLAT", "float32", None, struct_array=False)
    for form in ("text", "array")
}


@pytest.fixture(scope="module", params=["text", "array"])
def engine(request, tmp_path_factory):
    """A collection that keeps facts in one form: as Milvus Lite, or as a server."""
    folder = tmp_path_factory.mktemp("milvus")
    if request.param == "text":
        with connect(collection="filters", path=folder) as connector:
            connector.ensure(SCHEMA)
            yield connector
    else:
        with (
            masquerade(folder) as (url, _),
            connect(collection="filters", url=url) as connector,
        ):
            connector.ensure(SCHEMA)
            yield connector


@settings(suppress_health_check=list(HealthCheck))
@given(st.lists(payloads, min_size=6, max_size=6), st.lists(conditions, min_size=3, max_size=3))
def test_the_engine_finds_what_matches(engine, found, wanted):
    """A filter selects exactly the payloads that m3connect.filters.matches."""
    ids = [f"record {at}" for at in range(len(found))]
    dense = np.ones((len(ids), 2), np.float32)
    none = Embeddings(dense, None, None, np.ones(len(ids), np.int32), np.zeros(len(ids), bool))
    engine.upsert(RecordBatch(ids, found, none))
    for condition in wanted:
        selected = {id_ for page in engine.scan(condition) for id_ in page.ids}
        right = {
            id_ for id_, payload in zip(ids, found, strict=True) if matches(condition, payload)
        }
        assert selected == right, condition


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@given(conditions)
def test_nothing_from_outside_enters_an_expression(layout, condition):
    """Expressions consist of our words, hexadecimal digits and codes, whatever the filter holds."""
    word = r'facts|ordered|like|array_contains_any|and|or|not|id|==|!=|"(%\|[0-9a-fmnp$~]+%)?"|\d+'
    assert re.fullmatch(rf"(({word})|[(), \[\]])*", expression(condition, layout))


def test_what_is_no_filter_is_refused():
    """Something else where a filter should be is an error of ours."""
    with pytest.raises(InputError):
        expression(Filter(), LAYOUTS["text"])


@pytest.mark.parametrize(
    ("condition", "tenants"),
    [
        (F("tenant") == "a", ["a"]),
        (F("tenant").isin(["a", "b", 7]), ["a", "b"]),
        ((F("year") > 2000) & (F("tenant") == "a"), ["a"]),
        ((F("year") > 2000) | (F("tenant") == "a"), []),
        (F("tenant") != "a", []),
        (F("tenant") == 7, []),
        (F("lang") == "a", []),
    ],
)
def test_a_filter_on_the_partition_key_keeps_to_partitions(condition, tenants):
    """Where a filter cannot be met outside some partitions, only those are searched."""
    layout = Layout(SCHEMA, "array", "HNSW", "float32", "tenant", struct_array=False)
    text = expression(condition, layout)
    assert re.findall(r'"([0-9a-f]{32})"', text) == [digest(tenant) for tenant in tenants]
    assert text.startswith("partition in") == bool(tenants)


def test_facts_tell_types_apart():
    """1 is 1.0, but neither True nor "1"; an object is a value, and what is in it another."""
    one = facts({"a": 1}).values
    assert one == facts({"a": [1.0]}).values
    assert one.isdisjoint(facts({"a": True}).values | facts({"a": "1"}).values)
    assert len(facts({"a": {"b": 1}}).values) == 2
    assert facts({"a": [None, [], [[None]]], "b.c": 1, "": 2}).values == set()


def test_a_payload_of_many_values_fits():
    """The facts of everyday payloads are few, and of the largest integers no more."""
    everyday = facts({"text": "t" * 5000, "year": 2024, "price": 0.1, "day": "2024-02-29"})
    assert len(everyday.values) == 4
    assert len(everyday.codes) == 3 < MOST
    assert len(facts({"n": 1 << 3000}).codes) == 1
