"""What a mode is, once: which legs bring candidates, which score them, how, and how deep.

| mode | candidates | score |
|---|---|---|
| ``dense``, ``sparse`` | its own leg | that leg's |
| ``hybrid`` | dense and sparse, each its best ``depth`` | both, fused |
| ``multivector`` | the same | MaxSim alone |
| ``all`` | the same | all three, fused |

One pool for the three modes of several legs: they differ in how candidates are scored and in nothing
else, so a comparison of modes compares scores, and a passage that shares only a rare term with the query
is not lost before MaxSim sees it. A mode is turned into a :class:`m3connect.types.Query` by
:func:`to_query`: search, evaluation (offline and live), tuning and mining ask that one question.

The paper's own pools are presets. Their ``all`` scores the dense leg's candidates only
(:attr:`Setting.pool`), which no database can be asked: :func:`for_database` makes it the union.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from m3connect.connecting.checks import check_fusion
from m3connect.contract import ModelInfo
from m3connect.errors import ConfigError, InputError
from m3connect.filters import AnyFilter
from m3connect.searching.names import ALIASES, MODES, TUNED, FusedMode, Mode, TunedMode
from m3connect.types import LEGS, Embeddings, Fusion, Leg, Query, Rrf, Weighted

log = logging.getLogger(__name__)

Pool = Literal["union", "dense", "everything"]
"""Who is scored: the best of dense and sparse, of dense alone, or every record (MaxSim alone)."""

DEPTH = 100
"""Candidates that the dense and the sparse leg bring each, where nothing else is said."""

_SCORED: dict[Mode, tuple[Leg, ...]] = {
    "dense": ("dense",),
    "sparse": ("sparse",),
    "multivector": ("multivector",),
    "hybrid": ("dense", "sparse"),
    "all": ("dense", "sparse", "multivector"),
}
_POOLS: dict[Pool, tuple[Leg, ...]] = {
    "union": ("dense", "sparse"),
    "dense": ("dense",),
    "everything": (),
}
# MaxSim alone decides: the other legs' scores are neither needed nor made.
_MAXSIM_ALONE = Weighted(dense=0.0, sparse=0.0, multivector=1.0, rescore=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """How a mode of several legs makes one score.

    Args:
        fusion: of the legs' scores.
        depth: candidates that each leg of the pool brings.
        pool: which legs bring them.
    """

    fusion: Fusion
    depth: int = DEPTH
    pool: Pool = "union"

    def to_json(self) -> dict[str, Any]:
        """As a note for the collection.

        >>> Setting.from_json(Setting(Rrf(k=10), 50).to_json()) == Setting(Rrf(k=10), 50)
        True
        """
        return {"fusion": fusion_to_json(self.fusion), "depth": self.depth}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Setting:
        """From what :meth:`to_json` gave.

        Raises:
            ConfigError: a key is missing or unknown.
        """
        if set(values) != {"fusion", "depth"}:
            raise ConfigError(f"{dict(values)} is no fusion and depth")
        return cls(fusion_from_json(values["fusion"]), int(values["depth"]))


@dataclass(frozen=True, slots=True)
class Preset:
    """The settings of the modes of several legs.

    Args:
        name: for reports.
        hybrid, all: fusion and candidates.
        multivector: candidates; its fusion is MaxSim alone.
        quantised: sparse weights of ``sparse`` and ``hybrid`` become ``ceil(100 w) / 100``, as in
            the paper's published scripts.
        grows: whether a limit above a depth raises it; the paper's pools stay as published.

    Raises:
        ConfigError: a mode other than ``multivector`` is to score everything.
    """

    name: str
    hybrid: Setting
    all: Setting
    multivector: Setting = Setting(_MAXSIM_ALONE)
    quantised: bool = False
    grows: bool = True

    def __post_init__(self) -> None:
        if "everything" in {self.hybrid.pool, self.all.pool}:
            raise ConfigError("only the mode multivector can score everything")

    def setting(self, mode: FusedMode) -> Setting:
        """The setting of a mode of several legs."""
        settings: dict[FusedMode, Setting] = {
            "hybrid": self.hybrid,
            "all": self.all,
            "multivector": self.multivector,
        }
        return settings[mode]

    @property
    def depth(self) -> int:
        """Candidates of the deepest mode."""
        return max(self.hybrid.depth, self.all.depth, self.multivector.depth)

    def with_setting(self, mode: TunedMode, setting: Setting) -> Preset:
        """The preset with another setting of one mode."""
        if mode == "hybrid":
            return replace(self, hybrid=setting)
        return replace(self, all=setting)


def _paper(name: str, hybrid: Fusion, every: Fusion, *, quantised: bool = False) -> Preset:
    """Pools of section 4.1: union of the top 1000 for two legs, the dense top 200 for the others."""
    return Preset(
        name,
        hybrid=Setting(hybrid, 1000),
        all=Setting(every, 200, "dense"),
        multivector=Setting(_MAXSIM_ALONE, 200, "dense"),
        quantised=quantised,
        grows=False,
    )


MIRACL = _paper("miracl", Weighted(1, 0.3, 0), Weighted(1, 0.3, 1))
"""M3 paper, section 4.1."""
MKQA = replace(MIRACL, name="mkqa")
"""Section 4.2 repeats the weights and gives no pools: MIRACL's are taken."""
MLDR = _paper("mldr", Weighted(0.2, 0.8, 0), Weighted(0.15, 0.5, 0.35))
"""Section 4.3."""
MLDR_SCRIPTS = _paper(
    "mldr-scripts",
    Weighted(0.2, 0.8, 0, rescore=False),
    Weighted(0.15, 0.5, 0.35),
    quantised=True,
)
"""As the published scripts compute section 4.3: quantised lexical weights, and a candidate that a
leg did not return gets 0 from it."""

