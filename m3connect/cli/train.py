"""``m3connect train``: run a training recipe."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli.options import Json
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from m3connect.training.estimate import Forecast
    from m3connect.training.loop import Evaluate
    from m3connect.training.recipe import EvaluationTable, Recipe
    from m3connect.training.trainable import Trainable


def train(
    recipe: Annotated[Path, typer.Argument(help="TOML file; see examples/training.")],
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="TABLE.KEY=VALUE in place of the recipe's; repeatable."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the output folder.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, memory and time; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model by a recipe: one process here, many under torchrun or accelerate launch.

    - `m3connect train examples/training/unified.toml --dry-run`
    - `m3connect train recipe.toml --set data_directory=data --set optimizer.learning_rate=1e-5`
    - `torchrun --nproc-per-node 8 -m m3connect.training recipe.toml`
    """
    try:
        from m3connect.training.loop import train as run
    except ImportError as error:
        raise ConfigError(
            'training needs more packages: pip install "m3connect[training]"'
        ) from error
    from m3connect.training.estimate import forecast
    from m3connect.training.log import write_report
    from m3connect.training.recipe import read_recipe

    plan = read_recipe(recipe, overrides or [])
    if dry_run:
        found = forecast(plan)
        if as_json:
            typer.echo(json.dumps(asdict(found)))
        else:
            _print_plan(found, "queries" if plan.stage == "contrastive" else "texts")
        return
    evaluate = _evaluator(plan, plan.evaluation) if plan.evaluation else None
    folder = run(plan, evaluate=evaluate, resume=resume)
    if _first_process():
        report = write_report(plan)
        result = {"model": str(folder), "report": str(report)}
        typer.echo(json.dumps(result) if as_json else f"model  {folder}\nreport {report}")


def _first_process() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _evaluator(recipe: Recipe, table: EvaluationTable) -> Evaluate:
    """Measures a model in training on small copies of the development sets.

    Multi-vectors score every document, not the dense leg's candidates: one leg is measured alone.

    Raises:
        ConfigError: the extra ``eval`` is missing.
        InputError: a set is missing or malformed.
    """
    import numpy as np

    from m3connect.datasets import beir
    from m3connect.datasets.write import small_copy
    from m3connect.evaluation import requires
    from m3connect.evaluation import run as evaluation
    from m3connect.inference import M3Encoder
    from m3connect.inference.torch_backend import TorchBackend
    from m3connect.searching.modes import preset_for

    requires.check()
    sets = [
        small_copy(
            beir.load(recipe.data_directory / name),
            recipe.output / "development" / Path(name).name,
            queries=table.queries,
            documents=table.documents,
            seed=recipe.seed,
        )
        for name in table.datasets
    ]

    def evaluate(trainable: Trainable) -> Mapping[str, float]:
        encoder = M3Encoder(
            trainable.config, trainable.tokenizer, "", TorchBackend(trainable.model)
        )
        preset = replace(preset_for(encoder.info), rerank_depth=None)
        rows = [
            row
            for dataset in sets
            for row in evaluation.evaluate(
                dataset, encoder, modes=recipe.measured, preset=preset, names=("ndcg@10",)
            ).rows
        ]
        modes = dict.fromkeys(row.name for row in rows)
        return {
            mode: float(
                np.mean([row.figures["ndcg@10"].mean() for row in rows if row.name == mode])
            )
            for mode in modes
        }

    return evaluate


def _print_plan(found: Forecast, what: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("dataset", "tokens", "examples", "batches", f"{what} a batch")
    for line in found.lines:
        table.add_row(
            line.dataset,
            f"to {line.longest}",
            str(line.examples),
            str(line.batches),
            str(line.size),
        )
    console = Console()
    console.print(table)
    console.print(f"steps   {found.steps}")
    console.print(f"tokens  {found.tokens:,} through the encoder")
    for name, size in found.memory.items():
        console.print(f"memory  {size / 2**30:.2f} GiB  {name} (estimate)")
    console.print(f"time    {found.seconds / 60:.0f} minutes in one process here (estimate)")
