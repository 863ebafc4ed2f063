"""What is asked and answered: a query in vectors, the fusions, and hits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from m3connect.types.records import PASSAGE_FIELDS, Payload, document_of, text_of
from m3connect.types.vectors import LEGS, FloatArray, Leg, SparseVector, TokenArray

if TYPE_CHECKING:
    from m3connect.filters import AnyFilter


@dataclass(frozen=True, slots=True)
class Rrf:
    """Reciprocal rank fusion: a candidate scores ``sum(weight / (k + rank))``, ranks from 1.

    Args:
        k: how much the first ranks are flattened (Cormack et al. 2009 use 60).
        dense, sparse, multivector: the legs' weights.
    """

    k: float = 60.0
    dense: float = 1.0
    sparse: float = 1.0
    multivector: float = 1.0


@dataclass(frozen=True, slots=True)
class Weighted:
    """The raw weighted sum ``w1 * dense + w2 * sparse + w3 * maxsim`` (M3 paper, section 3.2).

    Args:
        dense, sparse, multivector: the legs' weights; the defaults are the paper's for MIRACL.
        rescore: whether a candidate that only one leg found still gets its true score from the
            others ("re-rank the union", section 4.1). With False it gets 0 from them, as in the
            paper's published scripts and in the databases' own weighted rankers.
    """

    dense: float = 1.0
    sparse: float = 0.3
    multivector: float = 1.0
    rescore: bool = True


Fusion = Rrf | Weighted


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Query:
    """One search, in vectors. Every leg obeys ``filter`` and ``within``.

    A query with one leg returns that leg's best ``limit``. With more, dense and sparse are searched
    to their depths, and a multi-vector scores (MaxSim) the union of their candidates, as the paper
    does; a multi-vector alone is compared with the whole collection. A sparse candidate shares at
    least one term. Two legs or more need a ``fusion``; ``rerank`` takes the multi-vector out of it
    and orders the best of the other legs by MaxSim alone.

    Args:
        dense: ``float32 [D]``.
        sparse: lexical weights.
        multivector: ``float [tokens, C]``.
        dense_depth, sparse_depth: candidates each leg brings.
        fusion: how the legs' results become one score.
        rerank: the best so many of the dense and sparse legs are ordered by MaxSim alone.
        filter: which records may be found, as conditions or as text such as ``lang == "de"``.
        within: ids of the records that may be found; None for all. Beside the filter, not instead.
        limit: how many hits at most.
        payload: whether hits carry their payload.
        leg_scores: whether hits carry the score of each leg.
    """

    dense: FloatArray | None = None
    sparse: SparseVector | None = None
    multivector: TokenArray | None = None
    dense_depth: int = 100
    sparse_depth: int = 100
    fusion: Fusion | None = None
    rerank: int | None = None
    filter: AnyFilter | None = None
    within: tuple[str, ...] | None = None
    limit: int = 10
    payload: bool = True
    leg_scores: bool = False

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The representations that take part."""
        return tuple([leg for leg in LEGS if getattr(self, leg) is not None])


@dataclass(frozen=True, slots=True)
class LegScores:
    """What each leg says of one hit; None where the query or the record lacks it."""

    dense: float | None = None
    sparse: float | None = None
    multivector: float | None = None


@dataclass(frozen=True, slots=True)
class Highlight:
    """A sentence that answers the query: characters ``start`` to ``stop`` of a text, and its MaxSim."""

    start: int
    stop: int
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One result.

    Args:
        id: the record's id.
        score: higher is better; its scale depends on the query's legs and fusion.
        rank: 1 for the best.
        payload: the record's payload, empty when not asked for.
        scores: each leg's own score, when asked for.
        context: the passage with what stands around it in its document, when asked for.
        highlights: the sentences of the context, or else of the passage, that answer best, when
            asked for; in the order of the text.
    """

    id: str
    score: float
    rank: int
    payload: Payload = field(default_factory=dict)
    scores: LegScores | None = None
    context: str | None = None
    highlights: tuple[Highlight, ...] = ()

    @property
    def text(self) -> str:
        """The passage; empty where the payload has none or was not asked for.

        >>> Hit("a#0", 0.9, 1, {"text": None, "document_id": 7}).text
        ''
        """
        return text_of(self.payload)

    @property
    def document_id(self) -> str:
        """The document that the passage was cut from; the record's own id where none is named."""
        named = document_of(self.payload)
        return self.id if named is None else str(named)

    @property
    def metadata(self) -> dict[str, Any]:
        """The payload without what ingestion keeps in it for itself.

        >>> Hit("a#0", 0.9, 1, {"text": "x", "position": 0, "_ingest": "f00", "lang": "en"}).metadata
        {'lang': 'en'}
        """
        return {name: value for name, value in self.payload.items() if name not in PASSAGE_FIELDS}

    def marked(self, before: str = "**", after: str = "**") -> str:
        """The context, or else the passage, with the highlights between marks.

        >>> hit = Hit("a#0", 0.9, 1, {"text": "One. Two."}, highlights=(Highlight(5, 9, 0.8),))
        >>> hit.marked("<", ">")
        'One. <Two.>'
        """
        text, parts, place = self.text if self.context is None else self.context, [], 0
        for each in self.highlights:
            parts += [text[place : each.start], before, text[each.start : each.stop], after]
            place = each.stop
        return "".join([*parts, text[place:]])
