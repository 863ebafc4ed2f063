"""``m3connect fetch`` and ``delete``: single records, by id, by document or by filter."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3connect.cli.console import counted, json_line, visible
from m3connect.cli.options import Mark, Output, Target
from m3connect.errors import Refused

if TYPE_CHECKING:
    from m3connect.contract import Connector
    from m3connect.filters import Filter
    from m3connect.types import Hit, RecordBatch

Ids = Annotated[list[str] | None, typer.Argument(help="Ids of records.", show_default=False)]
Documents = Annotated[
    list[str] | None,
    typer.Option("--document", help="All passages of this document; repeatable."),
    Mark.FLAG_ONLY,
]


def fetch(
    ids: Ids = None,
    *,
    document: Documents = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="With --json: the stored vectors, too.")
    ] = False,
    where: Target,
    printed: Output,
) -> None:
    """Show records as they are stored. Exits with 1 when one is missing.

    - `m3connect fetch keys.md#0`
    - `m3connect fetch --document keys.md --json`
    """
    if bool(ids) == bool(document):
        raise typer.BadParameter("give either ids of records or --document")
    from m3connect.types import Hit

    with where.open() as connector:
        if document:
            batches = connector.scan(_of(document), vectors=vectors)
            records = [each for batch in batches for each in _each(batch)]
            records.sort(key=_place)
            there = {str(each.payloads[0].get("document_id")) for each in records}
        else:
            records = [*_each(connector.fetch(ids or [], vectors=vectors))]
            there = {each.ids[0] for each in records}
        missing = [asked for asked in ids or document or [] if asked not in there]
        hints = [_hint(connector, [asked]) for asked in missing] if ids else [""] * len(missing)
    for each in records:
        record = Hit(each.ids[0], 0.0, 1, each.payloads[0])
        if printed.as_json:
            typer.echo(json_line(_json(record, each, vectors=vectors)))
        else:
            typer.secho(visible(record.id), bold=True)
            typer.echo(json_line(record.metadata))
            typer.echo(visible(f"{record.text}\n"))
    kind = "record" if ids else "document"
    for asked, hint in zip(missing, hints, strict=True):
        typer.secho(visible(f"there is no {kind} {asked!r}{hint}"), fg="yellow", err=True)
    if missing:
        raise typer.Exit(1)


def delete(
    ids: Ids = None,
    *,
    document: Documents = None,
    filter: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(help="""All that match, such as 'lang == "de"'.""", show_default=False),
        Mark.FLAG_ONLY,
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask."), Mark.FLAG_ONLY] = False,
    where: Target,
    printed: Output,
) -> None:
    """Delete records by id, document or filter. Says how many they are, and asks.

    - `m3connect delete --document keys.md`
    - `m3connect delete --filter 'year < 2020' --yes`

    What the source still has, the next `m3connect ingest` writes again.
    """
    if sum(map(bool, (ids, document, filter))) != 1:
        raise typer.BadParameter("give one of: ids of records, --document, --filter")
    from m3connect.filters import EVERY_TENANT, parse
    from m3connect.ingestion.pruning import delete_documents

    selected: Filter | list[str]
    selected = parse(filter) if filter else _of(document) if document else list(ids or [])
    with where.open() as connector:
        if isinstance(selected, list):
            number = len({*connector.fetch(selected, vectors=False).ids})
        else:
            number = connector.count(selected)
        told = f"{number:,} of {counted(connector.count(EVERY_TENANT))} of collection {where.collection!r}"
        if ids and not number:
            told += _hint(connector, ids)
        if number and not yes:
            if not sys.stdin.isatty():
                raise Refused(f"nobody is here to confirm it: --yes deletes {told}")
            if not typer.confirm(f"Delete {told}?", err=True):
                raise Refused("nothing was deleted")
        deleted = 0
        if number:
            deleted = (
                delete_documents(connector, document) if document else connector.delete(selected)
            )
    printed.show({"deleted": deleted}, f"deleted {counted(deleted)}" if number else f"found {told}")


def _of(documents: Sequence[str]) -> Filter:
    from m3connect.filters import EVERY_TENANT, F

    return EVERY_TENANT & F("document_id").isin(documents)  # an id is one tenant's


def _each(batch: RecordBatch) -> list[RecordBatch]:
    return [batch[row : row + 1] for row in range(len(batch))]


def _place(record: RecordBatch) -> tuple[str, int]:
    from m3connect.types.records import position_of

    payload = record.payloads[0]
    return str(payload.get("document_id")), position_of(payload) or 0


def _hint(connector: Connector, asked: Sequence[str]) -> str:
    passages = connector.count(_of(asked))
    what = "it is a document" if len(asked) == 1 else "these are documents"
    return f"; {what} of {counted(passages, 'passage')}: --document" if passages else ""


def _json(record: Hit, batch: RecordBatch, *, vectors: bool) -> dict[str, Any]:
    embeddings = batch.embeddings
    line: dict[str, Any] = {
        "id": record.id,
        "document_id": record.document_id,
        "text": record.payload.get("text"),
        "metadata": record.metadata,
        "tokens": int(embeddings.n_tokens[0]),
        "truncated": bool(embeddings.truncated[0]),
    }
    if vectors and embeddings.dense is not None:
        line["dense"] = embeddings.dense[0].tolist()
    if vectors and embeddings.sparse is not None:
        terms = embeddings.sparse[0]
        line["sparse"] = dict(zip(terms.indices.tolist(), terms.values.tolist(), strict=True))
    if vectors and embeddings.multivector is not None:
        line["multivector"] = embeddings.multivector[0].tolist()
    return line
