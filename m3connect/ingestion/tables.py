"""Tables and records in memory as documents: Arrow, pandas, Polars, DuckDB, and Python's own dicts.

Whatever speaks Arrow's C interface is read as a stream of batches and never copied as a whole. Values
are converted by the one table in ``values.py``, as those of files are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from m3connect.errors import ConfigError, InputError
from m3connect.ingestion import values
from m3connect.ingestion.formats import Fields, python_rows
from m3connect.ingestion.report import Failure
from m3connect.types import Document

ID_FIELDS = ("id", "_id")  # taken as the id when no field is named
ROWS = 256  # as Python objects at a time
_PANDAS_INDEX = "__index_level_0__"


def as_reader(source: object) -> pa.RecordBatchReader | None:
    """A table in memory as a stream of Arrow batches; None if it is no table.

    Args:
        source: an Arrow table, batch or reader, or a data frame of pandas, Polars or DuckDB.

    Raises:
        InputError: a table that Arrow cannot hold.
    """
    if isinstance(source, pa.RecordBatchReader):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.table(source).to_reader()
    if not hasattr(source, "__arrow_c_stream__"):
        return None
    try:
        return pa.RecordBatchReader.from_stream(source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"a {type(source).__name__} that Arrow cannot hold: {error}") from error


def from_batches(
    columns: pa.Schema, batches: Iterable[pa.RecordBatch], fields: Fields
) -> Iterator[Document | Failure]:
    """A document a row.

    Raises:
        ConfigError: there is no column for the id or the text, or two of one name; before anything
            is read.
    """
    names = _columns(columns)
    if len(set(names)) < len(names):
        raise ConfigError(of_one_name(names))
    if fields.id is None and not any(name in names for name in ID_FIELDS):
        raise ConfigError(f"the table has no column 'id'; name one: id_field=, of {_list(names)}")
    for name in (fields.id, fields.text, *(fields.metadata or ())):
        if name is not None and name not in names:
            raise ConfigError(f"the table has no column {name!r}; there are {_list(names)}")
    return _rows(batches, fields)


def _rows(batches: Iterable[pa.RecordBatch], fields: Fields) -> Iterator[Document | Failure]:
    number = 0
    for batch in batches:
        names = _columns(batch.schema)  # each batch's own: a list of them may differ
        unique = len(set(names)) == len(names)
        for start in range(0, len(batch), ROWS):
            rows = batch.slice(start, ROWS)
            records = (
                python_rows(rows.select(names)) if unique else [of_one_name(names)] * len(rows)
            )
            for record in records:
                number += 1
                where = f"row {number}"
                if isinstance(record, str):
                    yield Failure(record, where)
                else:
                    yield to_document(record, fields, where)


def _columns(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name != _PANDAS_INDEX]


def of_one_name(names: Iterable[str]) -> str:
    """Why a table of these columns cannot be read."""
    return f"two columns of the table have one name: {_list(names)}"


def from_records(records: Iterable[Any], fields: Fields) -> Iterator[Document | Failure]:
    """Documents as they are, dicts as records; all others are failures."""
    for number, record in enumerate(records, start=1):
        match record:
            case Failure():
                yield record
            case Document():
                yield checked(record, f"document {number}")
            case Mapping():
                yield to_document(record, fields, f"record {number}")
            case _:
                kind = type(record).__name__
                yield Failure(f"no Document and no dict but {kind}", f"record {number}")


def to_document(record: Mapping[str, Any], fields: Fields, where: str) -> Document | Failure:
    """A record of a table or of Python as a document.

    Args:
        record: its values.
        fields: which of them are what.
        where: what it is called in a failure.
    """
    id_field = fields.id or next((name for name in ID_FIELDS if name in record), None)
    if id_field is None:
        return Failure(f"no field 'id'; fields: {_list(record)} (id_field=)", where)
    if fields.text not in record:
        return Failure(f"no field {fields.text!r}; fields: {_list(record)} (text_field=)", where)
    others = [name for name in record if name not in {id_field, fields.text}]
    chosen = others if fields.metadata is None else [m for m in fields.metadata if m in record]
    metadata = {name: record[name] for name in chosen}
    return checked(Document(record.get(id_field), record[fields.text], metadata), where)  # type: ignore[arg-type]


def checked(document: Document, where: str) -> Document | Failure:
    """A document with all values converted, or why that cannot be.

    >>> checked(Document(7, "x", {"blob": b"1"}), "document 1").reason
    "metadata field 'blob' holds a bytes, which JSON lacks"
    """
    id_ = identifier(document.id)
    if id_ is None:
        return Failure(no_id(document.id), where)
    text: Any = document.text.value if isinstance(document.text, Enum) else document.text
    if not isinstance(text, str):
        return Failure(f"the text is no text but {shown(text)}", where, id_)
    try:
        metadata: Any = values.json_value(document.metadata)
    except RecursionError:
        return Failure("metadata that are nested too deeply", where, id_)
    except Exception as error:  # noqa: BLE001 - whatever a value raises is this document's fault
        # By its type alone, as of values: its words may be theirs.
        kind = type(error).__name__
        return Failure(f"metadata with a value that cannot be read: {kind}", where, id_)
    if not isinstance(metadata, dict):
        kind = type(document.metadata).__name__
        return Failure(f"metadata that are no dict but {kind}", where, id_)
    if fault := "the text holds NUL characters" if "\0" in text else values.fault(metadata):
        return Failure(fault, where, id_)
    return Document(id_, text, metadata, document.format, document.source, where)


def identifier(value: object) -> str | None:
    """An id as text; None if it is none.

    >>> identifier(12), identifier(UUID(int=1)), identifier(True), identifier("")
    ('12', '00000000-0000-0000-0000-000000000001', None, None)
    """
    if isinstance(value, Enum):
        value = value.value  # as in metadata; its own text would be the name
    if isinstance(value, str):
        return str(value) or None
    if isinstance(value, bool) or not isinstance(value, int | np.integer | UUID):
        return None
    return str(value)


def no_id(value: object) -> str:
    """Why a value that :func:`identifier` does not take is no id.

    >>> no_id([1, 2]), no_id("")
    ('list is no id (a text, a whole number or a UUID)', "'' is no id (a text, a whole number or a UUID)")
    """
    return f"{shown(value)} is no id (a text, a whole number or a UUID)"


def shown(value: object) -> str:
    """A value in a message: by its type alone, as no log line holds a document's text, unless it says nothing.

    >>> shown(["a paragraph", "another"]), shown(None)
    ('list', 'None')
    """
    says_nothing = (
        value is None or isinstance(value, bool) or (isinstance(value, str) and not value)
    )
    return repr(value) if says_nothing else type(value).__name__


def _list(names: Iterable[object]) -> str:
    return ", ".join(map(str, names)) or "none"
