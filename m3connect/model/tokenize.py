"""Text to token ids, ragged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from m3connect.contract import Kind
from m3connect.errors import ConfigError, InputError
from m3connect.model.config import M3Config
from m3connect.model.pieces import AnyTokenizer


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The token ids of N texts.

    Args:
        offsets: ``int64 [N + 1]``; text i owns ``ids[offsets[i]:offsets[i + 1]]``.
        ids: ``int64 [T]``, special tokens and prefix included.
        truncated: ``bool [N]`` whether the text was cut.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    truncated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def concat(cls, parts: Sequence[TokenIds]) -> TokenIds:
        """The texts of all parts, one part after the other; at least one part."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(
            np.cumsum([0, *lengths], dtype=np.int64),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.truncated for part in parts]),
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        return np.diff(self.offsets)

    def positions(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Where the tokens of some texts stand, one text after the other."""
        starts, lengths = self.offsets[:-1][rows], self.lengths[rows]
        before = np.cumsum(lengths) - lengths
        return np.repeat(starts - before, lengths) + np.arange(lengths.sum())

    def take(self, rows: NDArray[np.intp]) -> TokenIds:
        """Some texts, in the order of ``rows``."""
        return TokenIds(
            np.cumsum([0, *self.lengths[rows]], dtype=np.int64),
            self.ids[self.positions(rows)],
            self.truncated[rows],
        )

    def padded(self, rows: NDArray[np.intp], padding: int) -> NDArray[np.int64]:
        """Some texts as ``int64 [B, L]``, padded on the right to the longest."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max())
        present = columns < lengths[:, None]
        positions = np.where(present, self.offsets[:-1][rows, None] + columns, 0)
        return np.where(present, self.ids[positions], padding)


class TextTokenizer:
    """Puts the prefix before a text, tokenises it and cuts it to length.

    White space at the end of a text is dropped: tokenizers of one and the same vocabulary differ
    on it. Halves of surrogate pairs, which are no characters, count as U+FFFD (whole pairs as
    their character). Everything else, NUL included, is what the model's tokenizer makes of it.

    Args:
        tokenizer: the model's own.
        config: prefixes of queries and passages.
        max_length: tokens after which a text is cut, special tokens included.

    Raises:
        ConfigError: ``max_length`` leaves no room for text, or is more than the model's.
    """

    def __init__(self, tokenizer: AnyTokenizer, config: M3Config, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._prefixes = {kind: config.prefix(kind) for kind in get_args(Kind)}
        self._leading = {
            kind: len(tokenizer.encode_batch_fast([prefix.rstrip()])[0].ids) - 1
            for kind, prefix in self._prefixes.items()
        }
        least = max(self._leading.values()) + 2
        if not least <= max_length <= config.max_length:
            raise ConfigError(
                f"max_length {max_length}: {config.name} takes from {least} to "
                f"{config.max_length} tokens"
            )

    def leading(self, kind: Kind) -> int:
        """Tokens before the text itself: the first special token, and the prefix."""
        return self._leading[kind]

    def __call__(self, texts: Sequence[str], kind: Kind) -> TokenIds:
        """Tokenise texts.

        Raises:
            InputError: something is not a string; says which.
        """
        prefix = self._prefixes[kind]
        prepared = [(prefix + _clean(text, number)).rstrip() for number, text in enumerate(texts)]
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(prepared)]
        truncated = np.array([len(row) > self.max_length for row in rows], np.bool_)
        for number in np.flatnonzero(truncated):
            rows[number] = [*rows[number][: self.max_length - 1], rows[number][-1]]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        ids = np.fromiter(chain.from_iterable(rows), np.int64, offsets[-1])
        return TokenIds(offsets, ids, truncated)


def _clean(text: object, number: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"text {number} is {type(text).__name__}, not a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
