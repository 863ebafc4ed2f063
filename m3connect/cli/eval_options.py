"""Options that the evaluation commands share, and what they open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from m3connect.cli.lists import choices, names
from m3connect.cli.options import FusionChoice, Mark, Target
from m3connect.cli.reading import Cutting
from m3connect.cli.running import given_as_flags
from m3connect.errors import ConfigError, InputError

if TYPE_CHECKING:
    from m3connect.contract import Encoder, ModelInfo
    from m3connect.datasets.beir import Dataset
    from m3connect.evaluation.baselines import Baseline
    from m3connect.ingestion.chunking import Chunker
    from m3connect.searching.modes import Preset
    from m3connect.searching.names import Mode

Datasets = Annotated[
    list[str],
    typer.Option(
        "--dataset",
        metavar="LIST",
        help="Folders in the BEIR layout, or beir-NAME, nanobeir-NAME, miracl-LANG, mldr-LANG, "
        "mkqa-LANG.",
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
Seed = Annotated[int, typer.Option(min=0, help="Of what is drawn at random.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where embeddings are kept between runs. Default: the user's cache folder.",
        show_default=False,
    ),
    Mark.WRITES,
]
PresetName = Annotated[
    str | None,
    typer.Option(
        help="Published depths and weights: miracl, mkqa, mldr, mldr-scripts; or paper: MIRACL's "
        "depths with the checkpoint's weights. Default: what search does.",
        show_default=False,
    ),
]


LiveFilter = Annotated[
    str | None,
    typer.Option(
        help="""With --live: the records that count, such as 'tenant == "a"'.""",
        rich_help_panel="Target",
        show_default=False,
    ),
    Mark.FLAG_ONLY,
]


def check_live(*, live: bool, filter: str | None) -> None:  # noqa: A002 - the option's name
    """Options of the target that a flag gave ask for ``--live``: without it they would do nothing.

    Raises:
        ConfigError: such a flag was given without ``--live``.
        InputError: the filter does not parse.
    """
    from m3connect.filters import parse

    if filter is not None:
        parse(filter)  # a mistake in it is said before anything is loaded
    if filter is not None and not live:
        raise ConfigError("--filter chooses records of a collection: give --live to use one")
    if not live and (flag := _flag_of(Target)):
        raise ConfigError(f"{flag} names a collection in a database: give --live to use it")


def check_passages(*, passages: bool) -> None:
    """Options of cutting that a flag gave ask for ``--passages``: without it they would do nothing.

    Raises:
        ConfigError: such a flag was given without ``--passages``.
    """
    if not passages and (flag := _flag_of(Cutting)):
        raise ConfigError(f"{flag} is about passages: give --passages to cut the documents")


def _flag_of(group: type[Target | Cutting]) -> str | None:
    """The first option of a group that the command line gave."""
    flags = given_as_flags()
    given = (field.name for field in fields(group) if field.name in flags)
    return next(("--" + name.replace("_", "-") for name in given), None)


def chunker(encoder: Encoder, cutting: Cutting) -> Chunker:
    """What cuts the documents as the options say.

    Raises:
        ConfigError: the encoder cannot take passages of this size.
    """
    from m3connect.ingestion.chunking import Chunker

    return Chunker(
        encoder,
        tokens=cutting.chunk_tokens,
        overlap=cutting.chunk_overlap,
        context=cutting.contexts(),
    )


def open_dataset(
    name: str,
    qrels: str | None,
    language: str,
    limit_queries: int | None,
    seed: int,
    *,
    bare: bool = False,
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
    dataset = beir.load(folder, qrels=qrels, language=language, bare=bare)
    return dataset if limit_queries is None else dataset.sample(limit_queries, seed=seed)


def open_datasets(
    names: Sequence[str],
    qrels: str | None,
    language: str,
    limit_queries: int | None,
    seed: int,
    *,
    live: bool,
) -> list[Dataset]:
    """The test collections that options name; live there is one, whose corpus may be missing.

    Raises:
        ConfigError: live, and several collections.
        InputError: a file is missing or malformed.
    """
    if live and len(names) > 1:
        raise ConfigError("one collection holds one corpus: give one --dataset with --live")
    return [open_dataset(name, qrels, language, limit_queries, seed, bare=live) for name in names]


def known_items(
    sources: Sequence[str],
    chunker: Chunker,
    home: Path,
    limit_queries: int | None,
    seed: int,
    language: str,
) -> list[Dataset]:
    """Test collections whose queries are taken out of the documents, a few for each source.

    Raises:
        ConfigError: a source does not exist, two are called alike, or ``home`` lies in one.
        InputError: its documents give no query.
    """
    from m3connect.evaluation import known_items as items

    called = [items.called(source) for source in sources]
    if alike := [one for one, name in zip(sources, called, strict=True) if called.count(name) > 1]:
        raise ConfigError(
            f"their collections would share a name: {', '.join(alike)}; take one at a time"
        )
    return [
        made
        for source in sources
        for made in items.build(
            source,
            chunker,
            home / "known-items",
            queries=limit_queries or 200,
            seed=seed,
            language=language,
        )
    ]


def warn(dataset: str, warnings: Sequence[str]) -> None:
    """Say on stderr what was odd about a dataset."""
    for warning in warnings:
        typer.secho(f"{dataset}: {warning}", fg="yellow", err=True)


def parse_modes(text: str) -> tuple[Mode, ...]:
    """Modes between commas; ``none`` for none.

    Raises:
        InputError: an unknown mode.
        ConfigError: nothing at all.
    """
    from m3connect.searching.modes import parse_mode
    from m3connect.searching.names import MODES

    if not names(text):
        raise ConfigError("--modes names none, such as dense,all")
    asked = {parse_mode(name) for name in names(text)} if text != "none" else set()
    return tuple(mode for mode in MODES if mode in asked)


def parse_baselines(names: Sequence[str]) -> tuple[Baseline, ...]:
    """Baselines by name.

    Raises:
        ConfigError: an unknown baseline.
    """
    from m3connect.evaluation.baselines import Baseline

    chosen: tuple[Baseline, ...] = choices("--baseline", names, get_args(Baseline))
    return chosen


def choose_preset(info: ModelInfo, name: str | None, fusion: FusionChoice) -> Preset:
    """The preset that the options describe.

    Raises:
        ConfigError: an unknown preset, or weights that are not three numbers.
    """
    from m3connect.searching.modes import preset_for, with_fusion

    weights = fusion.parsed_weights()
    return with_fusion(preset_for(info, name), kind=fusion.fusion, weights=weights, k=fusion.rrf_k)


def default_cache() -> Path:
    """``m3connect/embeddings`` in the user's cache folder."""
    from m3connect.disk import cache_folder

    return cache_folder() / "embeddings"
