"""From hits to what an answer is written from: one hit a document, unlike each other, with what stands around.

The steps behind :func:`m3connect.searching.search.search`, which takes them as options, for hits of one's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from m3connect.contract import Connector, Encoder
from m3connect.errors import InputError
from m3connect.filters import AnyFilter, F, Filter, as_filter
from m3connect.searching import scoring
from m3connect.types import FloatArray, Highlight, Hit
from m3connect.types.records import document_of, position_of, text_of

Expand = Literal["nothing", "neighbours", "parent"]
_BREAK = "\n\n"
_BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+|>#]|\d+[.)]\s))")
_MARKER = re.compile(r"^\s*(?:[-*+>]|\d+[.)])\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")
_SENTENCE_CHARACTERS = 400
"""Where nothing ends a sentence, it ends here at the latest."""


@dataclass(frozen=True, slots=True)
class Context:
    """A hit with the text around it.

    Args:
        hit: what was found.
        text: the passage and what was added, in the order of the document.
        first, last: positions of the passages that the text is made of.
    """

    hit: Hit
    text: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of one of several texts.

    Args:
        text: in one line.
        score: MaxSim with the query, the mean over the query's tokens.
        row: of the text that it stands in.
    """

    text: str
    score: float
    row: int


def by_document(hits: Iterable[Hit], limit: int | None = None) -> list[Hit]:
    """The best hit of each document, ranked anew; a hit of no document stands for itself.

    >>> passages = [Hit(f"{doc}#{n}", 1.0 - n / 10, n + 1, {"document_id": doc}) for n, doc in
    ...             enumerate(["a", "a", "b"])]
    >>> [(hit.id, hit.rank) for hit in by_document(passages)]
    [('a#0', 1), ('b#2', 2)]
    """
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(hit.document_id, hit)
    return ranked(list(best.values())[:limit])


def ranked(hits: Iterable[Hit]) -> list[Hit]:
    """The hits with ranks from 1, in the order they have."""
    return [replace(hit, rank=rank) for rank, hit in enumerate(hits, 1)]


def at_least(hits: Iterable[Hit], score: float = -np.inf, **legs: float) -> list[Hit]:
    """The hits that reach a score, and a score of each named leg; a leg that is unknown fails.

    >>> from m3connect.types import LegScores
    >>> hits = [Hit("a", 2.0, 1, scores=LegScores(dense=0.9)), Hit("b", 1.0, 2)]
    >>> [hit.id for hit in at_least(hits, dense=0.5)]
    ['a']
    """
    return [
        hit
        for hit in hits
        if hit.score >= score
        and all(
            value is not None and value >= least
            for leg, least in legs.items()
            for value in [getattr(hit.scores, leg, None)]
        )
    ]


def diverse(
    hits: Sequence[Hit], connector: Connector, limit: int, *, diversity: float = 0.3
) -> list[Hit]:
    """The best hits that are unlike each other: maximal marginal relevance over dense vectors.

    The next hit has the largest ``(1 - diversity) * relevance - diversity * similarity``:
    relevance is its score between the worst (0) and the best (1) of the hits, similarity the
    largest inner product with a hit that is taken already (Carbonell and Goldstein 1998).

    Args:
        hits: best first.
        connector: where they lie; one request reads their dense vectors.
        limit: how many.
        diversity: 0 keeps the order, 1 looks at unlikeness alone.

    Raises:
        InputError: ``diversity`` is not between 0 and 1, or no dense vectors are stored.
    """
    if not 0 <= diversity <= 1:
        raise InputError(f"diversity is between 0 and 1, got {diversity}")
    batch = connector.fetch([hit.id for hit in hits], vectors=("dense",))
    if batch.embeddings.dense is None:
        raise InputError(f"{connector.collection!r} stores no dense vectors to tell hits apart")
    row_of = {id_: row for row, id_ in enumerate(batch.ids)}
    listed = [hit for hit in hits if hit.id in row_of]
    if not listed:
        return []
    vectors = batch.embeddings.dense[[row_of[hit.id] for hit in listed]]
    scores = np.array([hit.score for hit in listed])
    relevance = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-12)
    nearest = np.zeros(len(listed))  # to what is taken; nothing is yet
    taken: list[int] = []
    while len(taken) < min(limit, len(listed)):
        gain = (1 - diversity) * relevance - diversity * nearest
        gain[taken] = -np.inf
        taken.append(int(gain.argmax()))
        nearest = np.maximum(nearest, vectors @ vectors[taken[-1]])
    return ranked(listed[row] for row in taken)


