"""``m3connect train``: run a training recipe."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli.options import Output
from m3connect.errors import ConfigError

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
    processes: Annotated[
        int, typer.Option(min=1, help="Cards that would share the run, for --dry-run.")
    ] = 1,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            metavar="TOKENS",
            help="Tokens a second of each, for --dry-run. Default: measured here, with a few texts.",
            show_default=False,
        ),
    ] = None,
    printed: Output,
) -> None:
    """Train a model by a recipe: one process here, many under torchrun or accelerate launch.

    - `m3connect train examples/training/unified.toml --dry-run`
    - `m3connect train examples/training/unified.toml --dry-run --processes 8 --rate 20000`
    - `m3connect train recipe.toml --set data_directory=data --set optimizer.learning_rate=1e-5`
    - `torchrun --nproc-per-node 8 -m m3connect.training recipe.toml`
    """
    from m3connect import trainer
    from m3connect.cli.progress import progress_bar
    from m3connect.training.recipe import read_recipe

    if not dry_run and (processes != 1 or rate is not None):
        raise ConfigError(
            "--processes and --rate are for --dry-run; torchrun starts many processes"
        )
    trainer.check_installed()
    plan = read_recipe(recipe, overrides or [])
    if dry_run:
        from m3connect.training.estimate import forecast

        trainer.make_evaluate(plan)  # refused as the run would be
        estimate = forecast(plan, processes, rate)
        if printed.as_json:
            typer.echo(json.dumps(asdict(estimate)))
        else:
            what = "queries" if plan.stage == "contrastive" else "texts"
            _print_plan(estimate, what, "measured here" if rate is None else "given")
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


def _print_plan(estimate: Forecast, what: str, source: str) -> None:
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
    total = sum(estimate.memory.values()) / 2**30
    console.print(f"        {total:.2f} GiB  together, in each process")
    rate = f"{estimate.rate:,.0f}" if estimate.rate >= 10 else f"{estimate.rate:.2g}"
    console.print(f"rate    {rate} tokens a second and process ({source})")
    minutes = estimate.seconds / 60
    took = f"{minutes:.0f} minutes" if minutes < 600 else f"{minutes / 60:,.0f} hours"
    number = estimate.processes
    console.print(f"time    {took} in {number} process{'es' * (number != 1)} (estimate)")
