"""``m3connect ingest``: documents into a collection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Literal, get_args
from urllib.parse import quote, urlsplit

import typer

from m3connect.cli import lists
from m3connect.cli.console import counted
from m3connect.cli.observing import Observing
from m3connect.cli.options import CompressedModel, Mark, Output, Target
from m3connect.cli.reading import (
    Cutting,
    Documents,
    Fetching,
    Reading,
    Replacing,
    Selecting,
    Storing,
    Waiting,
    opener,
    say,
)
from m3connect.cli.running import interruptible
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.contract import FieldKind
    from m3connect.ingestion import IngestReport

PARTIAL_FAILURE = 4  # exit code
LONGEST = 200  # characters of a file's name, which systems let have 255

_WORKERS = "Workers"


def ingest(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Files, folders, globs, URLs, or - for JSON lines on stdin."
        ),
    ],
    *,
    index_field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:KIND,...",
            help="Metadata to index for fast filters, such as lang:keyword,year:integer.",
            rich_help_panel="Target",
        ),
    ] = None,
    dead_letters: Annotated[
        FilePath | None,
        typer.Option(
            help="Where documents that fail are listed, with the reason, below those of earlier runs. "
            "Default: a file in .m3connect/dead-letters.",
            show_default=False,
        ),
        Mark.WRITES,
    ] = None,
    report: Annotated[
        FilePath | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Where to list what each document lost: passages truncated or without lexical weights, "
            "texts that are empty, images dropped, files left out. Replaces an earlier one.",
            show_default=False,
        ),
        Mark.WRITES,
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Losses after which the exit code is 4: truncated, empty, no_lexical, images, left_out.",
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="What reads and encodes: this process, or workers of a Ray cluster, which need the "
            "files under the same paths and a database server.",
            rich_help_panel=_WORKERS,
        ),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Of the cluster, such as auto or ray://host:10001. Default: one on this machine.",
            rich_help_panel=_WORKERS,
            show_default=False,
        ),
    ] = None,
    selected: Selecting,
    fetched: Fetching,
    documents: Documents,
    files: Reading,
    passages: Cutting,
    stored: Storing,
    replacing: Replacing,
    waiting: Waiting,
    observed: Observing,
    where: Target,
    model: CompressedModel,
    printed: Output,
) -> None:
    """Read documents, cut them into passages, encode them and write them to a collection.

    Run it again at any time: what is unchanged is skipped, and what was interrupted is completed.
    `m3connect plan` tells before what a run would do.
    Formats: jsonl, json, csv, tsv, parquet; txt, md, html, rst, eml, log, source code; pdf, docx,
    pptx, xlsx, epub, ipynb, odt, xml with `pip install "m3connect[files]"`; each also compressed. A
    Parquet file of `m3connect encode` is stored as it is.

    - `m3connect ingest docs/`
    - `m3connect ingest docs/ --prune`
    - `m3connect ingest corpus.jsonl.gz --text-field body --index-field lang:keyword`
    - `cat corpus.jsonl | m3connect ingest - --url http://localhost:6333 --collection handbook`
    - `m3connect ingest "s3://bucket/docs/**/*.md" --target milvus --model BAAI/bge-m3`
    - `m3connect ingest "s3://bucket/docs/" --engine ray --ray-address auto --url http://qdrant:6333`

    Exit code 4: some documents failed and are listed in --dead-letters, or lost what --fail-on names;
    all others are in.
    """
    from m3connect import ingestion
    from m3connect.cli.progress import progress_bar

    if ray_address is not None and engine != "ray":
        raise ConfigError("--ray-address needs --engine ray")
    grave = lists.choices("--fail-on", fail_on, ingestion.LOSSES)
    letters = dead_letters or _letters(where)
    if report is not None and report.absolute() == letters.absolute():
        raise ConfigError("--report and --dead-letters name the same file; give each its own")
    written = (letters, where.path and FilePath(where.path), report, observed.metrics)
    outputs = [each for each in written if each]
    with ingestion.LossReport(report) as losses:
        remarks = ingestion.Remarks(lost=losses.add)
        sources = selected.find(
            paths, outputs, fetched.web(files), remarks, to_prune=replacing.prune
        )
        open_source = opener(documents, files, passages)
        opened = open_source(sources, model.load, remarks=remarks)
        if isinstance(opened, ingestion.EncodedSource) and model.compression():
            raise ConfigError(
                f"these are embeddings, which are stored as they are: give {model.compression()} to "
                "m3connect encode"
            )
        chosen = stored.chosen()
        refusal: Exception | None = None
        with (
            interruptible(),
            where.open() as connector,
            progress_bar({"documents": ingestion.count(sources)}) as progress,
            observed.run("ingest", progress) as watch,
        ):
            if engine == "ray":
                from m3connect.integrations import ray_files

                chosen = ingestion.choose_legs(chosen, opened, connector)
                work = ray_files.Work(
                    open_source,
                    where.open,
                    model.model,
                    model.how(),
                    chosen,
                    replacing.take_over,
                    waiting.patience,
                )
                opened = ray_files.spread(opened, sources, work, remarks, address=ray_address)
            if isinstance(opened, ingestion.DocumentSource):
                opened = replace(opened, encoder=watch.encoder(opened.encoder))
            try:
                done = ingestion.ingest(
                    opened,
                    None,
                    watch.connector(connector),
                    legs=chosen,
                    index_fields=_index_fields(lists.names(index_field)),
                    take_over=replacing.take_over,
                    prune=replacing.prune,
                    max_delete_ratio=replacing.max_delete_ratio,
                    patience=waiting.patience,
                    dead_letters=letters,
                    lost=losses.add,
                    progress=watch.progress,
                )
            except ingestion.NotPruned as error:  # after all was written
                done, refusal = error.report, error
            watch.count(done)
    if remarks.unread and not done.read:
        raise ConfigError("; ".join(["there are no documents in the files", *remarks.sentences()]))
    say(remarks)
    _print_report(done, where.collection, letters, as_json=printed.as_json)
    counts = {**done.to_json(), "images": remarks.images, "left_out": remarks.unread}
    lost = ", ".join(f"{counts[kind]} {kind}" for kind in grave if counts[kind])
    if lost:
        typer.echo(f"--fail-on: {lost}", err=True)
    if refusal is not None:
        raise refusal
    if done.failed or lost:
        raise typer.Exit(PARTIAL_FAILURE)


def _letters(where: Target) -> FilePath:
    """Beside the state of embedded engines, and never among the sources: the folder is hidden.

    Each collection has its own: those of another database, at another URL or path, are not retried with it.
    """
    place = where.path and str(FilePath(where.path))
    if where.url:
        address = urlsplit(where.url if "://" in where.url else f"//{where.url}")
        place = address.netloc.rpartition("@")[2] + address.path.rstrip("/")  # without a password
    name = "-".join(
        quote(part, safe="") for part in (where.target, place, where.collection) if part
    )
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{sha256(name.encode()).hexdigest()[:16]}"
    return FilePath(".m3connect", "dead-letters", f"{name}.jsonl")


def _print_report(
    report: IngestReport, collection: str, dead_letters: FilePath, *, as_json: bool
) -> None:
    """The counts on stdout; on stderr what to look after."""
    typer.echo(
        json.dumps(report.to_json()) if as_json else "\n".join(_done(report, f"{collection!r}"))
    )
    for line in _cares(report, f"{collection!r}", dead_letters):
        typer.echo(line, err=True)


def _done(report: IngestReport, collection: str) -> Iterator[str]:
    read = f"{counted(report.read, 'document')} read"
    if not report.read:
        yield f"{read}: there are none in the files"
    elif report.read == report.unchanged:
        nothing = ": nothing to do" if not report.pruned and not report.taken_over else ""
        yield f"{read}, all unchanged in {collection}{nothing} ({report.seconds:.1f} s)"
    else:
        yield (
            f"{read}: {report.written:,} written to {collection} as "
            f"{counted(report.chunks, 'passage')}, {report.unchanged:,} unchanged, "
            f"{report.failed:,} failed ({counted(report.tokens, 'token')}, {report.seconds:.1f} s)"
        )
    if report.taken_over:
        yield f"{report.taken_over:,} of the unchanged are this source's now"
    if report.metadata_only:
        yield f"{report.metadata_only:,} of the written changed in their metadata alone"
    if report.pruned:
        yield f"{counted(report.pruned, 'document')} pruned that the source no longer has"


def _cares(report: IngestReport, collection: str, dead_letters: FilePath) -> Iterator[str]:
    if report.empty:
        yield f"{counted(report.empty, 'document')} without text"
    if report.left_over:
        yield (
            f"{collection} still holds {counted(report.left_over, 'document')} of this source that "
            "this run did not find: if they are gone, --prune deletes them"
        )
    if report.truncated:
        yield f"{counted(report.truncated, 'passage')} longer than the model takes"
    if report.no_lexical:
        passages = counted(report.no_lexical, "passage")
        yield f"{passages} without lexical weights: no lexical search finds them"
    if report.failed:
        yield (
            f"{counted(report.failed, 'document')} failed; {dead_letters} says why, in its last lines. "
            f"Once that is mended: m3connect retry {dead_letters}"
        )


def _index_fields(fields: Sequence[str]) -> dict[str, FieldKind]:
    """``NAME:KIND`` pairs.

    >>> _index_fields(["lang:keyword", "author.born:integer"])
    {'lang': 'keyword', 'author.born': 'integer'}
    """
    from m3connect.contract import FieldKind

    kinds = {str(kind): kind for kind in get_args(FieldKind)}
    pairs: dict[str, FieldKind] = {}
    for field in fields:
        name, _, kind = field.rpartition(":")
        if not name or kind not in kinds:
            raise ConfigError(
                f"--index-field takes NAME:KIND with a kind of {', '.join(kinds)}, got {field!r}"
            )
        pairs[name] = kinds[kind]
    return pairs
