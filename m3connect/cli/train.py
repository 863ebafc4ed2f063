"""``m3connect train``: run a training recipe."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli.options import Output

if TYPE_CHECKING:
    from m3connect.training.estimate import Forecast


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
    printed: Output,
) -> None:
    """Train a model by a recipe: one process here, many under torchrun or accelerate launch.

    - `m3connect train examples/training/unified.toml --dry-run`
    - `m3connect train recipe.toml --set data_directory=data --set optimizer.learning_rate=1e-5`
    - `torchrun --nproc-per-node 8 -m m3connect.training recipe.toml`
    """
    from m3connect import trainer
    from m3connect.cli.progress import progress_bar
    from m3connect.training.recipe import read_recipe

    trainer.check_installed()
    plan = read_recipe(recipe, overrides or [])
    if dry_run:
        from m3connect.training.estimate import forecast

        estimate = forecast(plan)
        if printed.as_json:
            typer.echo(json.dumps(asdict(estimate)))
        else:
            _print_plan(estimate, "queries" if plan.stage == "contrastive" else "texts")
        return
    with progress_bar() as progress:
        folder = trainer.train(plan, resume=resume, progress=progress)
    if _first_process():
        report = plan.output / "report.html"
        result = {"model": str(folder), "report": str(report)}
        typer.echo(json.dumps(result) if printed.as_json else f"model  {folder}\nreport {report}")


def _first_process() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _print_plan(estimate: Forecast, what: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("dataset", "tokens", "examples", "batches", f"{what} a batch")
    for line in estimate.lines:
        table.add_row(
            line.dataset,
            f"to {line.longest}",
            str(line.examples),
            str(line.batches),
            str(line.size),
        )
    console = Console()
    console.print(table)
    console.print(f"steps   {estimate.steps}")
    console.print(f"tokens  {estimate.tokens:,} through the encoder")
    for name, size in estimate.memory.items():
        console.print(f"memory  {size / 2**30:.2f} GiB  {name} (estimate)")
    console.print(f"time    {estimate.seconds / 60:.0f} minutes in one process here (estimate)")
