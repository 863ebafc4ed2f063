"""``m3connect eval``: measure every mode on test collections, offline or through a database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3connect.cli import eval_options
from m3connect.cli.eval_options import (
    Cache,
    Datasets,
    Language,
    LimitQueries,
    PresetName,
    Qrels,
    Seed,
)
from m3connect.cli.lists import names
from m3connect.cli.options import FusionChoice, Live, Mark, ModelChoice, Output, Target
from m3connect.cli.reading import Cutting
from m3connect.cli.running import given_as_flags
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.datasets.beir import Dataset
    from m3connect.evaluation.measure import Result


def evaluate(
    dataset: Datasets,
    *,
    qrels: Qrels = None,
    language: Language = "",
    limit_queries: LimitQueries = None,
    seed: Seed = 0,
    modes: Annotated[
        str, typer.Option(metavar="LIST", help="What to measure; none for baselines alone.")
    ] = "dense,sparse,multivector,hybrid,all",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="bm25 (stemmed words), bm25-model (the model's tokens), dense+bm25 (their best rank "
            "fusion).",
        ),
    ] = None,
    storage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Also try what can be stored smaller: dense128, top64 (terms), pool2, width128, int8, "
            "binary (token vectors), and several at once: pool2-int8.",
        ),
    ] = None,
    metrics: Annotated[
        str, typer.Option(metavar="LIST", help="Such as ndcg@10,recall@100,answer_recall@20.")
    ] = "ndcg@10,mrr@10,recall@10,recall@100",
    preset: PresetName = None,
    fusion: FusionChoice,
    cache: Cache = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for results.json, tables and run files.",
            show_default=False,
        ),
        Mark.WRITES,
    ] = None,
    passages: Annotated[
        bool,
        typer.Option(
            "--passages",
            help="Cut the documents as ingest does; each counts by its best passage. With --live: "
            "see that the collection was cut so.",
            rich_help_panel="Passages",
        ),
    ] = False,
    cutting: Cutting,
    no_qrels: Annotated[
        bool,
        typer.Option(
            "--no-qrels",
            help="Make queries out of the documents themselves: their titles, headings and "
            "sentences, taken out of the passages that they must find. Each --dataset may be whatever "
            "ingest reads.",
        ),
    ] = False,
    threshold: Annotated[
        bool,
        typer.Option(
            "--threshold",
            help="Also print the score of the best hit that tells queries with a relevant document from "
            "those without.",
        ),
    ] = False,
    live: Live = False,
    filter: eval_options.LiveFilter = None,  # noqa: A002 - the option's name
    depth: Annotated[
        int | None,
        typer.Option(
            help="Candidates of every leg there. Default: the preset's; without one the "
            "collection's, else 100.",
            rich_help_panel="Target",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        bool,
        typer.Option(help="Search the vectors there exactly, too.", rich_help_panel="Target"),
    ] = True,
    where: Target,
    model: ModelChoice,
    printed: Output,
) -> None:
    """Measure retrieval on test collections, in every mode.

    - `m3connect eval --dataset scifact --baseline bm25`
    - `m3connect eval --dataset a --dataset b --model BAAI/bge-m3 --preset miracl --output report`
    - `m3connect eval --dataset legal --modes dense,all --limit-queries 200 --json`
    - `m3connect eval --dataset manuals --passages --chunk-tokens 128 --baseline bm25`
    - `m3connect eval --dataset docs/ --no-qrels --baseline bm25`
    - `m3connect eval --dataset legal --live --collection legal --threshold`
    """
    from m3connect.cli.progress import progress_bar
    from m3connect.evaluation import known_items, measure, requires, run
    from m3connect.evaluation import live as databases
    from m3connect.evaluation.reports import files, tables

    requires.check()
    eval_options.check_live(live=live, filter=filter)
    eval_options.check_passages(passages=passages or no_qrels)
    if no_qrels and (qrels or live or passages):
        clash = "--qrels" if qrels else "--live" if live else "--passages"
        raise ConfigError(
            f"--no-qrels makes queries and passages of its own out of documents: leave {clash} out"
        )
    if "depth" in given_as_flags() and not live:
        raise ConfigError("--depth is of searches in a database: give --live, or take a --preset")
    fusion.check()
    if not names(dataset):
        raise ConfigError("--dataset names none, such as a folder in the BEIR layout")
    measured = names(metrics)
    if not measured:
        raise ConfigError("--metrics names none, such as ndcg@10,recall@100")
    chosen = eval_options.parse_modes(modes)
    baselines = eval_options.parse_baselines(names(baseline))
    if not (chosen or baselines or names(storage)):
        raise ConfigError("nothing to measure: --modes none goes with --baseline or --storage")
    home = cache or eval_options.default_cache()
    encoder = model.load() if no_qrels else None  # else what is wrong with the data is said first
    if encoder is not None:
        cutter = eval_options.chunker(encoder, cutting)
        opened = eval_options.known_items(
            names(dataset), cutter, output or home, limit_queries, seed, language
        )
    else:
        opened = eval_options.open_datasets(
            names(dataset), qrels, language, limit_queries, seed, live=live
        )
    _check_names(opened)
    for each in opened:
        measure.check(measured, each)
    encoder = encoder or model.load()
    chunker = eval_options.chunker(encoder, cutting) if passages else None
    settings = None  # what search does by default
    if preset or fusion.fusion or fusion.weights:
        settings = eval_options.choose_preset(encoder.info, preset, fusion)
    results = []
    for each in opened:
        record = files.RunFiles(output / "runs", each.name) if output else None
        with progress_bar() as progress:
            result = run.evaluate(
                each,
                encoder,
                modes=() if live else chosen,
                beside=baselines,
                storages=names(storage),
                preset=settings,
                passages=chunker,
                names=measured,
                cache=home,
                progress=progress,
                record=record,
            )
            if live:
                with where.open() as connector:
                    live_result = databases.evaluate(
                        each,
                        encoder,
                        connector,
                        modes=chosen,
                        preset=settings,
                        depth=depth,
                        filter=filter,
                        passages=chunker,
                        names=measured,
                        reference=reference,
                        progress=progress,
                        record=record,
                    )
                result = replace(
                    live_result,
                    rows=(*live_result.rows, *result.rows),
                    warnings=tuple(dict.fromkeys((*live_result.warnings, *result.warnings))),
                )
        results.append(result)
    if output is not None:
        files.write(results, output)
    if printed.as_json:
        typer.echo(json.dumps(_summary(results, threshold=threshold)))
    else:
        _show(results, measured)
        if threshold and (found := tables.thresholds(results)):
            typer.echo(found.markdown() + "\n")
        if storage:
            typer.echo(tables.sizes(results, measured[0]).markdown() + "\n")
    for result in results:
        eval_options.warn(result.dataset, result.warnings)
        if threshold and not any(row.threshold for row in result.rows):
            eval_options.warn(result.dataset, ["no score tells queries with an answer from others"])
    if no_qrels:
        typer.secho(known_items.LIMITS, fg="yellow", err=True)


def _check_names(opened: Sequence[Dataset]) -> None:
    """Results and files go by the datasets' names: no two may share one."""
    from m3connect.evaluation.reports.files import file_name

    names = [file_name(each.name) for each in opened]
    if any(names.count(name) > 1 for name in names):
        folders = [
            str(each.folder)
            for each, name in zip(opened, names, strict=True)
            if names.count(name) > 1
        ]
        raise ConfigError(f"datasets go by their folder's name, and {folders} share theirs")


def _summary(results: Sequence[Result], *, threshold: bool) -> dict[str, Any]:
    """Means by dataset and row; with the thresholds, where they are asked for."""
    from m3connect.evaluation.reports import tables

    summary: dict[str, Any] = tables.summary(results)
    for result in results if threshold else ():
        for row in result.rows:
            if row.threshold:
                summary[result.dataset][row.name]["threshold"] = row.threshold.score
    return summary


def _show(results: Sequence[Result], metrics: Sequence[str]) -> None:
    """Print one table a metric, and one of latencies."""
    from m3connect.evaluation.reports import tables

    for metric in metrics:
        typer.echo(tables.figures(results, metric).markdown() + "\n")
    if live := tables.live(results):
        typer.echo(live.markdown() + "\n")
