"""The score of the best hit below which a search is better taken for one without an answer.

A query with a relevant document is asked twice of the same ranking: as it is, and with its relevant documents
left out, as if the corpus did not answer it. So a threshold needs no queries without an answer; those that are
judged, and have no relevant document, count beside. What nobody judged though it answers makes it too high.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from m3connect.datasets.beir import Qrels


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where to refuse, and how well that tells answerable queries from others.

    Args:
        score: of the best hit; below it the corpus holds no answer.
        answered: the part of the queries with a relevant document whose best hit reaches it.
        refused: the part of those without one whose best hit does not.
    """

    score: float
    answered: float
    refused: float


class Calibration:
    """Takes one ranking a query, and keeps two scores of it.

    >>> calibration = Calibration({"q1": {"a": 1}, "q2": {"b": 0}})
    >>> calibration.note("q1", {"a": 0.9, "b": 0.4})
    >>> calibration.note("q2", {"b": 0.6, "a": 0.5})
    >>> calibration.threshold()  # 0.9 has an answer; 0.6 has none, and 0.4 would have none without "a"
    Threshold(score=0.75, answered=1.0, refused=1.0)

    Args:
        qrels: judgements of the queries.
    """

    def __init__(self, qrels: Qrels) -> None:
        self._qrels = qrels
        self._with: list[float] = []
        self._without: list[float] = []

    def note(self, query: str, answer: Mapping[str, float]) -> None:
        """Take a query's documents with their scores; one that found nothing is refused by every score."""
        relevant = {id_ for id_, grade in self._qrels[query].items() if grade > 0}
        others = [score for id_, score in answer.items() if id_ not in relevant]
        if relevant:
            self._with.append(max(answer.values(), default=-np.inf))
        if others or not answer:  # else what comes next is unknown
            self._without.append(max(others, default=-np.inf))

    def threshold(self) -> Threshold | None:
        """Halfway between the two scores where the mean of both parts is largest; None if it is nowhere."""
        held, lacking = np.sort(self._with), np.sort(self._without)
        scores = np.unique([*held, *lacking])
        scores = scores[np.isfinite(scores)]
        if len(scores) < 2 or not len(held) or not len(lacking):
            return None
        middles = (scores[1:] + scores[:-1]) / 2
        answered = 1 - np.searchsorted(held, middles) / len(held)
        refused = np.searchsorted(lacking, middles) / len(lacking)
        best = int(np.argmax(answered + refused))
        return Threshold(float(middles[best]), float(answered[best]), float(refused[best]))
