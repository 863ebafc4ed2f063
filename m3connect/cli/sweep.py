"""``m3connect sweep``: try ways to cut and to search on your data, with what each costs."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli import eval_options, lists
from m3connect.cli.eval_options import Cache, Datasets, Language, LimitQueries, Qrels, Seed
from m3connect.cli.lists import names
from m3connect.cli.options import Mark, ModelChoice, Output
from m3connect.cli.reading import CONTEXT
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.contract import Encoder
    from m3connect.ingestion.chunking import Chunker


def sweep(
    dataset: Datasets,
    *,
    qrels: Qrels = None,
    language: Language = "",
    limit_queries: LimitQueries = None,
    seed: Seed = 0,
    chunk_tokens: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="Sizes of passages to try; whole leaves documents as they are."
        ),
    ] = "whole,128,256",
    chunk_overlap: Annotated[
        str, typer.Option(metavar="LIST", help="Overlaps to try, in tokens, with every size.")
    ] = "0",
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="What to encode with each passage: title, headings or none; repeat to try several. "
            "Default: title,headings.",
        ),
    ] = None,
    modes: Annotated[
        str, typer.Option(metavar="LIST", help="Modes to try.")
    ] = "dense,sparse,multivector,hybrid,all",
    fusions: Annotated[
        str, typer.Option(metavar="LIST", help="Fusions to try: weighted, rrf.")
    ] = "weighted,rrf",
    depths: Annotated[
        str, typer.Option(metavar="LIST", help="Candidates of every leg to try.")
    ] = "50,100,200",
    metric: Annotated[str, typer.Option(help="To compare by.")] = "ndcg@10",
    folds: Annotated[int, typer.Option(help="Of the cross-validation.", min=2)] = 5,
    cache: Cache = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for sweep.html and sweep.json.", show_default=False
        ),
        Mark.WRITES,
    ] = None,
    model: ModelChoice,
    printed: Output,
) -> None:
    """Try passage sizes, overlaps, contexts, modes, fusions and depths, with bytes and times.

    `m3connect eval sweep` is the same.

    - `m3connect sweep --dataset dev --output sweep`
    - `m3connect sweep --dataset dev --chunk-tokens 64,128,256 --chunk-overlap 0,32 --modes hybrid,all`
    - `m3connect sweep --dataset dev --context title,headings --context none --limit-queries 200`
    """
    from m3connect.cli.progress import progress_bar
    from m3connect.disk import aside
    from m3connect.evaluation import measure, metrics, requires
    from m3connect.evaluation.sweep import sweep as try_all

    requires.check()
    metrics.check([metric])
    if len(names(dataset)) != 1:
        raise ConfigError("a sweep is over one dataset: give one --dataset")
    chosen = eval_options.parse_modes(modes)
    if not chosen:
        raise ConfigError("--modes names none: a sweep tries at least one")
    kinds = lists.choices("--fusions", fusions, ("weighted", "rrf"))
    if not kinds and {"hybrid", "all"} & set(chosen):
        raise ConfigError(
            "--fusions names none, and hybrid and all need one: weighted, rrf, or both"
        )
    deep = lists.whole_numbers("--depths", depths, 1)
    opened = eval_options.open_dataset(names(dataset)[0], qrels, language, limit_queries, seed)
    measure.check([metric], opened)
    encoder = model.load()
    cuts = _cuts(encoder, names(chunk_tokens), chunk_overlap, context or ["title,headings"])
    if output is not None:  # before the work: it may be a file, or in a place that nobody may write
        output.mkdir(parents=True, exist_ok=True)
    with progress_bar() as progress:
        result = try_all(
            opened,
            encoder,
            cuts,
            modes=chosen,
            fusions=kinds,
            depths=deep,
            metric=metric,
            cache=cache or eval_options.default_cache(),
            folds=folds,
            seed=seed,
            progress=progress,
        )
    if output is not None:
        for name, text in (
            ("sweep.html", result.page()),
            ("sweep.json", json.dumps(result.to_json(), indent=1)),
        ):
            with aside(output / name) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
    if printed.as_json:
        typer.echo(json.dumps(result.to_json()))
    else:
        typer.echo(result.table(result.frontier()).markdown())
        typer.echo(
            f"{len(result.trials)} settings tried on {len(opened.queries)} queries. The best of them has "
            f"{result.best.mean:.3f} on these; a choice like it scores {result.unseen:.3f} on queries that it "
            "has not seen.",
            err=True,
        )
    eval_options.warn(opened.name, result.warnings)


def _cuts(
    encoder: Encoder, sizes: tuple[str, ...], overlaps: str, contexts: list[str]
) -> list[Chunker | None]:
    """Every size with every overlap and context; None for whole documents.

    Raises:
        ConfigError: a size or overlap is no number, or does not fit the encoder.
    """
    from m3connect.ingestion.chunking import Chunker

    cut = [size for size in sizes if size != "whole"]
    if not sizes:
        raise ConfigError("--chunk-tokens names none, such as whole,128,256")
    tokens = lists.whole_numbers("--chunk-tokens", ",".join(cut), 1) if cut else ()
    repeated = lists.whole_numbers("--chunk-overlap", overlaps, 0)
    taken = [
        () if each == "none" else lists.choices("--context", each, CONTEXT) for each in contexts
    ]
    whole: list[Chunker | None] = [None] if len(cut) < len(sizes) else []
    return whole + [
        Chunker(encoder, tokens=size, overlap=overlap, context=context)
        for size, overlap, context in product(tokens, repeated, taken)
    ]
