"""A fake encoder: instant, deterministic, without a model; equal words give equal vectors."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from m3connect.contract import Kind, ModelInfo
from m3connect.types import (
    LEGS,
    Embeddings,
    Fingerprint,
    FloatArray,
    Leg,
    MultiVectors,
    SparseVectors,
    TokenArray,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_END = "</s>"


class HashEncoder:
    """Hashes words into vectors; satisfies :class:`m3connect.contract.Encoder`.

    Args:
        width: of dense and token vectors.
        max_length: tokens after which a text is cut, the two special ones included.
        seed: another seed is another model, with another fingerprint.

    >>> encoder = HashEncoder()
    >>> one, two = encoder.encode(["blue sky", "Blue, sky!"]).dense
    >>> bool(np.allclose(one, two))
    True
    """

    def __init__(self, *, width: int = 16, max_length: int = 512, seed: int = 0) -> None:
        self.seed = seed
        self.width = width
        name = f"hash-{seed}"
        identity = f"{name}-{width}"
        self.info = ModelInfo(
            name,
            Fingerprint(name, identity, "words", LEGS, width, width, max_length, "mean"),
            (1.0, 0.3, 1.0),
        )
        self._words: dict[int, str] = {}

    @property
    def tokenizer(self) -> Tokenizer:
        """One token a word or a punctuation mark."""
        from tokenizers import Tokenizer, models, pre_tokenizers

        tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return tokenizer

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Embeddings:
        """Encode texts; queries and passages alike."""
        every = [self.tokens(text, kind=kind) for text in texts]
        whole = [_words(text) for text in texts]
        limit = self.info.max_length - 2
        vectors = [
            np.stack([_vector(self.seed, self.width, word) for word in words]) for words in every
        ]
        dense = [_unit(rows.mean(axis=0)) for rows in vectors]
        return Embeddings(
            np.array(dense, np.float32).reshape(-1, self.width) if "dense" in legs else None,
            SparseVectors.from_rows([self._weights(words) for words in every])
            if "sparse" in legs
            else None,
            MultiVectors.from_rows([rows.astype(np.float16) for rows in vectors], width=self.width)
            if "multivector" in legs
            else None,
            np.array([len(words) + 1 for words in every], np.int32),
            np.array([len(words) > limit for words in whole], np.bool_),
        )

    def term(self, index: int) -> str:
        """The word behind a sparse index, if this encoder has met it."""
        return self._words.get(index, f"#{index}")

    def tokens(self, text: str, *, kind: Kind = "passage") -> list[str]:
        """The words of a text, cut at the limit, and an end mark."""
        del kind
        return [*_words(text)[: self.info.max_length - 2], _END]

    def _weights(self, words: Sequence[str]) -> dict[int, float]:
        terms = {zlib.crc32(word.encode()): word for word in words if word != _END}
        self._words.update(terms)
        return {term: 0.1 + (term % 90) / 100 for term in terms}


@lru_cache(maxsize=100_000)  # words come again and again
def _vector(seed: int, width: int, word: str) -> TokenArray:
    rng = np.random.default_rng([seed, zlib.crc32(word.encode())])
    return _unit(rng.normal(size=width).astype(np.float32))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.encode(errors="replace").decode().lower())


def _unit(vector: FloatArray) -> FloatArray:
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)
