"""Filters on payloads: one small language in three forms, and its meaning in plain Python.

- Python: ``(F("lang") == "de") & (F("year") >= 2020)``
- text: ``lang == "de" and year >= 2020`` (:func:`parse`)
- nodes: ``And((Eq("lang", "de"), Range("year", gte=2020)))``

Meaning, the same on every backend (:func:`matches` is the definition):

- A field is a dotted path. Through a list it means any element; a field may have many values.
- ``Eq`` is equality of the whole value and of its type: ``1 == 1.0`` but ``1 != True != "1"``.
- ``Range`` compares numbers with numbers and dates (ISO 8601 strings) with dates; other values do
  not match. A date without a zone is UTC.
- ``Exists``: there is a value other than null. An empty list has none.
- ``Not`` is the complement: records that lack the field match ``lang != "de"``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from m3connect.errors import InputError

Scalar = str | int | float | bool
Bound = int | float | datetime | date


class Filter:
    """A condition on a payload. Combine with ``&``, ``|`` and ``~``."""

    __slots__ = ()

    def __and__(self, other: Filter) -> Filter:
        return And((*self.parts, other)) if isinstance(self, And) else And((self, other))

    def __or__(self, other: Filter) -> Filter:
        return Or((*self.parts, other)) if isinstance(self, Or) else Or((self, other))

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError("a filter has no truth value: combine filters with & | ~, not and or not")


@dataclass(frozen=True, slots=True)
class Eq(Filter):
    """The field has this value."""

    field: str
    value: Scalar

    def __post_init__(self) -> None:
        _check_field(self.field)
        _check_scalar(self.field, self.value)


@dataclass(frozen=True, slots=True)
class In(Filter):
    """The field has one of these values; none of an empty list."""

    field: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        _check_field(self.field)
        for value in self.values:
            _check_scalar(self.field, value)


@dataclass(frozen=True, slots=True)
class Range(Filter):
    """The field has a number, or a date, within these bounds."""

    field: str
    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    def __post_init__(self) -> None:
        _check_field(self.field)
        bounds = self.bounds
        if not bounds:
            raise InputError(f"range on {self.field!r} needs a bound")
        for bound in bounds.values():
            if isinstance(bound, bool) or not isinstance(bound, int | float | date):
                raise InputError(f"range on {self.field!r}: {bound!r} is no number and no date")
            if isinstance(bound, float) and not math.isfinite(bound):
                raise InputError(f"range on {self.field!r}: {bound!r} is not finite")
        if len({isinstance(bound, date) for bound in bounds.values()}) > 1:
            raise InputError(f"range on {self.field!r} mixes numbers and dates")
        try:
            _ = self.instants
        except OverflowError as error:
            raise InputError(
                f"range on {self.field!r}: a date outside the years 1 to 9999 in UTC"
            ) from error

    @property
    def bounds(self) -> dict[str, Bound]:
        """The bounds that are set, by name."""
        named = {"gt": self.gt, "gte": self.gte, "lt": self.lt, "lte": self.lte}
        return {name: bound for name, bound in named.items() if bound is not None}

    @property
    def is_date(self) -> bool:
        """Whether it compares dates rather than numbers."""
        return any(isinstance(bound, date) for bound in self.bounds.values())

    @property
    def instants(self) -> dict[str, datetime]:
        """The bounds of a date range as UTC instants."""
        return {n: _instant(b) for n, b in self.bounds.items() if isinstance(b, date)}


@dataclass(frozen=True, slots=True)
class Exists(Filter):
    """The field has a value other than null."""

    field: str

    def __post_init__(self) -> None:
        _check_field(self.field)


@dataclass(frozen=True, slots=True)
class And(Filter):
    """All parts match; an empty And matches everything."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """A part matches; an empty Or matches nothing."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """The part does not match."""

    part: Filter


@dataclass(frozen=True, slots=True, eq=False)
class F:
    """A payload field to compare: ``F("year") >= 2020``, ``F("tags") == "new"``.

    Args:
        path: dotted path, such as ``author.name``.
    """

    path: str

    def __eq__(self, value: object) -> Filter:  # type: ignore[override]
        return Eq(self.path, value)  # type: ignore[arg-type]  # checked by Eq

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]
        return Not(Eq(self.path, value))  # type: ignore[arg-type]  # checked by Eq

    __hash__ = None  # type: ignore[assignment]

    def __gt__(self, bound: Bound) -> Filter:
        return Range(self.path, gt=bound)

    def __ge__(self, bound: Bound) -> Filter:
        return Range(self.path, gte=bound)

    def __lt__(self, bound: Bound) -> Filter:
        return Range(self.path, lt=bound)

    def __le__(self, bound: Bound) -> Filter:
        return Range(self.path, lte=bound)

    def isin(self, values: Sequence[Scalar]) -> Filter:
        """The field has one of these values."""
        return In(self.path, tuple(values))

    def exists(self) -> Filter:
        """The field has a value other than null."""
        return Exists(self.path)


def _check_field(field: object) -> None:
    if not isinstance(field, str) or not field or not all(field.split(".")):
        raise InputError(f"a filter field is a dotted path such as 'author.name', got {field!r}")


def _check_scalar(field: str, value: object) -> None:
    if not isinstance(value, str | int | float | bool):
        raise InputError(
            f"filter on {field!r}: {value!r} is no string, number or boolean"
            + (" (use Exists for null)" if value is None else "")
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"filter on {field!r}: {value!r} is not finite")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"filter on {field!r}: {value!r} is not valid unicode") from error


# -------------------------------------------------------------------------------------- meaning

# Hours to 23: Python 3.14 reads 24:00 as the next day, earlier ones do not.
_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]([01]\d|2[0-3]):\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)


def parse_date(text: str) -> datetime | None:
    """An ISO 8601 date, or date and time, as a UTC instant; None if ``text`` is none.

    >>> parse_date("2024-02-29")
    datetime.datetime(2024, 2, 29, 0, 0, tzinfo=datetime.timezone.utc)
    >>> parse_date("2024-02-29T01:00:00+01:00") == parse_date("2024-02-29")
    True
    >>> parse_date("2023-02-29") is None
    True
    """
    if not _DATE.fullmatch(text):
        return None
    try:
        return _instant(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def _instant(moment: date) -> datetime:
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001 - zone set below
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC)


def values_at(payload: Any, path: str) -> Iterator[Any]:
    """Every non-null leaf at a dotted path, lists flattened.

    >>> list(values_at({"a": [{"b": 1}, {"b": [2, None]}]}, "a.b"))
    [1, 2]
    """
    yield from _walk(payload, path.split("."))


def _walk(value: Any, parts: list[str]) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item, parts)
    elif not parts:
        if value is not None:
            yield value
    elif isinstance(value, Mapping) and parts[0] in value:
        yield from _walk(value[parts[0]], parts[1:])


def matches(condition: Filter, payload: Mapping[str, Any]) -> bool:
    """Whether a payload meets a condition: the definition every backend is held to.

    >>> matches(parse('lang == "de" and year >= 2020'), {"lang": ["de", "fr"], "year": 2021})
    True
    >>> matches(parse('lang != "de"'), {"year": 2021})
    True
    """
    match condition:
        case Eq(field, value):
            return any(_same(value, found) for found in values_at(payload, field))
        case In(field, values):
            return any(_same(v, found) for found in values_at(payload, field) for v in values)
        case Range(field):
            return any(_within(condition, found) for found in values_at(payload, field))
        case Exists(field):
            return any(True for _ in values_at(payload, field))
        case And(parts):
            return all(matches(part, payload) for part in parts)
        case Or(parts):
            return any(matches(part, payload) for part in parts)
        case Not(part):
            return not matches(part, payload)
    raise InputError(f"{condition!r} is no filter")


def _same(wanted: Scalar, found: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(wanted, str):
        return isinstance(found, str) and wanted == found
    return isinstance(found, int | float) and wanted == found


def _within(condition: Range, found: Any) -> bool:
    at: Any
    bounds: Mapping[str, Any]
    if condition.is_date:
        at = parse_date(found) if isinstance(found, str) else None
        bounds = condition.instants
        if at is None:
            return False
    else:
        if isinstance(found, bool) or not isinstance(found, int | float):
            return False
        at, bounds = found, condition.bounds
    return (
        ("gt" not in bounds or at > bounds["gt"])
        and ("gte" not in bounds or at >= bounds["gte"])
        and ("lt" not in bounds or at < bounds["lt"])
        and ("lte" not in bounds or at <= bounds["lte"])
    )


# ------------------------------------------------------------------------------------ text form

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<date>\d{4}-\d{2}-\d{2}(?:T[0-9:.]+(?:Z|[+-]\d{2}:?\d{2})?)?)
  | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
  | (?P<operator>==|!=|>=|<=|>|<|\(|\)|\[|\]|,)
  | `(?P<quoted>[^`]+)`
  | (?P<word>[^\W\d][\w.\-]*)
    )""",
    re.VERBOSE,
)
_COMPARE = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def parse(text: str) -> Filter:
    """Read the text form of a filter.

    Grammar: comparisons ``field == value`` (also ``!= > >= < <=``), ``field in [v, w]``,
    ``field exists``; joined by ``and``, ``or``, ``not`` and parentheses. Values are
    ``"strings"`` (JSON escapes), numbers, ``true``, ``false`` and bare dates ``2024-02-29``.
    A field that is no plain word stands in back-quotes: `` `my field` ``.

    >>> parse('lang == "de" and not (year < 2020 or tags in ["old", "draft"])')
    ... # doctest: +NORMALIZE_WHITESPACE
    And(parts=(Eq(field='lang', value='de'), Not(part=Or(parts=(Range(field='year', gt=None,
    gte=None, lt=2020, lte=None), In(field='tags', values=('old', 'draft')))))))

    Raises:
        InputError: shows where the text stops making sense.
    """
    try:
        return _Parser(text).parse()
    except RecursionError as error:
        raise InputError(f"filter {text[:40]!r}... is nested too deeply") from error


