"""The nodes of a filter, and the Python form that builds them: ``F("year") >= 2020``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

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


@dataclass(frozen=True, slots=True)
class EveryTenant(Filter):
    """All match, on purpose, in a collection that keeps tenants apart: what maintenance asks.

    It stands alone, or first in an And: ``EVERY_TENANT & (F("year") < 2020)``.
    """


EVERY_TENANT = EveryTenant()


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
        """The field has one of these values.

        Raises:
            InputError: it is one string, which would be a list of its letters.
        """
        if isinstance(values, str | bytes):
            raise InputError(f"isin takes a list of values, not {values!r}: [{values!r}]")
        return In(self.path, tuple(values))

    def exists(self) -> Filter:
        """The field has a value other than null."""
        return Exists(self.path)


def _check_field(field: object) -> None:
    if not isinstance(field, str) or not field or not all(field.split(".")):
        raise InputError(f"a filter field is a dotted path such as 'author.name', got {field!r}")
    _check_unicode(field, f"filter on {field!r}: the field")


def _check_scalar(field: str, value: object) -> None:
    if not isinstance(value, str | int | float | bool):
        raise InputError(
            f"filter on {field!r}: {value!r} is no string, number or boolean"
            + (" (use Exists for null)" if value is None else "")
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"filter on {field!r}: {value!r} is not finite")
    if isinstance(value, str):
        _check_unicode(value, f"filter on {field!r}: {value!r}")


def _check_unicode(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} is not valid unicode") from error


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
