"""What may be asked of an encoder, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from m3connect.contract import Kind
from m3connect.errors import InputError
from m3connect.types import LEGS


def check_asked(texts: object, kind: str, legs: Sequence[str]) -> None:
    """Refuse what no encoder takes.

    Raises:
        InputError: one string in place of many, an unknown kind, or no or an unknown
            representation.
    """
    if isinstance(texts, str):
        raise InputError("texts is one string; give a list of strings")
    if kind not in get_args(Kind):
        raise InputError(f"kind {kind!r} is none of {get_args(Kind)}")
    if not legs or not set(legs) <= set(LEGS):
        raise InputError(f"legs {list(legs)}: known are {list(LEGS)}")
