"""``m3connect encode``: texts to a Parquet file of embeddings, in constant memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m3connect.cli import lists
from m3connect.cli.options import CompressedModel, Mark, Output
from m3connect.cli.reading import Fetching, Reading, Selecting, say

if TYPE_CHECKING:
    from m3connect.ingestion import EncodeReport, Failure

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

    chosen = lists.legs(legs)
    remarks = ingestion.Remarks()
    files = selected.find(paths, [output], fetched.web(reading), remarks)
    lines = all(file.suffix == ".txt" for file in files)
    items = (
        ingestion.read_lines(files, reading.options().encoding)
        if lines
        else ingestion.read_files(
            files,
            replace(reading.options(), fields=ingestion.Fields(id_field, text_field)),
            remarks,
        )
    )
    total = None if lines else ingestion.count(files)
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
