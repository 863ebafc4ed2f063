"""What is remembered of a connector for as long as it lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import ref

if TYPE_CHECKING:
    from m3connect.contract import Connector

V = TypeVar("V")


class Remembered(Generic[V]):
    """A value by connector, which need not be hashable: two that are equal may be open on two databases.

    Of one to which no weak reference can be made nothing is remembered.
    """

    def __init__(self) -> None:
        self._values: dict[int, tuple[ref[Connector], V]] = {}

    def get(self, connector: Connector) -> V | None:
        """The value, None where there is none."""
        held = self._values.get(id(connector))
        return None if held is None else held[1]

    def put(self, connector: Connector, value: V) -> None:
        """Remember a value, instead of another."""
        key = id(connector)
        try:
            alive = ref(connector, lambda _: self._values.pop(key, None))
        except TypeError:  # a class with __slots__ and without __weakref__
            return
        self._values[key] = alive, value
