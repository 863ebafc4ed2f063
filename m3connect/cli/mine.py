"""``m3connect mine``: hard negatives for training, as JSON lines."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m3connect.cli import eval_options
from m3connect.cli.eval_options import (
    Cache,
    LimitQueries,
    Qrels,
    Seed,
)
from m3connect.cli.options import FusionChoice, Live, Mark, ModelChoice, Output, Target
from m3connect.searching.names import ModeName

if TYPE_CHECKING:
    from m3connect.training_data.mining import Source


def mine(
    dataset: Annotated[str, typer.Option(help="Folder in the BEIR layout.")],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="JSON lines: query, pos, neg."), Mark.WRITES
    ],
    *,
    report: Annotated[
        Path | None,
        typer.Option(help="Markdown file for the report. Default: stderr.", show_default=False),
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
    from m3connect.datasets import lines
    from m3connect.evaluation import live as databases
    from m3connect.evaluation import requires, run
    from m3connect.evaluation.offline import OfflineSearch
    from m3connect.searching.modes import for_database, needed, parse_mode
    from m3connect.training_data import mining, mining_report

    requires.check()
    eval_options.check_live(live=live)
    ranking = parse_mode(mode)
    by_rank = fusion.fusion == "rrf" and ranking in {"hybrid", "all"}
    if max_share is None and not by_rank:
        max_share = 0.95
    rules = mining.Rules(
        negatives, first, last, pick, max_score, max_share, margin, percentile, seed
    )
    opened = eval_options.open_dataset(dataset, qrels, "", limit_queries, seed)
    eval_options.warn(opened.name, opened.warnings)
    texts = {document.id: document.text for document in opened.documents()}
    encoder = model.load()
    preset = eval_options.choose_preset(encoder.info, None, fusion)
    preset = for_database(preset, max(last, 100))
    mining.check(rules, mining.weights(ranking, preset))
    legs = needed([ranking], preset, available=encoder.info.fingerprint.legs)
    tally, scores = mining.Tally(), mining_report.Scores()
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        source: Source
        if not live:
            home = cache or eval_options.default_cache()
            store, queries = run.encode(opened, encoder, legs, home, progress=progress)
            search = OfflineSearch(
                opened.ids, store, queries, preset, limit=last, progress=progress
            )
            source = mining.OfflineSource(search, ranking)
        else:
            connector = stack.enter_context(where.open())
            databases.require(connector, encoder)
            asked = [query.text for query in opened.queries]
            queries = encoder.encode(asked, kind="query", legs=legs)
            source = mining.LiveSource(
                connector, encoder, queries, texts, ranking, preset, limit=last
            )
        mined = mining.mine(opened, texts, source, rules, tally)
        lines.write(output, mining.as_examples(scores.watch(mined), texts))
    shown = mining_report.markdown(tally, scores, texts)
    if report is not None:
        report.write_text(shown, encoding="utf-8")
    else:
        typer.echo(shown, err=True)
    if printed.as_json:
        counts = {"queries": tally.queries, "negatives": tally.negatives, "short": tally.short}
        dropped = {"left_out": tally.left_out, "dropped": dict(tally.dropped)}
        typer.echo(json.dumps(counts | dropped | {"output": str(output)}, ensure_ascii=False))
