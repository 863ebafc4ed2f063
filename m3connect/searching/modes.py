"""What a mode searches and how it fuses, with the published settings as presets.

A mode is turned into a :class:`m3connect.types.Query`, so that a database and the exact search
offline are asked the same. One thing no database can express: the paper's ``all`` scores the best of
the dense leg only (:attr:`Preset.pool`); :func:`for_database` makes it the union.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from m3connect.contract import ModelInfo
from m3connect.errors import ConfigError
from m3connect.types import Embeddings, Fusion, Leg, Query, Rrf, Weighted

Mode = Literal["dense", "sparse", "multivector", "dense+sparse", "all"]
MODES: tuple[Mode, ...] = get_args(Mode)

_LEGS: dict[Mode, tuple[Leg, ...]] = {
    "dense": ("dense",),
    "sparse": ("sparse",),
    "multivector": ("dense", "multivector"),
    "dense+sparse": ("dense", "sparse"),
    "all": ("dense", "sparse", "multivector"),
}


@dataclass(frozen=True, slots=True)
class Preset:
    """Depths, weights and candidates of the modes.

    Args:
        name: for reports.
        pair: fusion of ``dense+sparse``.
        triple: fusion of ``all``.
        pair_depth: candidates that each leg brings to ``dense+sparse``.
        rerank_depth: candidates that ``multivector`` and ``all`` score; None lets ``multivector``
            search the whole collection (and ``all`` score 200).
        pool: whose candidates ``all`` scores: the dense leg's, as the paper does, or the union.
        quantised: sparse weights of ``sparse`` and ``dense+sparse`` become ``ceil(100 w) / 100``,
            as in the paper's published scripts.
    """

    name: str
    pair: Fusion
    triple: Fusion
    pair_depth: int = 1000
    rerank_depth: int | None = 200
    pool: Literal["dense", "union"] = "dense"
    quantised: bool = False

    @property
    def triple_depth(self) -> int:
        """Candidates that ``all`` takes from each leg of its pool."""
        return self.rerank_depth or 200


MIRACL = Preset("miracl", Weighted(1, 0.3, 0), Weighted(1, 0.3, 1))
"""M3 paper, section 4.1: union of the top 1000 for two legs, the dense top 200 for the others."""
MKQA = replace(MIRACL, name="mkqa")
"""Section 4.2 repeats the weights and gives no pools: MIRACL's are taken."""
MLDR = replace(MIRACL, name="mldr", pair=Weighted(0.2, 0.8, 0), triple=Weighted(0.15, 0.5, 0.35))
"""Section 4.3."""
MLDR_SCRIPTS = replace(
    MLDR, name="mldr-scripts", pair=Weighted(0.2, 0.8, 0, rescore=False), quantised=True
)
"""As the published scripts compute section 4.3: quantised lexical weights, and a candidate that a
leg did not return gets 0 from it."""

PRESETS = {preset.name: preset for preset in (MIRACL, MKQA, MLDR, MLDR_SCRIPTS)}


def preset_for(info: ModelInfo, name: str | None = None) -> Preset:
    """A published preset by name, or the paper's pools with the weights a model recommends.

    Raises:
        ConfigError: no such preset.
    """
    if name is None:
        dense, sparse, multivector = info.weights
        pair = Weighted(dense, sparse, 0)
        return Preset("model", pair, Weighted(dense, sparse, multivector))
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {sorted(PRESETS)}")
    return PRESETS[name]


def for_database(preset: Preset, depth: int) -> Preset:
    """The preset as a database can be asked: ``all`` scores the union, to one depth throughout."""
    return replace(preset, pair_depth=depth, rerank_depth=depth, pool="union", quantised=False)


def with_fusion(
    preset: Preset,
    *,
    kind: Literal["rrf", "weighted"] | None = None,
    weights: tuple[float, float, float] | None = None,
    k: float = 60.0,
) -> Preset:
    """The preset with another fusion, other weights, or both.

    >>> with_fusion(MIRACL, kind="rrf").triple
    Rrf(k=60.0, dense=1.0, sparse=1.0, multivector=1.0)
    >>> with_fusion(MIRACL, weights=(0.5, 0.2, 0.3)).pair
    Weighted(dense=0.5, sparse=0.2, multivector=0.0, rescore=True)
    """
    if kind is None and weights is None:
        return preset
    if kind == "rrf":
        dense, sparse, multivector = weights or (1.0, 1.0, 1.0)
        pair: Fusion = Rrf(k, dense, sparse, 0.0)
        return replace(preset, pair=pair, triple=Rrf(k, dense, sparse, multivector))
    if weights is None:
        return preset
    dense, sparse, multivector = weights
    triple = Weighted(dense, sparse, multivector)
    return replace(preset, pair=Weighted(dense, sparse, 0.0), triple=triple)


def legs_of(mode: Mode) -> tuple[Leg, ...]:
    """The representations that a mode needs."""
    return _LEGS[mode]


def to_query(mode: Mode, preset: Preset, text: Embeddings, *, limit: int) -> Query:
    """The search that a mode stands for.

    Args:
        mode: what to search.
        preset: depths and fusion.
        text: the query's embeddings, a batch of one.
        limit: how many hits.
    """
    given = vectors(text)
    dense, sparse, multivector = given.dense, given.sparse, given.multivector
    if mode == "dense":
        return Query(dense=dense, limit=limit)
    if mode == "sparse":
        return Query(sparse=sparse, limit=limit)
    if mode == "multivector" and preset.rerank_depth is None:
        return Query(multivector=multivector, limit=limit)
    if mode == "multivector":
        depth = preset.rerank_depth
        return Query(
            dense=dense, multivector=multivector, dense_depth=depth or 1, rerank=depth, limit=limit
        )
    depth = preset.pair_depth if mode == "dense+sparse" else preset.triple_depth
    return Query(
        dense=dense,
        sparse=sparse,
        multivector=multivector if mode == "all" else None,
        dense_depth=depth,
        sparse_depth=depth,
        fusion=preset.pair if mode == "dense+sparse" else preset.triple,
        limit=limit,
    )


def to_queries(mode: Mode, preset: Preset, texts: Embeddings, *, limit: int) -> list[Query]:
    """:func:`to_query` for every text of a batch."""
    return [to_query(mode, preset, texts[row], limit=limit) for row in range(len(texts))]


def vectors(text: Embeddings) -> Query:
    """A query with every representation of a batch of one, for scoring alone."""
    return Query(
        dense=None if text.dense is None else text.dense[0],
        sparse=None if text.sparse is None else text.sparse[0],
        multivector=None if text.multivector is None else text.multivector[0],
    )
