"""How a connector shows itself: what it is and which collection, never where it logs in."""

from __future__ import annotations

from typing import Protocol


class _Named(Protocol):
    name: str
    collection: str


def connector_repr(self: _Named) -> str:
    """For a connector's ``__repr__``; addresses and keys stay out of logs and notebooks.

    >>> class Shelf:
    ...     name, collection = "memory", "notes"
    ...     __repr__ = connector_repr
    >>> Shelf()
    <memory collection 'notes'>
    """
    return f"<{self.name} collection {self.collection!r}>"
