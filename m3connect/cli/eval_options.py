"""Options that the evaluation commands share, and what they open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from m3connect.errors import ConfigError, InputError

if TYPE_CHECKING:
    from m3connect.contract import ModelInfo
    from m3connect.datasets.beir import Dataset
    from m3connect.evaluation.baselines import Baseline
    from m3connect.searching.modes import Mode, Preset

Datasets = Annotated[
    list[str],
    typer.Option(
        "--dataset",
        help="Folder in the BEIR layout, or beir-NAME, nanobeir-NAME, miracl-LANG, mldr-LANG, "
        "mkqa-LANG; repeatable.",
    ),
]
Qrels = Annotated[
    str | None,
    typer.Option(
        help="Which judgements: NAME for qrels.NAME.tsv or qrels/NAME.tsv.", show_default=False
    ),
]
Language = Annotated[
    str, typer.Option(help="Language of texts that do not name theirs, for BM25's stemmer.")
]
LimitQueries = Annotated[
    int | None,
    typer.Option(help="At most so many queries, drawn at random.", min=1, show_default=False),
]
Seed = Annotated[int, typer.Option(help="Of what is drawn at random.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Where embeddings are kept between runs. Default: the user's cache folder.",
        show_default=False,
    ),
]
PresetName = Annotated[
    str | None,
    typer.Option(
        help="Published depths and weights: miracl, mkqa, mldr, mldr-scripts. Default: MIRACL's "
        "depths with the checkpoint's weights.",
        show_default=False,
    ),
]
FusionName = Annotated[
    Literal["rrf", "weighted"] | None,
    typer.Option("--fusion", help="Instead of the preset's.", show_default=False),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Fusion weights D,S,M instead of the preset's.", show_default=False),
]
RrfK = Annotated[float, typer.Option(help="k of reciprocal rank fusion.")]


def split(text: str) -> tuple[str, ...]:
    """Names between commas.

    >>> split("ndcg@10, mrr@10")
    ('ndcg@10', 'mrr@10')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def open_dataset(
    name: str, qrels: str | None, language: str, limit_queries: int | None, seed: int
) -> Dataset:
    """The test collection that the options name: a folder, or a published one.

    Raises:
        InputError: it is missing or malformed, or cannot be fetched.
    """
    from m3connect.datasets import beir, hub

    folder = Path(name)
    if not folder.exists():
        if not hub.is_name(name):
            raise InputError(f"--dataset {name}: no such folder, and no published set's name")
        folder = hub.folder(name, default_cache().parent / "datasets")
    dataset = beir.load(folder, qrels=qrels, language=language)
    return dataset if limit_queries is None else dataset.sample(limit_queries, seed=seed)


def open_datasets(
    names: Sequence[str],
    qrels: str | None,
    language: str,
    limit_queries: int | None,
    seed: int,
    target: str | None,
) -> list[Dataset]:
    """The test collections that options name; with a target there is one.

    Raises:
        ConfigError: a target and several collections.
        InputError: a file is missing or malformed.
    """
    if target is not None and len(names) > 1:
        raise ConfigError("one collection holds one corpus: give one --dataset with --target")
    return [open_dataset(name, qrels, language, limit_queries, seed) for name in names]


def warn(dataset: str, warnings: Sequence[str]) -> None:
    """Say on stderr what was odd about a dataset."""
    for warning in warnings:
        typer.secho(f"{dataset}: {warning}", fg="yellow", err=True)


def parse_modes(text: str) -> tuple[Mode, ...]:
    """Modes between commas; ``none`` for none.

    Raises:
        ConfigError: an unknown mode.
    """
    from m3connect.searching.modes import MODES

    names = () if text == "none" else split(text)
    if unknown := set(names) - set(MODES):
        raise ConfigError(f"no mode {sorted(unknown)}; there are {', '.join(MODES)}, or none")
    return tuple(mode for mode in MODES if mode in names)


def parse_baselines(names: Sequence[str]) -> tuple[Baseline, ...]:
    """Baselines by name.

    Raises:
        ConfigError: an unknown baseline.
    """
    from m3connect.evaluation.baselines import Baseline

    known: tuple[Baseline, ...] = get_args(Baseline)
    if unknown := set(names) - set(known):
        raise ConfigError(f"no baseline {sorted(unknown)}; there are {', '.join(known)}")
    return tuple(baseline for baseline in known if baseline in names)


def choose_preset(
    info: ModelInfo,
    name: str | None,
    fusion: Literal["rrf", "weighted"] | None,
    weights: str | None,
    k: float,
) -> Preset:
    """The preset that the options describe.

    Raises:
        ConfigError: an unknown preset, or weights that are not three numbers.
    """
    from m3connect.searching.modes import preset_for, with_fusion

    return with_fusion(preset_for(info, name), kind=fusion, weights=parse_weights(weights), k=k)


def parse_weights(text: str | None) -> tuple[float, float, float] | None:
    """Three numbers between commas.

    >>> parse_weights("1,0.3,1")
    (1.0, 0.3, 1.0)
    """
    if text is None:
        return None
    try:
        dense, sparse, multivector = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--weights takes D,S,M such as 1,0.3,1, got {text!r}") from error
    return dense, sparse, multivector


def default_cache() -> Path:
    """``m3connect/embeddings`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "m3connect" / "embeddings"
