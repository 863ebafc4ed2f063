"""From a text to hits: encode, plan, search, refine. The other main path beside ingestion."""

from __future__ import annotations

import asyncio
import functools
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

from m3connect.contract import CollectionInfo, Connector, Encoder, Kind, ModelInfo, Reranker
from m3connect.errors import InputError
from m3connect.filters import AnyFilter, as_filter
from m3connect.searching import modes, planner
from m3connect.searching.contexts import Expand
from m3connect.searching.explain import Explanation, explain
from m3connect.searching.modes import Preset
from m3connect.searching.names import Mode, ModeName
from m3connect.searching.planner import Hits
from m3connect.searching.refining import GroupBy, Refinement
from m3connect.types import Embeddings, Fusion, Hit, Leg, Query, shown
from m3connect.types.identifiers import with_identifiers


class TextHits(Hits):
    """The hits of a text: a list of :class:`m3connect.types.Hit`, best first.

    Their payloads are without what ingestion keeps for itself (:func:`m3connect.types.shown`).

    Args:
        hits: those to return.
        pool: what they were chosen from, with query and plan.
        text: that was asked.
        connector, encoder: which answered; :meth:`explain` asks them again.

    Attributes:
        pool_was_full: whether more could be chosen from a larger ``pool``.
    """

    def __init__(
        self, hits: Sequence[Hit], pool: Hits, text: str, connector: Connector, encoder: Encoder
    ) -> None:
        clean = [replace(hit, payload=shown(hit.payload)) for hit in hits]
        super().__init__(clean, pool.query, pool.plan)
        self.text = text
        self.pool_was_full = len(pool) >= pool.query.limit
        self._pool_hits = {hit.id: hit for hit in pool}
        self._connector = connector
        self._encoder = encoder

    def explain(self) -> list[Explanation]:
        """Why each hit scores what it scores; costs a few more requests to the open collection.

        What a reranker ordered is explained by the score that the search had given it.
        """
        searched = [self._pool_hits[hit.id] for hit in self]
        return explain(self._connector, self._encoder, self.text, self.query, searched)


