"""Payloads and filters for property tests, made so that they meet often."""

import string
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from m3connect.filters import And, Eq, Exists, In, Not, Or, Range

PATHS = ["a", "b", "a.b", "a.b.c", "ä", "x" * 300, "1:a"]
MOMENT = datetime(2024, 2, 29, 12, tzinfo=UTC)

paths = st.sampled_from(PATHS)
numbers = (
    st.integers(-3, 3)
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([2**53, 2**53 + 1, 10**30, -(10**30), 1 << 2000])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.1, 0.5, 5e-324, -5e-324, 1.7e308, -0.0, float(2**53)])
)
dates = st.sampled_from(
    ["2024-02-29", "2024-02-29T12:00:00Z", "2024-02-29 13:00+01:00", "2023-02-29", "0001-01-01"]
)
texts = st.sampled_from(["", "x", "1", "true", "x" * 64, "x" * 65, "x" * 64 + "y", "a\x00b"]) | (
    st.text(string.printable + "äß\N{SLIGHTLY SMILING FACE}", max_size=5)
)
scalars = st.booleans() | numbers | texts | dates
values = st.recursive(
    st.none() | scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "b.c", ""]), inner, max_size=3)
    ),
    max_leaves=8,
)
payloads = st.dictionaries(
    st.sampled_from(["a", "b", "a.b", "ä", "x" * 300, "1:a", ""]), values, max_size=4
)
moments = st.integers(-2, 2).map(lambda n: MOMENT + timedelta(microseconds=n)) | st.just(
    MOMENT.date()
)
bounds = st.sets(st.sampled_from(["gt", "gte", "lt", "lte"]), min_size=1)


@st.composite
def ranges(draw):
    kind = draw(st.sampled_from([numbers, moments]))
    return Range(draw(paths), **{name: draw(kind) for name in draw(bounds)})


leaves = (
    st.builds(Eq, paths, scalars)
    | st.builds(In, paths, st.lists(scalars, max_size=4).map(tuple))
    | st.builds(Exists, paths)
    | ranges()
)
conditions = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=6,
)
