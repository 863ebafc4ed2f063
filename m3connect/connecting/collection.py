"""What a collection says of itself, and the checks and messages that all connectors share.

It is kept in the collection, as JSON: what it holds (schema), what users noted (notes), and how
this connector lays it out (layout, the connector's own).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

from m3connect.contract import CollectionInfo, CollectionSchema
from m3connect.errors import (
    CollectionGone,
    CollectionNotFound,
    CollectionOutdated,
    ConnectorError,
    PermanentError,
    SchemaMismatch,
)

FORMAT = 2
"""Raised when what is stored in a collection changes its form, facts for filters included."""
STANDS_FOR = "_m3.stands_for"
"""The note of a collection whose name stands for another one."""
_LISTED = 10
"""So many collections are named where one is missing."""


def closed(connector: str, operation: str) -> PermanentError:
    """A connector was asked after it was closed."""
    return PermanentError("the connector is closed", connector=connector, operation=operation)


@dataclass(frozen=True, slots=True)
class Place:
    """Which collection of which connector, and what is said when it will not do.

    Args:
        connector: the connector's name.
        collection: the collection's.
    """

    connector: str
    collection: str

    def not_found(
        self, operation: str, existing: Callable[[], Sequence[str]] = list
    ) -> CollectionNotFound:
        """There is no such collection; says which there are.

        Args:
            operation: what was being done.
            existing: asks for the names of the collections there.

        >>> print(Place("memory", "docs").not_found("count", lambda: ["doc", "handbook"]))
        memory count: there is no collection 'docs', but 'doc', 'handbook' (--collection)
        """
        with suppress(ConnectorError):  # who may use one collection may not list them all
            if names := existing():
                near = difflib.get_close_matches(self.collection, names, n=3)
                first = [*near, *(name for name in names if name not in near)]
                listed = ", ".join(map(repr, first[:_LISTED]))
                more = f" and {len(first) - _LISTED} more" if len(first) > _LISTED else ""
                return self._not_found(f"but {listed}{more} (--collection)", operation)
        return self._not_found("m3connect ingest makes it", operation)

    def _not_found(self, advice: str, operation: str) -> CollectionNotFound:
        return CollectionNotFound(
            f"there is no collection {self.collection!r}, {advice}",
            connector=self.connector,
            operation=operation,
        )

    def foreign(self, operation: str) -> SchemaMismatch:
        """It is there, but says nothing of itself."""
        return SchemaMismatch(
            f"collection {self.collection!r} was not made by m3connect; use another name "
            "(--collection)",
            connector=self.connector,
            operation=operation,
        )

    def gone(self, stands_for: str, operation: str) -> CollectionGone:
        """The collection that the name stands for was removed."""
        return CollectionGone(
            f"{self.collection!r} stands for the collection {stands_for!r}, which is gone; m3connect "
            f"reembed --rollback --collection {self.collection} lets it stand for itself again",
            connector=self.connector,
            operation=operation,
        )

    def require_own(self, stands_for: str) -> None:
        """Check that a name whose collection is to be removed stands for no other.

        Raises:
            PermanentError: it does.
        """
        if stands_for != self.collection:
            raise PermanentError(
                f"{self.collection!r} stands for the collection {stands_for!r}; to remove that, name "
                "it (--collection)",
                connector=self.connector,
                operation="drop",
            )

    def switch(
        self,
        collection: str,
        existing: Sequence[str],
        *,
        annotate: Callable[[Mapping[str, Any]], None],
        set_alias: Callable[[str], None] | None,
    ) -> None:
        """Let the name stand for another collection; see :meth:`Connector.switch`.

        Args:
            collection: the other one; its own name undoes it.
            existing: the names of the collections there.
            annotate: merges notes into the collection of this name.
            set_alias: makes the name an alias; None where there are none.

        Raises:
            CollectionNotFound: of the other, or of this name where there are no aliases.
        """
        if collection not in existing:
            raise replace(self, collection=collection).not_found("switch", lambda: existing)
        if self.collection in existing:
            annotate({STANDS_FOR: None if collection == self.collection else collection})
        elif set_alias is not None:
            set_alias(collection)
        else:
            raise self.not_found("switch", lambda: existing)

    def differs(self, differences: Sequence[str], operation: str = "ensure") -> SchemaMismatch:
        """It is there, but of another shape."""
        return SchemaMismatch(
            f"collection {self.collection!r} differs: {'; '.join(differences)}. Use another name "
            "(--collection), or the representations and options that it has",
            connector=self.connector,
            operation=operation,
        )

    def outdated(self, operation: str, version: object) -> CollectionOutdated:
        """It was made by another version of this project, which stored other facts."""
        return CollectionOutdated(
            f"collection {self.collection!r} has the format {version!r} and this version of m3connect "
            f"reads {FORMAT}: ingest into a new collection (--collection)",
            connector=self.connector,
            operation=operation,
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """What a collection says of itself.

    Args:
        schema: what it holds.
        notes: what users noted, JSON values.
        layout: how the connector lays it out, JSON values of its own.

    >>> stored = Stored(CollectionSchema(8, sparse=True, multivector_width=None))
    >>> dict(stored.annotated({"k": 20, "x": 1}).annotated({"x": None}).notes)
    {'k': 20}
    """

    schema: CollectionSchema
    notes: Mapping[str, Any] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)

    def merged(self, schema: CollectionSchema) -> Self:
        """With the payload fields of another schema added; nothing else of it is taken over."""
        fields = {**self.schema.payload_fields, **schema.payload_fields}
        return replace(self, schema=replace(self.schema, payload_fields=fields))

    def annotated(self, notes: Mapping[str, Any]) -> Self:
        """With notes merged by key; None removes one."""
        merged = {**self.notes, **notes}
        return replace(self, notes={key: note for key, note in merged.items() if note is not None})

    def require(
        self, schema: CollectionSchema, place: Place, layout: Mapping[str, Any] | None = None
    ) -> None:
        """Check that the collection can serve as one of ``schema``.

        Args:
            schema: what is wanted.
            place: where it is, for the message.
            layout: what is wanted of its layout; what is not named may be as it is.

        Raises:
            SchemaMismatch: it differs; says in what, and what to do.
        """
        differences = schema.differences(self.schema) + [
            f"{name}: collection {self.layout.get(name)!r}, wanted {value!r}"
            for name, value in (layout or {}).items()
            if self.layout.get(name) != value
        ]
        if differences:
            raise place.differs(differences)

    def require_tenants(self, field: str | None, place: Place, operation: str) -> None:
        """Check that the collection keeps tenants apart by a field; None asks for nothing.

        Raises:
            SchemaMismatch: it does not.
        """
        own = self.schema.tenant_field
        if field is not None and field != own:
            differences = [f"tenant_field: collection {own!r}, wanted {field!r}"]
            raise place.differs(differences, operation)

    @property
    def stands_for(self) -> str | None:
        """The collection that this one's name stands for, if not itself."""
        noted = self.notes.get(STANDS_FOR)
        return None if noted is None else str(noted)

    def info(self, place: Place, engine: str, stands_for: str | None = None) -> CollectionInfo:
        """As :meth:`m3connect.contract.Connector.describe` returns it.

        Args:
            place: by which name it was asked for.
            engine: what answered.
            stands_for: the collection's own name, if that is another one.
        """
        notes = {key: note for key, note in self.notes.items() if key != STANDS_FOR}
        name = place.collection
        return CollectionInfo(name, self.schema, notes, engine, stands_for or name)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; :meth:`from_json` reads them back."""
        return {
            "format": FORMAT,
            "schema": self.schema.to_json(),
            "notes": dict(self.notes),
            "layout": dict(self.layout),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], place: Place, operation: str) -> Self:
        """From what :meth:`to_json` gave.

        Raises:
            CollectionOutdated: another version of this project wrote it.
        """
        if values.get("format") != FORMAT:
            raise place.outdated(operation, values.get("format"))
        schema = CollectionSchema.from_json(values["schema"])
        return cls(schema, values["notes"], values["layout"])

    def to_text(self) -> str:
        """As JSON text; :meth:`from_text` reads it back."""
        return json.dumps(self.to_json())

    @classmethod
    def from_text(cls, text: str, place: Place, operation: str) -> Self:
        """From what :meth:`to_text` gave; raises as :meth:`from_json`."""
        return cls.from_json(json.loads(text), place, operation)
