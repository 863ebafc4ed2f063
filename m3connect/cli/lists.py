"""Values that are lists: between commas, by repeating the option, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.types import Leg


def names(values: str | Sequence[str] | None) -> tuple[str, ...]:
    """The list that an option gives: between commas, by repeating the option, or both.

    >>> names("ndcg@10, mrr@10")
    ('ndcg@10', 'mrr@10')
    >>> names(["int8,binary", "pool2"])
    ('int8', 'binary', 'pool2')
    """
    given = [values] if isinstance(values, str) else values or []
    parts = (part.strip() for value in given for part in value.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def choices(option: str, values: str | Sequence[str] | None, known: Sequence[str]) -> Any:
    """Like :func:`names`, in the order of ``known``; () when none were given.

    >>> choices("--legs", "multivector,dense", ("dense", "sparse", "multivector"))
    ('dense', 'multivector')

    Raises:
        ConfigError: a name is not known; all known ones are listed.
    """
    given = names(values)
    if unknown := [name for name in given if name not in known]:
        raise ConfigError(f"{option} takes {', '.join(known)}; got {', '.join(unknown)}")
    return tuple(name for name in known if name in given)


def legs(values: str | Sequence[str] | None) -> tuple[Leg, ...]:
    """``--legs``; all of them when it was not given.

    >>> legs("multivector, dense")
    ('dense', 'multivector')

    Raises:
        ConfigError: no such representation.
    """
    from m3connect.types import LEGS

    chosen: tuple[Leg, ...] = choices("--legs", values, LEGS)
    return chosen or LEGS


def numbers(option: str, text: str, count: int | None = None) -> tuple[float, ...]:
    """Finite numbers between commas.

    >>> numbers("--weights", "1, 0.3,1", 3)
    (1.0, 0.3, 1.0)

    Raises:
        ConfigError: something else, or not so many.
    """
    from math import isfinite

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or (count and len(values) != count) or not all(map(isfinite, values)):
        many = f"{count} numbers" if count else "numbers"
        raise ConfigError(f"{option} takes {many} between commas, such as 1,0.3,1; got {text!r}")
    return values


def whole_numbers(option: str, text: str, least: int) -> tuple[int, ...]:
    """Whole numbers between commas.

    >>> whole_numbers("--chunk-overlap", "0,32", 0)
    (0, 32)

    Raises:
        ConfigError: something else, or one below ``least``.
    """
    values = numbers(option, text)
    if not all(value.is_integer() and value >= least for value in values):
        raise ConfigError(f"{option} takes whole numbers of at least {least}; got {text!r}")
    return tuple(int(value) for value in values)


def leg_weights(text: str | None) -> tuple[float, float, float] | None:
    """``--weights``, if it was given: of dense, sparse and multivector.

    Raises:
        ConfigError: not three finite numbers, or 0 alone.
    """
    if text is None:
        return None
    dense, sparse, multivector = numbers("--weights", text, 3)
    if not (dense or sparse or multivector):
        raise ConfigError(f"--weights {text}: 0 alone ranks nothing; give one of them more")
    return dense, sparse, multivector
