"""``m3connect encode``: texts to a Parquet file of embeddings, in constant memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m3connect.cli import lists
from m3connect.cli.options import CompressedModel, Mark, Output
from m3connect.cli.reading import Fetching, Reading, Selecting, say
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.ingestion import EncodeReport, Failure, Options, Remarks
    from m3connect.ingestion.files import SourceFile
    from m3connect.types import Document

PARTIAL_FAILURE = 4  # exit code

KindName = Literal["passage", "query"]


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
    selected: Selecting,
    fetched: Fetching,
    reading: Reading,
    model: CompressedModel,
    printed: Output,
) -> None:
    """Encode texts into a Parquet file.

    Columns: id, text, payload (all other fields, as JSON), dense, sparse_indices, sparse_values,
    multivector (float16), n_tokens, truncated. Input: jsonl, csv, tsv, parquet (a text a row),
    txt (a text a line), each also .gz.
    `m3connect ingest` takes the file as it is.

    - `m3connect encode corpus.jsonl --output corpus.parquet`
    - `m3connect encode questions.txt --as query --output questions.parquet --legs dense,sparse`
    - `m3connect encode "corpus/*.jsonl.gz" --output all.parquet --model BAAI/bge-m3 --device cuda`

    Exit code 4: some texts could not be read; all others are in the file.
    """
    from m3connect import ingestion
    from m3connect.cli.progress import progress_bar
    from m3connect.ingestion.encoded import open_files

    chosen = lists.legs(legs)
    remarks = ingestion.Remarks()
    files = selected.find(paths, [output], fetched.web(reading), remarks)
    if open_files(files, None) is not None:  # whose vectors would become metadata
        raise ConfigError(
            "these are embeddings: m3connect ingest stores them; to encode their texts with another "
            "model, ingest them and run m3connect reembed"
        )
    options = replace(reading.options(), fields=ingestion.Fields(id_field, text_field))
    items = _texts(files, options, remarks)
    total = None if any(map(_has_a_text_a_line, files)) else ingestion.count(files)
    encoder = model.load()
    with progress_bar({"texts": total}) as progress:
        report = ingestion.encode_to_parquet(
            items,
            encoder,
            output,
            kind=kind,
            legs=chosen,
            failed=_say,
            progress=progress,
        )
    say(remarks)
    _print(report, output, as_json=printed.as_json)
    if report.failed:
        raise typer.Exit(PARTIAL_FAILURE)


def _texts(
    files: Sequence[SourceFile], options: Options, remarks: Remarks
) -> Iterator[Document | Failure]:
    """In the order of the files, however they are mixed."""
    from m3connect import ingestion

    for by_line, alike in groupby(files, _has_a_text_a_line):
        if by_line:
            yield from ingestion.read_lines(list(alike), options.encoding, options.id_prefix)
        else:
            yield from ingestion.read_files(list(alike), options, remarks)


def _has_a_text_a_line(file: SourceFile) -> bool:
    return file.suffix == ".txt"


def _say(failure: Failure) -> None:
    whose = "" if failure.id in {None, failure.where} else f"{failure.id!a}: "
    typer.echo(f"{failure.where}: {whose}{failure.reason}", err=True)


def _print(report: EncodeReport, output: FilePath, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**report.to_json(), "output": str(output)}))
    else:
        typer.echo(
            f"{report.encoded} texts written to {output}, {report.failed} failed "
            f"({report.tokens:,} tokens, {report.seconds:.1f} s)"
        )
    if report.truncated:
        typer.echo(f"{report.truncated} texts were longer than the model takes", err=True)
