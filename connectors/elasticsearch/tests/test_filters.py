"""Filters as terms: what is written and what is looked up agree with the definition."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.elasticsearch.tests.strategies import PATHS, conditions, numbers, payloads
from m3connect.errors import InvalidFilter
from m3connect.filters import Eq, F, In, Range, matches, values_at
from m3connect_elasticsearch.filters import FIELD, compile_filter, facts


def finds(query, terms):
    """What Elasticsearch would say: terms compare as their bytes do."""
    (kind, body), *_ = query.items()
    if kind == "match_none":
        return False
    if kind == "term":
        return body[FIELD] in terms
    if kind == "terms":
        return bool(set(body[FIELD]) & set(terms))
    if kind == "range":
        return any(_within(body[FIELD], term.encode()) for term in terms)
    assert kind == "bool"
    assert set(body) <= {"filter", "must_not", "should", "minimum_should_match"}
    return (
        all(finds(part, terms) for part in body.get("filter", []))
        and not any(finds(part, terms) for part in body.get("must_not", []))
        and ("should" not in body or any(finds(part, terms) for part in body["should"]))
    )


def _within(interval, term):
    at = {name: bound.encode() for name, bound in interval.items()}
    return (
        ("gt" not in at or term > at["gt"])
        and ("gte" not in at or term >= at["gte"])
        and ("lt" not in at or term < at["lt"])
        and ("lte" not in at or term <= at["lte"])
    )


@given(payloads, conditions)
@settings(max_examples=6 * settings().max_examples)
def test_a_compiled_filter_finds_what_the_filter_matches(payload, condition):
    """On any payload, term lookups say what the definition says."""
    assert finds(compile_filter(condition), facts(payload)) == matches(condition, payload)


@given(payloads, st.data())
@settings(max_examples=2 * settings().max_examples)
def test_a_value_of_the_payload_is_found(payload, data):
    """Equality with a value that is there, and a range that ends at it, find it."""
    found = [
        (path, value)
        for path in PATHS
        for value in values_at(payload, path)
        if isinstance(value, str | int | float)
    ]
    if not found:
        return
    path, value = data.draw(st.sampled_from(found))
    assert finds(compile_filter(Eq(path, value)), facts(payload))
    if isinstance(value, int | float) and not isinstance(value, bool):
        assert finds(compile_filter(Range(path, gte=value, lte=value)), facts(payload))


@given(st.lists(numbers, min_size=2, max_size=2))
@settings(max_examples=4 * settings().max_examples)
def test_numbers_sort_as_their_terms_do(pair):
    """Of two numbers, integers of any size and floats, the terms compare as the numbers."""
    low, high = sorted(pair)
    terms = [
        next(t for t in facts({"n": number}) if t.startswith("1:nn")) for number in (low, high)
    ]
    assert terms == sorted(terms)
    assert (terms[0] == terms[1]) == (low == high)


def test_terms_stay_short():
    """Neither a long text nor a long path makes a term that the server would refuse."""
    payload = {"text": "word " * 100_000, "p" * 10_000: {"q" * 10_000: 10**4000}}
    assert max(len(term.encode()) for term in facts(payload)) < 5000


def test_a_path_cannot_be_mistaken_for_another():
    """A key that looks like the term of another path is told from it."""
    assert not set(facts({"a": "b"})) & set(facts({"as": "b"}))
    assert not finds(compile_filter(Eq("1", "ax")), facts({"1:a": "x"}))


def test_chains_of_and_and_or_are_flat():
    """A hundred conditions joined by & or | do not nest, as Elasticsearch allows 30 levels."""
    joined = F("a") == 0
    for n in range(1, 100):
        joined = joined & (F("a") == n)
    assert len(compile_filter(joined)["bool"]["filter"]) == 100
    twice_negated = ~~~~(F("a") == 1)
    assert compile_filter(twice_negated) == compile_filter(F("a") == 1)


@pytest.mark.parametrize("levels", [40, 100_000])
def test_deeper_nesting_than_elasticsearch_takes_is_refused(levels):
    """What alternates too often raises InvalidFilter here, rather than an error there."""
    condition = F("a") == 0
    for _ in range(levels):
        condition = ~(condition & (F("b") == 1))
    with pytest.raises(InvalidFilter, match="levels deep"):
        compile_filter(condition)


def test_more_values_than_one_terms_query_takes_are_split():
    """70,000 values make two queries: a terms query holds 65,536."""
    query = compile_filter(In("a", tuple(range(70_000))))
    parts = query["bool"]["should"]
    assert [len(part["terms"][FIELD]) for part in parts] == [65_536, 4_464]
