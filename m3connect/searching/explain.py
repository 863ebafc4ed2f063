"""Why a hit scores what it scores: parts that add up, terms that matched, tokens that met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from m3connect.contract import Connector, Encoder
from m3connect.searching import planner, scoring
from m3connect.searching.composing import depth_of, searched_legs
from m3connect.types import (
    LEGS,
    FloatArray,
    Fusion,
    Hit,
    Leg,
    Query,
    Rrf,
    TokenArray,
    Weighted,
    stored_text,
)
from m3connect.types.identifiers import identifier_term, identifiers


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
        hits: its hits; leg scores that they lack are computed from the stored vectors.
    """
    batch = connector.fetch([hit.id for hit in hits])
    rows = {id_: row for row, id_ in enumerate(batch.ids)}
    computed = scoring.leg_scores(query, batch.ids, batch.embeddings)
    shares = _shares(connector, query)
    pieces = encoder.tokens(text, kind="query")
    names = {identifier_term(name): name for name, _ in identifiers(pieces)}
    explanations = []
    for hit in hits:
        if hit.id not in rows:  # deleted since
            explanations.append(Explanation({}, (), ()))
            continue
        record = batch.embeddings[rows[hit.id]]
        terms: tuple[TermMatch, ...] = ()
        tokens: tuple[TokenMatch, ...] = ()
        if query.sparse is not None and record.sparse is not None:
            matched = scoring.sparse_contributions(query.sparse, record.sparse[0])
            terms = tuple(
                TermMatch(names.get(term) or encoder.term(term), share)
                for term, share in matched.items()
            )
        if query.multivector is not None and record.multivector is not None:
            others = encoder.tokens(stored_text(batch.payloads[rows[hit.id]]))
            tokens = _token_matches(query.multivector, record.multivector[0], pieces, others)
        scores = {leg: _leg_score(hit, leg, computed) for leg in query.legs}
        explanations.append(Explanation(_parts(query, hit, scores, shares), terms, tokens))
    return explanations


def _leg_score(hit: Hit, leg: Leg, computed: Mapping[Leg, Mapping[str, float]]) -> float:
    """The engine's score where the hit carries it, else the stored vectors'."""
    given: float | None = getattr(hit.scores, leg, None)
    return computed.get(leg, {}).get(hit.id, 0.0) if given is None else given


def _parts(
    query: Query, hit: Hit, scores: Mapping[Leg, float], shares: Mapping[Leg, Mapping[str, float]]
) -> dict[Leg, float]:
    if query.rerank is not None:
        return {"multivector": hit.score}
    if len(query.legs) == 1:
        return {query.legs[0]: hit.score}
    parts = {
        leg: shares[leg].get(hit.id, 0.0) if leg in shares else getattr(query.fusion, leg) * score
        for leg, score in scores.items()
        if not (leg == "multivector" and isinstance(query.fusion, Rrf))
    }
    # What ties by MaxSim an engine may rank otherwise each time: its part is what the others leave.
    rest = hit.score - sum(parts.values())
    return {leg: parts.get(leg, rest) for leg in query.legs}


def _shares(connector: Connector, query: Query) -> dict[Leg, dict[str, float]]:
    """What each leg adds by id, to those alone that it found: of legs that give nothing to others.

    The whole query is asked again, with no weight but the leg's: an engine that fuses ranks what ties in a
    leg as it likes, which a search of that leg alone would not tell.
    """
    how = query.fusion
    if how is None or query.rerank is not None or len(query.legs) == 1:
        return {}
    if isinstance(how, Weighted) and how.rescore:
        return {}
    # MaxSim is of every candidate.
    legs = [leg for leg in query.legs if leg != "multivector" and getattr(how, leg)]
    searched = searched_legs(query)
    alone = [
        replace(
            query,
            multivector=query.multivector if len(searched) == 1 else None,  # brings no candidates
            fusion=_only(leg, how),
            limit=sum(depth_of(query, each) for each in searched),
            payload=False,
            leg_scores=False,
        )
        for leg in legs
    ]
    rankings = planner.run(connector, alone) if alone else []
    return {
        leg: {hit.id: hit.score for hit in ranking}
        for leg, ranking in zip(legs, rankings, strict=True)
    }


def _only(leg: Leg, how: Fusion) -> Fusion:
    """A fusion in which the other legs weigh nothing."""
    weights: dict[str, Any] = {each: getattr(how, each) if each == leg else 0.0 for each in LEGS}
    return replace(how, **weights)


def _token_matches(
    query: TokenArray, passage: TokenArray, query_names: list[str], passage_names: list[str]
) -> tuple[TokenMatch, ...]:
    similarities: FloatArray = query.astype(np.float32) @ passage.astype(np.float32).T
    best = similarities.argmax(axis=1)
    share = similarities.max(axis=1) / len(query)
    if len(passage_names) > len(passage):  # pooled: a vector stands for several tokens
        passage_names = []
    return tuple(
        TokenMatch(_name(query_names, row), _name(passage_names, int(best[row])), float(share[row]))
        for row in np.argsort(-share, kind="stable").tolist()
    )


def _name(names: list[str], row: int) -> str:
    """The token's text, or its position where the text does not give as many tokens."""
    return names[row] if row < len(names) else f"[{row}]"
