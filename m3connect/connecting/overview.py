"""A collection at a glance: what it says of itself, how many records it has and what they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3connect.filters import EVERY_TENANT

if TYPE_CHECKING:
    from m3connect.contract import CollectionInfo, Connector


@dataclass(frozen=True, slots=True)
class Overview:
    """One collection.

    Args:
        info: what it says of itself.
        records: how many it has.
        bytes: on disk; None where the engine does not tell.
    """

    info: CollectionInfo
    records: int
    bytes: int | None

    @property
    def model(self) -> str | None:
        """The name of the model that made its vectors, if it is known."""
        made_by = self.info.schema.fingerprint
        return None if made_by is None else made_by.model

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.info.name,
            "stands_for": self.info.stands_for,
            "engine": self.info.engine,
            "records": self.records,
            "bytes": self.bytes,
            "model": self.model,
            "legs": list(self.info.schema.legs),
            "schema": self.info.schema.to_json(),
            "notes": dict(self.info.notes),
        }


def overview(connector: Connector) -> Overview:
    """Look at a collection.

    Raises:
        CollectionNotFound: there is none.

    >>> from m3connect import connect
    >>> from m3connect.contract import CollectionSchema
    >>> with connect("memory", collection="notes") as notes:
    ...     notes.ensure(CollectionSchema(2, False, None))
    ...     seen = overview(notes)
    >>> seen.info.name, seen.records, seen.info.schema.legs
    ('notes', 0, ('dense',))
    """
    return Overview(connector.describe(), connector.count(EVERY_TENANT), connector.size())
