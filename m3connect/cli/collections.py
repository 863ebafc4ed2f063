"""``m3connect collections``, ``info`` and ``drop``: which collections there are, and what they hold."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3connect.cli.console import counted, json_line, visible
from m3connect.cli.options import Database, Mark, Output, Target
from m3connect.errors import ConnectorError, Refused

if TYPE_CHECKING:
    from m3connect.connecting.overview import Overview
    from m3connect.contract import CollectionInfo, Connector


def collections(*, database: Database, printed: Output) -> None:
    """List the collections of a database, with records, model, representations and bytes.

    - `m3connect collections`
    - `m3connect collections --target elasticsearch --url http://localhost:9200 --json`
    """
    from m3connect.connecting.overview import overview

    with database.open_as("documents") as connector:
        names = connector.collections()
    seen: dict[str, Overview | ConnectorError] = {}
    for name in names:
        try:
            with database.open_as(name) as connector:
                seen[name] = overview(connector)
        except ConnectorError as error:  # in use, of an older format: the others are shown
            seen[name] = error
    if printed.as_json:
        typer.echo(json_line([_json(name, shape) for name, shape in seen.items()]))
    elif seen:
        _print_table(seen)
    else:
        typer.echo("no collections; m3connect ingest PATH makes one", err=True)


def info(
    *,
    sources: Annotated[
        bool,
        typer.Option(
            "--sources",
            help="List the sources of its documents, too: reads a record of each document.",
        ),
    ] = False,
    where: Target,
    printed: Output,
) -> None:
    """Say what a collection holds: records, bytes, model, representations, fields, tuned settings.

    - `m3connect info`
    - `m3connect info --sources`
    - `m3connect info --collection handbook --json`
    """
    from m3connect.connecting.overview import overview

    with where.open() as connector:
        seen = overview(connector)
        listed = _sources(connector) if sources else []
    lines = [
        *_lines(seen),
        *(("source", f"{name}, {counted(count, 'document')}") for name, count in listed),
    ]
    data = seen.to_json() | ({"sources": dict(listed)} if sources else {})
    printed.show(data, "\n".join(f"{name:<15} {text}" for name, text in lines))


def _sources(connector: Connector) -> list[tuple[str, int]]:
    from m3connect.ingestion import ledger

    counts = ledger.sources(connector)
    return [(name or "not known", count) for name, count in counts.most_common()]


def drop(
    *,
    name: Annotated[
        str | None,
        typer.Option(
            help="The collection's name once more, in place of the question.", show_default=False
        ),
        Mark.FLAG_ONLY,
    ] = None,
    where: Target,
    printed: Output,
) -> None:
    """Remove a collection with all that is in it. Asks for its name.

    - `m3connect drop --collection handbook`
    - `m3connect drop --collection handbook --name handbook`
    """
    from m3connect.errors import CollectionOutdated
    from m3connect.filters import EVERY_TENANT

    with where.open() as connector:
        try:
            holds = counted(connector.count(EVERY_TENANT))
        except CollectionOutdated:
            holds = "an unknown number of records"
        told = f"{connector.name} collection {where.collection!r} with {holds}"
        if name is None:
            if not sys.stdin.isatty():
                raise Refused(
                    f"nobody is here to confirm it: --name {where.collection} drops {told}"
                )
            typer.echo(f"This removes the {told}.", err=True)
            name = typer.prompt("Name of the collection", err=True)
        if name != where.collection:
            raise Refused(f"{name!r} is not {where.collection!r}: nothing was removed")
        connector.drop()
    printed.show({"dropped": where.collection}, f"dropped the {told}")


def _json(name: str, seen: Overview | ConnectorError) -> dict[str, Any]:
    return (
        {"name": name, "error": str(seen)} if isinstance(seen, ConnectorError) else seen.to_json()
    )


def _print_table(seen: dict[str, Overview | ConnectorError]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("collection", "records", "MB", "representations", "model", box=None)
    for column in (1, 2):
        table.columns[column].justify = "right"
    for name, shape in seen.items():
        shown = escape(visible(name if isinstance(shape, ConnectorError) else _named(shape.info)))
        if isinstance(shape, ConnectorError):
            table.add_row(shown, "?", "?", "?", f"[yellow]{escape(visible(str(shape)))}[/]")
        else:
            legs = ", ".join(shape.info.schema.legs)
            model = escape(visible(shape.model or "-"))
            table.add_row(shown, f"{shape.records:,}", _megabytes(shape), legs, model)
    Console(highlight=False).print(table)


def _named(info: CollectionInfo) -> str:
    """The name, and what it stands for if that is another collection."""
    return info.name if info.name == info.stands_for else f"{info.name} -> {info.stands_for}"


def _lines(seen: Overview) -> list[tuple[str, str]]:
    schema, made_by = seen.info.schema, seen.info.schema.fingerprint
    lines = [
        ("collection", _named(seen.info)),
        ("engine", seen.info.engine),
        ("records", f"{seen.records:,}"),
        ("MB on disk", _megabytes(seen)),
    ]
    if schema.dense_width is not None:
        lines.append(("dense", f"{schema.dense_width} wide"))
    if schema.sparse:
        lines.append(("sparse", "lexical weights"))
    if schema.multivector_width is not None:
        lines.append(
            ("multivector", f"{schema.multivector_width} wide, {schema.multivector_dtype}")
        )
    if schema.tenant_field is not None:
        lines.append(("tenants", f"kept apart by {schema.tenant_field}"))
    if made_by is not None:
        lines += [
            ("model", f"{made_by.model}, up to {made_by.max_length} tokens, {made_by.precision}"),
            ("chunker", made_by.chunker or "-"),
        ]
        lines += [("kept", str(made_by.compression))] if made_by.compression else []
        lines += [("identifiers", "are terms, too")] if made_by.identifiers else []
    fields = (f"{field} ({kind})" for field, kind in schema.payload_fields.items())
    lines.append(("indexed fields", ", ".join(fields) or "-"))
    lines += [(f"note {name}", json_line(note)) for name, note in seen.info.notes.items()]
    return lines


def _megabytes(seen: Overview) -> str:
    return "-" if seen.bytes is None else f"{seen.bytes / 1e6:,.1f}"
