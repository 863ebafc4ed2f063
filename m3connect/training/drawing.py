"""From an example to what one step sees of it: one positive, some negatives. Stateless.

What is drawn depends on the seed, the epoch and the example's place alone: whoever asks again gets
the same, on every process and after a restart.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from m3connect.errors import InputError
from m3connect.training.examples import Example

_SHORTEST_SHUFFLED = 100
_SEGMENTS = 3


@dataclass(frozen=True, slots=True)
class Drawn:
    """One query with its group of passages, for one step.

    Args:
        query: the query.
        passages: the positive first, then the negatives.
        positives: all texts known to answer the query: none of them is its negative.
        teacher: a teacher's score of each passage, or None.
        language: of the query.
    """

    query: str
    passages: tuple[str, ...]
    positives: tuple[str, ...]
    teacher: tuple[float, ...] | None
    language: str

    def with_instruction(self, instruction: str) -> Drawn:
        """With an instruction before the query; an empty one changes nothing."""
        return replace(self, query=instruction + self.query)


def text_key(text: str) -> int:
    """A number that stands for a text: equal texts have equal keys, in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def generator(*place: int) -> np.random.Generator:
    """Random numbers that depend on the place alone, such as (seed, epoch, dataset, row)."""
    return np.random.default_rng(place)


def draw(
    example: Example,
    rng: np.random.Generator,
    *,
    negatives: int = 0,
    shuffle_segments: float = 0.0,
    teacher: bool = False,
) -> Drawn:
    """One positive and so many negatives of an example.

    Too few negatives are drawn again until there are enough.

    Args:
        example: to draw from.
        rng: see :func:`generator`.
        negatives: how many.
        shuffle_segments: probability that the positive's segments change places.
        teacher: whether the teacher's scores are wanted.

    Raises:
        InputError: negatives or scores are wanted and the example has none.
    """
    if negatives and not example.negatives:
        raise InputError(
            f"the example {example.query[:60]!r} has no negatives: mine some (m3connect mine), or "
            "set negatives = 0"
        )
    best = int(rng.integers(len(example.positives)))
    worse = _choose(rng, len(example.negatives), negatives)
    positive = example.positives[best]
    if rng.random() < shuffle_segments:
        positive = segments_shuffled(positive, rng)
    return Drawn(
        example.query,
        (positive, *(example.negatives[number] for number in worse)),
        example.positives,
        _scores(example, best, worse) if teacher else None,
        example.language,
    )


def _choose(rng: np.random.Generator, count: int, wanted: int) -> list[int]:
    """``wanted`` of ``count``, each once if that suffices."""
    chosen: list[int] = []
    while len(chosen) < wanted:
        chosen += rng.permutation(count)[: wanted - len(chosen)].tolist()
    return chosen


def _scores(example: Example, best: int, worse: list[int]) -> tuple[float, ...]:
    if not example.positive_scores or (worse and not example.negative_scores):
        raise InputError(
            f"the example {example.query[:60]!r} has no teacher scores: add them (m3connect score), "
            'or set teacher = "none"'
        )
    negative_scores = example.negative_scores or ()
    return (example.positive_scores[best], *(negative_scores[number] for number in worse))


def segments_shuffled(text: str, rng: np.random.Generator) -> str:
    """The text's three segments in another order, so that no lead paragraph gives it away.

    (M3 paper, appendix A.1. Short texts stay as they are.)
    """
    if len(text) <= _SHORTEST_SHUFFLED:
        return text
    size = -(-len(text) // _SEGMENTS)
    segments = [text[start : start + size] for start in range(0, len(text), size)]
    return " ".join(segments[at] for at in rng.permutation(len(segments)))
