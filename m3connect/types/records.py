"""What is stored: documents as a source names them, their passages, and records of a collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from m3connect.errors import InputError
from m3connect.filters import AnyFilter, as_filter, matches
from m3connect.types.vectors import Embeddings

Payload = Mapping[str, Any]
"""JSON values by field name. Dates are ISO 8601 strings."""

PASSAGE_FIELDS = ("text", "document_id", "position", "span", "_context", "_ingest")
"""Payload fields that ingestion writes; all others are the document's metadata.

``headings`` and ``page`` are added where the document has no fields of these names."""

BOOKKEEPING = ("_context", "_ingest")
"""Those of them that are ingestion's own: what was encoded before the text, and the ledger's mark."""


def shown(payload: Payload) -> dict[str, Any]:
    """A payload without what ingestion keeps in it for itself.

    >>> shown({"text": "x", "_ingest": {"chunks": 1}, "lang": "en"})
    {'text': 'x', 'lang': 'en'}
    """
    return {name: value for name, value in payload.items() if name not in BOOKKEEPING}


@dataclass(frozen=True, slots=True)
class Document:
    """One text to ingest, as its source names it.

    Args:
        id: any non-empty unicode string, unique in its collection.
        text: the whole text.
        metadata: JSON values that filters may address.
        format: how the text is marked up; Markdown is cut at headings, lists and code blocks.
        source: the name of the source that it belongs to; None is the run's. Two documents that
            differ in this alone are equal.
        where: the file and line that it was read from, as messages name it; likewise.
    """

    id: str
    text: str
    metadata: Payload = field(default_factory=dict)
    format: Literal["text", "markdown"] = "text"
    source: str | None = field(default=None, compare=False)
    where: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document, small enough for the encoder.

    Args:
        id: ``<document id>#<position>``, the same in every run.
        document_id: the document it was cut from.
        position: 0 for the first passage of the document.
        text: the passage as it stands in the document.
        encoded: what the encoder reads: the passage with title and headings before it.
        place: where it stands in the document: ``span`` (start and stop in characters), and where
            there are some ``headings`` (outermost first), ``page`` and ``_context`` (what of title
            and headings was encoded before the text).
    """

    id: str
    document_id: str
    position: int
    text: str
    encoded: str
    place: Payload


def encoded_text(text: str, title: str | None = None, headings: Sequence[str] = ()) -> str:
    """What an encoder reads of a passage: title, headings and text, as BEIR joins them.

    The same in ingestion and evaluation, so that both measure the same vectors.

    >>> encoded_text("40 newton metres.", "Pump manual", ["Pump A", "Torque"])
    'Pump manual Pump A Torque 40 newton metres.'
    """
    return " ".join(part for part in (title, *headings, text) if part).strip()


def stored_text(payload: Payload) -> str:
    """What the encoder read of a stored passage: the title and headings that came before it, and its text.

    What is no text counts as none.

    >>> stored_text({"text": "40 newton metres.", "_context": "Pump manual Torque", "page": 3})
    'Pump manual Torque 40 newton metres.'
    """
    context = payload.get("_context")
    return encoded_text(text_of(payload), context if isinstance(context, str) else None)


def text_of(payload: Payload) -> str:
    """The text of a stored passage; empty where there is none. Records that came with vectors hold anything.

    >>> text_of({"text": "Torque"}), text_of({"text": None})
    ('Torque', '')
    """
    text = payload.get("text")
    return text if isinstance(text, str) else ""


def document_of(payload: Payload) -> str | int | None:
    """The id of the document that a passage was cut from, as it is stored; None where none is named.

    >>> document_of({"document_id": "a.md"}), document_of({"document_id": ["a.md", "b.md"]})
    ('a.md', None)
    """
    named = payload.get("document_id")
    is_id = isinstance(named, str | int) and not isinstance(named, bool) and named != ""
    return named if is_id else None


def position_of(payload: Payload) -> int | None:
    """The place of a passage in its document, from 0; None where none is told.

    >>> position_of({"position": 3}), position_of({"position": "CEO"})
    (3, None)
    """
    place = payload.get("position")
    return place if isinstance(place, int) and not isinstance(place, bool) else None


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """N records as a database stores them.

    Args:
        ids: N non-empty unicode strings.
        payloads: N mappings of JSON values.
        embeddings: their representations.

    Raises:
        InputError: the three parts differ in length.
    """

    ids: Sequence[str]
    payloads: Sequence[Payload]
    embeddings: Embeddings

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.payloads) == len(self.embeddings):
            raise InputError(
                f"{len(self.ids)} ids, {len(self.payloads)} payloads and "
                f"{len(self.embeddings)} embeddings do not make one batch"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: slice) -> RecordBatch:
        return RecordBatch(self.ids[key], self.payloads[key], self.embeddings[key])

    def take(self, rows: NDArray[np.intp]) -> RecordBatch:
        """The given records, in the given order."""
        return RecordBatch(
            [self.ids[row] for row in rows],
            [self.payloads[row] for row in rows],
            self.embeddings.take(rows),
        )

    def matching(self, where: AnyFilter | None) -> RecordBatch:
        """The records that a filter matches, in their order; all of them for None."""
        condition = as_filter(where)
        if condition is None:
            return self
        rows = [row for row, each in enumerate(self.payloads) if matches(condition, each)]
        return self.take(np.array(rows, np.intp))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> RecordBatch:
        """The records of all parts, one part after the other; needs at least one part."""
        return RecordBatch(
            [id_ for part in parts for id_ in part.ids],
            [payload for part in parts for payload in part.payloads],
            Embeddings.concat([part.embeddings for part in parts]),
        )

    def __iter__(self) -> Iterator[RecordBatch]:
        """One batch a record."""
        return (self[row : row + 1] for row in range(len(self)))
