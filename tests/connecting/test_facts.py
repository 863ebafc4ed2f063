"""Facts mean what the definition of filters means: what a path reaches, equality and order."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from m3connect.connecting.facts import LONGEST, date_text, number_text, ordered, token, walk
from m3connect.filters import Eq, Range, matches, values_at

many = settings(max_examples=4 * settings().max_examples)
numbers = (
    st.integers(-5, 5)
    | st.integers()
    | st.sampled_from([2**53, 2**53 + 1, float(2**53), 1 << 2047, 1 << 2048, -(1 << 5000)])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([-0.0, 5e-324, -5e-324, 1.7976931348623157e308, 0.1, -0.1, 0.5])
)
texts = st.text(max_size=3) | st.sampled_from(
    ["1", "b1", "o", "x" * LONGEST, "x" * (LONGEST + 1), "é" * (LONGEST // 2 + 1)]
)
scalars = st.booleans() | numbers | texts
instants = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [datetime(2024, 1, 10, tzinfo=UTC), datetime(2024, 1, 1, 0, 0, 0, 10, tzinfo=UTC)]
)
keys = st.sampled_from(["a", "b", "c", "a.b", "b.c", "", "."])
values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
payloads = st.dictionaries(keys, values, max_size=4)
PATHS = ["a", "b", "c", "a.b", "b.c", "a.b.c", "a.a", "c.b.a"]


@many
@given(payloads)
def test_a_walk_reaches_what_a_filter_does(payload):
    """At every path the walk finds the values of the definition, in their order, and no other."""
    walked = list(walk(payload))
    for path in PATHS:
        assert [v for p, v in walked if p == path] == list(values_at(payload, path))
    assert all(list(values_at(payload, path)) for path, _ in walked)


@many
@given(scalars, values)
def test_tokens_are_equal_where_a_filter_says_so(wanted, stored):
    """A value has the token of another exactly when equality finds it."""
    at_a = [value for path, value in walk({"a": stored}) if path == "a"]
    found = any(token(value) == token(wanted) for value in at_a)
    assert found == matches(Eq("a", wanted), {"a": stored})


@many
@given(numbers, numbers)
def test_numbers_sort_as_their_texts_do(one, other):
    """Of two numbers the lesser has the lesser text, by characters and by bytes."""
    assert (one < other) == (number_text(one) < number_text(other))
    assert (one == other) == (number_text(one) == number_text(other))
    assert number_text(one).isascii()


@many
@given(instants, instants)
def test_dates_sort_as_their_texts_do(one, other):
    """Of two instants the earlier has the lesser text."""
    assert (one < other) == (date_text(one) < date_text(other))
    assert (one == other) == (date_text(one) == date_text(other))


@many
@given(scalars | st.sampled_from(["2024-02-29", "2023-02-29", "2024-02-29T01:00+01:00"]))
def test_only_what_a_range_can_find_is_ordered(value):
    """A value has an order exactly when some range of that order finds it."""
    payload = {"a": value}
    number = matches(Range("a", gte=0), payload) or matches(Range("a", lt=0), payload)
    ever = Range("a", gte=datetime(1, 1, 1, tzinfo=UTC))
    wanted = "number" if number else "date" if matches(ever, payload) else None
    found = ordered(value)
    assert (found and found[0]) == wanted