PRESETS = {preset.name: preset for preset in (MIRACL, MKQA, MLDR, MLDR_SCRIPTS)}
PAPER = "paper"
"""The preset with the paper's pools and the weights that the model recommends."""


def preset_for(info: ModelInfo, name: str | None = None) -> Preset:
    """A preset by name; without one, what :func:`m3connect.search` does by default.

    Args:
        info: of the model, whose recommended weights count where the preset names none.
        name: of a published one, or ``paper``: the paper's pools with the model's weights.

    Raises:
        ConfigError: no such preset.
    """
    dense, sparse, multivector = info.weights
    hybrid, every = Weighted(dense, sparse, 0), Weighted(dense, sparse, multivector)
    if name is None:
        return Preset("model", Setting(hybrid), Setting(every))
    if name == PAPER:
        return _paper(PAPER, hybrid, every)
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {sorted([*PRESETS, PAPER])}")
    return PRESETS[name]


def for_database(preset: Preset, depth: int | None = None) -> Preset:
    """The preset as a database can be asked: every pool the union, depths that grow.

    Args:
        preset: gives the fusions.
        depth: of every mode; default: the preset's own.
    """

    def union(setting: Setting) -> Setting:
        return Setting(setting.fusion, setting.depth if depth is None else depth)

    return replace(
        preset,
        hybrid=union(preset.hybrid),
        all=union(preset.all),
        multivector=union(preset.multivector),
        quantised=False,
        grows=True,
    )


def with_fusion(
    preset: Preset,
    *,
    kind: Literal["rrf", "weighted"] | None = None,
    weights: tuple[float, float, float] | None = None,
    k: float = 60.0,
) -> Preset:
    """The preset with another fusion, other weights, or both.

    Raises:
        InputError: weights that are negative or no numbers, or a k below 1.

    >>> with_fusion(MIRACL, kind="rrf").all.fusion
    Rrf(k=60.0, dense=1.0, sparse=1.0, multivector=1.0)
    >>> with_fusion(MIRACL, weights=(0.5, 0.2, 0.3)).hybrid.fusion
    Weighted(dense=0.5, sparse=0.2, multivector=0.0, rescore=True)
    """
    if weights is None and kind != "rrf":
        return preset
    dense, sparse, multivector = weights or (1.0, 1.0, 1.0)
    hybrid: Fusion = Weighted(dense, sparse, 0.0)
    every: Fusion = Weighted(dense, sparse, multivector)
    if kind == "rrf":
        hybrid, every = Rrf(k, dense, sparse, 0.0), Rrf(k, dense, sparse, multivector)
    check_fusion(every)
    return replace(
        preset,
        hybrid=replace(preset.hybrid, fusion=hybrid),
        all=replace(preset.all, fusion=every),
    )


# ---------------------------------------------------------------------------- names and their legs


def parse_mode(name: str) -> Mode:
    """A mode by its name; ``dense+sparse`` is ``hybrid``.

    >>> parse_mode("dense+sparse")
    'hybrid'

    Raises:
        InputError: an unknown mode.
    """
    known: dict[str, Mode] = {mode: mode for mode in MODES} | ALIASES
    if name not in known:
        raise InputError(f"mode is one of {', '.join(MODES)}, got {name!r}")
    return known[name]


def scored_legs(mode: Mode) -> tuple[Leg, ...]:
    """The legs whose scores a mode's score is made of: what a collection must store.

    >>> scored_legs("multivector")
    ('multivector',)
    """
    return _SCORED[mode]


def legs_of(mode: Mode, preset: Preset | None = None) -> tuple[Leg, ...]:
    """The legs that a mode asks: those that bring candidates and those that score.

    >>> legs_of("multivector"), legs_of("multivector", MIRACL)
    (('dense', 'sparse', 'multivector'), ('dense', 'multivector'))
    """
    legs = set(_SCORED[mode]) | set(_candidate_legs(mode, preset))
    return tuple(leg for leg in LEGS if leg in legs)


