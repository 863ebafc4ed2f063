"""Reading and writing the two Milvus collections that make one of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pymilvus import MilvusClient

from m3connect.connecting.collection import Place, Stored
from m3connect.connecting.holding import folder_bytes
from m3connect.errors import ConnectorError, InputError, PermanentError, TransientError
from m3connect_milvus.engine.database import Database
from m3connect_milvus.engine.engine import Engine
from m3connect_milvus.errors import NAME
from m3connect_milvus.storing.keys import one_of
from m3connect_milvus.storing.layout import (
    NO_VECTOR,
    TEXT_BYTES,
    Definition,
    Layout,
    ours,
    parts_definition,
    parts_name,
    records_definition,
)
from m3connect_milvus.storing.texts import RecordRows, Row, part_ids

T = TypeVar("T")

ROWS = 256
"""Rows with texts and vectors of one answer: Milvus gives up to 100 MiB."""
_KEYS = 1000
"""Keys of one request that gets and sends nothing else."""
_PARTS = 256
"""Parts of one request: 16 MiB, where Milvus takes 64 MiB and gives 100."""
_ABOUT = "about"
"""The key of the row that describes the collection; no record's parts begin with it."""


@dataclass(frozen=True, slots=True)
class Store:
    """One collection's data.

    Args:
        database: where it is.
        records: the name of the collection with one row a record.
        consistency: the consistency level of reads.
    """

    database: Database
    records: str
    consistency: str

    @property
    def parts(self) -> str:
        """The name of the collection of long texts' parts."""
        return parts_name(self.records)

    @property
    def place(self) -> Place:
        """Which collection it is, for messages."""
        return Place(NAME, self.records)

    # ------------------------------------------------------------------------ the collections

    def exists(self, operation: str) -> bool:
        """Whether there is such a collection."""
        return self._has(operation, self.records)

    def alias(self, operation: str) -> str | None:
        """The collection that the name is an alias of; None of one that is none, and of Milvus Lite's."""
        if self.database.url is None:
            self.database.check_open(operation)
            return None
        with suppress(PermanentError):  # of a name that is none, and of a user who may not ask
            described = self.database.call(operation, MilvusClient.describe_alias, self.records)
            return str(described["collection_name"])
        return None

    def set_alias(self, collection: str) -> None:
        """Make the name, which no collection has, an alias of a collection; in one step."""
        is_alias = self.alias("switch") is not None
        request = MilvusClient.alter_alias if is_alias else MilvusClient.create_alias
        self.database.call("switch", request, collection, self.records)

    def names(self, operation: str) -> list[str]:
        """The collections of this database that are ours: those with both halves."""
        self.database.check_open(operation)
        if self.database.shelf is not None:
            # Only what has the folder of its collection: who drops one that others have open leaves the rest.
            databases = self.database.shelf.glob("*.db")
            return sorted(
                path.stem for path in databases if (path / "collections" / path.stem).is_dir()
            )
        if not self.database.present:
            return []
        return ours(set(self.database.call(operation, _list_collections)))

    def size(self, operation: str) -> int | None:
        """Bytes on disk; None of a server, and of a folder with further collections."""
        self.database.check_open(operation)
        if self.database.url is not None:
            return None
        if self.database.shelf is None and self.names(operation) != [self.records]:
            return None
        return folder_bytes(self.database.path)

    def drop(self) -> None:
        """Remove both halves, the records first: without them, there is no collection.

        Raises:
            SchemaMismatch: it has one half only, so it is not ours.
        """
        if not self._has("drop", self.parts):
            raise self.place.foreign("drop")
        if self.database.url is not None:  # a server keeps a collection that has an alias
            listed = self.database.call("drop", MilvusClient.list_aliases, self.records)
            for alias in listed["aliases"]:
                self.database.call("drop", MilvusClient.drop_alias, alias)
        for name in (self.records, self.parts):
            self.database.call("drop", MilvusClient.drop_collection, name)
        if self.database.shelf is not None:
            self.database.remove()

    def create(self, stored: Stored, engine: Engine, *, described: bool) -> None:
        """Make what is missing of the collection, indexes included, and load it.

        The records' collection comes last, so one that exists has all the rest.

        Args:
            stored: what it is to say of itself.
            engine: what answers.
            described: whether the collection says so already.
        """
        self._make(self.parts, parts_definition())
        if not described:
            self.describe_as(stored)
        self._make(self.records, records_definition(Layout.of(stored), engine))

    def _make(self, name: str, definition: Definition) -> None:
        if not self._has("ensure", name):
            self.database.call(
                "ensure",
                MilvusClient.create_collection,
                name,
                schema=definition.fields,
                consistency_level=self.consistency,
            )
        made = self.database.call("ensure", MilvusClient.list_indexes, name)
        for index in definition.indexes:
            if index.index_name not in made:
                indexes = MilvusClient.prepare_index_params()
                indexes.append(index)
                # Not waited for: that takes half a second each, and loading waits for them all.
                self.database.call("ensure", MilvusClient.create_index, name, indexes, sync=False)
        self._load("ensure", name)

    def _has(self, operation: str, name: str) -> bool:
        return bool(self.database.call(operation, MilvusClient.has_collection, name))

    def load(self, operation: str) -> None:
        """Make the collection readable, after its database was opened or restarted."""
        for name in (self.records, self.parts):
            self._load(operation, name)

    def _load(self, operation: str, name: str) -> None:
        self.database.call(operation, MilvusClient.load_collection, name)

    def flush(self) -> None:
        """Seal and index what was written."""
        for name in (self.records, self.parts):
            self.database.call("flush", MilvusClient.flush, name)
        self.load("flush")

    # ------------------------------------------------------------------------- the description

    def stored(self, operation: str) -> Stored:
        """What the collection says of itself.

        Raises:
            SchemaMismatch: it says nothing, or another version of this project said it.
        """
        if self._has(operation, self.parts):
            self._load(operation, self.parts)
            if (stored := self._said(operation)) is not None:
                return stored
        raise self.place.foreign(operation)

    def restated(self, operation: str) -> Stored | None:
        """As :meth:`stored`, in one request, of a collection that is open; None where that is not enough."""
        with suppress(ConnectorError):  # dropped or released: the slow way says what is the matter
            return self._said(operation, retried=False)
        return None

    def _said(self, operation: str, *, retried: bool = True) -> Stored | None:
        about = one_of("id", [_ABOUT])
        for row in self._query(operation, self.parts, about, ["text"], retried=retried):
            return Stored.from_text(row["text"], self.place, operation)
        return None

    def describe_as(self, stored: Stored) -> None:
        """Replace what the collection says of itself.

        Raises:
            InputError: the notes are too long.
        """
        text = stored.to_text()
        if len(text) > TEXT_BYTES:
            raise InputError(f"the notes are too long: {len(text)} bytes of {TEXT_BYTES}")
        row = {"id": _ABOUT, "record": "", "generation": "", "text": text}
        self._upsert("annotate", self.parts, [row | {"unused": list(NO_VECTOR)}])

    # ------------------------------------------------------------------------------- reading

    def rows(self, operation: str, keys: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """The rows with these primary keys, in no particular order."""
        size = _KEYS if list(fields) == ["id"] else ROWS
        return [
            row
            for part in _cut(keys, size)
            for row in self._query(operation, self.records, one_of("id", part), fields)
        ]

    def texts(self, operation: str, rows: Sequence[Row], names: Sequence[str]) -> dict[str, str]:
        """The parts of the rows' long texts by primary key.

        Raises:
            TransientError: a record was rewritten after its row was read.
        """
        ids = list(dict.fromkeys(id_ for row in rows for id_ in part_ids(row, names)))
        parts = {
            row["id"]: row["text"]
            for part in _cut(ids, _PARTS)
            for row in self._query(operation, self.parts, one_of("id", part), ["text"])
        }
        if len(parts) < len(ids):
            raise TransientError(
                "records were rewritten while they were read", connector=NAME, operation=operation
            )
        return parts

    def pages(
        self, operation: str, expression: str, fields: Sequence[str], size: int
    ) -> Iterator[list[Row]]:
        """All rows that meet an expression."""
        iterator = self.database.call(
            operation,
            MilvusClient.query_iterator,
            self.records,
            batch_size=size,
            filter=expression,
            output_fields=["id", *fields],
            consistency_level=self.consistency,
        )
        try:
            while page := self.database.do(operation, lambda _: iterator.next()):
                yield list(page)
        finally:
            iterator.close()

    def count(self, expression: str) -> int:
        """How many rows meet an expression."""
        (row,) = self._query("count", self.records, expression, ["count(*)"])
        return int(row["count(*)"])

    def _query(
        self,
        operation: str,
        name: str,
        expression: str,
        fields: Sequence[str],
        *,
        retried: bool = True,
    ) -> list[Row]:
        request = partial(
            MilvusClient.query,
            collection_name=name,
            filter=expression,
            output_fields=list(fields),
            consistency_level=self.consistency,
            timeout=self.database.timeout,
        )
        ask = self.database.do if retried else self.database.once
        return list(ask(operation, request))

    # ------------------------------------------------------------------------------- writing

    def write(self, made: Sequence[RecordRows]) -> None:
        """Write records: first their long texts, then the rows, then what became stale goes.

        A reader sees the old version or the new. Repeated after a crash, it leaves nothing over.
        """
        records = [prepared.record for prepared in made]
        keys = [row["id"] for row in records]
        rewritten = [row["id"] for row in self.rows("upsert", keys, ["id"])]
        for group in _cut([part for prepared in made for part in prepared.parts], _PARTS):
            self._upsert("upsert", self.parts, group)
        self._upsert("upsert", self.records, records)
        if rewritten:
            current = one_of("generation", [row["generation"] for row in records])
            stale = f"{one_of('record', rewritten)} and not ({current})"
            self._delete("upsert", self.parts, stale)

    def remove(self, keys: Sequence[str]) -> int:
        """Delete records by primary key; returns how many there were."""
        removed = 0
        for part in _cut(keys, _KEYS):
            removed += len(self.rows("delete", part, ["id"]))
            self._delete("delete", self.records, one_of("id", part))
            self._delete("delete", self.parts, one_of("record", part))
        return removed

    def _upsert(self, operation: str, name: str, rows: Sequence[Row]) -> None:
        whole = [
            {
                field: _Whole(value) if isinstance(value, str) else value
                for field, value in row.items()
            }
            for row in rows
        ]
        self.database.call(operation, MilvusClient.upsert, name, whole)

    def _delete(self, operation: str, name: str, expression: str) -> None:
        self.database.call(
            operation,
            MilvusClient.delete,
            name,
            filter=expression,
            consistency_level=self.consistency,
        )


class _Whole(str):
    """A text that pymilvus checks once.

    It means to check a list of texts, but is given one text of a row and so checks each character,
    which takes longer than all the rest of an upsert.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        yield self


def _list_collections(client: MilvusClient, *, timeout: float) -> list[str]:
    return list(client.list_collections(timeout=timeout))


def _cut(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
