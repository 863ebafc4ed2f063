"""``m3connect report``: the tables of evaluations that were written, or what one gained on another."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from m3connect.cli.lists import names as listed
from m3connect.cli.options import Output


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders that eval --output wrote. Rows and datasets of several stand together: "
            "modes from one, baselines from another.",
            show_default=False,
        ),
    ],
    *,
    base: Annotated[
        list[Path] | None,
        typer.Option(
            help="Compare with the evaluations in these folders: same datasets, another model. "
            "Repeatable.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[str, typer.Option(metavar="LIST", help="Metrics to show.")] = "ndcg@10",
    modes: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Modes and baselines. Default: all.", show_default=False),
    ] = None,
    intervals: Annotated[
        bool,
        typer.Option(
            "--intervals", help="With --base: a line a mode, with its interval and p-value."
        ),
    ] = False,
    printed: Output,
) -> None:
    """Print the tables of evaluations again, or compare two models query by query.

    - `m3connect report eval-trained eval-bm25`
    - `m3connect report eval-trained --base eval-base`
    - `m3connect report dev test --base dev-base --base test-base --modes dense,all --intervals`
    """
    from m3connect.errors import ConfigError, InputError
    from m3connect.evaluation import requires
    from m3connect.evaluation.reports import comparison, files, tables
    from m3connect.searching.names import ALIASES

    requires.check()
    if intervals and not base:
        raise ConfigError("--intervals shows differences: give the other evaluation with --base")
    found = [files.read(folder) for folder in folders]
    beneath = [files.read(folder) for folder in base or ()]
    for warning in comparison.unlike(chain.from_iterable((*found, *beneath))):
        typer.secho(warning, fg="yellow", err=True)
    new = comparison.join(found)
    if modes is not None:
        new = comparison.only(new, [ALIASES.get(name, name) for name in listed(modes)])
    names = listed(metrics)
    known = dict.fromkeys(name for result in new for row in result.rows for name in row.figures)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{unknown} was not measured; there are {list(known)}")
    if not base:
        shown = [tables.figures(new, metric).markdown() for metric in names]
        typer.echo(json.dumps(tables.summary(new)) if printed.as_json else "\n\n".join(shown))
        return
    old = comparison.join(beneath)
    gains = [comparison.compare(old, new, metric) for metric in names]
    left_out = {result.dataset for result in new} ^ {result.dataset for result in old}
    if left_out:
        typer.secho(f"only in one of the two: {', '.join(sorted(left_out))}", fg="yellow", err=True)
    tables_of = comparison.long if intervals else comparison.short
    if printed.as_json:
        typer.echo(json.dumps({each.metric: comparison.to_json(each) for each in gains}))
    else:
        typer.echo("\n\n".join(table.markdown() for each in gains for table in tables_of(each)))
