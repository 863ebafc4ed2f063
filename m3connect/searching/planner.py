"""How a query is answered: in one native request, or as legs that the client puts together.

Both ways give the oracle's result. The choice is made from the declared capabilities alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from m3connect.connecting.checks import check_query
from m3connect.contract import (
    Capabilities,
    CollectionSchema,
    Connector,
    fusion_kind,
)
from m3connect.errors import InputError
from m3connect.searching import fusion, scoring
from m3connect.types import (
    Hit,
    Leg,
    LegScores,
    Payload,
    Query,
    Weighted,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one query will be answered.

    Args:
        native: one request to the engine answers it.
        exhaustive: every record is read and scored on the client.
        reason: why it is not native; empty when it is.
        steps: what happens, in order, for people.
    """

    native: bool
    exhaustive: bool
    reason: str
    steps: tuple[str, ...]


class Hits(list[Hit]):
    """The hits of one query, best first, with the query and how it was answered.

    Args:
        hits: best first.
        query: that was asked.
        plan: how.
    """

    def __init__(self, hits: Iterable[Hit], query: Query, plan: Plan) -> None:
        super().__init__(hits)
        self.query = query
        self.plan = plan


def plan(query: Query, capabilities: Capabilities, *, native: bool = True) -> Plan:
    """Choose how to answer a query.

    Args:
        query: a checked query.
        capabilities: of the connector.
        native: False forbids native fusion and reranking, to compare the two ways.

    Raises:
        InputError: the query wants more results than the backend returns.
    """
    _check_results(query, capabilities)
    missing_legs = [leg for leg in _searched(query) if leg not in capabilities.legs]
    if missing_legs:
        return _exhaustive(f"the engine cannot search {missing_legs}")
    reason = _why_composed(query, capabilities)
    if len(query.legs) > 1 and not reason and not native:
        reason = "native fusion was switched off"
    if not reason:
        names = " + ".join(query.legs)
        return Plan(True, False, "", (f"one request: {names}, {_fusion_text(query)}",))
    steps = [f"{leg} search, {_depth(query, leg)} candidates" for leg in _searched(query)]
    if legs := _rescored(query):
        vectors = " and ".join(legs)
        steps.append(f"the candidates' {vectors} vectors fetched and scored on the client")
    return Plan(False, False, reason, (*steps, f"{_fusion_text(query)} on the client"))


def run(
    connector: Connector,
    queries: Sequence[Query],
    *,
    native: bool = True,
    schema: CollectionSchema | None = None,
    offset: int = 0,
) -> list[Hits]:
    """Answer queries, natively where possible and otherwise composed.

    Args:
        connector: an existing collection.
        queries: any mix of queries.
        native: False forbids native fusion and reranking, to compare the two ways.
        schema: of the collection, where the caller knows it; saves a request.
        offset: how many of the best hits to leave out; ranks keep counting from the best.

    Returns:
        One list of hits a query, with its plan.

    Raises:
        InputError: a bad query.
        ConnectorError: whatever the connector raises.
    """
    known = schema or connector.describe().schema
    for query in queries:
        check_query(query, known)
    capabilities = connector.capabilities
    plans = [plan(query, capabilities, native=native) for query in queries]
    answers: list[Sequence[Hit]] = [[] for _ in queries]
    direct = [row for row, chosen in enumerate(plans) if chosen.native]
    if direct:
        results = connector.search([queries[row] for row in direct])
        for row, hits in zip(direct, results, strict=True):
            answers[row] = hits
    composed = [row for row, chosen in enumerate(plans) if not (chosen.native or chosen.exhaustive)]
    if composed:
        for row, hits in zip(composed, _compose(connector, queries, composed), strict=True):
            answers[row] = hits
    for row, chosen in enumerate(plans):
        if chosen.exhaustive:
            answers[row] = _scan_and_score(connector, queries[row])
    return [
        Hits(_scored(connector, query, hits[offset:]), query, chosen)
        for query, hits, chosen in zip(queries, answers, plans, strict=True)
    ]


def _scored(connector: Connector, query: Query, hits: Sequence[Hit]) -> list[Hit]:
    """Hits with the leg scores that the query asks for: all of them, or none."""
    if query.leg_scores:
        return _with_leg_scores(connector, query, hits)
    return [replace(hit, scores=None) for hit in hits]


# ------------------------------------------------------------------------------------- choosing


def _searched(query: Query) -> tuple[Leg, ...]:
    """The legs that bring candidates: all but a multi-vector beside another leg."""
    if len(query.legs) == 1:
        return query.legs
    return tuple(leg for leg in query.legs if leg != "multivector")


def _why_composed(query: Query, capabilities: Capabilities) -> str:
    if len(query.legs) == 1:
        return ""
    if query.multivector is not None and not capabilities.maxsim:
        return "the engine has no MaxSim over candidates"
    fused = len(query.legs) if query.rerank is None else len(_searched(query))
    if fused > 1 and query.fusion is not None:
        kind = fusion_kind(query.fusion)
        if kind not in capabilities.fusions:
            return f"the engine has no {kind} fusion that gives the defined result"
    return ""


def _exhaustive(reason: str) -> Plan:
    return Plan(False, True, reason, ("every record read and scored on the client",))


def _check_results(query: Query, capabilities: Capabilities) -> None:
    most = capabilities.limits.results
    asked = max(query.limit, *(_depth(query, leg) for leg in _searched(query)))
    if most is not None and asked > most:
        raise InputError(f"{capabilities.engine} returns at most {most} results, not {asked}")


