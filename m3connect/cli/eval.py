"""``m3connect eval``: measure every mode on test collections."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli import eval_options, options
from m3connect.cli.eval_options import (
    Cache,
    Datasets,
    FusionName,
    Language,
    LimitQueries,
    PresetName,
    Qrels,
    RrfK,
    Seed,
    Weights,
)
from m3connect.cli.options import Backend, Device, Dtype, Json, Model

if TYPE_CHECKING:
    from m3connect.evaluation.run import Result


def evaluate(
    dataset: Datasets,
    *,
    qrels: Qrels = None,
    language: Language = "",
    limit_queries: LimitQueries = None,
    seed: Seed = 0,
    modes: Annotated[
        str, typer.Option(help="Between commas; none for baselines alone.")
    ] = "dense,sparse,multivector,dense+sparse,all",
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="bm25 (stemmed words) or bm25-model (the model's tokens); repeatable."),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Between commas, such as ndcg@10,recall@100,answer_recall@20.")
    ] = "ndcg@10,mrr@10,recall@10,recall@100",
    preset: PresetName = None,
    fusion: FusionName = None,
    weights: Weights = None,
    rrf_k: RrfK = 60.0,
    cache: Cache = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for results.json, tables and run files.", show_default=False),
    ] = None,
    model: Model = options.DEFAULT_MODEL,
    backend: Backend = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Measure retrieval on test collections, in every mode.

    - `m3connect eval --dataset scifact --baseline bm25`
    - `m3connect eval --dataset a --dataset b --model BAAI/bge-m3 --preset miracl --output report`
    - `m3connect eval --dataset legal --modes dense,all --limit-queries 200 --json`
    """
    from m3connect.cli.progress import progress_bar
    from m3connect.evaluation import extra, report, run

    extra.check()
    names = eval_options.split(metrics)
    chosen = eval_options.parse_modes(modes)
    baselines = eval_options.parse_baselines(baseline or [])
    collections = [
        eval_options.open_dataset(name, qrels, language, limit_queries, seed) for name in dataset
    ]
    for collection in collections:
        run.check(names, collection)
    encoder = options.load_encoder(model, backend, device, dtype)
    settings = eval_options.choose_preset(encoder.info, preset, fusion, weights, rrf_k)
    results = []
    for collection in collections:
        record = report.RunFiles(output / "runs", collection.name) if output else None
        with progress_bar(quiet=not sys.stderr.isatty()) as progress:
            result = run.evaluate(
                collection,
                encoder,
                modes=chosen,
                baselines=baselines,
                preset=settings,
                names=names,
                cache=cache or eval_options.default_cache(),
                progress=progress,
                record=record,
            )
        results.append(result)
    if output is not None:
        report.write(results, output)
    if as_json:
        typer.echo(json.dumps(report.summary(results)))
    else:
        show(results, names)


def show(results: Sequence[Result], metrics: Sequence[str]) -> None:
    """Print one table a metric on stdout, and what was odd on stderr."""
    from m3connect.evaluation import report

    for metric in metrics:
        typer.echo(report.markdown(results, metric) + "\n")
    for result in results:
        for warning in result.warnings:
            typer.secho(f"{result.dataset}: {warning}", fg="yellow", err=True)
