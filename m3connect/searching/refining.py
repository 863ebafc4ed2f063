"""What a search does with the hits it found before it returns them.

pool of hits -> min_scores -> reranker -> one a document -> unlike each other -> page -> expand -> highlight
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from m3connect.contract import Connector, Encoder, Reranker
from m3connect.errors import InputError
from m3connect.searching.contexts import (
    Expand,
    apart,
    at_least,
    by_document,
    contexts,
    diverse,
    highlights,
    ranked,
)
from m3connect.searching.planner import Hits
from m3connect.types import Hit, Leg, stored_text

GroupBy = Literal["document"]
_CHOICE = 5
"""Hits to choose from, for each one that is returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """The steps after a search; see :func:`m3connect.searching.search.search` for each.

    Raises:
        InputError: a step that does not exist, or a ``pool`` with nothing that chooses from it.
    """

    min_scores: Mapping[Leg, float] | None = None
    reranker: Reranker | None = None
    group_by: GroupBy | None = None
    diversity: float | None = None
    pool: int | None = None
    expand: Expand = "nothing"
    expand_tokens: int = 1024
    highlight: int = 0

    def __post_init__(self) -> None:
        if self.group_by not in (None, "document"):
            raise InputError(f"group_by is document or None, got {self.group_by!r}")
        if self.pool is not None and not self.chooses:
            raise InputError("pool: nothing chooses from it; give group_by, reranker, or the like")
        if self.highlight < 0:
            raise InputError(f"highlight is a number of sentences, got {self.highlight}")

    @property
    def chooses(self) -> bool:
        """Whether hits are left out or put into another order."""
        steps = (self.reranker, self.group_by, self.diversity)
        return bool(self.min_scores) or any(step is not None for step in steps)

    def pool_for(self, wanted: int, most: int | None) -> int:
        """How many hits to search for.

        Args:
            wanted: hits to the end of the page.
            most: what the database returns at most.

        Raises:
            InputError: ``pool`` is smaller than the page's end.

        >>> Refinement().pool_for(10, None), Refinement(group_by="document").pool_for(10, None)
        (10, 50)
        """
        if self.pool is not None and self.pool < wanted:
            raise InputError(f"pool is {self.pool}, less than the {wanted} hits to return from it")
        if self.pool is not None or not self.chooses:
            return self.pool or wanted
        return max(wanted, min(_CHOICE * wanted, most or _CHOICE * wanted))

    def __call__(
        self, pool: Hits, text: str, connector: Connector, encoder: Encoder, page: slice
    ) -> list[Hit]:
        """The page of hits that is returned.

        Args:
            pool: the hits to choose from, best first.
            text: the query.
            connector: where they lie.
            encoder: counts tokens and compares sentences.
            page: which of the hits that remain.

        Raises:
            InputError: see :func:`m3connect.searching.search.search`.
        """
        hits: list[Hit] = list(pool)
        if self.min_scores:
            if unknown := sorted(set(self.min_scores) - set(pool.query.legs)):
                raise InputError(
                    f"min_scores names {', '.join(unknown)}; the query scores by "
                    f"{', '.join(pool.query.legs)}"
                )
            hits = ranked(
                at_least(hits, **{str(leg): least for leg, least in self.min_scores.items()})
            )
        if self.reranker is not None:
            hits = reranked(hits, text, self.reranker)
        if self.group_by == "document":
            hits = by_document(hits)
        if self.diversity is not None:
            hits = diverse(hits, connector, page.stop, diversity=self.diversity)
        hits = hits[page]
        if self.expand != "nothing":
            around = contexts(
                hits,
                connector,
                encoder,
                expand=self.expand,
                tokens=self.expand_tokens,
                filter=pool.query.filter,
            )
            hits = [replace(each.hit, context=each.text) for each in apart(around)]
        if self.highlight:
            texts = [hit.text if hit.context is None else hit.context for hit in hits]
            marks = highlights(text, texts, encoder, limit=self.highlight)
            hits = [
                replace(hit, highlights=marked) for hit, marked in zip(hits, marks, strict=True)
            ]
        return hits


def reranked(hits: Sequence[Hit], text: str, reranker: Reranker) -> list[Hit]:
    """Hits in the order of a reranker, which reads what the encoder read; its score is theirs.

    Raises:
        InputError: it does not give one number a passage.

    >>> hits = [Hit("a", 0.9, 1, {"text": "x"}), Hit("b", 0.8, 2, {"text": "longer"})]
    >>> by_length = reranked(hits, "any", lambda query, passages: [len(each) for each in passages])
    >>> [(hit.id, hit.score, hit.rank) for hit in by_length]
    [('b', 6.0, 1), ('a', 1.0, 2)]
    """
    if not hits:
        return []
    scores = scores_of(reranker, text, [stored_text(hit.payload) for hit in hits])
    scored = [replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
    scored.sort(key=lambda hit: (-hit.score, hit.id))
    return ranked(scored)


def scores_of(reranker: Reranker, text: str, passages: Sequence[str]) -> list[float]:
    """A reranker's score of each passage.

    Raises:
        InputError: it does not give one number a passage.
    """
    scores = np.asarray(reranker(text, passages), float)
    if scores.shape != (len(passages),) or not np.isfinite(scores).all():
        raise InputError(f"the reranker gave no finite score for each of {len(passages)} passages")
    return [float(score) for score in scores]
