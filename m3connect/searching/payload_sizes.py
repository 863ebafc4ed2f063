"""How large a collection's payloads are, by the last hits that it gave."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import ref

from m3connect.types import Hit

if TYPE_CHECKING:
    from m3connect.contract import Connector

# By identity: a connector need not be hashable, and two that are equal may be open on two databases.
_MEANS: dict[int, tuple[ref[Connector], float]] = {}


def mean(connector: Connector) -> float | None:
    """Bytes of a payload on average; None as long as no hit had one."""
    held = _MEANS.get(id(connector))
    return None if held is None else held[1]


def learn(connector: Connector, hits: Iterable[Hit]) -> None:
    """Remember what these have, for as long as the connector lives.

    Of one to which no weak reference can be made nothing is remembered.
    """
    sizes = [len(json.dumps(hit.payload)) for hit in hits if hit.payload]
    if not sizes:
        return
    key = id(connector)
    try:
        alive = ref(connector, lambda _: _MEANS.pop(key, None))
    except TypeError:  # a class with __slots__ and without __weakref__
        return
    _MEANS[key] = alive, sum(sizes) / len(sizes)
