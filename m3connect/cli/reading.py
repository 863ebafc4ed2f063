"""How files are chosen, read, cut and stored: options that `ingest`, `retry`, `encode` and others share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m3connect.cli import lists
from m3connect.cli.console import visible
from m3connect.cli.options import Mark

if TYPE_CHECKING:
    from m3connect.ingestion import (
        DocumentSource,
        EncodedSource,
        Options,
        Remarks,
        Web,
    )
    from m3connect.ingestion.chunking import Context
    from m3connect.ingestion.files import SourceFile
    from m3connect.types import Leg

_PANEL, _CHUNKS = "Source", "Passages"
CONTEXT = ("title", "headings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """How pages of the web are fetched."""

    allow_private: Annotated[
        bool,
        typer.Option(
            "--allow-private",
            help="Read web pages at addresses that are not public, too, such as those of this network. "
            "Lists, sitemaps and redirects may then lead there as well.",
            rich_help_panel=_PANEL,
        ),
        Mark.FLAG_ONLY,
    ] = False
    max_pages: Annotated[
        int,
        typer.Option(
            help="Most pages of a sitemap or a list; a longer one is refused.",
            rich_help_panel=_PANEL,
            min=1,
        ),
    ] = 10_000

    def web(self, files: Reading) -> Web:
        """How they are; no page is larger than a file may be."""
        from m3connect.ingestion import Web

        return Web(self.allow_private, self.max_pages, files.max_file_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selecting:
    """Which files of a folder are read."""

    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Files of folders to read, as patterns of .gitignore. Default: all.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Files and folders to leave out, as patterns of .gitignore.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    gitignore: Annotated[
        bool, typer.Option(help="Honour .gitignore files.", rich_help_panel=_PANEL)
    ] = True

    def find(
        self,
        paths: Sequence[str],
        outputs: Sequence[Path],
        web: Web,
        remarks: Remarks,
        *,
        to_prune: bool = False,
    ) -> list[SourceFile]:
        """The files that are read; never those that are written.

        Raises:
            ConfigError: a path or pattern that is none, or there is nothing to read.
            Refused: that is so, and the collection was to be pruned.
        """
        from m3connect.ingestion import Selection, find
        from m3connect.ingestion.pruning import reading

        include, exclude = lists.names(self.include), lists.names(self.exclude)
        with reading(to_prune=to_prune):
            return find(paths, Selection(include, exclude, self.gitignore, outputs, web), remarks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files are read."""

    encoding: Annotated[
        str | None,
        typer.Option(
            help="Encoding of text files. Default: UTF-8, or told from the file.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None
    csv_types: Annotated[
        Literal["infer", "string"],
        typer.Option(
            help="Whether columns of numbers and booleans become such.", rich_help_panel=_PANEL
        ),
    ] = "infer"
    max_file_bytes: Annotated[
        int,
        typer.Option(
            help="Most bytes of a file that is one document, or of a record, unpacked.",
            rich_help_panel=_PANEL,
            min=1,
        ),
    ] = 50_000_000
    max_seconds: Annotated[
        float,
        typer.Option(
            help="Seconds that converting one office file or web page may take.",
            rich_help_panel=_PANEL,
        ),
    ] = 60.0
    id_prefix: Annotated[
        str,
        typer.Option(
            help="Put before each id, so that sources with equal names share a collection.",
            rich_help_panel=_PANEL,
        ),
    ] = ""

    def options(self) -> Options:
        """How they are read; the fields of records are to be added.

        Raises:
            ConfigError: an encoding that nobody knows.
        """
        from m3connect.ingestion import Options

        return Options(
            encoding=self.encoding,
            csv_types=self.csv_types,
            file_bytes=self.max_file_bytes,
            seconds=self.max_seconds,
            id_prefix=self.id_prefix,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What the fields of a record are, and whose documents they are."""

    id_field: Annotated[
        str | None,
        typer.Option(
            help="Field with a record's id. Default: id or _id, else file:line.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None
    text_field: Annotated[
        str, typer.Option(help="Field with a record's text.", rich_help_panel=_PANEL)
    ] = "text"
    metadata_field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Fields to keep as metadata. Default: all others.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the source that the documents belong to. Default: the absolute PATH or the "
            "URL, so give a name where that changes.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How documents are cut into passages."""

    chunk_tokens: Annotated[
        int | None,
        typer.Option(
            help="Most tokens of a passage. Default: 256, or the model's limit if that is less.",
            rich_help_panel=_CHUNKS,
            show_default=False,
        ),
    ] = None
    chunk_overlap: Annotated[
        int,
        typer.Option(
            help="Tokens that a passage repeats of the one before.", rich_help_panel=_CHUNKS
        ),
    ] = 0
    context: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="What is encoded with each passage: title, headings, or none.",
            rich_help_panel=_CHUNKS,
        ),
    ] = "title,headings"

    def contexts(self) -> tuple[Context, ...]:
        """What is encoded with each passage.

        Raises:
            ConfigError: something unknown.
        """
        if self.context == "none":
            return ()
        chosen: tuple[Context, ...] = lists.choices("--context", self.context, CONTEXT)
        return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Storing:
    """Which representations a collection gets."""

    legs: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Representations to store. Default: dense,sparse,multivector.",
            rich_help_panel="Model",
            show_default=False,
        ),
    ] = None

    def chosen(self) -> tuple[Leg, ...] | None:
        """Those that are named; None is all that there are.

        Raises:
            ConfigError: something unknown.
        """
        return None if self.legs is None else lists.legs(self.legs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacing:
    """What of a collection a run may replace and delete."""

    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Replace documents of other sources that have the same ids, which is refused "
            "otherwise.",
        ),
        Mark.FLAG_ONLY,
    ] = False
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Delete documents of this source that it no longer has; those of other sources "
            "stay.",
        ),
        Mark.FLAG_ONLY,
    ] = False
    max_delete_ratio: Annotated[
        float,
        typer.Option(
            help="The largest part of this source's documents that --prune deletes.", min=0, max=1
        ),
    ] = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How patiently a run waits for its database."""

    patience: Annotated[
        float,
        typer.Option(
            help="Seconds that a run which has begun waits for a database that is away; it goes on "
            "by itself.",
            rich_help_panel="Target",
            min=0,
        ),
    ] = 300.0


def opener(
    documents: Documents, files: Reading, passages: Cutting
) -> Callable[..., DocumentSource | EncodedSource]:
    """How files become a source: one function for all commands, so that all cut and read alike.

    It is :func:`m3connect.ingestion.open_source` of files, an encoder and ``remarks``.

    Raises:
        ConfigError: a bad option.
    """
    from m3connect.ingestion import open_source

    return partial(
        open_source,
        id_field=documents.id_field,
        text_field=documents.text_field,
        metadata_fields=lists.names(documents.metadata_field) or None,
        chunk_tokens=passages.chunk_tokens,
        chunk_overlap=passages.chunk_overlap,
        context=passages.contexts(),
        reading=files.options(),
        source_name=documents.source,
    )


def say(remarks: Remarks) -> None:
    """What was left out or guessed, for people."""
    for sentence in remarks.sentences():
        typer.echo(visible(sentence), err=True)
