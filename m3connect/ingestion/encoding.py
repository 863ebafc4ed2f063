"""Documents to a Parquet file of embeddings: admit -> encode -> write, without cutting.

The file is a collection of records in the layout of ``stores/parquet.py``; :func:`ingest` stores it
as it is. Use it where encoding and writing are apart: on another machine, or for several databases.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Protocol

from m3connect.contract import RESERVED_PREFIX, CollectionSchema, Encoder, Kind
from m3connect.conversion.encodings import SAMPLE, codec_for
from m3connect.ingestion.ledger import content_hash
from m3connect.ingestion.report import TWICE, Failure
from m3connect.ingestion.seen import Seen
from m3connect.ingestion.sources import SourceFile, alone
from m3connect.progress import Progress, silent
from m3connect.stores.parquet import RecordWriter
from m3connect.types import LEGS, Document, Embeddings, Leg, RecordBatch, encoded_text
from m3connect.types.records import BOOKKEEPING


class StreamingEncoder(Encoder, Protocol):
    """An encoder that takes texts as they come, as :class:`m3connect.inference.M3Encoder` does."""

    def stream(
        self, texts: Iterable[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Iterator[Embeddings]:
        """The embeddings of the next texts, of as many as were taken at once, in order."""


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """Counts of one run; ``read == encoded + failed``.

    Args:
        read: texts that the input gave, bad ones included.
        encoded: rows written.
        failed: texts that could not be taken.
        tokens: tokens encoded, special ones included.
        truncated: texts longer than the encoder's limit.
        seconds: wall time.
    """

    read: int = 0
    encoded: int = 0
    failed: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def encode_to_parquet(
    items: Iterable[Document | Failure],
    encoder: StreamingEncoder,
    path: str | Path,
    *,
    kind: Kind = "passage",
    legs: Sequence[Leg] = LEGS,
    failed: Callable[[Failure], None] | None = None,
    progress: Progress = silent,
) -> EncodeReport:
    """Encode documents as they come and write a row for each, with its metadata.

    A passage is read with its title before it, as ingestion and evaluation read it. Memory does not
    grow with the source, but for the ids.

    Args:
        items: documents, and what could not become one; see :func:`m3connect.ingestion.read`.
        encoder: makes the embeddings.
        path: the file, which is replaced when the new one is complete.
        kind: whether the texts ask or answer.
        legs: the representations to write.
        failed: called with each document that cannot be taken.
        progress: told of every batch of rows.

    Returns:
        the counts.

    Raises:
        OSError: the file could not be written.
    """
    started = time.monotonic()
    report = EncodeReport()
    waiting: deque[Document] = deque()
    failures: list[Failure] = []

    def texts() -> Iterator[str]:
        for item in _sound(items):
            if isinstance(item, Failure):
                failures.append(item)
                if failed is not None:
                    failed(item)
            else:
                waiting.append(item)
                yield encoded_text(item.text, _title(item) if kind == "passage" else None)

    with RecordWriter(Path(path), CollectionSchema.of(encoder.info.fingerprint, legs)) as writer:
        for embeddings in encoder.stream(texts(), kind=kind, legs=legs):
            rows = [waiting.popleft() for _ in range(len(embeddings))]
            payloads = [{**row.metadata, "text": row.text} for row in rows]
            for row, payload in zip(rows, payloads, strict=True):
                if kind == "passage" and (title := _title(row)):
                    payload["_context"] = title
            writer.write(RecordBatch([row.id for row in rows], payloads, embeddings))
            report = EncodeReport(
                read=writer.count + len(failures),
                encoded=writer.count,
                failed=len(failures),
                tokens=report.tokens + int(embeddings.n_tokens.sum()),
                truncated=report.truncated + int(embeddings.truncated.sum()),
                seconds=time.monotonic() - started,
            )
            progress("texts", report.read, None)
    return replace(
        report,
        read=report.encoded + len(failures),
        failed=len(failures),
        seconds=time.monotonic() - started,
    )


def read_lines(
    files: Sequence[SourceFile], encoding: str | None = None, id_prefix: str = ""
) -> Iterator[Document | Failure]:
    """A document for each line that is not blank, under the id ``<file>:<line>``.

    Args:
        files: text files.
        encoding: of all of them; None tells it.
        id_prefix: put before each id.
    """
    for file in files:
        yield from alone(_lines(file, encoding, id_prefix), file)


def _lines(file: SourceFile, encoding: str | None, id_prefix: str) -> Iterator[Document | Failure]:
    with file.open() as stream:
        codec, _ = codec_for(stream.read(SAMPLE), encoding)
        stream.seek(0)
        with TextIOWrapper(stream, codec, errors="surrogateescape", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{file.name}:{number}"
                try:
                    line.encode()
                except UnicodeEncodeError as error:
                    yield Failure(f"not {codec.upper()}: {error.reason}", where)
                    continue
                if text := line.strip():
                    yield Document(id_prefix + where, text, where=where)


def _sound(items: Iterable[Document | Failure]) -> Iterator[Document | Failure]:
    """Documents that a file can hold, each id once; all others are failures."""
    with Seen() as seen:
        for item in items:
            if isinstance(item, Failure):
                yield item
            elif (reason := _fault(item)) is not None:
                yield Failure(reason, item.where, item.id, item.source)
            elif seen.add(item.id):
                yield item
            else:
                yield Failure(TWICE, item.where, item.id, item.source)


def _title(document: Document) -> str | None:
    title = document.metadata.get("title")
    return " ".join(title.split()) if isinstance(title, str) else None


def _fault(document: Document) -> str | None:
    for name in document.metadata:
        if name in {"text", *BOOKKEEPING} or str(name).startswith(RESERVED_PREFIX):
            return f"metadata field {name!r} is reserved; rename it"
    try:
        content_hash(document.metadata)
        f"{document.id}{document.text}".encode()
    except UnicodeEncodeError as error:
        return f"not valid unicode: {error.reason}"
    except (TypeError, ValueError) as error:
        return f"metadata that JSON cannot hold: {error}"
    return None
