"""What the client does of a query: it puts searched legs together, or reads and scores every record.

A leg of which the engine answered for some candidates alone is completed: the true scores of the others
are asked by id, or computed from their vectors.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from m3connect.contract import Connector
from m3connect.searching import fusion, payload_sizes, scoring
from m3connect.types import Hit, Leg, LegScores, Payload, Query, RecordBatch, Weighted

_NAMED_AT_ONCE = 1000
"""Candidates whose scores one search asks for."""
_ROUNDING = 1e-5
"""By which two ways to compute a score may differ."""
_CARRIED = 256 * 1024
"""Bytes of payloads that come along with the candidates rather than by a request for those of the best."""


# ------------------------------------------------------------------------------ legs of a query


def searched_legs(query: Query) -> tuple[Leg, ...]:
    """The legs that bring candidates: all but a multi-vector beside another leg."""
    if len(query.legs) == 1:
        return query.legs
    return tuple(leg for leg in query.legs if leg != "multivector")


def depth_of(query: Query, leg: Leg) -> int:
    """How many candidates a searched leg brings; alone, as many as there are to be hits."""
    if len(query.legs) == 1:
        return query.limit
    return query.dense_depth if leg == "dense" else query.sparse_depth


def rescored_legs(query: Query) -> tuple[Leg, ...]:
    """The legs whose scores a composed query computes from the candidates' stored vectors.

    The engine's own answers score whom a leg found; rescoring wants whom the other leg found too.
    """
    searched = searched_legs(query)
    if len(searched) > 1 and isinstance(query.fusion, Weighted) and query.fusion.rescore:
        return query.legs
    return tuple(leg for leg in query.legs if leg not in searched)


def single(query: Query, leg: Leg, *, payload: bool = False) -> Query:
    """One leg of a query, to its depth: what that leg alone finds, perhaps with payloads."""
    return Query(
        **{leg: getattr(query, leg)},
        filter=query.filter,
        within=query.within,
        limit=depth_of(query, leg),
        payload=payload,
    )


# ----------------------------------------------------------------------------------- candidates


@dataclass(slots=True)
class _Pool:
    """The candidates of one query, and what is known of them so far.

    Args:
        query: what is asked.
        rankings: the candidates of each searched leg, best first.
        scores: each leg's scores, by id.
        payloads: of the candidates that were read.
    """

    query: Query
    rankings: dict[Leg, list[str]]
    scores: dict[Leg, dict[str, float]]
    payloads: dict[str, Payload] = field(default_factory=dict)

    def without(self, leg: Leg, ids: Sequence[str]) -> list[str]:
        """The ids whose score in a leg is not known."""
        known = self.scores.get(leg, {})
        return [id_ for id_ in ids if id_ not in known]

    def learn(self, leg: Leg, scores: Mapping[str, float]) -> None:
        """Take scores of a leg."""
        self.scores.setdefault(leg, {}).update(scores)

    def forget(self, gone: Collection[str]) -> None:
        """Drop candidates: those deleted since a leg found them, or that cannot come among the best."""
        self.rankings = {
            leg: [id_ for id_ in ids if id_ not in gone] for leg, ids in self.rankings.items()
        }


_Request = tuple[_Pool, tuple[Leg, ...], list[str]]
"""Of a pool the true scores of some legs, for some ids."""


def compose(connector: Connector, queries: Sequence[Query]) -> list[list[Hit]]:
    """Search every leg of every query in one batch, then put them together."""
    pools = _candidates(connector, queries)
    requests: list[_Request] = []
    for pool in pools:
        legs = rescored_legs(pool.query)
        if "sparse" in legs:
            _infer(pool)
        if pool.query.rerank is not None:  # only the best of the others meet the multi-vector
            legs = tuple(leg for leg in legs if leg != "multivector")
        requests.append((pool, legs, fusion.union(pool.rankings.values())))
    _complete(connector, requests)
    while late := _unscored_late(pools):  # again where a candidate was deleted meanwhile
        _complete(connector, late)
    return _combine(connector, pools)


def _candidates(connector: Connector, queries: Sequence[Query]) -> list[_Pool]:
    """What the searched legs of each query find."""
    pools = [_Pool(query, {}, {}) for query in queries]
    searches = [(pool, leg) for pool in pools for leg in searched_legs(pool.query)]
    carried = len(queries) == 1 and _are_carried(connector, queries[0])
    results = connector.search([single(pool.query, leg, payload=carried) for pool, leg in searches])
    for (pool, leg), hits in zip(searches, results, strict=True):
        pool.rankings[leg] = [hit.id for hit in hits]
        pool.learn(leg, {hit.id: hit.score for hit in hits})
        if carried:
            pool.payloads |= {hit.id: hit.payload for hit in hits}
    return pools


def _are_carried(connector: Connector, query: Query) -> bool:
    """Whether the payloads of all candidates are known to be less trouble than one more request."""
    if not _may_carry(query):
        return False
    candidates = sum(depth_of(query, leg) for leg in searched_legs(query))
    size = payload_sizes.mean(connector)
    return size is not None and size * candidates <= _CARRIED


def _may_carry(query: Query) -> bool:
    return query.payload and query.multivector is None  # whose vectors are read with payloads


def _infer(pool: _Pool) -> None:
    """What the rankings say of the candidates that they lack, without asking.

    The lexical one has all records that share a term, up to its depth: whom it lacks scores 0, where it is
    not cut. Whom a ranking that is cut lacks scores no more than its last, and who cannot come among the
    best even with that is no candidate. So whom an approximate index overlooked may stay overlooked.
    """
    query, rankings = pool.query, pool.rankings
    if len(rankings["sparse"]) < query.sparse_depth:
        pool.learn("sparse", dict.fromkeys(pool.without("sparse", rankings["dense"]), 0.0))
    if query.multivector is not None and query.rerank is None:
        return  # any other leg may still lift anyone
    assert isinstance(query.fusion, Weighted), "it rescores"
    dense, sparse, weights = pool.scores["dense"], pool.scores["sparse"], query.fusion
    count = query.limit if query.rerank is None else query.rerank
    least = [
        weights.dense * score + weights.sparse * sparse.get(id_, 0.0)
        for id_, score in dense.items()
    ]
    if len(least) < count:
        return
    bar = heapq.nlargest(count, least)[-1] - _ROUNDING
    hopeless: set[str] = set()
    if len(rankings["sparse"]) == query.sparse_depth:
        most = weights.sparse * sparse[rankings["sparse"][-1]]
        unknown = pool.without("sparse", rankings["dense"])
        hopeless.update(id_ for id_ in unknown if weights.dense * dense[id_] + most < bar)
    if len(rankings["dense"]) == query.dense_depth:
        most = weights.dense * dense[rankings["dense"][-1]]
        unknown = pool.without("dense", rankings["sparse"])
        hopeless.update(id_ for id_ in unknown if most + weights.sparse * sparse[id_] < bar)
    pool.forget(hopeless)


def _unscored_late(pools: Sequence[_Pool]) -> list[_Request]:
    """The candidates that are to be reranked and whose multi-vector score is not known."""
    requests: list[_Request] = []
    for pool in pools:
        if pool.query.rerank is not None:
            ids = fusion.reranked(pool.query, pool.rankings, pool.scores)
            if unknown := pool.without("multivector", ids):
                requests.append((pool, ("multivector",), unknown))
    return requests


def _complete(connector: Connector, requests: Sequence[_Request]) -> None:
    """Give candidates the scores they lack: by the engine where it can, else from their vectors."""
    by_engine = connector.capabilities.scores_within
    scorings = [
        _ScoreRequest(pool, leg, part)
        for pool, legs, ids in requests
        for leg in legs
        if leg in by_engine
        for part in _parts(pool.without(leg, ids))
    ]
    likely: list[str] = []
    if scorings and len(requests) == 1:  # a batch reads its payloads at once, in the end
        pool = requests[0][0]
        likely = _likely(pool)
        if likely and all(
            each.leg == "sparse" and len(each.ids) <= len(likely) for each in scorings
        ):
            scorings = []  # read with the payloads, for which one request is made anyway
        elif likely and "dense" in by_engine:
            scorings, likely = _with_payloads(scorings, pool, likely), []
    if scorings:
        answers = connector.search([each.question() for each in scorings])
        for each, hits in zip(scorings, answers, strict=True):
            each.learn(hits)
    for pool, legs, ids in requests:
        lacking = {leg: unknown for leg in legs if (unknown := pool.without(leg, ids))}
        if lacking:
            unknown = fusion.union(lacking.values())
            batch = connector.fetch(fusion.union([unknown, likely]), vectors=tuple(lacking))
            for leg, scores in scoring.leg_scores(pool.query, batch.ids, batch.embeddings).items():
                pool.learn(leg, scores)
            pool.payloads |= zip(batch.ids, batch.payloads, strict=True)
            pool.forget(set(unknown).difference(batch.ids))


def _parts(ids: list[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(ids), _NAMED_AT_ONCE):
        yield tuple(ids[start : start + _NAMED_AT_ONCE])


@dataclass(frozen=True, slots=True, eq=False)
class _ScoreRequest:
    """Records whose scores in one leg are asked of the engine, perhaps with their payloads."""

    pool: _Pool
    leg: Leg
    ids: tuple[str, ...]
    payload: bool = False

    def question(self) -> Query:
        """As a search."""
        return Query(
            **{self.leg: getattr(self.pool.query, self.leg)},
            within=self.ids,
            limit=len(self.ids),
            payload=self.payload,
        )

    def learn(self, hits: Sequence[Hit]) -> None:
        """Take what it found."""
        if self.leg == "sparse":  # who shares no term is not found
            self.pool.learn(self.leg, dict.fromkeys(self.ids, 0.0))
        self.pool.learn(self.leg, {hit.id: hit.score for hit in hits})
        if self.payload:
            self.pool.payloads |= {hit.id: hit.payload for hit in hits}


def _likely(pool: _Pool) -> list[str]:
    """Who will probably be returned: reading their payloads with the scores saves a request later."""
    query, weights = pool.query, pool.query.fusion
    many = 2 * query.limit
    if not query.payload or query.multivector is not None or many > _NAMED_AT_ONCE:
        return []
    if pool.payloads:  # they came along
        return []
    assert isinstance(weights, Weighted), "it rescores"
    dense, sparse = pool.scores["dense"], pool.scores["sparse"]
    worst = (min(dense.values(), default=0.0), min(sparse.values(), default=0.0))
    guess = {
        id_: weights.dense * dense.get(id_, worst[0]) + weights.sparse * sparse.get(id_, worst[1])
        for id_ in fusion.union(pool.rankings.values())
    }
    return fusion.top(guess, many)


def _with_payloads(
    scorings: Sequence[_ScoreRequest], pool: _Pool, likely: Sequence[str]
) -> list[_ScoreRequest]:
    """What is asked, and some payloads with dense scores: in a question that is asked anyway, if about few."""
    few = [each.ids for each in scorings if each.leg == "dense" and len(each.ids) <= len(likely)]
    others = [each for each in scorings if each.leg != "dense" or len(each.ids) > len(likely)]
    return [*others, _ScoreRequest(pool, "dense", tuple(fusion.union([*few, likely])), True)]


def _combine(connector: Connector, pools: Sequence[_Pool]) -> list[list[Hit]]:
    """The hits of each query; the payloads that no answer held yet are read for all at once."""
    finals = [fusion.combine(pool.query, pool.rankings, pool.scores) for pool in pools]
    best = [fusion.top(final, pool.query.limit) for pool, final in zip(pools, finals, strict=True)]
    unread = fusion.union(
        [id_ for id_ in ids if id_ not in pool.payloads]
        for pool, ids in zip(pools, best, strict=True)
        if pool.query.payload
    )
    late: dict[str, Payload] = {}
    if unread:
        batch = connector.fetch(unread, vectors=False)
        late = dict(zip(batch.ids, batch.payloads, strict=True))
    answers = [
        [
            replace(hit, scores=_scores_of(hit.id, pool.scores))
            for hit in _hits(pool.query, ids, final, late | pool.payloads)
        ]
        for pool, ids, final in zip(pools, best, finals, strict=True)
    ]
    if len(pools) == 1 and _may_carry(pools[0].query):
        payload_sizes.learn(connector, answers[0])
    return answers


# ------------------------------------------------------------------------ every record scored


def scan_and_score(connector: Connector, query: Query) -> list[Hit]:
    """Read every record, keep scores and payloads of the matching ones."""
    scores: dict[Leg, dict[str, float]] = {leg: {} for leg in query.legs}
    for batch in _eligible(connector, query):
        for leg, by_id in scoring.leg_scores(query, batch.ids, batch.embeddings).items():
            scores[leg].update(by_id)
    listed: dict[Leg, dict[str, float]] = {
        leg: {id_: score for id_, score in by_id.items() if leg != "sparse" or score > 0}
        for leg, by_id in scores.items()
    }
    if len(query.legs) == 1:
        final = listed[query.legs[0]]
    else:
        rankings = {
            leg: fusion.top(listed[leg], depth_of(query, leg)) for leg in searched_legs(query)
        }
        final = fusion.combine(query, rankings, scores)
    best = fusion.top(final, query.limit)
    late = connector.fetch(best, vectors=False)
    hits = _hits(query, best, final, dict(zip(late.ids, late.payloads, strict=True)))
    return [replace(hit, scores=_scores_of(hit.id, scores)) for hit in hits]


def _eligible(connector: Connector, query: Query) -> Iterator[RecordBatch]:
    """The records that a query may find, with the vectors that it scores."""
    if query.within is None:
        yield from connector.scan(query.filter, vectors=query.legs)
        return
    batch = connector.fetch([*dict.fromkeys(query.within)], vectors=query.legs)
    yield batch.matching(query.filter)


# ---------------------------------------------------------------------------------------- hits


def _hits(
    query: Query,
    best: Sequence[str],
    final: Mapping[str, float],
    payloads: Mapping[str, Payload],
) -> list[Hit]:
    if query.payload:  # whose payload could not be read was deleted since it was found
        best = [id_ for id_ in best if id_ in payloads]
    return [
        Hit(id_, final[id_], rank, payloads[id_] if query.payload else {})
        for rank, id_ in enumerate(best, start=1)
    ]


def _scores_of(id_: str, scores: Mapping[Leg, Mapping[str, float]]) -> LegScores:
    return LegScores(**{leg: by_id.get(id_) for leg, by_id in scores.items()})


def with_leg_scores(connector: Connector, query: Query, hits: Sequence[Hit]) -> list[Hit]:
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
