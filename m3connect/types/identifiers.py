"""Identifiers as terms: error codes, options, versions and paths count whole, too.

A vocabulary of pieces cuts one name differently by what stands before it: ``SIM108`` after a space
is ``▁SIM 108``, in brackets ``SIM 108``, and the two share one term of two. So a name that was cut
gets a further term, the same wherever it stands.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate

from m3connect.types.vectors import SparseVectors

FIRST = 2**30
"""Terms of identifiers begin here, above any vocabulary, and end below 2**31."""

_SPACE = "▁"
"""What stands for a space in the pieces of SentencePiece, the tokenizer of XLM-R."""
_NAME = re.compile(r"[A-Za-z0-9_](?:\w|[-.:/#@+]{1,2}(?=\w))*", re.ASCII)
_TELLING = re.compile(r"[-_.:/#@+0-9]|[a-z][A-Z]")
"""What a plain word has not."""
_LONGEST = 128
_EMPHASIS = 2.0
"""What the name weighs beside its pieces: chosen on ``benchmarks/identifiers/dev``."""


def identifier_term(name: str) -> int:
    """The term of an identifier, whatever its case.

    >>> identifier_term("SIM108") == identifier_term("sim108") >= FIRST
    True
    """
    digest = blake2b(name.lower().encode(), digest_size=4).digest()
    return FIRST | int.from_bytes(digest, "big") >> 2


def identifiers(pieces: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """The identifiers of a text that were cut, each with its pieces.

    Args:
        pieces: the text's tokens in order, as :meth:`m3connect.M3Encoder.tokens` gives them.

    >>> list(identifiers(["▁rule", "▁(", "SIM", "108", "),", "▁well", "known"]))
    [('SIM108', ['SIM', '108'])]
    """
    ends = list(accumulate(map(len, pieces)))
    text = "".join(pieces).replace(_SPACE, " ")
    for match in _NAME.finditer(text):
        start, end = match.span()
        first, last = bisect_right(ends, start), bisect_right(ends, end - 1)
        whole = not _is_letter(text[start - 1 : start]) and not _is_letter(text[end : end + 1])
        if first < last and whole and end - start <= _LONGEST and _TELLING.search(match[0]):
            yield match[0], pieces[first : last + 1]


def with_identifiers(
    sparse: SparseVectors, texts: Sequence[Sequence[str]], term: Callable[[int], str]
) -> SparseVectors:
    """Lexical weights and, above them, a term for each identifier.

    Args:
        sparse: of N texts.
        texts: the pieces of each.
        term: the piece behind a term, see :meth:`m3connect.M3Encoder.term`.

    Returns:
        N rows; an identifier weighs twice what the terms of its pieces weigh together.

    >>> vocabulary = {5: "sim", 7: "108", 9: "▁rule"}
    >>> sparse = SparseVectors.from_rows([{5: 0.25, 7: 0.5, 9: 0.125}])
    >>> more = with_identifiers(sparse, [["▁rule", "▁(", "SIM", "108", ")"]], vocabulary.get)
    >>> more[0].values.tolist(), int(more[0].indices[3]) == identifier_term("sim108")
    ([0.25, 0.5, 0.125, 1.5], True)
    """
    rows = []
    for row, pieces in enumerate(texts):
        vector = sparse[row]
        weights = dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))
        of_piece = {term(index): weight for index, weight in weights.items()}
        further: dict[int, float] = {}
        for name, parts in identifiers(pieces):
            weight = sum(of_piece.get(p, of_piece.get(p.lower(), 0.0)) for p in parts)
            if weight > 0:
                index = identifier_term(name)
                further[index] = max(_EMPHASIS * weight, further.get(index, 0.0))
        rows.append(weights | dict(sorted(further.items())))
    return SparseVectors.from_rows(rows)


def _is_letter(character: str) -> bool:
    """Of an alphabet with two cases: such a letter before or after makes a name part of a word.

    What stands beside a name without a space in Chinese or Japanese has none.
    """
    return character.lower() != character.upper()
