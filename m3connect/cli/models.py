"""``m3connect models``: the checkpoints that are bundled or cached on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from m3connect.cli.options import Output


@dataclass(frozen=True, slots=True)
class Listed:
    """One checkpoint.

    Args:
        name: what ``--model`` takes.
        where: ``bundled`` or ``cached``.
        legs: its representations.
        dense_width, multivector_width: D and C.
        max_length: longest input in tokens.
        megabytes: of its files.
    """

    name: str
    where: str
    legs: tuple[str, ...]
    dense_width: int
    multivector_width: int
    max_length: int
    megabytes: int


def models(*, printed: Output) -> None:
    """List the checkpoints that are bundled or in the hub's cache.

    - `m3connect models`
    - `m3connect models --json`
    """
    found = sorted(_found(), key=lambda listed: (listed.where, listed.name))
    if printed.as_json:
        typer.echo(json.dumps([asdict(listed) for listed in found]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "where", "representations", "dense", "token", "tokens", "MB", box=None)
    for listed in found:
        widths = (str(listed.dense_width), str(listed.multivector_width), str(listed.max_length))
        table.add_row(
            listed.name, listed.where, ", ".join(listed.legs), *widths, str(listed.megabytes)
        )
    Console(highlight=False).print(table)
    typer.echo("Any M3 checkpoint on the hub is loaded by name: --model BAAI/bge-m3", err=True)


def _found() -> Iterator[Listed]:
    from m3connect.model.hub import bundled

    for name, folder in bundled().items():
        yield _listed(name, "bundled", folder)
    for name, folder in _cached():
        yield _listed(name, "cached", folder)


def _cached() -> Iterator[tuple[str, Path]]:
    """M3 checkpoints in the hub's cache: those with heads."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repo in repos:
        for revision in repo.revisions:
            files = {file.file_name for file in revision.files}
            if files & {"m3.json", "sparse_linear.pt"}:
                yield repo.repo_id, revision.snapshot_path


def _listed(name: str, where: str, folder: Path) -> Listed:
    from m3connect.model.checkpoint import open_checkpoint
    from m3connect.types import LEGS

    config = open_checkpoint(folder, name).config
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return Listed(
        name,
        where,
        LEGS,
        config.dense_width,
        config.multivector_width,
        config.max_length,
        round(size / 1e6),
    )
