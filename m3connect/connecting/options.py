"""A connector's options are of the types that its signature says: a ``"no"`` is no False."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from m3connect.errors import ConfigError

LONGEST = 1_000_000.0
"""Seconds: more is no time-out, and more than some drivers take."""


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    Path: "a path",
}


def check_options(target: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse an option of another type, which some drivers fail at later and others take for true.

    The message holds no value, which may be a secret.

    Raises:
        ConfigError: names the option and what it takes.

    >>> def connect_to(*, timeout: float = 60.0) -> None: ...
    >>> check_options("qdrant", connect_to, {"timeout": 0})
    Traceback (most recent call last):
    ...
    m3connect.errors.ConfigError: qdrant: timeout is in seconds, more than 0 and at most 1,000,000
    """
    # Not what it returns, which is imported for checkers alone.
    taken = {
        name: parameter.annotation
        for name, parameter in signature(factory).parameters.items()
        if parameter.annotation is not Parameter.empty
    }
    names = vars(sys.modules[factory.__module__])
    hints = get_type_hints(SimpleNamespace(__annotations__=taken), names)
    for name, value in options.items():
        if name in hints and not _fits(value, hints[name]):
            given = repr(value) if _is_choice(_parts(hints[name])) else type(value).__name__
            raise ConfigError(f"{target}: {name} {_taken(hints[name])}, not {given}")
    if "timeout" in hints and not 0 < float(options.get("timeout", 1)) <= LONGEST:
        raise ConfigError(
            f"{target}: timeout is in seconds, more than 0 and at most {LONGEST:,.0f}"
        )


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type.

    >>> _fits(True, int), _fits(1, float), _fits(float("nan"), float), _fits("a", Literal["a"] | None)
    (False, True, False, True)
    """
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if hint is float:
        return type(value) is not bool and isinstance(value, Real) and math.isfinite(float(value))
    if hint is int:
        return type(value) is not bool and isinstance(value, Integral)
    return not isinstance(hint, type) or isinstance(value, hint)


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _taken(hint: Any) -> str:
    parts = _parts(hint)
    words = [each for part in parts if part is not NoneType for each in _words(part)]
    return f"{'is one of' if _is_choice(parts) else 'takes'} {', '.join(words)}"


def _is_choice(parts: tuple[Any, ...]) -> bool:
    return any(get_origin(part) is Literal for part in parts)


def _words(hint: Any) -> tuple[str, ...]:
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    return (_WORDS.get(hint, getattr(hint, "__name__", str(hint))),)
