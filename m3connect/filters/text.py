"""The text form of a filter: ``lang == "de" and year >= 2020``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import overload

from m3connect.errors import InputError
from m3connect.filters.nodes import (
    And,
    Bound,
    Eq,
    Exists,
    Filter,
    In,
    Not,
    Or,
    Range,
    Scalar,
    parse_date,
)

AnyFilter = Filter | str
"""A filter as people give it: conditions, or their text form."""

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
_DEPTH = 100
"""Of ``not`` and parentheses within each other: whatever walks a filter takes a few calls a level."""
_COMPARE = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


@overload
def as_filter(where: AnyFilter) -> Filter: ...


@overload
def as_filter(where: None) -> None: ...


@overload
def as_filter(where: AnyFilter | None) -> Filter | None: ...


def as_filter(where: AnyFilter | None) -> Filter | None:
    """A filter from what people give: conditions as they are, a text parsed, None for none.

    >>> as_filter('lang == "de"')
    Eq(field='lang', value='de')

    Raises:
        InputError: shows where the text stops making sense.
    """
    return parse(where) if isinstance(where, str) else where


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
    return _Parser(text).parse()


class _Parser:
    """Recursive descent, one method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        end = len(text.rstrip())
        while position < end:
            token = _TOKEN.match(text, position)
            if token is None or token.lastgroup is None:
                start = len(text) - len(text[position:].lstrip())
                alone = text[start] == "="
                raise self._error("equality is ==" if alone else "unexpected character", start)
            self.tokens.append((token.lastgroup, token[token.lastgroup], token.start()))
            position = token.end()
        self.at = 0
        self.depth = 0

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
            return Not(self._deeper(self._not))
        if self._take("("):
            node = self._deeper(self._or)
            self._expect(")")
            return node
        return self._comparison()

    def _deeper(self, rule: Callable[[], Filter]) -> Filter:
        self.depth += 1
        if self.depth > _DEPTH:
            raise InputError(f"filter {self.text[:40]!r}... is nested too deeply")
        node = rule()
        self.depth -= 1
        return node

    def _comparison(self) -> Filter:
        kind, field, position = self._next("a field")
        if kind not in {"word", "quoted"}:
            raise self._error("expected a field name", position)
        if self._take("exists"):
            return Exists(field)
        if self._take("in"):
            return In(field, tuple(self._list()))
        _, operator, position = self._next("an operator")
        if operator in {"==", "!="}:
            node = Eq(field, self._scalar())
            return node if operator == "==" else Not(node)
        if operator in _COMPARE:
            bound = self._value()
            if isinstance(bound, str | bool):
                raise self._error("only numbers and dates can be compared", self._position(-1))
            return Range(field, **{_COMPARE[operator]: bound})
        raise self._error("expected == != > >= < <= in or exists", position)

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
        kind, token, position = self._next("a value")
        if kind == "string":
            try:
                return str(json.loads(token))
            except json.JSONDecodeError as error:
                raise self._error(f"bad string ({error.msg})", position) from error
        if kind == "number":
            try:
                return float(token) if any(c in token for c in ".eE") else int(token)
            except ValueError as error:  # Python reads no integer of more than 4,300 digits
                raise self._error("too long a number", position) from error
        if kind == "date":
            moment = parse_date(token)
            if moment is None:
                raise self._error("no such date", position)
            return moment
        if token in {"true", "false"}:
            return token == "true"
        raise self._error('expected "a string", a number, a date, true or false', position)

    def _next(self, expected: str) -> tuple[str, str, int]:
        if self.at == len(self.tokens):
            raise self._error(f"expected {expected}", len(self.text))
        self.at += 1
        return self.tokens[self.at - 1]

    def _take(self, token: str) -> bool:
        if self.at < len(self.tokens):
            kind, text, _ = self.tokens[self.at]
            if text == token and kind in {"word", "operator"}:
                self.at += 1
                return True
        return False

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._error(f"expected {token!r}", self._position())

    def _position(self, offset: int = 0) -> int:
        index = self.at + offset
        return self.tokens[index][2] if index < len(self.tokens) else len(self.text)

    def _error(self, message: str, position: int) -> InputError:
        return InputError(f"filter {self.text!r}, character {position + 1}: {message}")
