"""From a text to hits: encode, plan, search. The other main path beside ingestion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from m3connect.contract import CollectionInfo, Connector, Encoder, ModelInfo
from m3connect.errors import InputError
from m3connect.filters import AnyFilter, as_filter
from m3connect.searching import modes, planner
from m3connect.searching.explain import Explanation, explain
from m3connect.searching.modes import Preset
from m3connect.searching.names import Mode, ModeName
from m3connect.searching.planner import Hits
from m3connect.types import Fusion, Leg, Query, shown


class TextHits(Hits):
    """The hits of a text: a list of :class:`m3connect.types.Hit`, best first.

    Their payloads are without what ingestion keeps for itself (:func:`m3connect.types.shown`).

    Args:
        hits: with their query and plan.
        text: that was asked.
        connector, encoder: which answered; :meth:`explain` asks them again.
    """

    def __init__(self, hits: Hits, text: str, connector: Connector, encoder: Encoder) -> None:
        clean = [replace(hit, payload=shown(hit.payload)) for hit in hits]
        super().__init__(clean, hits.query, hits.plan)
        self.text = text
        self._connector = connector
        self._encoder = encoder

    def explain(self) -> list[Explanation]:
        """Why each hit scores what it scores; costs a few more requests to the open collection."""
        return explain(self._connector, self._encoder, self.text, self.query, self)


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

    Returns:
        Hits, best first, with the query and the plan that found them; ``.explain()`` takes them
        apart.

    Raises:
        FingerprintMismatch: the collection was made by another model.
        InputError: a bad option or filter, an empty text, or the collection lacks a leg that the
            mode scores by.
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
) -> list[TextHits]:
    """:func:`search` for many texts, encoded and sent together; the hits of each text."""
    if offset < 0:
        raise InputError(f"offset must be at least 0, got {offset}")
    info = connector.describe()
    queries = build_queries(
        info,
        encoder,
        texts,
        mode=mode,
        fusion=fusion,
        filter=filter,
        limit=limit + offset,
        depth=depth,
        rerank=rerank,
        leg_scores=leg_scores,
    )
    pages = planner.run(connector, queries, schema=info.schema, offset=offset)
    return [
        TextHits(hits, text, connector, encoder) for text, hits in zip(texts, pages, strict=True)
    ]


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
    stored = info.schema.fingerprint
    if stored is not None:
        encoder.info.fingerprint.require(stored, collection=info.name, writing=False)
    preset = _with_options(served_preset(encoder.info, info), fusion, depth)
    embeddings = encoder.encode(texts, kind="query", legs=_legs(chosen, preset, info))
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
