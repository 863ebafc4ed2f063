"""Answer-string recall, as MKQA and open-domain question answering count it.

A query is answered at k if one of its best k passages contains an answer: as a sequence of tokens,
after NFD normalisation and in lower case (DPR's rule, which the M3 paper's MKQA figures follow).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from m3connect.datasets.beir import TextQuery
from m3connect.errors import InputError
from m3connect.evaluation.metrics import Figures, cut
from m3connect.types import Document

METRICS = ("answer_recall@20", "answer_recall@100")

_NO_TOKENS = "\0"
_TOKEN = r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]"


def contains(passage: str, answers: Iterable[str]) -> bool:
    """Whether a passage holds one of the answers.

    >>> contains("He was born in 1879, in Ulm.", ["ulm", "Munich"])
    True
    >>> contains("an ulmer", ["Ulm"])
    False

    One without a token is held by none:

    >>> contains("anything", [" ", "\\u200b"])
    False
    """
    text = _joined(passage)
    return any(tokens in text for answer in answers if (tokens := _joined(answer)) != _NO_TOKENS)


def evaluate(
    run: Sequence[tuple[str, Mapping[str, float]]],
    queries: Iterable[TextQuery],
    documents: Iterable[Document],
    metrics: Sequence[str] = METRICS,
) -> Figures:
    """1 for every query that is answered within a metric's cut-off, else 0.

    Args:
        run: query ids with their documents' scores.
        queries: with their answers.
        documents: the corpus, read once as a stream.
        metrics: such as ``answer_recall@20``.

    Raises:
        InputError: a query has no answers.
    """
    cuts = {name: cut(name) for name in metrics}
    answers = {query.id: query.answers for query in check(queries)}
    ranked = [sorted(scores, key=lambda id_: (-scores[id_], id_)) for _, scores in run]
    deepest = max(cuts.values())
    within = {id_ for ids in ranked for id_ in ids[:deepest]}
    texts = {document.id: document.text for document in documents if document.id in within}
    firsts = np.array(
        [
            # A collection may hold more documents than the corpus: they answer nothing that is known.
            _first([texts.get(id_, "") for id_ in ids[:deepest]], answers[query])
            for (query, _), ids in zip(run, ranked, strict=True)
        ]
    )
    return {name: (firsts <= rank).astype(np.float64) for name, rank in cuts.items()}


def check(queries: Iterable[TextQuery]) -> list[TextQuery]:
    """The queries, all of which have answers.

    Raises:
        InputError: one has none.
    """
    listed = list(queries)
    for query in listed:
        if not query.answers:
            raise InputError(f"query {query.id!r} has no answers, which answer_recall@K needs")
    return listed


def _first(passages: Sequence[str], answers: Sequence[str]) -> float:
    """Rank of the first passage with an answer, infinity without one."""
    ranks = (rank for rank, text in enumerate(passages, start=1) if contains(text, answers))
    return next(ranks, float("inf"))


def _joined(text: str) -> str:
    import regex

    tokens = regex.findall(_TOKEN, unicodedata.normalize("NFD", text))
    return "\0".join(["", *(token.lower() for token in tokens), ""])
