"""``m3connect mine``: hard negatives for training, as JSON lines."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from m3connect.cli import eval_options
from m3connect.cli.console import visible
from m3connect.cli.eval_options import (
    Cache,
    LimitQueries,
    Qrels,
    Seed,
)
from m3connect.cli.options import FusionChoice, Live, Mark, ModelChoice, Output, Target
from m3connect.searching.names import ModeName


def mine(
    dataset: Annotated[str, typer.Option(help="Folder in the BEIR layout.")],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="JSON lines: query, pos, neg."), Mark.WRITES
    ],
    *,
    report: Annotated[
        Path | None,
        typer.Option(
            help="HTML page for the report, or .md for its tables. Default: stderr.",
            show_default=False,
        ),
        Mark.WRITES,
    ] = None,
    qrels: Qrels = None,
    limit_queries: LimitQueries = None,
    mode: Annotated[
        ModeName,
        typer.Option(help="What ranks the candidates; dense+sparse is hybrid."),
    ] = "dense",
    fusion: FusionChoice,
    negatives: Annotated[int, typer.Option(help="How many a query.")] = 15,
    first: Annotated[int, typer.Option(help="First rank to take them from.")] = 10,
    last: Annotated[int, typer.Option(help="Last rank.")] = 210,
    pick: Annotated[
        Literal["random", "best"], typer.Option(help="Drawn from these ranks, or the best.")
    ] = "random",
    max_score: Annotated[
        float | None, typer.Option(help="None scores more than this.", show_default=False)
    ] = None,
    max_share: Annotated[
        float | None,
        typer.Option(
            help="None scores more than this share of the worst positive's score. Default: 0.95, or "
            "no bound where --fusion rrf leaves ranks alone.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="Each scores at least so much less than the worst positive.", show_default=False
        ),
    ] = None,
    percentile: Annotated[
        float | None,
        typer.Option(
            help="None scores more than this percentile of the scores of all positives of the "
            "dataset, such as 5.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    cache: Cache = None,
    live: Live = False,
    filter: eval_options.LiveFilter = None,  # noqa: A002 - the option's name
    where: Target,
    model: ModelChoice,
    printed: Output,
) -> None:
    """Mine hard negatives that no judgement and no score calls positive.

    - `m3connect mine --dataset train --output train.jsonl`
    - `m3connect mine --dataset train --output train.jsonl --mode all --max-share 0.9 --pick best`
    - `m3connect mine --dataset train --output train.jsonl --mode hybrid --fusion rrf`
    """
    from m3connect.cli.progress import progress_bar
    from m3connect.evaluation import requires
    from m3connect.searching.modes import parse_mode
    from m3connect.training_data.miner import mine_to_file
    from m3connect.training_data.mining import Rules

    requires.check()
    eval_options.check_live(live=live, filter=filter)
    fusion.check()
    by_rank = fusion.fusion == "rrf" and parse_mode(mode) in {"hybrid", "all"}
    if max_share is None and not by_rank:
        max_share = 0.95
    rules = Rules(negatives, first, last, pick, max_score, max_share, margin, percentile, seed)
    whole = eval_options.open_dataset(dataset, qrels, "", None, seed)
    opened = whole if limit_queries is None else whole.sample(limit_queries, seed=seed)
    eval_options.warn(opened.name, opened.warnings)
    encoder = model.load()
    with (
        where.open() if live else nullcontext() as connector,
        progress_bar() as progress,
    ):
        mined = mine_to_file(
            opened,
            encoder,
            output,
            sample_of=whole,
            mode=mode,
            rules=rules,
            preset=eval_options.choose_preset(encoder.info, None, fusion),
            connector=connector,
            filter=filter,
            cache=cache or eval_options.default_cache(),
            progress=progress,
        )
    if report is not None:
        mined.write(report)
    else:
        typer.echo(visible(mined.markdown()), err=True)
    if printed.as_json:
        typer.echo(json.dumps(mined.to_json() | {"output": str(output)}, ensure_ascii=False))