def _depth(query: Query, leg: Leg) -> int:
    if len(query.legs) == 1:
        return query.limit
    return query.dense_depth if leg == "dense" else query.sparse_depth


def _rescored(query: Query) -> tuple[Leg, ...]:
    """The legs whose scores a composed query computes from the candidates' stored vectors.

    The engine's own answers score whom a leg found; rescoring wants whom the other leg found too.
    """
    searched = _searched(query)
    if len(searched) > 1 and isinstance(query.fusion, Weighted) and query.fusion.rescore:
        return query.legs
    return tuple(leg for leg in query.legs if leg not in searched)


def _fusion_text(query: Query) -> str:
    if query.rerank is not None:
        return f"best {query.rerank} ordered by MaxSim"
    if len(query.legs) == 1:
        return "no fusion"
    return f"fused by {query.fusion}"


# ------------------------------------------------------------------------------------ composing


def _compose(
    connector: Connector, queries: Sequence[Query], chosen: Sequence[int]
) -> Iterator[list[Hit]]:
    """Search every leg of every chosen query in one batch, then combine query by query."""
    owners = [(row, leg) for row in chosen for leg in _searched(queries[row])]
    results = connector.search([single(queries[row], leg) for row, leg in owners])
    legs: dict[int, dict[Leg, list[Hit]]] = {row: {} for row in chosen}
    for (row, leg), hits in zip(owners, results, strict=True):
        legs[row][leg] = hits
    return (_combine(connector, queries[row], legs[row]) for row in chosen)


def single(query: Query, leg: Leg) -> Query:
    """One leg of a query, to its depth: what that leg alone finds."""
    return Query(
        **{leg: getattr(query, leg)},
        filter=query.filter,
        limit=_depth(query, leg),
        payload=False,
    )


def _combine(connector: Connector, query: Query, legs: Mapping[Leg, Sequence[Hit]]) -> list[Hit]:
    rankings = {leg: [hit.id for hit in hits] for leg, hits in legs.items()}
    scores: dict[Leg, dict[str, float]] = {
        leg: {hit.id: hit.score for hit in hits} for leg, hits in legs.items()
    }
    payloads: dict[str, Payload] = {}
    if rescored := _rescored(query):
        batch = connector.fetch(fusion.union(rankings.values()), vectors=rescored)
        scores |= scoring.leg_scores(query, batch.ids, batch.embeddings)
        payloads = dict(zip(batch.ids, batch.payloads, strict=True))
        # A record deleted between the two requests is no candidate any more.
        rankings = {leg: [id_ for id_ in ids if id_ in payloads] for leg, ids in rankings.items()}
    final = fusion.combine(query, rankings, scores)
    best = fusion.top(final, query.limit)
    if query.payload and not payloads and best:
        late = connector.fetch(best, vectors=False)
        payloads = dict(zip(late.ids, late.payloads, strict=True))
    hits = _hits(query, best, final, payloads)
    return [replace(hit, scores=_scores_of(hit.id, scores)) for hit in hits]


def _scan_and_score(connector: Connector, query: Query) -> list[Hit]:
    """Read every record, keep scores and payloads of the matching ones."""
    scores: dict[Leg, dict[str, float]] = {leg: {} for leg in query.legs}
    for batch in connector.scan(query.filter, vectors=query.legs):
        for leg, by_id in scoring.leg_scores(query, batch.ids, batch.embeddings).items():
            scores[leg].update(by_id)
    listed: dict[Leg, dict[str, float]] = {
        leg: {id_: score for id_, score in by_id.items() if leg != "sparse" or score > 0}
        for leg, by_id in scores.items()
    }
    if len(query.legs) == 1:
        final = listed[query.legs[0]]
    else:
        rankings = {leg: fusion.top(listed[leg], _depth(query, leg)) for leg in _searched(query)}
        final = fusion.combine(query, rankings, scores)
    best = fusion.top(final, query.limit)
    late = connector.fetch(best, vectors=False)
    hits = _hits(query, best, final, dict(zip(late.ids, late.payloads, strict=True)))
    return [replace(hit, scores=_scores_of(hit.id, scores)) for hit in hits]


def _hits(
    query: Query,
    best: Sequence[str],
    final: Mapping[str, float],
    payloads: Mapping[str, Payload],
) -> list[Hit]:
    return [
        Hit(id_, final[id_], rank, payloads.get(id_, {}) if query.payload else {})
        for rank, id_ in enumerate(best, start=1)
    ]


def _scores_of(id_: str, scores: Mapping[Leg, Mapping[str, float]]) -> LegScores:
    return LegScores(**{leg: by_id.get(id_) for leg, by_id in scores.items()})


def _with_leg_scores(connector: Connector, query: Query, hits: Sequence[Hit]) -> list[Hit]:
    """Hits with every leg's true score; what no answer held yet comes from the stored vectors."""
    if len(query.legs) == 1:
        (leg,) = query.legs
        return [replace(hit, scores=hit.scores or LegScores(**{leg: hit.score})) for hit in hits]
    given = {hit.id: hit.scores or LegScores() for hit in hits}
    missing = [
        leg for leg in query.legs if any(getattr(scores, leg) is None for scores in given.values())
    ]
    if missing:
        batch = connector.fetch([*given], vectors=missing)
        for leg, by_id in scoring.leg_scores(query, batch.ids, batch.embeddings).items():
            given |= {id_: replace(given[id_], **{leg: score}) for id_, score in by_id.items()}
    return [replace(hit, scores=given[hit.id]) for hit in hits]
