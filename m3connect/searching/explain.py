"""Why a hit scores what it scores: parts that add up, terms that matched, tokens that met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from m3connect.contract import Connector, Encoder
from m3connect.searching import planner, scoring
from m3connect.types import FloatArray, Hit, Leg, Query, Rrf, TokenArray, Weighted


@dataclass(frozen=True, slots=True)
class TermMatch:
    """A term of both texts and what it adds to the sparse score."""

    term: str
    contribution: float


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """A query token, the passage token it met, and what the pair adds to the MaxSim score."""

    query: str
    passage: str
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """One hit, taken apart.

    Args:
        parts: what each leg adds to the hit's score; their sum is the score.
        terms: sum to the sparse leg's score.
        tokens: sum to the multi-vector leg's score; one a query token, best first.
    """

    parts: dict[Leg, float]
    terms: tuple[TermMatch, ...]
    tokens: tuple[TokenMatch, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "parts": dict(self.parts),
            "terms": [[match.term, match.contribution] for match in self.terms],
            "tokens": [[match.query, match.passage, match.contribution] for match in self.tokens],
        }


def explain(
    connector: Connector, encoder: Encoder, text: str, query: Query, hits: Sequence[Hit]
) -> list[Explanation]:
    """Take the hits of a query apart; costs a few more requests.

    Args:
        connector: where the hits came from.
        encoder: the model, for the names of terms and tokens.
        text: the query's text.
        query: what was searched.
        hits: its hits, with leg scores.
    """
    batch = connector.fetch([hit.id for hit in hits])
    rows = {id_: row for row, id_ in enumerate(batch.ids)}
    shares = _rank_shares(connector, query) if isinstance(query.fusion, Rrf) else {}
    found = []
    for hit in hits:
        if hit.id not in rows:  # deleted since
            found.append(Explanation({}, (), ()))
            continue
        one = batch.embeddings[rows[hit.id]]
        terms: tuple[TermMatch, ...] = ()
        tokens: tuple[TokenMatch, ...] = ()
        if query.sparse is not None and one.sparse is not None:
            matched = scoring.sparse_contributions(query.sparse, one.sparse[0])
            terms = tuple(TermMatch(encoder.term(term), part) for term, part in matched.items())
        if query.multivector is not None and one.multivector is not None:
            names = (
                encoder.tokens(text, kind="query"),
                encoder.tokens(str(batch.payloads[rows[hit.id]].get("text", ""))),
            )
            tokens = _token_matches(query.multivector, one.multivector[0], *names)
        found.append(Explanation(_parts(query, hit, shares), terms, tokens))
    return found


def _parts(query: Query, hit: Hit, shares: dict[Leg, dict[str, float]]) -> dict[Leg, float]:
    if query.rerank is not None:
        return {"multivector": hit.score}
    if len(query.legs) == 1:
        return {query.legs[0]: hit.score}
    if isinstance(query.fusion, Weighted):
        scores = {leg: getattr(hit.scores, leg) or 0.0 for leg in query.legs}
        return {leg: getattr(query.fusion, leg) * score for leg, score in scores.items()}
    return {leg: ranking.get(hit.id, 0.0) for leg, ranking in shares.items()}


def _rank_shares(connector: Connector, query: Query) -> dict[Leg, dict[str, float]]:
    """What each leg's ranking adds under reciprocal rank fusion, by id."""
    assert isinstance(query.fusion, Rrf)
    if query.rerank is not None or len(query.legs) == 1:
        return {}
    depths: dict[Leg, int] = {"dense": query.dense_depth, "sparse": query.sparse_depth}
    legs: list[Leg] = list(query.legs)
    alone = [
        Query(**{leg: getattr(query, leg)}, filter=query.filter, limit=depths[leg], payload=False)
        for leg in legs
        if leg != "multivector"
    ]
    if query.multivector is not None:
        late = Weighted(dense=0.0, sparse=0.0, multivector=1.0, rescore=False)
        everyone = sum(depths[leg] for leg in legs if leg != "multivector")
        alone.append(replace(query, fusion=late, limit=everyone, payload=False, leg_scores=False))
    return {
        leg: {hit.id: getattr(query.fusion, leg) / (query.fusion.k + hit.rank) for hit in ranking}
        for leg, ranking in zip(legs, planner.run(connector, alone), strict=True)
    }


def _token_matches(
    query: TokenArray, passage: TokenArray, query_names: list[str], passage_names: list[str]
) -> tuple[TokenMatch, ...]:
    similarities: FloatArray = query.astype(np.float32) @ passage.astype(np.float32).T
    best = similarities.argmax(axis=1)
    share = similarities.max(axis=1) / len(query)
    return tuple(
        TokenMatch(_name(query_names, at), _name(passage_names, int(best[at])), float(share[at]))
        for at in np.argsort(-share, kind="stable").tolist()
    )


def _name(names: list[str], at: int) -> str:
    """The token's text, or its position where the stored text does not give as many tokens."""
    return names[at] if at < len(names) else f"[{at}]"
