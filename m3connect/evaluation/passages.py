"""A corpus cut into passages, as ingestion cuts it: what a collection would hold, before there is one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from m3connect.datasets.beir import Dataset, corpus_file
from m3connect.datasets.lines import Records
from m3connect.errors import InputError
from m3connect.ingestion import DocumentSource, Failure, read
from m3connect.ingestion.chunking import Chunker
from m3connect.types import Document


@dataclass(frozen=True, slots=True)
class Passages:
    """The passages of a corpus, with their texts on disk.

    Args:
        ids: as ingestion names them, in the order of the corpus.
        document_of: each passage's document.
        texts: what the encoder reads, a record a passage.
        content: hash of the texts, so that cached embeddings are never another cut's.
        cut_as: the chunker's description.
    """

    ids: tuple[str, ...]
    document_of: dict[str, str]
    texts: Records
    content: str
    cut_as: str

    def encoded(self) -> Iterator[str]:
        """What the encoder reads of each passage, in order."""
        return (self.texts[row]["text"] for row in range(len(self.texts)))

    def left_out(self, documents: Sequence[str]) -> list[str]:
        """A warning where documents have no passage.

        Args:
            documents: ids of all.
        """
        missing = len(set(documents) - set(self.document_of.values()))
        told = (
            "documents have no passage: they are blank or a title alone, and no search finds them"
        )
        return [f"{missing} {told}"] if missing else []


def cut(dataset: Dataset, chunker: Chunker) -> Passages:
    """Cut a dataset's documents as ``m3connect ingest corpus.jsonl`` does.

    A document without text has no passage, and is never found.

    Args:
        dataset: its corpus is read once, by ingestion's reader.
        chunker: gives size, overlap and context.

    Raises:
        InputError: ingestion would refuse a document, or name it otherwise than the dataset; or
            there is no passage at all.
    """
    document_of: dict[str, str] = {}
    digest = hashlib.blake2b(digest_size=16)

    def spooled() -> Iterator[dict[str, Any]]:
        for document in _documents(dataset, chunker):
            for chunk in chunker.chunks(document):
                document_of[chunk.id] = document.id
                digest.update(json.dumps([chunk.id, chunk.encoded]).encode())
                yield {"text": chunk.encoded}

    texts = Records.of(f"passages of {dataset.name}", spooled())
    if not document_of:
        raise InputError(f"{dataset.name}: no document has any text to cut")
    return Passages(tuple(document_of), document_of, texts, digest.hexdigest(), chunker.description)


def _documents(dataset: Dataset, chunker: Chunker) -> Iterator[Document]:
    """The corpus as ingestion takes it: titles stand beside the text, not in it."""
    path = corpus_file(dataset.folder)
    known = set(dataset.ids)
    for candidate in DocumentSource(read([path]), chunker.encoder, chunker).candidates():
        if isinstance(candidate, Failure):
            who = candidate.id or candidate.where
            raise InputError(f"{path}: document {who}: ingestion refuses it: {candidate.reason}")
        if candidate.id not in known:
            raise InputError(
                f"{path}: ingestion names a document {candidate.id!r} that the judgements cannot "
                "mean: a line has both _id and id; keep one"
            )
        yield candidate.item
