"""``m3connect search``: find passages, in one mode or in all of them side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli.console import show_error, visible
from m3connect.cli.hits import Why, print_comparison, print_hits, print_json
from m3connect.cli.options import FusionChoice, Mark, ModelChoice, Output, Target
from m3connect.cli.queries import is_interactive, read_lines, read_queries
from m3connect.cli.refining import Refining, load_reranker
from m3connect.errors import M3ConnectError
from m3connect.searching.names import ModeName

if TYPE_CHECKING:
    from m3connect.contract import Connector, ModelInfo
    from m3connect.filters import Filter
    from m3connect.searching.names import Mode
    from m3connect.searching.search import TextHits
    from m3connect.types import Fusion, Hit

_BATCH = 64  # queries encoded and sent together


def search(
    text: Annotated[str | None, typer.Argument(help="The query.", show_default=False)] = None,
    *,
    queries: Annotated[
        FilePath | None,
        typer.Option(help="JSONL file of queries, objects with id and text; - for stdin."),
    ] = None,
    repl: Annotated[
        bool,
        typer.Option(
            "--repl", help="Read queries line by line, from the keyboard or a pipe, until Ctrl-D."
        ),
        Mark.FLAG_ONLY,
    ] = False,
    mode: Annotated[
        ModeName,
        typer.Option(help="hybrid is dense+sparse; multivector and all score the same candidates."),
    ] = "hybrid",
    compare: Annotated[
        bool, typer.Option("--compare", help="Show every mode side by side.")
    ] = False,
    fusion: FusionChoice,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Candidates of the dense and sparse leg each. Default: the collection's, else 100.",
            show_default=False,
        ),
    ] = None,
    rerank: Annotated[
        int | None,
        typer.Option(help="With --mode all: order the best N by MaxSim alone.", show_default=False),
    ] = None,
    filter: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(help="""Such as 'lang == "de" and year >= 2020'.""", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Hits a query.")] = 10,
    offset: Annotated[
        int, typer.Option(help="Leave out so many of the best first, for the next page.", min=0)
    ] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="Show why.")] = False,
    refining: Refining,
    where: Target,
    model: ModelChoice,
    printed: Output,
) -> None:
    """Search a collection.

    - `m3connect search "how do I rotate keys?"`
    - `m3connect search "ffmpeg -ss" --mode sparse --filter 'lang == "en"' --limit 3`
    - `m3connect search "wie entpacke ich ein Archiv?" --mode all --explain`
    - `m3connect search "how do I rotate keys?" --group-by document --expand neighbours --highlight 2`
    - `m3connect search --queries questions.jsonl --json > hits.jsonl`
    - `m3connect search --repl` loads the model once for many queries
    """
    asked = _asked(text, queries, repl=repl)
    if compare and (explain or rerank is not None):
        raise typer.BadParameter("--compare goes with neither --explain nor --rerank")
    from m3connect.filters import as_filter
    from m3connect.searching.absence import why_no_hits
    from m3connect.searching.modes import parse_mode
    from m3connect.searching.search import search_many

    condition = as_filter(filter)  # a mistake in it is said before the model is loaded
    fusion.check()
    min_scores = refining.min_scores()
    reranker = load_reranker(refining.reranker, model.device)
    encoder = model.load()
    chosen = _fusion(fusion, encoder.info)
    noted: set[str] = set()  # each note is told once, however many queries there are

    def answer(
        connector: Connector, modes: Sequence[Mode], batch: Sequence[tuple[str, str]]
    ) -> None:
        results = {
            name: search_many(
                connector,
                encoder,
                [text for _, text in batch],
                mode=name,
                fusion=chosen,
                filter=filter,
                limit=limit,
                offset=offset,
                depth=depth,
                rerank=rerank,
                leg_scores=True,
                min_scores=min_scores,
                reranker=reranker,
                group_by=refining.group_by,
                diversity=refining.diversity,
                pool=refining.pool,
                expand=refining.expand,
                expand_tokens=refining.expand_tokens,
                highlight=refining.highlight,
            )
            for name in modes
        }
        for row, (query_id, query_text) in enumerate(batch):
            hits = {name: answers[row] for name, answers in results.items()}
            why = {name: _why(listed) if explain else None for name, listed in hits.items()}
            if printed.as_json:
                print_json(query_id, hits, why, named=compare)
            elif compare:
                print_comparison(query_text, hits)
            else:
                print_hits(hits[modes[0]], why[modes[0]])
            seen = [hit for listed in hits.values() for hit in listed]
            if not seen:
                reason = why_no_hits(connector, condition, offset=offset, min_scores=min_scores)
                typer.echo(reason, err=printed.as_json)
            short = (0 < len(listed) < limit and listed.pool_was_full for listed in hits.values())
            if refining.group_by and "pool" not in noted and any(short):
                noted.add("pool")
                note = (
                    "note: the passages looked at are of fewer documents than --limit; raise --pool"
                )
                typer.secho(note, fg="yellow", err=True)
            if condition is not None and "fields" not in noted:
                noted.add("fields")
                _note_unknown_fields(connector, condition, seen)

    with where.open() as connector:
        modes = _comparable(connector) if compare else (parse_mode(mode),)
        while batch := list(islice(asked, 1 if repl else _BATCH)):
            try:
                answer(connector, modes, batch)
            except M3ConnectError as error:
                if not (repl and is_interactive()):
                    raise
                show_error(error, str(error), 1, as_json=printed.as_json)  # and the next line
            if repl and not printed.as_json:
                typer.echo()


def _comparable(connector: Connector) -> tuple[Mode, ...]:
    """The modes that the collection can serve; says which it cannot."""
    from m3connect.searching.modes import scored_legs
    from m3connect.searching.names import MODES

    stored = connector.describe().schema.legs
    served = tuple(mode for mode in MODES if {*scored_legs(mode)} <= {*stored})
    if lacking := ", ".join(mode for mode in MODES if mode not in served):
        note = f"note: the collection stores {', '.join(stored)}: without {lacking}"
        typer.secho(note, fg="yellow", err=True)
    return served


def _asked(text: str | None, queries: FilePath | None, *, repl: bool) -> Iterator[tuple[str, str]]:
    """The one query, under an empty id, those of the file, or line by line under their numbers."""
    if [text is not None, queries is not None, repl].count(True) != 1:
        raise typer.BadParameter("give one of a text, --queries FILE and --repl")
    if repl:
        return read_lines()
    if queries is not None:
        return read_queries(queries)
    if text is None or not text.strip():
        raise typer.BadParameter("the query is blank")
    return iter([("", text)])


def _note_unknown_fields(connector: Connector, condition: Filter, hits: Sequence[Hit]) -> None:
    """Say which fields of the filter no passage has; a hit that has them all needs no request."""
    from m3connect.filters import values_at
    from m3connect.searching.absence import fields_of, unknown_fields

    if any(
        all(any(True for _ in values_at(hit.payload, field)) for field in fields_of(condition))
        for hit in hits
    ):
        return
    for field in unknown_fields(connector, condition):
        note = f"note: no passage has the field {field!r} that the filter asks for"
        typer.secho(visible(note), fg="yellow", err=True)


def _why(hits: TextHits) -> Why:
    """How the query was answered, and its hits taken apart."""
    return Why(hits.plan, hits.explain())


def _fusion(choice: FusionChoice, info: ModelInfo) -> Fusion | None:
    """The fusion that the options describe; None leaves it to the collection."""
    from m3connect.types import Rrf, Weighted

    weights = choice.parsed_weights()
    if choice.fusion is None and weights is None:
        return None
    if choice.fusion == "rrf":
        return Rrf(choice.rrf_k, *(weights or (1.0, 1.0, 1.0)))
    return Weighted(*(weights or info.weights))
