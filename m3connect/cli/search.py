"""``m3connect search``: find passages, in one mode or in all of them side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from m3connect.cli.hits import Why, print_comparison, print_hits, print_json
from m3connect.cli.options import FusionChoice, ModelChoice, Output, Target

if TYPE_CHECKING:
    from m3connect.contract import CollectionInfo, Connector, Encoder
    from m3connect.types import Fusion, Hit, Query

Mode = Literal["dense", "sparse", "multivector", "hybrid", "all"]
_BATCH = 64  # queries encoded and sent together


def search(
    text: Annotated[str | None, typer.Argument(help="The query.", show_default=False)] = None,
    *,
    queries: Annotated[
        FilePath | None,
        typer.Option(help="JSONL file of queries, objects with id and text; - for stdin."),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="hybrid is dense + sparse; all adds multivector.")
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
    explain: Annotated[bool, typer.Option("--explain", help="Show why.")] = False,
    where: Target,
    model: ModelChoice,
    printed: Output,
) -> None:
    """Search a collection.

    - `m3connect search "how do I rotate keys?"`
    - `m3connect search "ffmpeg -ss" --mode sparse --filter 'lang == "en"' --limit 3`
    - `m3connect search "wie entpacke ich ein Archiv?" --mode all --explain`
    - `m3connect search --queries questions.jsonl --json > hits.jsonl`
    """
    if (text is None) == (queries is None):
        raise typer.BadParameter("give either a text or --queries FILE")
    if compare and (explain or rerank is not None):
        raise typer.BadParameter("--compare goes with neither --explain nor --rerank")
    from m3connect.filters import parse

    condition = parse(filter) if filter else None
    fusion.parsed_weights()
    encoder = model.load()
    asked = iter([("", text)]) if text is not None else _read_queries(queries)
    modes: tuple[Mode, ...] = (mode,)
    if compare:
        modes = ("dense", "sparse", "multivector", "hybrid", "all")
    with where.open() as connector:
        info = connector.describe()
        run = _Run(
            connector,
            encoder,
            info,
            {
                "fusion": _fusion(fusion, info, encoder),
                "filter": condition,
                "limit": limit,
                "depth": depth,
                "rerank": rerank,
            },
        )
        while batch := list(islice(asked, _BATCH)):
            results = {name: run.search([text for _, text in batch], name) for name in modes}
            for at, (query_id, query_text) in enumerate(batch):
                found = {name: answers[at] for name, answers in results.items()}
                why = {
                    name: run.explain(query_text, *answer) if explain else None
                    for name, answer in found.items()
                }
                hits = {name: answer[1] for name, answer in found.items()}
                if printed.as_json:
                    print_json(query_id, hits, why)
                elif compare:
                    print_comparison(query_text, hits)
                else:
                    print_hits(hits[mode], why[mode])


class _Run:
    """An open collection and the options that stay the same from query to query."""

    def __init__(
        self,
        connector: Connector,
        encoder: Encoder,
        info: CollectionInfo,
        choices: dict[str, Any],
    ) -> None:
        self.connector = connector
        self.encoder = encoder
        self.info = info
        self.choices = choices

    def search(self, texts: list[str], mode: Mode) -> list[tuple[Query, list[Hit]]]:
        """Each text's query and hits."""
        from m3connect.searching import planner
        from m3connect.searching.search import build_queries

        built = build_queries(self.info, self.encoder, texts, mode=mode, **self.choices)
        return list(
            zip(built, planner.run(self.connector, built, schema=self.info.schema), strict=True)
        )

    def explain(self, text: str, query: Query, hits: list[Hit]) -> Why:
        """How the query was answered, and its hits taken apart."""
        from m3connect.searching import planner
        from m3connect.searching.explain import explain

        plan = planner.plan(query, self.connector.capabilities)
        return Why(plan, explain(self.connector, self.encoder, text, query, hits))


def _fusion(choice: FusionChoice, info: CollectionInfo, encoder: Encoder) -> Fusion:
    from m3connect.searching.search import default_fusion
    from m3connect.types import Rrf, Weighted

    weights = choice.parsed_weights()
    if choice.fusion is None and weights is None:
        return default_fusion(info, encoder)
    if choice.fusion == "rrf":
        return Rrf(choice.rrf_k, *(weights or (1.0, 1.0, 1.0)))
    return Weighted(*(weights or encoder.info.weights))


def _read_queries(path: FilePath | None) -> Iterator[tuple[str, str]]:
    from m3connect.errors import InputError

    if str(path) == "-":
        yield from _parse_queries(path, sys.stdin)
        return
    if path is None or not path.exists():
        raise InputError(f"--queries {path}: no such file")
    with path.open(encoding="utf-8") as stream:
        yield from _parse_queries(path, stream)


def _parse_queries(path: FilePath | None, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    from m3connect.errors import InputError

    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            query = json.loads(line)
            yield str(query["id"]), str(query["text"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number}: expected an object with id and text") from error