def contexts(
    hits: Sequence[Hit],
    connector: Connector,
    encoder: Encoder,
    *,
    expand: Expand = "neighbours",
    tokens: int = 1024,
    filter: AnyFilter | None = None,  # noqa: A002 - the field's word
) -> list[Context]:
    """Each hit with what stands around it in its document.

    Args:
        hits: passages that ingestion wrote; others come as they are.
        connector: where they lie.
        encoder: counts tokens.
        expand: ``neighbours`` adds the passages before and after, by turns, while they fit;
            ``parent`` the whole document if it fits, else like ``neighbours``; ``nothing``.
        tokens: most tokens of one context; the hit's own passage is never cut.
        filter: which passages may be added: who may not find a passage does not read it here.
    """
    if expand not in ("nothing", "neighbours", "parent"):
        raise InputError(f"expand is nothing, neighbours or parent, got {expand!r}")
    allowed = as_filter(filter)
    result = []
    for hit in hits:
        position, document = position_of(hit.payload), document_of(hit.payload)
        if expand == "nothing" or position is None or document is None:
            place = position or 0
            result.append(Context(hit, hit.text, place, place))
            continue
        reach = None if expand == "parent" else tokens
        passages = _passages(connector, document, position, reach, allowed)
        result.append(_around(hit, position, passages, encoder, tokens))
    return result


def apart(contexts: Iterable[Context]) -> list[Context]:
    """The contexts of passages that stand in no earlier one: nothing is read twice.

    >>> hits = [Hit(f"a#{n}", 1.0, 1, {"document_id": "a", "position": n}) for n in (4, 5, 9)]
    >>> [each.hit.id for each in apart(
    ...     [Context(hits[0], "", 3, 5), Context(hits[1], "", 4, 6), Context(hits[2], "", 8, 9)]
    ... )]
    ['a#4', 'a#9']
    """
    kept: list[Context] = []
    read: set[tuple[str, int | None]] = set()
    for each in contexts:
        name = each.hit.document_id
        if (name, position_of(each.hit.payload)) not in read:
            kept.append(each)
            read |= {(name, place) for place in range(each.first, each.last + 1)}
    return kept


def best_sentences(
    query: str, texts: Sequence[str], encoder: Encoder, *, limit: int = 3
) -> list[Sentence]:
    """The sentences of some texts that answer a query best by MaxSim, in the order of the texts.

    Headings of Markdown are no sentences, and a line break within a paragraph ends none. A sentence that
    stands in several texts counts in the first.

    Args:
        query: the question.
        texts: passages or contexts.
        encoder: encodes the sentences of all texts in one pass.
        limit: how many.

    Raises:
        InputError: the model makes no multi-vectors.
    """
    where: dict[str, int] = {}
    for row, text in enumerate(texts):
        for start, stop in _sentences(text):
            where.setdefault(" ".join(text[start:stop].split()), row)
    sentences = list(where)
    if not sentences:
        return []
    scores = _maxsim(query, sentences, encoder)
    best = sorted(np.argsort(-scores, kind="stable")[:limit].tolist())
    return [Sentence(sentences[row], float(scores[row]), where[sentences[row]]) for row in best]


