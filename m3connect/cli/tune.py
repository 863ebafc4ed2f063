"""``m3connect tune``: choose the fusion that serves your data, and store it in the collection."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from m3connect.cli import eval_options
from m3connect.cli.eval_options import Cache, Datasets, Language, LimitQueries, Qrels, Seed
from m3connect.cli.options import Live, ModelChoice, Output, Target, names

if TYPE_CHECKING:
    from m3connect.contract import Connector
    from m3connect.datasets.beir import Dataset
    from m3connect.evaluation.shards import Progress
    from m3connect.evaluation.tune import Part, Setting, Trial, Tuned, TunedMode
    from m3connect.inference import M3Encoder
    from m3connect.searching.modes import Preset


def tune(
    dataset: Datasets,
    *,
    qrels: Qrels = None,
    language: Language = "",
    limit_queries: LimitQueries = None,
    mode: Annotated[
        Literal["dense+sparse", "all"], typer.Option(help="Whose fusion to tune.")
    ] = "all",
    metric: Annotated[str, typer.Option(help="To maximise.")] = "ndcg@10",
    held_out: Annotated[
        float, typer.Option(help="Share of the queries that is only reported on.", min=0, max=0.9)
    ] = 0.3,
    folds: Annotated[int, typer.Option(help="Of the cross-validation.", min=2)] = 5,
    seed: Seed = 0,
    cache: Cache = None,
    live: Live = False,
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
    from m3connect.evaluation import measure, requires
    from m3connect.evaluation import tune as tuning
    from m3connect.searching.modes import for_database, preset_for
    from m3connect.searching.search import DEPTH

    requires.check()
    eval_options.check_live(live=live)
    opened = eval_options.open_datasets(
        names(dataset), qrels, language, limit_queries, seed, live=live
    )
    for each in opened:
        eval_options.warn(each.name, each.warnings)
        measure.check([metric], each)
        tuning.split(each, held_out=held_out, seed=seed)
    encoder = model.load()
    default = for_database(preset_for(encoder.info), DEPTH)
    deepest = for_database(default, max(tuning.DEPTHS))
    cutoff = measure.cutoff([metric])
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar(quiet=not sys.stderr.isatty()))
        connector = None
        if not live:
            home = cache or eval_options.default_cache()
            parts = [
                _offline(each, encoder, mode, deepest, cutoff, home, progress) for each in opened
            ]
        else:
            connector = stack.enter_context(where.open())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            parts = [_live(opened[0], encoder, mode, deepest, cutoff, connector, folder, progress)]
        tuned = tuning.tune(
            parts,
            mode,
            default=default,
            metric=metric,
            held_out=held_out,
            folds=folds,
            seed=seed,
            progress=progress,
        )
        stored = connector is not None and tuned.chosen != tuned.default and not dry_run
        if connector is not None and not dry_run:
            connector.annotate(_notes(tuned))
    if printed.as_json:
        typer.echo(json.dumps(_json(tuned, stored=stored)))
    else:
        _show(tuned, stored=stored)


def _offline(
    dataset: Dataset,
    encoder: M3Encoder,
    mode: TunedMode,
    preset: Preset,
    limit: int,
    cache: Path,
    progress: Progress,
) -> Part:
    """A test collection, encoded into the cache."""
    from m3connect.evaluation import run
    from m3connect.evaluation.offline import OfflineSearch
    from m3connect.evaluation.tune import Part

    store, queries = run.encode(dataset, encoder, run.needed([mode]), cache, progress=progress)
    search = OfflineSearch(dataset.ids, store, queries, preset, limit=limit, progress=progress)
    return Part(dataset, search)


def _live(
    dataset: Dataset,
    encoder: M3Encoder,
    mode: TunedMode,
    preset: Preset,
    limit: int,
    connector: Connector,
    folder: Path,
    progress: Progress,
) -> Part:
    """A test collection over the vectors that a database holds."""
    from m3connect.evaluation import live, run
    from m3connect.evaluation.offline import OfflineSearch
    from m3connect.evaluation.tune import Part

    live.require(connector, encoder)
    legs = run.needed([mode])
    contents = live.read(connector, legs, folder, progress=progress)
    live.differences(dataset, contents)
    queries = encoder.encode([query.text for query in dataset.queries], kind="query", legs=legs)
    passages = max(1, round(len(contents.ids) / len(dataset.ids)))
    search = OfflineSearch(
        contents.ids, contents.store, queries, preset, limit=limit * passages, progress=progress
    )
    return Part(dataset, search, contents.documents)


def _notes(tuned: Tuned) -> dict[str, Any]:
    """What search takes from the collection; nothing, earlier choices included, for the default."""
    from m3connect.searching.search import DEPTH_NOTE, FUSION_NOTE, fusion_to_json

    if tuned.chosen == tuned.default:
        return {FUSION_NOTE: None, DEPTH_NOTE: None}
    return {
        FUSION_NOTE: fusion_to_json(tuned.chosen.fusion),
        DEPTH_NOTE: tuned.chosen.depth,
    }


def _json(tuned: Tuned, *, stored: bool) -> dict[str, Any]:
    from m3connect.searching.search import fusion_to_json

    def setting(chosen: Setting) -> dict[str, Any]:
        return {"fusion": fusion_to_json(chosen.fusion), "depth": chosen.depth}

    def trial(tried: Trial) -> dict[str, Any]:
        return {**setting(tried.setting), "mean": tried.mean}

    return {
        "metric": tuned.metric,
        "default": setting(tuned.default),
        "chosen": setting(tuned.chosen),
        "tuned_on": len(tuned.tuned_on),
        "held_out": len(tuned.held_out),
        "cross_validated": tuned.cross_validated,
        "before": asdict(tuned.before),
        "after": asdict(tuned.after),
        "gain": asdict(tuned.gain),
        "stored": stored,
        "trials": [trial(tried) for tried in tuned.trials],
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
    elif stored:
        typer.echo("Stored in the collection: search uses it from now on.", err=True)
