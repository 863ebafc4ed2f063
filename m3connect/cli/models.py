"""``m3connect models``: the checkpoints that are bundled or cached on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from m3connect.cli.options import Output


def models(*, printed: Output) -> None:
    """List the checkpoints that are bundled or in the hub's cache.

    - `m3connect models`
    - `m3connect models --json`
    """
    from m3connect.model.inventory import available

    checkpoints = sorted(available(), key=lambda listed: (listed.where, listed.name))
    if printed.as_json:
        typer.echo(json.dumps([asdict(listed) for listed in checkpoints]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "where", "representations", "dense", "token", "tokens", "MB", box=None)
    for listed in checkpoints:
        widths = (str(listed.dense_width), str(listed.multivector_width), str(listed.max_length))
        table.add_row(
            listed.name, listed.where, ", ".join(listed.legs), *widths, str(listed.megabytes)
        )
    Console(highlight=False).print(table)
    for listed in checkpoints:
        if listed.problem:
            typer.secho(f"{listed.name}: {listed.problem}", fg="yellow", err=True)
    typer.echo("Any M3 checkpoint on the hub is loaded by name: --model BAAI/bge-m3", err=True)
