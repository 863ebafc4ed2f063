"""What the connector asks of an engine: the embedded one and the client have different interfaces.

Requests are the JSON that Qdrant's REST interface documents. Engines raise what their driver
raises, and say what it means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from m3connect.errors import ConnectorError
from m3connect.types import Leg
from m3connect_qdrant.engine.strict import Allowance
from m3connect_qdrant.filters import Json
from m3connect_qdrant.mapping import Point


class Engine(Protocol):
    """One collection in one engine. Constructing it does no I/O; the first call opens it."""

    embedded: bool
    request_bytes: int
    """Binary size of the records that one write request may hold."""
    exact: bool
    """Whether it always compares a dense query with every vector."""
    aliases: bool
    """Whether a free name can be made an alias."""
    longest_name: int
    """Bytes of a collection's name."""
    allowance: Allowance
    """What one request may do, as it was when the metadata was last read."""

    def translate(self, error: Exception, operation: str) -> ConnectorError:
        """What an exception of the driver means."""

    def version(self) -> str:
        """Engine and version, for people."""

    def beside(self, collection: str) -> Self:
        """Another collection of the same folder or server; closing it leaves this one open."""

    def alias(self) -> str | None:
        """The collection that the name is an alias of; None of one that is none."""

    def set_alias(self, collection: str) -> None:
        """Make the name, which no collection has, an alias of a collection; in one step."""

    def create(
        self,
        vectors: Mapping[str, Json],
        sparse: Mapping[str, Json],
        metadata: str,
        settings: Mapping[str, Any],
    ) -> None:
        """Make the collection, whole or not at all; ``settings`` are those of a server.

        Raises:
            CollectionExists: someone was faster.
        """

    def collections(self) -> list[str]:
        """The names of the collections here that have such a text, sorted."""

    def size(self) -> int | None:
        """Bytes on disk; None where the engine does not tell."""

    def drop(self) -> None:
        """Remove the collection, which exists."""

    def metadata(self) -> tuple[str, Mapping[str, str]] | None:
        """The text stored with the collection, and the notes beside it; None if made without."""

    def set_metadata(self, metadata: str) -> None:
        """Replace that text."""

    def note(self, notes: Mapping[str, str]) -> None:
        """Merge notes, JSON texts by key, so that two who write at once lose nothing; null removes one."""

    def indexes(self) -> set[str]:
        """The keys of the payload indexes."""

    def add_index(self, key: str, schema: str, *, tenant: bool = False) -> None:
        """Index a payload key; of a tenant's, a server stores the records of each close together."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points, replacing those of the same ids; durable on return."""

    def delete(self, where: Sequence[str] | Json) -> None:
        """Delete points by id or by filter."""

    def retrieve(self, ids: Sequence[str], payload: Json, legs: Sequence[Leg]) -> list[Point]:
        """The points with these ids, in any order, with the vectors of some legs."""

    def scroll(
        self,
        condition: Json | None,
        limit: int,
        offset: Any,
        payload: Json,
        legs: Sequence[Leg],
    ) -> tuple[list[Point], Any]:
        """A page of points, and the offset of the next; None after the last."""

    def count(self, condition: Json | None) -> int:
        """How many points match; exact."""

    def query(self, requests: Sequence[Json]) -> list[list[tuple[float, Mapping[str, Any]]]]:
        """Scores and payloads, best first, of several queries."""

    def optimize(self) -> None:
        """Index what was written."""

    def close(self) -> None:
        """Release files and connections."""
