"""The filter language: its three forms and its meaning."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.errors import InputError
from m3connect.filters import And, Eq, Exists, F, In, Not, Or, Range, matches, parse, parse_date

PAYLOAD = {
    "lang": "de",
    "year": 2021,
    "ratio": 1.0,
    "flag": True,
    "none": None,
    "empty": [],
    "tags": ["new", "draft", None],
    "author": {"name": "Zoë", "langs": [{"code": "de"}, {"code": ["fr", "it"]}]},
    "day": "2024-02-29",
    "moment": "2024-02-29T23:30:00-01:00",
    "größe": 3,
    "weird key": "x",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('lang == "de"', True),
        ('lang == "DE"', False),
        ('lang == "d"', False),
        ('lang != "de"', False),
        ('missing != "de"', True),
        ("year == 2021", True),
        ("year == 2021.0", True),
        ('year == "2021"', False),
        ("ratio == 1", True),
        ("flag == true", True),
        ("flag == 1", False),
        ("ratio == true", False),
        ("year >= 2021 and year <= 2021", True),
        ("year > 2021", False),
        ("flag >= 0", False),
        ('tags == "new"', True),
        ('tags != "new"', False),
        ('tags in ["old", "draft"]', True),
        ("tags in []", False),
        ('author.name == "Zoë"', True),
        ('author.langs.code == "it"', True),
        ("author exists", True),
        ("none exists", False),
        ("empty exists", False),
        ("missing exists", False),
        ("tags exists", True),
        ("day >= 2024-02-29", True),
        ("day < 2024-02-29", False),
        ("moment >= 2024-03-01", True),
        ("moment == 2024-03-01", False),
        ("day == 2024-02-29", True),
        ("lang >= 2024-01-01", False),
        ("größe == 3", True),
        ('`weird key` == "x"', True),
        ('not (lang == "de" or year < 2000)', False),
        ('lang == "fr" or lang == "de" and year == 1', False),
        ('(lang == "fr" or lang == "de") and year == 2021', True),
    ],
)
def test_text_form_means_what_it_says(text, expected):
    """The text form of each condition holds or does not hold for the sample payload."""
    assert matches(parse(text), PAYLOAD) is expected


def test_python_form_builds_the_same_nodes():
    """Operators on F build the nodes that the text form builds."""
    assert (F("lang") == "de") & (F("year") >= 2020) == parse('lang == "de" and year >= 2020')
    assert ~(F("tags").isin(["a", "b"]) | F("x").exists()) == parse(
        'not (tags in ["a", "b"] or x exists)'
    )
    assert (F("a") != 1) == Not(Eq("a", 1))
    assert (F("a") < 1, F("a") <= 1, F("a") > 1) == (
        Range("a", lt=1),
        Range("a", lte=1),
        Range("a", gt=1),
    )


def test_a_filter_has_no_truth_value():
    """`and` between filters would silently drop the left one, so it is an error."""
    with pytest.raises(TypeError, match="combine filters"):
        bool(F("a") == 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a field"),
        ("lang", "expected an operator"),
        ("lang = 'x'", "character 6"),
        ('lang == "de" and', "expected a field"),
        ('lang == "de" year', "expected 'and'"),
        ("(lang exists", r"expected '\)'"),
        ('year > "a"', "only numbers and dates"),
        ("day > 2023-02-29", "no such date"),
        ("a == null", "expected"),
        ("5 == 5", "field name"),
        ("a in [1, 2", r"expected '\]'"),
        ('a == "\\x"', "bad string"),
        ('lang = "de"', "character 6: equality is =="),
    ],
)
def test_bad_text_says_where_it_goes_wrong(text, message):
    """A syntax error names the text and the place."""
    with pytest.raises(InputError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Eq("", 1),
        lambda: Eq("a..b", 1),
        lambda: Eq("a", None),
        lambda: Eq("a", [1]),  # type: ignore[arg-type]
        lambda: Eq("a", float("nan")),
        lambda: Eq("a", "\ud800"),
        lambda: Exists("a.\ud800"),
        lambda: In("a", (1, None)),
        lambda: Range("a"),
        lambda: Range("a", gt="x"),  # type: ignore[arg-type]
        lambda: Range("a", gt=True),
        lambda: Range("a", gt=1, lt=date(2024, 1, 1)),
        lambda: Range("a", gt=float("inf")),
    ],
)
def test_meaningless_nodes_are_refused(build):
    """A node that no backend could give a meaning cannot be built."""
    with pytest.raises(InputError):
        build()


def test_dates_and_times_compare_as_instants():
    """A date bound is midnight UTC; zones are respected."""
    bound = datetime(2024, 3, 1, 0, 30, tzinfo=UTC)
    assert matches(Range("moment", lte=bound), PAYLOAD)
    assert matches(Range("moment", gte=bound), PAYLOAD)
    assert not matches(Range("moment", gt=bound), PAYLOAD)
    assert matches(Range("day", gte=date(2024, 2, 29)), PAYLOAD)


values = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(["a", "b", "", "2024-01-01"]),
    st.booleans(),
    st.sampled_from([0.0, 1.0, 0.5]),
)
payloads = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.one_of(
        st.none(), values, st.lists(values, max_size=3), st.dictionaries(st.just("d"), values)
    ),
)
fields = st.sampled_from(["a", "b", "c", "a.d", "b.d"])
leaves = st.one_of(
    st.builds(Eq, fields, values),
    st.builds(In, fields, st.lists(values, max_size=3).map(tuple)),
    st.builds(
        lambda f, low, high: Range(f, gte=low, lt=high),
        fields,
        st.integers(-3, 3),
        st.integers(-3, 3),
    ),
    st.builds(Exists, fields),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@given(conditions, payloads)
def test_a_filter_and_its_negation_partition_the_payloads(condition, payload):
    """Exactly one of a condition and its negation holds."""
    assert matches(condition, payload) is not matches(Not(condition), payload)


@given(conditions, conditions, payloads)
def test_de_morgan(left, right, payload):
    """And and Or are dual under negation."""
    assert matches(Not(And((left, right))), payload) == matches(
        Or((Not(left), Not(right))), payload
    )


def test_a_filter_nested_beyond_reason_is_an_input_error():
    """Deep nesting in the text form is refused, not a crash."""
    for text in ("(" * 100_000 + "a exists" + ")" * 100_000, "not " * 101 + "a exists"):
        with pytest.raises(InputError, match="nested too deeply"):
            parse(text)
    deep = parse("not " * 100 + "a exists or b exists")
    assert matches(deep, {"a": 1})


def test_midnight_is_zero_hours():
    """24:00 is no time of day, whatever the Python version makes of it."""
    assert parse_date("2024-02-28T24:00:00Z") is None
    assert parse_date("2024-02-28T23:59:59Z") is not None


def test_a_date_bound_outside_the_calendar_is_an_input_error():
    """A bound whose UTC instant has no year is refused when the filter is made."""
    with pytest.raises(InputError, match="outside the years"):
        Range("when", gt=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))))


def test_a_number_of_thousands_of_digits_is_bad_usage():
    """Python itself refuses to read it; that is no fault of ours to be reported."""
    with pytest.raises(InputError, match="too long a number"):
        parse("year < " + "9" * 5000)