def highlights(
    query: str, texts: Sequence[str], encoder: Encoder, *, limit: int = 3
) -> list[tuple[Highlight, ...]]:
    """Where the best sentences of each text stand, by MaxSim with the query, in the texts' order.

    Args:
        query: the question.
        texts: passages or contexts.
        encoder: encodes the sentences of all of them in one pass.
        limit: how many of each text.

    Raises:
        InputError: the model makes no multi-vectors.
    """
    spans = [list(_sentences(text)) for text in texts]
    sentences = [
        text[start:stop] for text, own in zip(texts, spans, strict=True) for start, stop in own
    ]
    if not sentences:
        return [() for _ in texts]
    scores = iter(_maxsim(query, sentences, encoder).tolist())
    marks = [[Highlight(start, stop, next(scores)) for start, stop in own] for own in spans]
    best = [sorted(own, key=lambda each: -each.score)[:limit] for own in marks]
    return [tuple(sorted(own, key=lambda each: each.start)) for own in best]


def _maxsim(query: str, sentences: Sequence[str], encoder: Encoder) -> FloatArray:
    asked = encoder.encode([query], kind="query", legs=("multivector",)).multivector
    made = encoder.encode(sentences, legs=("multivector",)).multivector
    if asked is None or made is None:
        raise InputError(f"{encoder.info.name} makes no multi-vectors to compare sentences by")
    return scoring.maxsim_scores(asked[0], made)


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Where each starts and stops. Paragraphs, items of lists and rows of tables end one, headings are none.

    >>> text = "# Title\\nWrapped\\nline. Next!\\n- an item\\n- 3.5 bar\\n| a row | 1 |"
    >>> [text[start:stop] for start, stop in _sentences(text)]
    ['Wrapped\\nline.', 'Next!', 'an item', '3.5 bar', 'a row | 1']
    """
    from semantic_text_splitter import TextSplitter

    longest = TextSplitter(_SENTENCE_CHARACTERS)
    for place, block in _between(_BLOCK, text, 0):
        heading = block.partition("\n")[0] if block.startswith("#") else ""
        marker = _MARKER.match(block)
        before = len(heading) if heading else marker.end() if marker else 0
        for start, part in _between(_SENTENCE_END, block[before:], place + before):
            sentence = part.strip().strip("| ")
            if any(character.isalnum() for character in sentence):
                first = start + part.index(sentence)
                one_line = re.sub(r"\s", " ", sentence)  # line ends outrank words in the splitter
                for offset, piece in longest.chunk_indices(one_line):
                    yield first + offset, first + offset + len(piece)


def _between(separator: re.Pattern[str], text: str, place: int) -> Iterator[tuple[int, str]]:
    """The parts of a text with their places, of which the first is ``place``."""
    start = 0
    for end in separator.finditer(text):
        yield place + start, text[start : end.start()]
        start = end.end()
    yield place + start, text[start:]


def _passages(
    connector: Connector,
    document: str | int,
    position: int,
    reach: int | None,
    allowed: Filter | None,
) -> dict[int, str]:
    """The texts of a document by position; with ``reach`` tokens those that may come into question."""
    condition: Filter = F("document_id") == document
    if allowed is not None:
        condition &= allowed
    if reach is not None:
        # A passage has at least one token, but eight are the least that ingestion leaves alone.
        distance = max(1, reach // 8)
        condition &= (F("position") >= position - distance) & (F("position") <= position + distance)
    return {
        place: text_of(payload)
        for batch in connector.scan(condition)
        for payload in batch.payloads
        if (place := position_of(payload)) is not None
    }


def _around(
    hit: Hit, position: int, passages: dict[int, str], encoder: Encoder, tokens: int
) -> Context:
    """Grow from the hit: one before, one after, until neither fits or there is no more.

    positions   3  4 [5] 6  7      order of trial: 6, 4, 7, 3
    """
    left = tokens - _count(encoder, hit.text)
    ends = {1: position, -1: position}  # the last and the first position, by direction
    growing = [1, -1]
    while growing:
        for step in tuple(growing):
            here = ends[step] + step
            size = _count(encoder, passages[here]) if here in passages else left + 1
            if size > left:
                growing.remove(step)
            else:
                ends[step] = here
                left -= size
    first, last = ends[-1], ends[1]
    rows = [text for row in range(first, last + 1) if (text := passages.get(row))]
    return Context(hit, _BREAK.join(rows) or hit.text, first, last)


def _count(encoder: Encoder, text: str) -> int:
    return len(encoder.tokenizer.encode(text, add_special_tokens=False))
