"""Text to token ids, ragged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from m3connect.contract import Kind
from m3connect.errors import ConfigError, InputError
from m3connect.model import long_texts
from m3connect.model.config import M3Config
from m3connect.model.pieces import AnyTokenizer
from m3connect.types import LongMode


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The token ids of N inputs of the model: texts, or windows of texts.

    Args:
        offsets: ``int64 [N + 1]``; input i owns ``ids[offsets[i]:offsets[i + 1]]``.
        ids: ``int64 [T]``, special tokens and prefix included.
        truncated: ``bool [N]`` whether the text was cut.
        marks: ``bool [T]`` further first tokens within texts (MCLS); None without any.
        owners: ``int64 [N]`` rising, the text that an input is a window of; None where each is a text.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    marks: NDArray[np.bool_] | None = None
    owners: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def concat(cls, parts: Sequence[TokenIds]) -> TokenIds:
        """The texts of all parts, one part after the other; at least one part, all made alike."""
        lengths = np.concatenate([part.lengths for part in parts])
        marks = [part.marks for part in parts if part.marks is not None]
        owners, texts = [], 0
        for part in parts:
            if part.owners is not None:
                owners.append(part.owners + texts)
                texts += part.texts
        return cls(
            np.cumsum([0, *lengths], dtype=np.int64),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.truncated for part in parts]),
            np.concatenate(marks) if marks else None,
            np.concatenate(owners) if owners else None,
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each input."""
        return np.diff(self.offsets)

    @property
    def places(self) -> NDArray[np.int64]:
        """``int64 [T]``: how many tokens of its own input precede each."""
        return np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.lengths)

    @property
    def texts(self) -> int:
        """How many texts they are of."""
        if self.owners is None:
            return len(self)
        return int(self.owners[-1]) + 1 if len(self) else 0

    def content(self, leading: int) -> NDArray[np.bool_]:
        """``bool [T]``: what has lexical weights and token vectors.

        All but the first special token and the prefix, which are ``leading`` tokens, and marks.
        """
        after = self.places >= leading
        return after if self.marks is None else after & ~self.marks

    def positions(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Where the tokens of some inputs stand, one input after the other."""
        starts, lengths = self.offsets[:-1][rows], self.lengths[rows]
        before = np.cumsum(lengths) - lengths
        return np.repeat(starts - before, lengths) + np.arange(lengths.sum())

    def take(self, rows: NDArray[np.intp]) -> TokenIds:
        """Some inputs, in the order of ``rows``, each for itself."""
        positions = self.positions(rows)
        return TokenIds(
            np.cumsum([0, *self.lengths[rows]], dtype=np.int64),
            self.ids[positions],
            self.truncated[rows],
            None if self.marks is None else self.marks[positions],
        )

    def padded(self, rows: NDArray[np.intp], padding: int) -> NDArray[np.int64]:
        """Some inputs as ``int64 [B, L]``, padded on the right to the longest."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max())
        present = columns < lengths[:, None]
        positions = np.where(present, self.offsets[:-1][rows, None] + columns, 0)
        return np.where(present, self.ids[positions], padding)


class TextTokenizer:
    """Puts the prefix before a text, tokenises it and makes it fit the model.

    White space at the end of a text is dropped: tokenizers of one and the same vocabulary differ
    on it. Halves of surrogate pairs, which are no characters, count as U+FFFD (whole pairs as
    their character). Everything else, NUL included, is what the model's tokenizer makes of it.

    Args:
        tokenizer: the model's own.
        config: prefixes of queries and passages.
        max_length: the most tokens of an input, special tokens included.
        long_mode: what becomes of a longer text, see ``long_texts.py``.

    Raises:
        ConfigError: ``max_length`` leaves no room for text, or is more than the model's.
    """

    def __init__(
        self,
        tokenizer: AnyTokenizer,
        config: M3Config,
        max_length: int,
        long_mode: LongMode = "truncate",
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.long_mode = long_mode
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

    def term(self, index: int) -> str:
        """The piece of the vocabulary behind a token id.

        Raises:
            InputError: there is no such piece.
        """
        piece: str | None = self.tokenizer.id_to_token(index)
        if piece is None:
            raise InputError(f"the vocabulary has no term {index}")
        return piece

    def pieces(self, text: str, kind: Kind) -> list[str]:
        """The pieces behind the rows of a text's multi-vector, in order."""
        tokens = self([text], kind)
        ids = tokens.ids[tokens.content(self.leading(kind))]
        return [self.term(id_) for id_ in ids.tolist()]

    def __call__(self, texts: Sequence[str], kind: Kind, *, first: int = 0) -> TokenIds:
        """Tokenise texts.

        Args:
            texts: any strings.
            kind: whether they ask or answer.
            first: the number of the first of them, for messages.

        Raises:
            InputError: something is not a string; says which.
        """
        prefix = self._prefixes[kind]
        prepared = [
            (prefix + _clean(text, number)).rstrip() for number, text in enumerate(texts, first)
        ]
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(prepared)]
        leading, limit = self._leading[kind], self.max_length
        if self.long_mode == "chunk":
            cut = [long_texts.windows(row, leading, limit) for row in rows]
            tokens = _token_ids([(window, False) for windows in cut for window in windows])
            owners = np.repeat(np.arange(len(cut)), [len(windows) for windows in cut])
            return replace(tokens, owners=owners.astype(np.int64))
        if self.long_mode == "mcls":
            tokens = _token_ids([long_texts.marked(row, leading, limit) for row in rows])
            marks = np.zeros(len(tokens.ids), np.bool_)
            for start, length in zip(
                tokens.offsets.tolist(), tokens.lengths.tolist(), strict=False
            ):
                marks[[start + place for place in long_texts.marks(length, leading)]] = True
            return replace(tokens, marks=marks)
        return _token_ids([long_texts.truncated(row, limit) for row in rows])


def _token_ids(rows: Sequence[tuple[list[int], bool]]) -> TokenIds:
    """Of the tokens of each input, and whether it was cut."""
    offsets = np.cumsum([0, *(len(row) for row, _ in rows)], dtype=np.int64)
    ids = np.fromiter(chain.from_iterable(row for row, _ in rows), np.int64, offsets[-1])
    return TokenIds(offsets, ids, np.array([cut for _, cut in rows], np.bool_))


def whole_characters(text: str) -> str:
    """A text without halves of surrogate pairs: whole pairs are their character, halves are U+FFFD.

    >>> whole_characters("\\ud83d\\ude00"), whole_characters("a\\ud800b") == "a\\ufffdb"
    ('😀', True)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _clean(text: object, number: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"text {number} is {type(text).__name__}, not a string")
    return whole_characters(text)
