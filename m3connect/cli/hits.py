"""How hits are printed: as JSON lines, for people, or mode beside mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

from m3connect.cli.console import json_line, visible

if TYPE_CHECKING:
    from rich.console import Console

    from m3connect.searching.explain import Explanation
    from m3connect.searching.planner import Plan
    from m3connect.types import Hit

_SNIPPET = 200
_TERMS, _TOKENS = 10, 8  # how many matches are shown to people; JSON has all


@dataclass(frozen=True, slots=True)
class Why:
    """How a query was answered, and each hit taken apart."""

    plan: Plan
    hits: Sequence[Explanation]


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit as a JSON object, without its query's id."""
    from m3connect.types import LEGS

    values = {
        "rank": hit.rank,
        "id": hit.id,
        "document_id": hit.document_id,
        "score": hit.score,
        "scores": {leg: getattr(hit.scores, leg, None) for leg in LEGS},
        "text": hit.payload.get("text"),
        "metadata": hit.metadata,
    }
    if hit.context is not None:
        values["context"] = hit.context
    if hit.highlights:
        text = hit.text if hit.context is None else hit.context
        values["highlights"] = [
            {**asdict(each), "text": text[each.start : each.stop]} for each in hit.highlights
        ]
    return values


def print_json(
    query_id: str,
    by_mode: Mapping[Any, Sequence[Hit]],
    why: Mapping[Any, Why | None],
    *,
    named: bool,
) -> None:
    """One object a hit; ``named``, it says which mode found it."""
    for mode, hits in by_mode.items():
        reasons = why[mode]
        for row, hit in enumerate(hits):
            line = {"query_id": query_id, **hit_json(hit)}
            if named:
                line["mode"] = mode
            if reasons is not None:
                plan = reasons.plan
                shown = {"native": plan.native, "reason": plan.reason, "steps": list(plan.steps)}
                line["explain"] = {"plan": shown, **reasons.hits[row].to_json()}
            typer.echo(json_line(line))


def print_hits(hits: Sequence[Hit], why: Why | None) -> None:
    """A few lines a hit."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    if why is not None:
        plan = why.plan
        way = "native" if plan.native else f"on the client, because {plan.reason}"
        console.print(f"[dim]plan: {escape(way)}: {escape('; '.join(plan.steps))}[/]")
    for row, hit in enumerate(hits):
        console.print(
            f"[bold]{hit.rank:>2}  {hit.score:.4f}[/]  [cyan]{escape(visible(hit.id))}[/]  "
            f"[dim]{_leg_text(hit)}[/]"
        )
        if where := _headings(hit):
            console.print(f"    [dim]{escape(visible(where))}[/]")
        console.print(f"    {_text(hit, console)}")
        if why is not None:
            _print_explanation(console, why.hits[row])


def print_comparison(text: str, by_mode: Mapping[Any, Sequence[Hit]]) -> None:
    """A table with a column a mode and a row a rank."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(visible(text)), title_justify="left", show_lines=True)
    for mode in by_mode:
        table.add_column(mode, overflow="fold", ratio=1)
    for rank in range(max(len(hits) for hits in by_mode.values())):
        cells = []
        for hits in by_mode.values():
            hit = hits[rank] if rank < len(hits) else None
            cells.append(
                f"[bold]{hit.score:.3f}[/] [cyan]{escape(visible(hit.id))}[/]\n[dim]{_leg_text(hit)}[/]"
                if hit is not None
                else ""
            )
        table.add_row(*cells)
    Console(highlight=False).print(table)


def _print_explanation(console: Any, reason: Explanation) -> None:
    from rich.markup import escape

    legs = " + ".join(f"{leg} {share:.4f}" for leg, share in reason.parts.items())
    console.print(f"    [green]score[/]   {legs}")
    if reason.terms:
        terms = ", ".join(
            f"{match.term} {match.contribution:.4f}" for match in reason.terms[:_TERMS]
        )
        console.print(f"    [green]terms[/]   {escape(visible(terms))}")
    if reason.tokens:
        tokens = ", ".join(
            f"{match.query}~{match.passage} {match.contribution:.4f}"
            for match in reason.tokens[:_TOKENS]
        )
        console.print(f"    [green]tokens[/]  {escape(visible(tokens))}")


def _leg_text(hit: Hit) -> str:
    from m3connect.types import LEGS

    scores = {leg: getattr(hit.scores, leg, None) for leg in LEGS}
    return " ".join(f"{leg} {score:.3f}" for leg, score in scores.items() if score is not None)


def _headings(hit: Hit) -> str:
    """The headings above a passage, which was found by them, too, and may not show them itself.

    >>> from m3connect.types import Hit
    >>> _headings(Hit("a#3", 0.9, 1, {"headings": ["Manual", "Pump B", "Torque"]}))
    'Manual > Pump B > Torque'
    """
    headings = hit.payload.get("headings")  # or a field of the user's with that name
    if not isinstance(headings, list) or not all(isinstance(each, str) for each in headings):
        return ""
    return " > ".join(headings)


def _text(hit: Hit, console: Console) -> str:
    """Markup: the beginning of the passage, or all of what a context or highlights were asked for."""
    from rich.markup import escape

    if hit.context is None and not hit.highlights:
        return escape(visible(_snippet(hit)))
    seen = console.is_terminal and not console.no_color
    before, after = ("[bold yellow]", "[/]") if seen else ("**", "**")
    text, parts, place = hit.text if hit.context is None else hit.context, [], 0
    for each in hit.highlights:
        between, marked = text[place : each.start], text[each.start : each.stop]
        parts += [escape(visible(between)), before, escape(visible(marked)), after]
        place = each.stop
    return "".join([*parts, escape(visible(text[place:]))]).replace("\n", "\n    ")


def _snippet(hit: Hit) -> str:
    text = " ".join(hit.text.split())
    return text if len(text) <= _SNIPPET else f"{text[: _SNIPPET - 1]}…"
