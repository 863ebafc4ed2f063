"""Documents as a source: what a sound one is, and what its version is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from m3connect.contract import RESERVED_PREFIX, CollectionSchema, Encoder, FieldKind
from m3connect.ingestion.chunking import Chunker, chunk_id
from m3connect.ingestion.ledger import Candidate, content_hash
from m3connect.ingestion.ownership import UNNAMED
from m3connect.ingestion.report import Failure, Part
from m3connect.types import PASSAGE_FIELDS, Document, Leg, Payload


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """Documents to ingest.

    Args:
        items: documents, and what could not become one.
        encoder: encodes their passages.
        chunker: cuts them.
        source: the name of the source that all of them belong to; None is each document's own.
        whole: whether they are all that their source has.
        pages: the ids and sources that are known before anything is read: of files that are documents.
        parts: what other processes do with the documents, in place of ``items``.
        piece_of: the folder of which some files were chosen; None if they were named a source.
        roots: the names of the sources that the files are of, those that give no document among them.
    """

    items: Iterable[Document | Failure]
    encoder: Encoder
    chunker: Chunker
    source: str | None = None
    whole: bool = False
    pages: Sequence[tuple[str, str]] = ()
    parts: Iterable[Part] | None = None
    piece_of: str | None = None
    roots: Sequence[str] = ()

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The representations that the encoder makes."""
        return self.encoder.info.fingerprint.legs

    def schema(
        self, legs: Sequence[Leg], index_fields: Mapping[str, FieldKind]
    ) -> CollectionSchema:
        """A collection for their passages."""
        return CollectionSchema.of(
            self.encoder.info.fingerprint,
            legs,
            payload_fields=index_fields,
            chunker=self.chunker.description,
        )

    def owner(self, record_id: str, payload: Payload) -> str | None:
        """The document that a record is a passage of; None if ingestion did not write it."""
        document, position = payload.get("document_id"), payload.get("position")
        if isinstance(document, str) and isinstance(position, int):
            return document if chunk_id(document, position) == record_id else None
        return None

    def candidates(self) -> Iterator[Candidate[Document] | Failure]:
        """Sound documents with the hash of their version; all others are failures."""
        for item in self.items:
            yield item if isinstance(item, Failure) else self._candidate(item)

    def _candidate(self, document: Document) -> Candidate[Document] | Failure:
        where, root = document.where, document.source
        reason = _fault(document)
        if reason is not None:
            return Failure(reason, where, document.id, root)
        try:
            hash_ = content_hash(
                document.text,
                document.metadata,
                document.format,
                self.chunker.description,
                self.encoder.info.fingerprint.weights,
            )
        except (TypeError, ValueError) as error:
            reason = f"metadata that JSON cannot hold: {error}"
            return Failure(reason, where, document.id, root)
        source, size, marked = (
            self.source or root or UNNAMED,
            len(document.text),
            _marked(document.id),
        )
        payload = {**document.metadata, "document_id": document.id}
        return Candidate(document.id, hash_, marked, size, document, source, where, root, payload)

    def foreseen(self) -> Iterator[Candidate[None]]:
        """The documents of :attr:`pages`, of which no more than whose they are is known.

        A file whose name is no text is none: it fails when it is read.
        """
        for id_, source in self.pages:
            if not id_.isascii() and _not_unicode("id", id_):
                continue
            yield Candidate(id_, "", _marked(id_), 0, None, self.source or source)


def _marked(id_: str) -> tuple[str, str]:
    """The ids of the records that carry a document's marks."""
    return chunk_id(id_, 0), chunk_id(id_, 1)


def _fault(document: Document) -> str | None:
    """Why a document cannot be taken."""
    if not document.id:
        return "the document has no id"
    for name in document.metadata:
        if name in PASSAGE_FIELDS or str(name).startswith(RESERVED_PREFIX):
            return (
                f"metadata field {name!r} is reserved; rename it, or name the fields to keep "
                "(--metadata-field)"
            )
    return _not_unicode("id", document.id) or _not_unicode("text", document.text)


def _not_unicode(name: str, value: str) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"the {name} is not valid unicode: {error.reason} at character {error.start + 1}"
    return None
