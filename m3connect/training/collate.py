"""Sample examples to tensors.

B queries, N passages (a group of G for each query, the positive first), L tokens, P known positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from m3connect.contract import Kind
from m3connect.model.config import M3Config
from m3connect.model.folding import CaseFolding
from m3connect.model.heads import content_masks
from m3connect.model.tokenize import TextTokenizer
from m3connect.training.sampling import Rows, Sample, text_key


@dataclass(frozen=True, slots=True)
class Texts:
    """Tokenised texts, padded on the right.

    Args:
        ids: ``int64 [N, L]`` token ids.
        mask: ``bool [N, L]``, true for tokens.
        terms: ``int64 [N, L]`` term ids: the token ids, folded where the model folds case.
        lexical: ``bool [N, L]``, tokens that have a lexical weight.
        content: ``bool [N, L]``, tokens that have a token vector.
    """

    ids: Tensor
    mask: Tensor
    terms: Tensor
    lexical: Tensor
    content: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Texts:
        """On another device."""
        return Texts(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one process sees in one step.

    Args:
        queries: B texts.
        passages: N = B * G texts; query i owns ``[i * G, (i + 1) * G)``.
        query_keys: ``int64 [B]``, equal for equal texts.
        passage_keys: ``int64 [N]``, likewise.
        positive_keys: ``int64 [B, P]``, keys of all that is known to answer a query; rows are
            filled up by repetition.
        teacher: ``float32 [B, G]``, or None.
    """

    queries: Texts
    passages: Texts
    query_keys: Tensor
    passage_keys: Tensor
    positive_keys: Tensor
    teacher: Tensor | None

    @property
    def group(self) -> int:
        """G."""
        return len(self.passages) // len(self.queries)

    @property
    def tokens(self) -> int:
        """Tokens of queries and passages, without padding."""
        return int(self.queries.mask.sum() + self.passages.mask.sum())

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        return Batch(
            self.queries.to(device),
            self.passages.to(device),
            self.query_keys.to(device),
            self.passage_keys.to(device),
            self.positive_keys.to(device),
            None if self.teacher is None else self.teacher.to(device),
        )


class Collator:
    """Tokenises what a step needs.

    Args:
        config: of the model.
        query, passage: the model's tokenizer at the recipe's lengths.
        fold: maps term ids, for models that fold case.
    """

    def __init__(
        self,
        config: M3Config,
        query: TextTokenizer,
        passage: TextTokenizer,
        *,
        fold: CaseFolding | None,
    ) -> None:
        self.config = config
        self.tokenizers: dict[Kind, TextTokenizer] = {"query": query, "passage": passage}
        self.fold = fold

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """A step's examples as tensors."""
        passages = [text for sample in samples for text in sample.passages]
        known = [[text_key(text) for text in sample.positives] for sample in samples]
        longest = max(map(len, known))
        scores = [sample.teacher for sample in samples if sample.teacher is not None]
        return Batch(
            self.texts([sample.query for sample in samples], "query"),
            self.texts(passages, "passage"),
            torch.tensor([text_key(sample.query) for sample in samples]),
            torch.tensor([text_key(text) for text in passages]),
            torch.tensor([(keys * longest)[:longest] for keys in known]),
            torch.tensor(scores) if scores else None,
        )

    def texts(self, texts: Sequence[str], kind: Kind) -> Texts:
        """Texts as tensors."""
        tokenizer = self.tokenizers[kind]
        tokens = tokenizer(texts, kind)
        padded = tokens.padded(np.arange(len(tokens)), self.config.body.pad_token_id)
        ids = torch.from_numpy(padded)
        mask = torch.from_numpy(np.arange(padded.shape[1]) < tokens.lengths[:, None])
        lexical, content = content_masks(
            ids, mask, tokenizer.leading(kind), self.config.special_ids
        )
        terms = ids if self.fold is None else torch.from_numpy(self.fold(padded).astype(np.int64))
        return Texts(ids, mask, terms, lexical, content)

    def lengths(self, samples: Sequence[Sample]) -> Rows:
        """Tokens of each example's longest text."""
        of_queries = self.tokenizers["query"]([sample.query for sample in samples], "query").lengths
        passages = [text for sample in samples for text in sample.passages]
        of_passages = self.tokenizers["passage"](passages, "passage").lengths
        longest: Rows = np.maximum(of_queries, of_passages.reshape(len(samples), -1).max(axis=1))
        return longest
