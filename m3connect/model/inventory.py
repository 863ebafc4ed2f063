"""The checkpoints on this machine: bundled with an installed package, or in the hub's cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m3connect.errors import CheckpointError, ConfigError
from m3connect.model.checkpoint import open_checkpoint
from m3connect.model.hub import bundled
from m3connect.types import LEGS


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
        problem: why it cannot be loaded; then it has no representations, and all sizes but that are 0.
    """

    name: str
    where: str
    legs: tuple[str, ...]
    dense_width: int
    multivector_width: int
    max_length: int
    megabytes: int
    problem: str = ""


def available() -> Iterator[Listed]:
    """Every checkpoint that is there without a download; of a broken one, what is wrong with it."""
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
    size = round(sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6)
    try:
        config = open_checkpoint(folder, name).config
    except (CheckpointError, ConfigError) as error:  # half a download, or torch is needed
        return Listed(name, where, (), 0, 0, 0, size, str(error))
    widths = config.dense_width, config.multivector_width
    return Listed(name, where, LEGS, *widths, config.max_length, size)
