"""Teacher scores for training data: a cross-encoder's (``inference/reranking.py``), or the model's own.

Training data are JSON lines as FlagEmbedding has them: ``query``, ``pos``, ``neg`` and, from here,
``pos_scores`` and ``neg_scores``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from m3connect.contract import Encoder
from m3connect.datasets import lines
from m3connect.errors import InputError
from m3connect.progress import Progress, silent
from m3connect.searching.modes import vectors
from m3connect.training_data.mining import combined
from m3connect.types import LEGS, Leg

BATCH = 32
"""Training examples whose texts are scored together."""

Teacher = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""Scores of (query, passage) pairs."""


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Training examples of a file, other keys kept.

    Raises:
        InputError: a line that is no example, by file and number.
    """
    for where, record in lines.read(path):
        if not isinstance(record.get("query"), str):
            raise InputError(f"{where}: expected an object with query, pos and neg")
        for key in ("pos", "neg"):
            texts = record.get(key)
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise InputError(f"{where}: {key!r} must hold a list of strings")
        yield record


def score_file(
    examples: Path, output: Path, teacher: Teacher, *, progress: Progress = silent
) -> int:
    """Write the examples of a file again, with a teacher's scores; returns how many there are.

    Args:
        examples: training examples, a line of JSON each.
        output: the file, which is there when it is whole.
        teacher: scores their pairs.
        progress: told of every example.

    Raises:
        InputError: a line that is no example, by file and number.
    """

    def told(scored: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for number, example in enumerate(scored, start=1):
            yield example
            progress("scoring", number, None)

    return lines.write(output, told(add_scores(read(examples), teacher)))


def add_scores(examples: Iterable[dict[str, Any]], teacher: Teacher) -> Iterator[dict[str, Any]]:
    """Each example with the teacher's scores of its positives and negatives; streams."""
    stream = iter(examples)
    while batch := list(islice(stream, BATCH)):
        pairs = [(each["query"], text) for each in batch for text in (*each["pos"], *each["neg"])]
        scores = iter([float(score) for score in teacher(pairs)])
        for each in batch:
            yield {
                **each,
                "pos_scores": list(islice(scores, len(each["pos"]))),
                "neg_scores": list(islice(scores, len(each["neg"]))),
            }


def own_score(encoder: Encoder, weights: Sequence[float]) -> Teacher:
    """The model's own score ``w1 * dense + w2 * sparse + w3 * multivector`` as the teacher.

    Args:
        encoder: the model.
        weights: of dense, sparse and multi-vector; what weighs 0 is not computed.
    """
    by_leg: dict[Leg, float] = {
        leg: weight for leg, weight in zip(LEGS, weights, strict=True) if weight
    }

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        queries = list(dict.fromkeys(query for query, _ in pairs))
        passages = list(dict.fromkeys(passage for _, passage in pairs))
        asked = encoder.encode(queries, kind="query", legs=tuple(by_leg))
        embeddings = encoder.encode(passages, legs=tuple(by_leg))
        searched = {query: vectors(asked[row]) for row, query in enumerate(queries)}
        places = {passage: row for row, passage in enumerate(passages)}
        return [
            combined(searched[query], [passage], embeddings[places[passage]], by_leg)[passage]
            for query, passage in pairs
        ]

    return score
