"""From a text to hits: encode, plan, search. The other main path beside ingestion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from m3connect.contract import CollectionInfo, Connector, Encoder
from m3connect.errors import ConfigError, InputError
from m3connect.filters import Filter
from m3connect.searching import planner
from m3connect.types import Embeddings, Fusion, Hit, Leg, Query, Rrf, Weighted

Mode = Literal["dense", "sparse", "multivector", "hybrid", "all"]
MODES: tuple[Mode, ...] = get_args(Mode)
FUSION_NOTE = "fusion"
"""The collection's note that holds its tuned fusion; see :func:`fusion_to_json`."""
DEPTH_NOTE = "depth"
"""The collection's note that holds its tuned depth."""
DEPTH = 100
"""Candidates that the dense and the sparse leg bring each, where nothing else is said."""

# What each mode encodes. A multi-vector alone orders the candidates of the other two.
_LEGS: dict[Mode, tuple[Leg, ...]] = {
    "dense": ("dense",),
    "sparse": ("sparse",),
    "multivector": ("dense", "sparse", "multivector"),
    "hybrid": ("dense", "sparse"),
    "all": ("dense", "sparse", "multivector"),
}
# MaxSim alone decides; the other legs only bring candidates, so their scores are not needed.
_LATE_ONLY = Weighted(dense=0.0, sparse=0.0, multivector=1.0, rescore=False)


def search(
    connector: Connector,
    encoder: Encoder,
    text: str,
    *,
    mode: Mode = "hybrid",
    fusion: Fusion | None = None,
    filter: Filter | None = None,  # noqa: A002 - the field's word
    limit: int = 10,
    depth: int | None = None,
    rerank: int | None = None,
) -> list[Hit]:
    """Find the passages that answer a text.

    Args:
        connector: a collection made with the same model.
        encoder: that model.
        text: the query.
        mode: ``dense``, ``sparse``, ``multivector`` (late interaction over the candidates of both),
            ``hybrid`` (dense + sparse) or ``all`` (all three).
        fusion: how legs become one score; default: the collection's tuned fusion, else the
            weighted sum with the checkpoint's recommended weights.
        filter: which records may be found.
        limit: how many hits at most.
        depth: candidates that the dense and the sparse leg bring each; default: the collection's
            tuned depth, else 100.
        rerank: order the best so many by MaxSim alone, with mode ``all``.

    Returns:
        Hits, best first, with each leg's score.

    Raises:
        FingerprintMismatch: the collection was made by another model.
        InputError: a bad option, or the collection lacks a representation the mode needs.
        ConnectorError: the database failed.
    """
    return search_many(
        connector,
        encoder,
        [text],
        mode=mode,
        fusion=fusion,
        filter=filter,
        limit=limit,
        depth=depth,
        rerank=rerank,
    )[0]


def search_many(
    connector: Connector,
    encoder: Encoder,
    texts: Sequence[str],
    *,
    mode: Mode = "hybrid",
    fusion: Fusion | None = None,
    filter: Filter | None = None,  # noqa: A002 - the field's word
    limit: int = 10,
    depth: int | None = None,
    rerank: int | None = None,
) -> list[list[Hit]]:
    """:func:`search` for many texts, encoded and sent together; one list of hits a text."""
    info = connector.describe()
    queries = build_queries(
        info,
        encoder,
        texts,
        mode=mode,
        fusion=fusion,
        filter=filter,
        limit=limit,
        depth=depth,
        rerank=rerank,
    )
    return planner.run(connector, queries, schema=info.schema)


def build_queries(
    info: CollectionInfo,
    encoder: Encoder,
    texts: Sequence[str],
    *,
    mode: Mode = "hybrid",
    fusion: Fusion | None = None,
    filter: Filter | None = None,  # noqa: A002 - the field's word
    limit: int = 10,
    depth: int | None = None,
    rerank: int | None = None,
) -> list[Query]:
    """The vectors and options that :func:`search_many` sends; same arguments and errors.

    Args:
        info: of the collection.
    """
    if mode not in MODES:
        raise InputError(f"mode is one of {', '.join(MODES)}, got {mode!r}")
    if rerank is not None and mode != "all":
        raise InputError(f"rerank orders by MaxSim and needs mode 'all', got {mode!r}")
    stored = info.schema.fingerprint
    if stored is not None:
        encoder.info.fingerprint.require(stored, collection=info.name, writing=False)
    legs = _legs_of(mode, info)
    chosen = fusion or default_fusion(info, encoder)
    candidates = default_depth(info) if depth is None else depth
    embeddings = encoder.encode(texts, kind="query", legs=legs)
    return [
        Query(
            **_vectors(embeddings, row),
            dense_depth=candidates,
            sparse_depth=candidates,
            fusion=_LATE_ONLY if mode == "multivector" else chosen,
            rerank=rerank,
            filter=filter,
            limit=limit,
            leg_scores=True,
        )
        for row in range(len(texts))
    ]


def default_fusion(info: CollectionInfo, encoder: Encoder) -> Fusion:
    """The collection's tuned fusion, else the checkpoint's weights in a weighted sum."""
    note = info.notes.get(FUSION_NOTE)
    return fusion_from_json(note) if note else Weighted(*encoder.info.weights)


def default_depth(info: CollectionInfo) -> int:
    """The collection's tuned depth, else 100."""
    return int(info.notes.get(DEPTH_NOTE, DEPTH))


def fusion_to_json(fusion: Fusion) -> dict[str, Any]:
    """As a note for the collection.

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


def _legs_of(mode: Mode, info: CollectionInfo) -> tuple[Leg, ...]:
    """The legs a mode needs, less the candidate legs that a collection does not have."""
    stored = info.schema.legs
    legs = tuple(leg for leg in _LEGS[mode] if leg in stored)
    needed = {"multivector"} if mode == "multivector" else set(_LEGS[mode])
    if missing := needed - set(legs):
        raise InputError(
            f"collection {info.name!r} stores {', '.join(stored)}; mode {mode!r} needs "
            f"{', '.join(sorted(missing))}"
        )
    return legs


def _vectors(embeddings: Embeddings, row: int) -> dict[str, Any]:
    vectors: dict[str, Any] = {}
    if embeddings.dense is not None:
        vectors["dense"] = embeddings.dense[row]
    if embeddings.sparse is not None:
        vectors["sparse"] = embeddings.sparse[row]
    if embeddings.multivector is not None:
        vectors["multivector"] = embeddings.multivector[row].astype(np.float32)
    return vectors