class _Parser:
    """Recursive descent, one method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise self._error("unexpected character", len(text) - len(text[at:].lstrip()))
            self.tokens.append((found.lastgroup, found[found.lastgroup], found.start()))
            at = found.end()
        self.at = 0

    def parse(self) -> Filter:
        node = self._or()
        if self.at < len(self.tokens):
            raise self._error("expected 'and', 'or' or the end", self._position())
        return node

    def _or(self) -> Filter:
        parts = [self._and()]
        while self._take("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Filter:
        parts = [self._not()]
        while self._take("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Filter:
        if self._take("not"):
            return Not(self._not())
        if self._take("("):
            node = self._or()
            self._expect(")")
            return node
        return self._comparison()

    def _comparison(self) -> Filter:
        kind, field, at = self._next("a field")
        if kind not in {"word", "quoted"}:
            raise self._error("expected a field name", at)
        if self._take("exists"):
            return Exists(field)
        if self._take("in"):
            return In(field, tuple(self._list()))
        _, operator, at = self._next("an operator")
        if operator in {"==", "!="}:
            node = Eq(field, self._scalar())
            return node if operator == "==" else Not(node)
        if operator in _COMPARE:
            bound = self._value()
            if isinstance(bound, str | bool):
                raise self._error("only numbers and dates can be compared", self._position(-1))
            return Range(field, **{_COMPARE[operator]: bound})
        raise self._error("expected == != > >= < <= in or exists", at)

    def _list(self) -> Iterator[Scalar]:
        self._expect("[")
        if self._take("]"):
            return
        yield self._scalar()
        while self._take(","):
            yield self._scalar()
        self._expect("]")

    def _scalar(self) -> Scalar:
        start = self.at
        value = self._value()
        # A stored date is a string, so a bare date that is compared for equality is one too.
        return self.tokens[start][1] if isinstance(value, date) else value

    def _value(self) -> Scalar | Bound:
        kind, token, at = self._next("a value")
        if kind == "string":
            try:
                return str(json.loads(token))
            except json.JSONDecodeError as error:
                raise self._error(f"bad string ({error.msg})", at) from error
        if kind == "number":
            return float(token) if any(c in token for c in ".eE") else int(token)
        if kind == "date":
            moment = parse_date(token)
            if moment is None:
                raise self._error("no such date", at)
            return moment
        if token in {"true", "false"}:
            return token == "true"
        raise self._error('expected "a string", a number, a date, true or false', at)

    def _next(self, wanted: str) -> tuple[str, str, int]:
        if self.at == len(self.tokens):
            raise self._error(f"expected {wanted}", len(self.text))
        self.at += 1
        return self.tokens[self.at - 1]

    def _take(self, token: str) -> bool:
        if self.at < len(self.tokens):
            kind, found, _ = self.tokens[self.at]
            if found == token and kind in {"word", "operator"}:
                self.at += 1
                return True
        return False

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._error(f"expected {token!r}", self._position())

    def _position(self, offset: int = 0) -> int:
        at = self.at + offset
        return self.tokens[at][2] if at < len(self.tokens) else len(self.text)

    def _error(self, message: str, at: int) -> InputError:
        return InputError(f"filter {self.text!r}, character {at + 1}: {message}")
