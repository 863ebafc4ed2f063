"""The core of every data pipeline: Arrow in, a collection out.

Two stages, which an engine (Ray, Spark, Daft, plain Python) runs where it likes::

    documents --encode_batch--> passages with vectors --Sink.write--> collection
    documents -------------------------------------- Sink.write--> collection

Either way ids, payloads, the ledger's marks and the fingerprint are those of ``m3connect ingest``, so
that a batch may be written twice, by anyone, and changes nothing the second time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from m3connect.connecting.registry import connect
from m3connect.contract import CollectionInfo, CollectionSchema, Connector, Encoder, FieldKind
from m3connect.errors import ConfigError, InputError, PermanentError
from m3connect.ingestion.chunking import CONTEXT, Chunker, Context, chunk_id
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EncodedSource, is_encoded
from m3connect.ingestion.formats import Fields, python_rows
from m3connect.ingestion.ledger import FIELD, Candidate, Mark, Stored, step
from m3connect.ingestion.opening import require_legs, require_unswitched
from m3connect.ingestion.ownership import UNNAMED
from m3connect.ingestion.pipeline import events, prepare
from m3connect.ingestion.report import DeadLetters, Failure, IngestReport
from m3connect.ingestion.seen import Seen
from m3connect.ingestion.sink import Change, Empty, Event, Unchanged, Work
from m3connect.ingestion.sink import Sink as Writer
from m3connect.ingestion.steps import (
    GROUP_CHARACTERS,
    GROUP_PASSAGES,
    ROWS,
    ROWS_BYTES,
    Changed,
    admit,
    emptied,
    grouped,
    look_up,
)
from m3connect.ingestion.tables import as_reader, from_batches
from m3connect.stores.parquet import Contents, contents, no_records, records_to_arrow
from m3connect.types import Compression, Leg, RecordBatch
from m3connect.types.columns import portable_schema


def load_encoder(model: str, options: Mapping[str, Any] | None = None) -> Encoder:
    """The model of this process: loaded once, however many batches come.

    Engines run a process a core and tell each its share of the machine in OMP_NUM_THREADS, which
    ONNX Runtime alone would not read.

    Args:
        model: its name.
        options: of :meth:`m3connect.M3Encoder.load`; ``compression`` may be as JSON has it.
    """
    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or None
    chosen = {"threads": threads} | dict(options or {})
    if isinstance(chosen.get("compression"), Mapping):
        chosen["compression"] = Compression.from_json(chosen["compression"])
    return _loaded(model, tuple(sorted(chosen.items())))


@lru_cache(maxsize=2)
def _loaded(model: str, options: tuple[tuple[str, Any], ...]) -> Encoder:
    from m3connect import M3Encoder

    encoder: Encoder = M3Encoder.load(model, **dict(options))
    return encoder


def encode_batch(
    batch: pa.Table | pa.RecordBatch,
    encoder: Encoder | str = "m3-mini",
    *,
    id_field: str | None = None,
    text_field: str = "text",
    metadata_fields: Sequence[str] | None = None,
    chunk_tokens: int | None = None,
    chunk_overlap: int = 0,
    context: Sequence[Context] = CONTEXT,
    legs: Sequence[Leg] | None = None,
    portable: bool = False,
    failed: Callable[[Failure], None] | None = None,
) -> pa.Table:
    """Cut and encode documents: a row in is a document, a row out is a passage.

    A document without text gives one row of nulls, by which :meth:`Sink.write` removes the passages
    that it had.

    Args:
        batch: documents, with the columns that the fields name.
        encoder: or the name of a model, which is loaded once a process.
        id_field, text_field, metadata_fields, chunk_tokens, chunk_overlap, context: as in
            :func:`m3connect.ingest`.
        legs: the representations to make; default all of the encoder's.
        portable: as in :meth:`m3connect.Embeddings.to_arrow`, for Spark and DuckDB.
        failed: called with each document that cannot be taken; by default it is logged.

    Returns:
        passages in the layout of a Parquet file of ``m3connect encode``: ``id``, ``text``,
        ``payload`` and vectors; :meth:`Sink.write` takes it. In its reports a document that failed
        here is not counted.

    Raises:
        ConfigError: a column is missing, or a bad option, such as a representation that the encoder
            does not make.
    """
    model = load_encoder(encoder) if isinstance(encoder, str) else encoder
    chunker = Chunker(model, tokens=chunk_tokens, overlap=chunk_overlap, context=context)
    source = _documents(batch, model, chunker, Fields(id_field, text_field, metadata_fields))
    chosen = source.legs if legs is None else require_legs(legs, source.legs)
    schema = source.schema(chosen, {})
    none = records_to_arrow(no_records(schema), schema)
    tables = [none]
    add = DeadLetters().add if failed is None else failed
    with Seen() as seen:
        for event in events(source, chosen, seen, _nothing_stored):
            if isinstance(event, Work):
                tables.append(records_to_arrow(event.batch, schema))
            elif isinstance(event, Empty):
                tables.append(pa.Table.from_pylist([_without_text(event)], schema=none.schema))
            elif isinstance(event, Failure):
                add(event)
    table = pa.concat_tables(tables)
    return table.cast(portable_schema(table.schema)) if portable else table


def in_groups(documents: pa.Table, text_field: str = "text") -> Iterator[pa.Table]:
    """Documents in slices whose passages make one piece of work: about 16,000 tokens."""
    if documents.column_names.count(text_field) != 1:
        yield documents  # encode_batch says what is wrong
        return
    start = size = 0
    for row, record in enumerate(python_rows(documents.select([text_field]))):
        more = 0 if isinstance(record, str) else len(str(record[text_field]))
        if row > start and (size + more > GROUP_CHARACTERS or row - start == GROUP_PASSAGES):
            yield documents.slice(start, row - start)
            start, size = row, 0
        size += more
    yield documents.slice(start)


def write_all(sink: Sink, batches: Iterable[pa.Table | pa.RecordBatch]) -> IngestReport:
    """What a worker does with its batches; acknowledged by the database when this returns."""
    started = time.perf_counter()
    with sink:
        reports = [sink.write(batch) for batch in batches if batch.num_rows]
    return IngestReport.total(reports, time.perf_counter() - started)


def worker_died(sink: Sink, times: str) -> PermanentError:
    """What an engine reports that gave up on some documents."""
    return PermanentError(
        f"a worker died {times} at the same documents; the engine's log says how (most often: out of "
        "memory). What others wrote is in: run again, and it is skipped. Less at once needs less "
        "memory: smaller batches, fewer workers",
        connector=sink.target,
        operation="write",
    )


class Sink:
    """Writes batches into one collection; can be pickled, and connects in the process that uses it.

    Args:
        target: a connector's name, as in :func:`m3connect.connect`.
        collection: its collection.
        encoder: encodes the documents; a model's name is loaded once a process, when documents
            come. None for batches of :func:`encode_batch`.
        encoder_options: of :meth:`m3connect.M3Encoder.load`, for a model that is named: ``device``,
            ``dtype``, ``threads`` (default: OMP_NUM_THREADS, which engines set) and others.
        id_field, text_field, metadata_fields, chunk_tokens, chunk_overlap, context, legs,
            index_fields: as in :func:`m3connect.ingest`.
        source_name, take_over: whose the documents are, as in :func:`m3connect.ingest`.
        dead_letters: a JSONL file to which documents that fail are added; without it they are logged.
        **options: of the connector, such as ``url`` or ``path``; see :func:`m3connect.connect`.
    """

    def __init__(
        self,
        target: str,
        collection: str,
        *,
        encoder: Encoder | str | None = "m3-mini",
        encoder_options: Mapping[str, Any] | None = None,
        id_field: str | None = None,
        text_field: str = "text",
        metadata_fields: Sequence[str] | None = None,
        chunk_tokens: int | None = None,
        chunk_overlap: int = 0,
        context: Sequence[Context] = CONTEXT,
        legs: Sequence[Leg] | None = None,
        index_fields: Mapping[str, FieldKind] | None = None,
        source_name: str | None = None,
        take_over: bool = False,
        dead_letters: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.target = target
        self.collection = collection
        self.options = options
        self.encoder = encoder
        self.encoder_options = dict(encoder_options or {})
        self.fields = Fields(id_field, text_field, metadata_fields)
        self.chunk_tokens = chunk_tokens
        self.chunk_overlap = chunk_overlap
        self.context = context
        self.legs = legs
        self.index_fields = dict(index_fields or {})
        self.source_name = source_name
        self.take_over = take_over
        self.dead_letters = dead_letters
        self._forget()

    def _forget(self) -> None:
        """What belongs to this process alone."""
        self._connector: Connector | None = None
        self._letters = DeadLetters(self.dead_letters)
        self._chosen: tuple[Leg, ...] | None = None
        self._schema: CollectionSchema | None = None
        self._written_to: CollectionInfo | None = None
        # Passages of which not all have come: by document and hash of its version, by position.
        self._parts: dict[tuple[str, str], dict[int, Candidate[RecordBatch]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        mine = {"_connector", "_letters", "_chosen", "_schema", "_written_to", "_parts"}
        return {name: value for name, value in self.__dict__.items() if name not in mine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def open(self) -> None:
        """Connect; :meth:`write` does so if it was not done."""
        if self._connector is None:
            self._connector = connect(self.target, collection=self.collection, **self.options)

    def ensure(self, columns: pa.Schema) -> None:
        """Make the collection for such batches, or see that it fits; for before the workers start.

        Raises:
            as :meth:`write`.
        """
        self.write(columns.empty_table())

    def encode(self, batch: pa.Table | pa.RecordBatch, *, portable: bool = False) -> pa.Table:
        """The first stage alone: what :meth:`write` takes, here or in another process.

        Args:
            batch: documents.
            portable: as in :func:`encode_batch`.

        Raises:
            ConfigError: a column or an encoder is missing.
        """
        return encode_batch(
            batch,
            self._encoder(),
            id_field=self.fields.id,
            text_field=self.fields.text,
            metadata_fields=self.fields.metadata,
            chunk_tokens=self.chunk_tokens,
            chunk_overlap=self.chunk_overlap,
            context=self.context,
            legs=self.legs,
            portable=portable,
            failed=self._letters.add,
        )

    def write(self, batch: pa.Table | pa.RecordBatch) -> IngestReport:
        """Write documents, or passages of :func:`encode_batch`; acknowledged on return.

        A document is written when all its passages have come; keep its rows near one another.

        Returns:
            the counts of what this call decided.

        Raises:
            ConfigError: a column or an encoder is missing.
            FingerprintMismatch, SchemaMismatch: the collection is another model's or another kind.
            Refused: documents would replace those of another source.
            ConnectorError: the database failed for a reason that is no document's.
        """
        self.open()
        assert self._connector is not None
        source = self._source(batch)
        schema = source.schema(source.legs, {})
        if self._chosen is None or schema != self._schema:  # of another model, too, is told here
            self._chosen, _, self._written_to = prepare(
                source, self._connector, self.legs, self.index_fields
            )
            self._schema = schema
        assert self._written_to is not None
        tenants = self._written_to.schema.tenant_field
        with (
            Seen() as seen,
            Writer(
                self._connector, self._letters, take_over=self.take_over, tenant_field=tenants
            ) as writer,
        ):
            if isinstance(source, DocumentSource):
                ask, recall = writer.look_up, writer.recall
                writer.write(events(source, self._chosen, seen, ask, recall))
            else:
                documents = chain(
                    self._whole(source.candidates(self._chosen)), self._emptied(batch)
                )
                changes = look_up(admit(documents, seen), writer.look_up, ROWS, ROWS_BYTES)
                writer.write(_works(changes))
            return writer.report()

    def flush(self) -> None:
        """Make all that was written findable.

        Raises:
            FingerprintMismatch: the collection's name was switched since the first write.
            InputError: of some documents not all passages came; nothing of them was written.
        """
        if self._connector is not None and self._chosen is not None:  # something was written
            assert self._written_to is not None
            self._connector.flush()
            chosen, self._chosen = self._chosen, None  # after a switch, a write is checked anew
            require_unswitched(self._connector, self._written_to)
            self._chosen = chosen
        if self._parts:
            documents = list(dict.fromkeys(document for document, _ in self._parts))
            names, self._parts = ", ".join(documents[:3]), {}
            raise InputError(
                f"of {len(documents)} documents not all passages came ({names}, ...): nothing of them was "
                "written. Keep the rows of a document in one worker."
            )

    def close(self) -> None:
        """Release the connection; closing twice is fine."""
        if self._connector is not None:
            self._connector.close()
        self._letters.close()
        self._forget()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def _source(self, batch: pa.Table | pa.RecordBatch) -> DocumentSource | EncodedSource:
        if is_encoded(batch.schema):
            return self._passages(batch if isinstance(batch, pa.Table) else pa.table(batch))
        encoder, chunker = self._model()
        return _documents(batch, encoder, chunker, self.fields, self.source_name)

    def _passages(self, table: pa.Table) -> EncodedSource:
        """A batch of :func:`encode_batch`, which says how it was made unless an engine lost that."""
        stored = contents(table.schema.metadata, "the batch")
        if stored is None:
            encoder, chunker = self._model()
            source = DocumentSource([], encoder, chunker)
            stored = Contents(source.schema(self.legs or source.legs, {}), {}, None)
        made_by = stored.schema.fingerprint
        columns = set(table.column_names)
        if made_by is None or not made_by.chunker or not {"text", "payload"} <= columns:
            raise ConfigError(
                "these vectors are no passages of encode_batch; write them with ingest()"
            )
        passages = table.filter(pc.is_valid(table["text"])) if table["text"].null_count else table
        return EncodedSource(table.schema, passages.to_batches(), made_by, stored)

    def _model(self) -> tuple[Encoder, Chunker]:
        encoder = self._encoder()
        chunker = Chunker(
            encoder, tokens=self.chunk_tokens, overlap=self.chunk_overlap, context=self.context
        )
        return encoder, chunker

    def _encoder(self) -> Encoder:
        if self.encoder is None:
            raise ConfigError("this needs a model: Sink(..., encoder=), or encode_batch before it")
        if isinstance(self.encoder, str):
            return load_encoder(self.encoder, self.encoder_options)
        return self.encoder

    def _whole(
        self, passages: Iterable[Candidate[RecordBatch] | Failure]
    ) -> Iterator[Candidate[list[RecordBatch]] | Failure]:
        """Documents whose passages have all come; those of two versions never meet."""
        for passage in passages:
            if isinstance(passage, Failure):
                yield passage
                continue
            payload = passage.item.payloads[0]
            document, position = payload["document_id"], payload["position"]
            version = document, payload[FIELD]["hash"]
            parts = self._parts.setdefault(version, {})
            parts[position] = passage
            mark = parts[0].item.payloads[0][FIELD] if 0 in parts else None
            if mark is None or len(parts) < mark["chunks"]:
                continue
            del self._parts[version]
            yield Candidate(
                document,
                mark["hash"],
                (chunk_id(document, 0), chunk_id(document, 1)),
                sum(part.size for part in parts.values()),
                [parts[row].item for row in sorted(parts)],
                self.source_name or mark["source"],
                payload=payload,
            )

    def _emptied(self, batch: pa.Table | pa.RecordBatch) -> Iterator[Candidate[list[RecordBatch]]]:
        """Documents without text, of which there is no passage."""
        rows = batch.filter(pc.is_null(batch["text"])).select(["payload"]).to_pylist()
        for row in rows:
            payload = json.loads(row["payload"])
            document = payload["document_id"]
            marked = chunk_id(document, 0), chunk_id(document, 1)
            source = self.source_name or UNNAMED
            yield Candidate(document, "", marked, 0, [], source, payload=payload)


def _works(
    changes: Iterable[Changed[list[RecordBatch]] | Unchanged | Empty | Failure],
) -> Iterator[Event]:
    """The passages of documents that changed, in the ledger's order, with their bounds."""
    told = (
        emptied(each.candidate.id, each.stored, each.candidate.payload or {})
        if isinstance(each, Changed) and not each.candidate.item
        else each
        for each in changes
    )
    for group in grouped(told, lambda each: each.candidate.size, ROWS, ROWS_BYTES):
        if not isinstance(group, list):
            yield group
            continue
        rows: list[tuple[int, Change, RecordBatch]] = []
        for change in group:
            document, records = change.candidate, change.candidate.item
            bound = max(len(records), change.stored.bound)
            first = records[0].payloads[0][FIELD]
            mark = Mark(document.hash, len(records), bound, document.source, first.get("encoded"))
            owner = Change(document.id, mark, same=change.same)
            rows += [(position, owner, record) for position, record in enumerate(records)]
        rows.sort(key=lambda row: step(row[0]))
        payloads = [
            {**record.payloads[0], **owner.mark.at(position)} for position, owner, record in rows
        ]
        batch = RecordBatch.concat([record for _, _, record in rows])
        yield Work(
            RecordBatch(batch.ids, payloads, batch.embeddings),
            [owner for _, owner, _ in rows],
            [step(position) for position, _, _ in rows],
            tokens=0,
        )


def _without_text(document: Empty) -> dict[str, Any]:
    """The row of :func:`encode_batch` that stands for a document without passages."""
    payload = json.dumps({**document.metadata, "document_id": document.id})
    id_ = chunk_id(document.id, 0)
    return {"id": id_, "payload": payload, "n_tokens": 0, "truncated": False}


def _documents(
    batch: pa.Table | pa.RecordBatch,
    encoder: Encoder,
    chunker: Chunker,
    fields: Fields,
    source: str | None = None,
) -> DocumentSource:
    reader = as_reader(batch)
    if reader is None:
        raise InputError(f"a batch is an Arrow table or record batch, not {type(batch).__name__}")
    return DocumentSource(from_batches(reader.schema, reader, fields), encoder, chunker, source)


def _nothing_stored(documents: Sequence[Candidate[Any]]) -> Future[list[Stored]]:
    answer: Future[list[Stored]] = Future()
    answer.set_result([Stored()] * len(documents))
    return answer
