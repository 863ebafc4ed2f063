"""``m3connect search``: find passages, in one mode or in all of them side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from m3connect.cli import options
from m3connect.cli.options import (
    ApiKey,
    Backend,
    Collection,
    Device,
    Dtype,
    Json,
    Model,
    Path,
    Target,
    TargetOption,
    Url,
)

if TYPE_CHECKING:
    from m3connect.contract import CollectionInfo, Connector, Encoder
    from m3connect.explain import Explanation
    from m3connect.planner import Plan
    from m3connect.types import Fusion, Hit, Query

Mode = Literal["dense", "sparse", "multivector", "hybrid", "all"]
FusionName = Literal["rrf", "weighted"]
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
    fusion: Annotated[
        FusionName | None,
        typer.Option(help="How legs become one score. Default: the collection's, else weighted."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Fusion weights D,S,M. Default: the checkpoint's.", show_default=False),
    ] = None,
    rrf_k: Annotated[float, typer.Option(help="k of reciprocal rank fusion.")] = 60.0,
    depth: Annotated[int, typer.Option(help="Candidates of the dense and sparse leg each.")] = 100,
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
    target: Target = options.DEFAULT_TARGET,
    url: Url = None,
    path: Path = None,
    api_key: ApiKey = None,
    target_option: TargetOption = None,
    collection: Collection = options.DEFAULT_COLLECTION,
    model: Model = options.DEFAULT_MODEL,
    backend: Backend = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Search a collection.

    - `m3connect search "how do I rotate keys?"`
    - `m3connect search "ffmpeg -ss" --mode sparse --filter 'lang == "en"' --limit 3`
    - `m3connect search "wie entpacke ich ein Archiv?" --mode all --explain`
    - `m3connect search --queries questions.jsonl --json > hits.jsonl`
    """
    if (text is None) == (queries is None):
        raise typer.BadParameter("give either a text or --queries FILE")
    from m3connect.filters import parse

    condition = parse(filter) if filter else None
    given = _weights(weights) if weights is not None else None
    encoder = options.load_encoder(model, backend, device, dtype)
    asked = iter([("", text)]) if text is not None else _read_queries(queries)
    modes: tuple[Mode, ...] = (mode,)
    if compare:
        modes = ("dense", "sparse", "multivector", "hybrid", "all")
    with options.open_connector(target, collection, url, path, api_key, target_option) as connector:
        info = connector.describe()
        run = _Run(
            connector,
            encoder,
            info,
            {
                "fusion": _fusion(fusion, given, rrf_k, info, encoder),
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
                if as_json:
                    _print_json(run, query_id, query_text, found, explain=explain)
                elif compare:
                    _print_comparison(query_text, found)
                else:
                    _print_hits(run, query_text, *found[mode], explain=explain)


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
        from m3connect import planner
        from m3connect.retrieval import build_queries

        rerank = self.choices["rerank"] if mode == "all" else None
        built = build_queries(
            self.info, self.encoder, texts, mode=mode, **{**self.choices, "rerank": rerank}
        )
        return list(zip(built, planner.run(self.connector, built), strict=True))

    def explain(self, text: str, query: Query, hits: list[Hit]) -> tuple[Plan, list[Explanation]]:
        """How the query was answered, and its hits taken apart."""
        from m3connect import planner
        from m3connect.explain import explain

        plan = planner.plan(query, self.connector.capabilities)
        return plan, explain(self.connector, self.encoder, text, query, hits)


def _fusion(
    name: FusionName | None,
    weights: tuple[float, float, float] | None,
    k: float,
    info: CollectionInfo,
    encoder: Encoder,
) -> Fusion:
    from m3connect.retrieval import default_fusion
    from m3connect.types import Rrf, Weighted

    if name is None and weights is None:
        return default_fusion(info, encoder)
    if name == "rrf":
        return Rrf(k, *(weights or (1.0, 1.0, 1.0)))
    return Weighted(*(weights or encoder.info.weights))


def _weights(text: str) -> tuple[float, float, float]:
    """Three numbers.

    >>> _weights("1,0.3,1")
    (1.0, 0.3, 1.0)
    """
    try:
        dense, sparse, multivector = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--weights takes D,S,M such as 1,0.3,1, got {text!r}") from error
    return dense, sparse, multivector


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


def _print_json(
    run: _Run,
    query_id: str,
    text: str,
    found: dict[Mode, tuple[Query, list[Hit]]],
    *,
    explain: bool,
) -> None:
    for mode, (query, hits) in found.items():
        extra: list[dict[str, Any]] = [{} for _ in hits]
        if len(found) > 1:
            extra = [{"mode": mode} for _ in hits]
        if explain:
            plan, parts = run.explain(text, query, hits)
            shown = {"native": plan.native, "reason": plan.reason, "steps": list(plan.steps)}
            for more, part in zip(extra, parts, strict=True):
                more["explain"] = {"plan": shown, **part.to_json()}
        for hit, more in zip(hits, extra, strict=True):
            line = {"query_id": query_id, **hit_json(hit), **more}
            typer.echo(json.dumps(line, ensure_ascii=False))


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit as the JSON object that ``--json`` prints, without the query's id."""
    from m3connect.types import LEGS, PASSAGE_FIELDS

    metadata = {key: value for key, value in hit.payload.items() if key not in PASSAGE_FIELDS}
    return {
        "rank": hit.rank,
        "id": hit.id,
        "document_id": hit.payload.get("document_id", hit.id),
        "score": hit.score,
        "scores": {leg: getattr(hit.scores, leg, None) for leg in LEGS},
        "text": hit.payload.get("text"),
        "metadata": metadata,
    }


def _print_hits(run: _Run, text: str, query: Query, hits: list[Hit], *, explain: bool) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    if not hits:
        console.print("[dim]no hits[/]")
    plan, parts = run.explain(text, query, hits) if explain and hits else (None, [])
    if plan is not None:
        way = "native" if plan.native else f"composed on the client: {escape(plan.reason)}"
        console.print(f"[dim]plan: {way}; {escape('; '.join(plan.steps))}[/]")
    for at, hit in enumerate(hits):
        console.print(
            f"[bold]{hit.rank:>2}  {hit.score:.4f}[/]  [cyan]{escape(hit.id)}[/]  "
            f"[dim]{_leg_text(hit)}[/]"
        )
        console.print(f"    {escape(_snippet(hit, 200))}")
        if plan is not None:
            _print_explanation(console, parts[at])


def _print_explanation(console: Any, part: Explanation) -> None:
    from rich.markup import escape

    legs = " + ".join(f"{leg} {share:.4f}" for leg, share in part.parts.items())
    console.print(f"    [green]score[/] = {legs}")
    if part.terms:
        terms = ", ".join(f"{match.term} {match.contribution:.4f}" for match in part.terms[:10])
        console.print(f"    [green]terms[/]   {escape(terms)}")
    if part.tokens:
        tokens = ", ".join(
            f"{match.query}~{match.passage} {match.contribution:.4f}" for match in part.tokens[:8]
        )
        console.print(f"    [green]tokens[/]  {escape(tokens)}")


def _print_comparison(text: str, found: dict[Mode, tuple[Query, list[Hit]]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=text, title_justify="left", show_lines=True)
    for mode in found:
        table.add_column(mode, overflow="fold", ratio=1)
    depth = max(len(hits) for _, hits in found.values())
    for rank in range(depth):
        cells = []
        for _, hits in found.values():
            if rank >= len(hits):
                cells.append("")
                continue
            hit = hits[rank]
            cells.append(
                f"[bold]{hit.score:.3f}[/] [cyan]{escape(hit.id)}[/]\n[dim]{_leg_text(hit)}[/]"
            )
        table.add_row(*cells)
    Console(highlight=False).print(table)


def _leg_text(hit: Hit) -> str:
    from m3connect.types import LEGS

    scores = {leg: getattr(hit.scores, leg, None) for leg in LEGS}
    return " ".join(f"{leg} {score:.3f}" for leg, score in scores.items() if score is not None)


def _snippet(hit: Hit, length: int) -> str:
    text = " ".join(str(hit.payload.get("text", "")).split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
