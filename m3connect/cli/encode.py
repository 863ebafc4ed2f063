"""``m3connect encode``: texts to a Parquet file of embeddings, in constant memory."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from m3connect.cli import options
from m3connect.cli.options import Mark, ModelChoice, Output

if TYPE_CHECKING:
    import pyarrow as pa

    from m3connect.contract import Kind
    from m3connect.inference import M3Encoder
    from m3connect.ingestion import Failure
    from m3connect.types import Document, Embeddings, Leg

PARTIAL_FAILURE = 4  # exit code

KindName = Literal["passage", "query"]


@dataclass(slots=True)
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


def encode(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Files, folders, globs, URLs, or - for JSON lines on stdin."
        ),
    ],
    *,
    output: Annotated[
        FilePath,
        typer.Option(metavar="FILE", help="Parquet file to write; replaced if it exists."),
        Mark.WRITES,
    ],
    kind: Annotated[
        KindName, typer.Option("--as", help="What the texts are: some models tell them apart.")
    ] = "passage",
    legs: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Representations. Default: dense,sparse,multivector.",
            show_default=False,
        ),
    ] = None,
    id_field: Annotated[
        str | None,
        typer.Option(help="Field with the id. Default: id or _id.", show_default=False),
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field with the text.")] = "text",
    model: ModelChoice,
    printed: Output,
) -> None:
    """Encode texts into a Parquet file.

    Columns: id, text, dense, sparse_indices, sparse_values, multivector (float16), n_tokens,
    truncated. Input: jsonl, csv, tsv, parquet (a text a row), txt (a text a line), each also .gz.
    `m3connect ingest` takes the file as it is.

    - `m3connect encode corpus.jsonl --output corpus.parquet`
    - `m3connect encode questions.txt --as query --output questions.parquet --legs dense,sparse`
    - `m3connect encode "corpus/*.jsonl.gz" --output all.parquet --model BAAI/bge-m3 --device cuda`

    Exit code 4: some texts could not be read; all others are in the file.
    """
    from m3connect import ingestion
    from m3connect.cli.progress import progress_bar

    chosen = options.legs(legs)
    files = ingestion.find(paths)
    lines = all(file.suffix == ".txt" for file in files)
    items = (
        _lines(files)
        if lines
        else ingestion.read(paths, id_field=id_field, text_field=text_field, metadata_fields=[])
    )
    total = None if lines else ingestion.count(files)
    encoder = model.load()
    with progress_bar() as draw:
        report = write_parquet(
            items,
            encoder,
            output,
            kind=kind,
            legs=chosen,
            progress=lambda done: draw("texts", done.encoded + done.failed, total),
        )
    _print(report, output, as_json=printed.as_json)
    if report.failed:
        raise typer.Exit(PARTIAL_FAILURE)


def write_parquet(
    items: Iterable[Document | Failure],
    encoder: M3Encoder,
    output: FilePath,
    *,
    kind: Kind,
    legs: Sequence[Leg],
    progress: Callable[[EncodeReport], None],
) -> EncodeReport:
    """Encode documents as they come and write a row for each.

    The file has its name only when it is complete; its metadata holds the fingerprint.

    Args:
        items: documents, and what could not become one.
        encoder: makes the embeddings.
        output: the file.
        kind: whether the texts ask or answer.
        legs: the representations to write.
        progress: called after each batch of rows.
    """
    import pyarrow.parquet as pq

    started = time.monotonic()
    report = EncodeReport()
    waiting: deque[Document] = deque()
    texts = _texts(items, waiting, report)
    empty = encoder.encode([], kind=kind, legs=legs)
    schema = _with_fingerprint(_table([], empty).schema, encoder, legs)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"{output.name}.partial")
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for embeddings in encoder.stream(texts, kind=kind, legs=legs):
                rows = [waiting.popleft() for _ in range(len(embeddings))]
                writer.write_table(_table(rows, embeddings))
                report.encoded += len(rows)
                report.tokens += int(embeddings.n_tokens.sum())
                report.truncated += int(embeddings.truncated.sum())
                report.seconds = time.monotonic() - started
                progress(report)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return report


def _texts(
    items: Iterable[Document | Failure], waiting: deque[Document], report: EncodeReport
) -> Iterator[str]:
    """The texts of the documents, which wait until their embeddings come."""
    from m3connect.ingestion import Failure

    for item in map(_checked, items):
        report.read += 1
        if isinstance(item, Failure):
            report.failed += 1
            typer.echo(f"{item.where or ascii(item.id)}: {item.reason}", err=True)
        else:
            waiting.append(item)
            yield item.text


def _checked(item: Document | Failure) -> Document | Failure:
    """A document that a file cannot hold is a failure."""
    from m3connect.ingestion import Failure

    if not isinstance(item, Failure):
        try:
            f"{item.id}{item.text}".encode()
        except UnicodeEncodeError as error:
            return Failure(f"not valid unicode: {error.reason}", id=item.id)
    return item


def _table(rows: Sequence[Document], embeddings: Embeddings) -> pa.Table:
    import pyarrow as pa

    table = embeddings.to_arrow()
    table = table.add_column(0, "text", pa.array([row.text for row in rows], pa.string()))
    return table.add_column(0, "id", pa.array([row.id for row in rows], pa.string()))


def _with_fingerprint(schema: Any, encoder: M3Encoder, legs: Sequence[Leg]) -> Any:
    from dataclasses import replace

    from m3connect.stores.parquet import FINGERPRINT_KEY

    fingerprint = replace(encoder.info.fingerprint, legs=tuple(legs))
    return schema.with_metadata({FINGERPRINT_KEY: json.dumps(fingerprint.to_json())})


def _lines(files: Sequence[Any]) -> Iterator[Document | Failure]:
    """A document for each line that is not blank, under the id ``<file>:<line>``."""
    from m3connect.ingestion import Failure
    from m3connect.types import Document

    for file in files:
        with file.open() as stream:
            for number, line in enumerate(stream, start=1):
                where = f"{file.name}:{number}"
                try:
                    text = line.decode().strip()
                except UnicodeDecodeError as error:
                    yield Failure(f"not UTF-8: {error.reason}", where)
                    continue
                if text:
                    yield Document(where, text)


def _print(report: EncodeReport, output: FilePath, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**asdict(report), "output": str(output)}))
    else:
        typer.echo(
            f"{report.encoded} texts written to {output}, {report.failed} failed "
            f"({report.tokens:,} tokens, {report.seconds:.1f} s)"
        )
    if report.truncated:
        typer.echo(f"{report.truncated} texts were longer than the model takes", err=True)