def search(
    connector: Connector,
    encoder: Encoder,
    text: str,
    *,
    mode: ModeName = "hybrid",
    fusion: Fusion | None = None,
    filter: AnyFilter | None = None,  # noqa: A002 - the field's word
    limit: int = 10,
    offset: int = 0,
    depth: int | None = None,
    rerank: int | None = None,
    leg_scores: bool = False,
    min_scores: Mapping[Leg, float] | None = None,
    reranker: Reranker | None = None,
    group_by: GroupBy | None = None,
    diversity: float | None = None,
    pool: int | None = None,
    expand: Expand = "nothing",
    expand_tokens: int = 1024,
    highlight: int = 0,
) -> TextHits:
    """Find the passages that answer a text.

    Args:
        connector: a collection made with the same model.
        encoder: that model.
        text: the query.
        mode: ``dense``, ``sparse``, ``multivector`` (MaxSim over the candidates of both),
            ``hybrid`` (dense and sparse; also ``dense+sparse``) or ``all`` (all three); see
            :mod:`m3connect.searching.modes`.
        fusion: how legs become one score; default: what was tuned for this mode and collection,
            else the weighted sum with the checkpoint's recommended weights.
        filter: which records may be found, as conditions or as text such as ``lang == "de"``.
        limit: how many hits at most.
        offset: how many of the best to leave out first, for the next page.
        depth: candidates that the dense and the sparse leg bring each, and ``offset + limit`` at
            least; default: what was tuned, else 100.
        rerank: order the best so many by MaxSim alone, with mode ``all``.
        leg_scores: whether hits carry the score of each leg; costs a request where the engine does
            not return them.
        min_scores: by leg, the score that a hit has at least, such as ``{"dense": 0.5}``.
        reranker: a cross-encoder (:func:`m3connect.load_reranker`) or any function of a query and
            passages: the last to score. Hits carry its score.
        group_by: ``document`` for the best passage of each document alone.
        diversity: 0 to 1, hits unlike each other: see
            :func:`m3connect.searching.contexts.diverse`.
        pool: how many hits the four options above choose from; default: five times ``offset +
            limit``. Where too few of them remain, fewer than ``limit`` are returned.
        expand: ``neighbours`` gives each hit in ``.context`` the passages around it by turns,
            while they fit; ``parent`` its whole document if it fits. The filter holds for them. A
            hit that stands in a better one's context is left out.
        expand_tokens: most tokens of a context; the hit's own passage is never cut.
        highlight: marks so many sentences of the context or passage in ``.highlights``, those
            nearest to the query by MaxSim; ``hit.marked()`` is the text with them.

    Returns:
        Hits, best first, with the query and the plan that found them; ``.explain()`` takes them
        apart.

    Raises:
        FingerprintMismatch: the collection was made by another model.
        InputError: a bad option or filter, an empty text, or the collection lacks a leg that the
            mode or a minimum asks for.
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
        offset=offset,
        depth=depth,
        rerank=rerank,
        leg_scores=leg_scores,
        min_scores=min_scores,
        reranker=reranker,
        group_by=group_by,
        diversity=diversity,
        pool=pool,
        expand=expand,
        expand_tokens=expand_tokens,
        highlight=highlight,
    )[0]


def search_many(
    connector: Connector,
    encoder: Encoder,
    texts: Sequence[str],
    *,
    mode: ModeName = "hybrid",
    fusion: Fusion | None = None,
    filter: AnyFilter | None = None,  # noqa: A002 - the field's word
    limit: int = 10,
    offset: int = 0,
    depth: int | None = None,
    rerank: int | None = None,
    leg_scores: bool = False,
    min_scores: Mapping[Leg, float] | None = None,
    reranker: Reranker | None = None,
    group_by: GroupBy | None = None,
    diversity: float | None = None,
    pool: int | None = None,
    expand: Expand = "nothing",
    expand_tokens: int = 1024,
    highlight: int = 0,
) -> list[TextHits]:
    """:func:`search` for many texts, encoded and sent together; the hits of each text."""
    if offset < 0:
        raise InputError(f"offset must be at least 0, got {offset}")
    if limit < 1:  # with an offset, what is asked of the collection would be some
        raise InputError(f"limit must be at least 1, got {limit}")
    refine = Refinement(
        min_scores=min_scores,
        reranker=reranker,
        group_by=group_by,
        diversity=diversity,
        pool=pool,
        expand=expand,
        expand_tokens=expand_tokens,
        highlight=highlight,
    )
    info = connector.describe()
    queries = build_queries(
        info,
        encoder,
        texts,
        mode=mode,
        fusion=fusion,
        filter=filter,
        limit=refine.pool_for(limit + offset, connector.capabilities.limits.results),
        depth=depth,
        rerank=rerank,
        leg_scores=leg_scores or bool(min_scores),
    )
    left_out = 0 if refine.chooses else offset  # by the search, and not by what chooses after it
    page = slice(offset - left_out, offset - left_out + limit)
    answers = planner.run(connector, queries, schema=info.schema, offset=left_out)
    return [
        TextHits(refine(hits, text, connector, encoder, page), hits, text, connector, encoder)
        for text, hits in zip(texts, answers, strict=True)
    ]


P = ParamSpec("P")
R = TypeVar("R")
_TURNS: weakref.WeakKeyDictionary[Connector, threading.Lock] = weakref.WeakKeyDictionary()
"""A connector serves any thread, one at a time."""


def _in_thread(
    function: Callable[Concatenate[Connector, P], R],
) -> Callable[Concatenate[Connector, P], Coroutine[Any, Any, R]]:
    """The same call in a thread, beside the event loop."""

    def in_turn(connector: Connector, *args: P.args, **kwargs: P.kwargs) -> R:
        with _TURNS.setdefault(connector, threading.Lock()):
            return function(connector, *args, **kwargs)

    @functools.wraps(function)
    async def twin(connector: Connector, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(in_turn, connector, *args, **kwargs)

    name = function.__name__
    twin.__name__ = twin.__qualname__ = f"{name}_async"
    twin.__doc__ = f"""``await`` :func:`{name}` in a thread; calls on one connector take turns."""
    return twin


search_async = _in_thread(search)
search_many_async = _in_thread(search_many)


def build_queries(
    info: CollectionInfo,
    encoder: Encoder,
    texts: Sequence[str],
    *,
    mode: ModeName = "hybrid",
    fusion: Fusion | None = None,
    filter: AnyFilter | None = None,  # noqa: A002 - the field's word
    limit: int = 10,
    depth: int | None = None,
    rerank: int | None = None,
    leg_scores: bool = False,
) -> list[Query]:
    """The vectors and options that :func:`search_many` sends; same arguments and errors.

    Args:
        info: of the collection.
    """
    chosen = modes.parse_mode(mode)
    if rerank is not None and chosen != "all":
        raise InputError(f"rerank orders by MaxSim and needs mode 'all', got {mode!r}")
    for row, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"query {row + 1} of {len(texts)} is an empty text")
    require(info, encoder)
    preset = _with_options(served_preset(encoder.info, info), fusion, depth)
    legs = _legs(chosen, preset, info)
    embeddings = encode_as_stored(info, encoder, texts, kind="query", legs=legs)
    condition = as_filter(filter)
    return [
        modes.to_query(
            chosen,
            preset,
            embeddings[row],
            limit=limit,
            filter=condition,
            rerank=rerank,
            leg_scores=leg_scores,
        )
        for row in range(len(texts))
    ]


def require(info: CollectionInfo, encoder: Encoder) -> None:
    """See that a collection was made by this model, if it says by which.

    Raises:
        FingerprintMismatch: it was made by another.
    """
    stored = info.schema.fingerprint
    if stored is not None:
        encoder.info.fingerprint.require(stored, collection=info.name, writing=False)


def encode_as_stored(
    info: CollectionInfo,
    encoder: Encoder,
    texts: Sequence[str],
    *,
    kind: Kind,
    legs: Sequence[Leg],
) -> Embeddings:
    """Encode texts as a collection's were: with terms for identifiers if it has them, compressed.

    Args:
        info: of the collection.
        encoder: its model.
        texts: what is encoded.
        kind: whether they ask or answer; queries are made as narrow, and otherwise kept whole.
        legs: the representations to return.
    """
    made = encoder.encode(texts, kind=kind, legs=legs)
    stored = info.schema.fingerprint
    if stored is None:
        return made
    has_them = encoder.info.fingerprint.identifiers
    if stored.identifiers and not has_them and made.sparse is not None:
        pieces = [encoder.tokens(text, kind=kind) for text in texts]
        made = replace(made, sparse=with_identifiers(made.sparse, pieces, encoder.term))
    return stored.compression.of(made, kind)


def served_preset(model: ModelInfo, collection: CollectionInfo) -> Preset:
    """What search does by default: tuned for the collection mode by mode, else the model's weights."""
    return modes.tuned(modes.preset_for(model), collection.notes)


def _with_options(preset: Preset, fusion: Fusion | None, depth: int | None) -> Preset:
    if depth is not None:
        preset = modes.for_database(preset, depth)
    if fusion is not None:
        preset = replace(
            preset,
            hybrid=replace(preset.hybrid, fusion=fusion),
            all=replace(preset.all, fusion=fusion),
        )
    return preset


def _legs(mode: Mode, preset: Preset, info: CollectionInfo) -> tuple[Leg, ...]:
    """The legs a mode asks, less the candidate legs that a collection does not have."""
    stored = info.schema.legs
    if missing := set(modes.scored_legs(mode)) - set(stored):
        raise InputError(
            f"collection {info.name!r} stores {', '.join(stored)}; mode {mode!r} needs "
            f"{', '.join(sorted(missing))}"
        )
    return modes.needed([mode], preset, available=stored)
