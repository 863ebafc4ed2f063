"""``m3connect tune``: choose the fusion that serves your data, and store it in the collection."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3connect.cli import eval_options
from m3connect.cli.eval_options import Cache, Datasets, Language, LimitQueries, Qrels, Seed
from m3connect.cli.lists import names
from m3connect.cli.options import Live, ModelChoice, Output, Target
from m3connect.errors import AuthError, ConnectorError
from m3connect.searching.names import TunedModeName

if TYPE_CHECKING:
    from m3connect.evaluation.tune import Tuned
    from m3connect.searching.names import TunedMode


def tune(
    dataset: Datasets,
    *,
    qrels: Qrels = None,
    language: Language = "",
    limit_queries: LimitQueries = None,
    mode: Annotated[
        TunedModeName,
        typer.Option(help="Whose fusion to tune; dense+sparse is hybrid."),
    ] = "all",
    metric: Annotated[str, typer.Option(help="To maximise.")] = "ndcg@10",
    held_out: Annotated[
        float, typer.Option(help="Share of the queries that is only reported on.", min=0, max=0.9)
    ] = 0.3,
    folds: Annotated[int, typer.Option(help="Of the cross-validation.", min=2)] = 5,
    seed: Seed = 0,
    cache: Cache = None,
    live: Live = False,
    filter: eval_options.LiveFilter = None,  # noqa: A002 - the option's name
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Store nothing.", rich_help_panel="Target")
    ] = False,
    where: Target,
    model: ModelChoice,
    printed: Output,
) -> None:
    """Try fusions, weights and depths on some queries, and report on others.

    Several datasets count alike: that is how the weights that a checkpoint recommends are found.

    - `m3connect tune --dataset dev`
    - `m3connect tune --dataset a --dataset b --model ./checkpoint`
    - `m3connect tune --dataset dev --live --collection handbook`

    With --live, the choice is stored in the collection, and search uses it from then on.
    """
    from m3connect.cli.progress import progress_bar
    from m3connect.evaluation import measure, metrics, requires
    from m3connect.evaluation import tune as tuning
    from m3connect.searching.modes import preset_for

    tuned_mode: TunedMode = "all" if mode == "all" else "hybrid"
    requires.check()
    metrics.check([metric])
    eval_options.check_live(live=live, filter=filter)
    opened = eval_options.open_datasets(
        names(dataset), qrels, language, limit_queries, seed, live=live
    )
    for each in opened:
        eval_options.warn(each.name, each.warnings)
        measure.check([metric], each)
        tuning.split(each, held_out=held_out, seed=seed)
    encoder = model.load()
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        connector = None
        if not live:
            home = cache or eval_options.default_cache()
            sets = [
                tuning.encode_set(
                    each, encoder, tuned_mode, cache=home, metric=metric, progress=progress
                )
                for each in opened
            ]
        else:
            connector = stack.enter_context(where.open())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            sets = [
                tuning.read_set(
                    opened[0],
                    encoder,
                    tuned_mode,
                    connector,
                    folder,
                    metric=metric,
                    filter=filter,
                    progress=progress,
                )
            ]
        for searched in sets:
            records = "records" if live else "documents"
            eval_options.warn(searched.dataset.name, searched.search.cut_off(records))
        tuned = tuning.tune(
            sets,
            tuned_mode,
            default=preset_for(encoder.info),
            metric=metric,
            held_out=held_out,
            folds=folds,
            seed=seed,
            progress=progress,
        )
        stored = connector is not None and not (tuned.default_stays or dry_run)
        refused = None
        if connector is not None and not dry_run:
            try:
                connector.annotate(tuning.notes(tuned))
            except ConnectorError as error:  # said after the result, which took its time
                refused, stored = error, False
    if printed.as_json:
        typer.echo(json.dumps(_json(tuned, stored=stored)))
    else:
        _show(tuned, stored=stored)
    if refused is not None:
        advice = (
            "the key may not change the collection's notes. Tune with a key that may, or search"
            if isinstance(refused, AuthError)
            else "search"
        )
        raise type(refused)(
            f"{refused}. The choice above could not be stored: {advice} with --fusion, --weights and --depth",
            connector=refused.connector,
            operation=refused.operation,
        ) from refused


def _json(tuned: Tuned, *, stored: bool) -> dict[str, Any]:
    return {
        "mode": tuned.mode,
        "metric": tuned.metric,
        "default": tuned.default.to_json(),
        "chosen": tuned.chosen.to_json(),
        "tuned_on": len(tuned.tuned_on),
        "held_out": len(tuned.held_out),
        "cross_validated": tuned.cross_validated,
        "before": asdict(tuned.before),
        "after": asdict(tuned.after),
        "gain": asdict(tuned.gain),
        "stored": stored,
        "trials": [{**trial.setting.to_json(), "mean": trial.mean} for trial in tuned.trials],
    }


def _show(tuned: Tuned, *, stored: bool) -> None:
    lines = [
        f"| {tuned.metric} on {len(tuned.held_out)} held-out queries | mean | 95 % interval |",
        "|---|---|---|",
        (
            f"| default: {tuned.default.fusion}, depth {tuned.default.depth} | "
            f"{tuned.before.mean:.4f} | {tuned.before.low:.4f} to {tuned.before.high:.4f} |"
        ),
        (
            f"| chosen: {tuned.chosen.fusion}, depth {tuned.chosen.depth} | "
            f"{tuned.after.mean:.4f} | {tuned.after.low:.4f} to {tuned.after.high:.4f} |"
        ),
        (
            f"| gain | {tuned.gain.difference.mean:+.4f} | {tuned.gain.difference.low:+.4f} to "
            f"{tuned.gain.difference.high:+.4f}, p = {tuned.gain.p_value:.3f} |"
        ),
    ]
    typer.echo("\n".join(lines))
    if tuned.chosen == tuned.default:
        typer.echo("No setting beat the default on queries it had not seen: it stays.", err=True)
    elif tuned.default_stays:
        typer.echo(
            "The setting that was chosen is worse than the default on the held-out queries: the default stays. More "
            "judged queries would tell them apart.",
            err=True,
        )
    elif stored:
        typer.echo(
            f"Stored in the collection: search --mode {tuned.mode} uses it from now on.", err=True
        )
