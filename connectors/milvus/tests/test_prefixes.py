"""Prefixes cover exactly the numbers and dates between two bounds."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3connect.connecting.facts import date_text, number_text
from m3connect_milvus.storing.prefixes import (
    GREATEST,
    LEAST,
    cover,
    date_characters,
    number_characters,
)

numbers = (
    st.integers(-5, 5)
    | st.integers()
    | st.sampled_from(
        [2**53, 2**53 + 1, -(2**53) - 1, float(2**53), 1 << 2000, -(1 << 3000), 1 << 3001]
    )
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([-0.0, 5e-324, -5e-324, 1.7976931348623157e308, 0.1, -0.1, 0.5])
)
instants = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [datetime(2024, 1, 10, tzinfo=UTC), datetime(2024, 1, 1, 0, 0, 0, 10, tzinfo=UTC)]
)
KINDS = {
    "numbers": (numbers, number_text, number_characters),
    "dates": (instants, date_text, date_characters),
}


@pytest.mark.parametrize(("values", "code", "following"), KINDS.values(), ids=KINDS)
@settings(derandomize=True)
@given(st.data(), st.booleans(), st.booleans())
def test_a_cover_takes_what_lies_between(values, code, following, data, with_low, with_high):
    """A code has one prefix of the cover if its value lies within the bounds, else none."""
    low, high = data.draw(values), data.draw(values)
    value = data.draw(values | st.sampled_from([low, high]))
    prefixes = cover(code(low), code(high), following, with_low=with_low, with_high=with_high)
    above = low < value or (with_low and low == value)
    below = value < high or (with_high and value == high)
    assert sum(code(value).startswith(prefix) for prefix in prefixes) == (above and below)


@settings(derandomize=True)
@given(numbers, numbers)
def test_a_cover_may_lack_a_bound(bound, value):
    """Without a lower or an upper bound everything beyond the other one is taken."""
    code = number_text(value)
    below = cover(LEAST, number_text(bound), number_characters)
    above = cover(number_text(bound), GREATEST, number_characters, with_low=False)
    assert any(code.startswith(prefix) for prefix in below) == (value <= bound)
    assert any(code.startswith(prefix) for prefix in above) == (value > bound)


def test_covers_are_short():
    """Everyday ranges need few prefixes: Milvus Lite tests them one by one."""
    assert len(cover(number_text(2020), number_text(2024), number_characters)) < 20
    assert len(cover(number_text(2020), GREATEST, number_characters)) < 60
    new_year, december = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 12, 31, tzinfo=UTC)
    assert len(cover(date_text(new_year), date_text(december), date_characters)) < 60
