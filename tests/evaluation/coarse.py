"""Vectors whose products add up exactly in float32.

Else a passage and its copy could differ in the last digit, by where they stand in a product: which of
them comes first would be another on another CPU.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from m3connect.testing.fakes import HashEncoder
from m3connect.types import Embeddings


def coarse(made: Embeddings) -> Embeddings:
    """With few binary places."""
    tokens = made.multivector
    return replace(
        made,
        dense=None if made.dense is None else np.float32(1 / 16) * np.round(made.dense * 16),
        multivector=tokens and replace(tokens, vectors=np.round(tokens.vectors * 16) / 16),
    )


class CoarseEncoder(HashEncoder):
    """Of such vectors."""

    def encode(self, texts, **options):
        """As the other does."""
        return coarse(super().encode(texts, **options))