def needed(
    modes: Iterable[Mode], preset: Preset | None = None, *, available: Iterable[Leg] = LEGS
) -> tuple[Leg, ...]:
    """The legs that modes ask, less those that only bring candidates and are not there.

    >>> needed(["hybrid", "dense"])
    ('dense', 'sparse')
    """
    legs: set[Leg] = set()
    for mode in modes:
        legs |= set(scored_legs(mode)) | (set(legs_of(mode, preset)) & set(available))
    return tuple(leg for leg in LEGS if leg in legs)


def _candidate_legs(mode: Mode, preset: Preset | None) -> tuple[Leg, ...]:
    if mode == "dense" or mode == "sparse":  # noqa: PLR1714 - mypy narrows no set
        return _SCORED[mode]
    return _POOLS["union" if preset is None else preset.setting(mode).pool]


# ------------------------------------------------------------------------------ mode -> one query


def to_query(
    mode: Mode,
    preset: Preset,
    text: Embeddings,
    *,
    limit: int,
    filter: AnyFilter | None = None,  # noqa: A002 - the field's word
    rerank: int | None = None,
    leg_scores: bool = False,
) -> Query:
    """The search that a mode stands for.

    A leg that only brings candidates and that ``text`` lacks is left out; a multi-vector that is
    left alone meets every record.

    Args:
        mode: what to search.
        preset: depths and fusions.
        text: the query's embeddings, a batch of one.
        limit: how many hits.
        filter: which records may be found.
        rerank: order the best so many by MaxSim alone, in the mode ``all``.
        leg_scores: whether hits carry the score of each leg.
    """
    vectors = _vectors(text)
    searched = {leg: vectors[leg] for leg in legs_of(mode, preset) if leg in vectors}
    if mode == "dense" or mode == "sparse" or len(searched) == 1:  # noqa: PLR1714
        return Query(**searched, filter=filter, limit=limit, leg_scores=leg_scores)
    setting = preset.setting(mode)
    depth = max(setting.depth, limit) if preset.grows else setting.depth
    return Query(
        **searched,
        dense_depth=depth,
        sparse_depth=depth,
        fusion=setting.fusion,
        rerank=rerank,
        filter=filter,
        limit=limit,
        leg_scores=leg_scores,
    )


def to_queries(mode: Mode, preset: Preset, texts: Embeddings, *, limit: int) -> list[Query]:
    """:func:`to_query` for every text of a batch."""
    return [to_query(mode, preset, texts[row], limit=limit) for row in range(len(texts))]


def vectors(text: Embeddings) -> Query:
    """A query with every representation of a batch of one, for scoring alone."""
    return Query(**_vectors(text))


def _vectors(text: Embeddings) -> dict[str, Any]:
    vectors: dict[str, Any] = {}
    if text.dense is not None:
        vectors["dense"] = text.dense[0]
    if text.sparse is not None:
        vectors["sparse"] = text.sparse[0]
    if text.multivector is not None:
        vectors["multivector"] = text.multivector[0].astype(np.float32)
    return vectors


# -------------------------------------------------------------------- what a collection remembers


def note_of(mode: TunedMode) -> str:
    """The key of the collection's note that holds a mode's tuned setting.

    >>> note_of("hybrid")
    'mode.hybrid'
    """
    return f"mode.{mode}"


def tuned(preset: Preset, notes: Mapping[str, Any]) -> Preset:
    """The preset with what was tuned for a collection, mode by mode.

    A choice of before 0.1.0 names no mode and is not taken; a warning is logged.

    Args:
        preset: what holds where nothing was tuned.
        notes: of the collection.

    Raises:
        ConfigError: a note that is no setting.
    """
    if isinstance(old := notes.get("fusion"), Mapping) and "kind" in old:
        log.warning(
            "the collection's notes 'fusion' and 'depth' were tuned by an older m3connect for a mode "
            "that they do not name, and are not used: run 'm3connect tune --live' again; "
            'connector.annotate({"fusion": None, "depth": None}) removes them'
        )
    for mode in TUNED:
        if note := notes.get(note_of(mode)):
            preset = preset.with_setting(mode, Setting.from_json(note))
    return preset


def fusion_to_json(fusion: Fusion) -> dict[str, Any]:
    """As JSON values.

    >>> fusion_from_json(fusion_to_json(Rrf(k=10))) == Rrf(k=10)
    True
    """
    weights = {"dense": fusion.dense, "sparse": fusion.sparse, "multivector": fusion.multivector}
    if isinstance(fusion, Rrf):
        return {"kind": "rrf", "k": fusion.k, **weights}
    return {"kind": "weighted", "rescore": fusion.rescore, **weights}


def fusion_from_json(values: Mapping[str, Any]) -> Fusion:
    """From what :func:`fusion_to_json` gave.

    Raises:
        ConfigError: an unknown kind or key.
    """
    kinds: dict[Any, type[Rrf | Weighted]] = {"rrf": Rrf, "weighted": Weighted}
    options = dict(values)
    try:
        return kinds[options.pop("kind", None)](**options)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{dict(values)} is no fusion") from error
