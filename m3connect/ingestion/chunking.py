"""Documents into passages that fit the encoder, cut where the text itself has seams."""

from __future__ import annotations

from functools import cached_property

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from m3connect.contract import Encoder
from m3connect.errors import ConfigError
from m3connect.types import Chunk, Document

DEFAULT_TOKENS = 256
"""Long enough for a paragraph, short enough for one topic."""


def chunk_id(document_id: str, position: int) -> str:
    """The id of a document's passage, the same in every run.

    >>> chunk_id("manual.md", 2)
    'manual.md#2'
    """
    return f"{document_id}#{position}"


def chunk_ids(document_id: str, start: int, stop: int) -> list[str]:
    """The ids of passages ``start`` to ``stop - 1``.

    >>> chunk_ids("a", 1, 3)
    ['a#1', 'a#2']
    """
    return [chunk_id(document_id, position) for position in range(start, stop)]


class Chunker:
    """Cuts documents at paragraphs, else sentences, else words; Markdown at its own structure.

    Args:
        encoder: its tokenizer counts, and its maximum length is the limit.
        tokens: most tokens a passage has, without the special ones and the prefix that the
            encoder adds; default 256, or what the encoder takes if that is less.
        overlap: most tokens that a passage repeats of the one before it.

    Raises:
        ConfigError: the encoder cannot take passages of this size, or the overlap is not less.
    """

    def __init__(self, encoder: Encoder, *, tokens: int | None = None, overlap: int = 0) -> None:
        limit = encoder.info.max_length - added_tokens(encoder)
        self.tokens = min(DEFAULT_TOKENS, limit) if tokens is None else tokens
        if not 1 <= self.tokens <= limit:
            raise ConfigError(
                f"--chunk-tokens must be between 1 and {limit} with {encoder.info.name} (its "
                f"maximum without special tokens and prefix), got {tokens}"
            )
        if not 0 <= overlap < self.tokens:
            raise ConfigError(
                f"--chunk-overlap must be between 0 and {self.tokens - 1}, got {overlap}"
            )
        self.overlap = overlap
        self._tokenizer = encoder.tokenizer

    # Each takes about a second with a large vocabulary, and most corpora need one of them.
    @cached_property
    def _text(self) -> TextSplitter:
        return TextSplitter.from_huggingface_tokenizer(self._tokenizer, self.tokens, self.overlap)

    @cached_property
    def _markdown(self) -> MarkdownSplitter:
        return MarkdownSplitter.from_huggingface_tokenizer(
            self._tokenizer, self.tokens, self.overlap
        )

    @property
    def description(self) -> str:
        """How documents are cut, for the collection's fingerprint."""
        return f"semantic, {self.tokens} tokens, overlap {self.overlap}"

    def chunks(self, document: Document) -> list[Chunk]:
        """The passages of a document in order; none if it is blank.

        No character is lost but white space at the seams. A passage exceeds the limit only where
        a single character does.
        """
        splitter = self._markdown if document.format == "markdown" else self._text
        return [
            Chunk(chunk_id(document.id, position), document.id, position, text)
            for position, text in enumerate(splitter.chunks(document.text))
        ]


def added_tokens(encoder: Encoder) -> int:
    """How many tokens the encoder adds to a passage: special ones and its prefix, if any."""
    return int(encoder.encode([""], legs=encoder.info.fingerprint.legs).n_tokens[0])
