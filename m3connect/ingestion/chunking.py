"""Documents into passages that fit the encoder, cut where the text itself has seams."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from m3connect.contract import Encoder
from m3connect.errors import ConfigError
from m3connect.ingestion.headings import Sections
from m3connect.types import Chunk, Document, encoded_text
from m3connect.types.fingerprint import MCLS_EVERY

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Context = Literal["title", "headings"]

DEFAULT_TOKENS = 256
"""Long enough for a paragraph, short enough for one topic."""
CONTEXT: tuple[Context, ...] = ("title", "headings")
"""What is encoded with each passage by default."""
TINY = 8  # a passage of less than one eighth of the limit is joined to a neighbour
# Characters. Splitting takes the square of a run without white space, and cannot be interrupted.
LONG_WORD, PART_OF_WORD, LONG_TEXT = 4096, 1024, 1 << 18
LONG_TOKEN = 8  # characters: a longer text is not looked at whole, since it hardly fits
WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""White space as Unicode has it, and the splitter trims; to Python the separators before 0x20 are some, too."""
_NESTED = re.compile(r"^(?:[ \t]*(?:>|(?:[*+-]|\d{1,9}[.)])[ \t])){50}", re.MULTILINE)
"""A line that opens so many quotes and lists, each inside of the one before: splitting takes the square
of their number."""
_KIND = "semantic 2"
"""Raised when the same options cut documents in another way."""
_PAGE_BREAK = "\f"
SENTENCE = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s+|(?<=[\u3002\uff01\uff1f])|\n")
_MARKS = re.compile(r"[\s`~\-*_=|:#>+]*|\s*(?:`{3,}|~{3,})[ \t]*[\w+#.-]{0,30}\s*")


def options_of(described: str) -> str:
    """The options that cut documents as a description says; empty for one of another kind.

    >>> options_of("semantic 2, 64 tokens, overlap 0, context title+headings")
    '--chunk-tokens 64 --chunk-overlap 0 --context title,headings'
    """
    match = re.fullmatch(rf"{_KIND}, (\d+) tokens, overlap (\d+), context (\S+)", described)
    if match is None:
        return ""
    tokens, overlap, context = match.groups()
    return (
        f"--chunk-tokens {tokens} --chunk-overlap {overlap} --context {context.replace('+', ',')}"
    )


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


Span = tuple[int, int]
"""Start and stop of a passage in its document, in characters."""


@dataclass(frozen=True)
class _Counter:
    """A tokenizer that counts, known by the hash of its vocabulary and rules."""

    hash: str
    tokenizer: Tokenizer = field(compare=False)


# Each takes about a second with a large vocabulary, which is most of an update of one document in a
# running process: made once. Most corpora need one of the two.
@lru_cache(maxsize=4)
def _text_splitter(counter: _Counter, tokens: int, overlap: int) -> TextSplitter:
    return TextSplitter.from_huggingface_tokenizer(counter.tokenizer, tokens, overlap)


@lru_cache(maxsize=4)
def _markdown_splitter(counter: _Counter, tokens: int, overlap: int) -> MarkdownSplitter:
    return MarkdownSplitter.from_huggingface_tokenizer(counter.tokenizer, tokens, overlap)


class Chunker:
    """Cuts documents at paragraphs, else sentences, else words; Markdown at its own structure.

    Args:
        encoder: its tokenizer counts, and its maximum length is the limit.
        tokens: most tokens a passage has, without the special ones and the prefix that the
            encoder adds, and without its context; default 256, or what the encoder takes if that
            is less.
        overlap: most tokens that a passage repeats of the one before it.
        context: what is encoded with each passage, though it is not in its text: the document's
            ``title`` (a metadata field) and the ``headings`` above the passage. Of what does not
            fit the encoder, the innermost headings stay.

    Raises:
        ConfigError: the encoder cannot take passages of this size, or the overlap is not less.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        tokens: int | None = None,
        overlap: int = 0,
        context: Sequence[Context] = CONTEXT,
    ) -> None:
        limit = encoder.info.max_length - added_tokens(encoder)
        if encoder.info.fingerprint.long_mode == "mcls":
            limit -= limit // (MCLS_EVERY + 1)  # of the inserted tokens
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
        if unknown := [each for each in context if each not in CONTEXT]:
            raise ConfigError(f"--context is of {', '.join(CONTEXT)}, got {', '.join(unknown)}")
        self.encoder = encoder
        self.overlap = overlap
        self.context = tuple(each for each in CONTEXT if each in context)
        self._limit = limit
        self._tokenizer = encoder.tokenizer
        self._counter = _Counter(encoder.info.fingerprint.tokenizer, self._tokenizer)

    @property
    def _text(self) -> TextSplitter:
        return _text_splitter(self._counter, self.tokens, self.overlap)

    @property
    def _markdown(self) -> MarkdownSplitter:
        return _markdown_splitter(self._counter, self.tokens, self.overlap)

    @property
    def description(self) -> str:
        """How documents are cut and what is encoded with them, for the collection's fingerprint."""
        context = "+".join(self.context) or "none"
        return f"{_KIND}, {self.tokens} tokens, overlap {self.overlap}, context {context}"

    def chunks(self, document: Document) -> list[Chunk]:
        """The passages of a document in order; none if it is blank.

        No character is lost but white space at the seams, passages of nothing but marks (fences,
        lines), and headings that the next passage carries as context. A passage exceeds the limit
        only where a single character does.
        """
        text = document.text
        sections = Sections(text if document.format == "markdown" else "")
        breaks = [each.start() for each in re.finditer(_PAGE_BREAK, text)]
        spans = self._evened(list(self._spans(document)), text)
        if document.format == "markdown":
            spans = [span for span in spans if not _is_marks(span, text)] or spans
        return [
            self._chunk(document, position, span, sections, breaks)
            for position, span in enumerate(self._joined(spans, text, sections))
        ]

    def _spans(self, document: Document) -> Iterator[Span]:
        """What the splitter makes of each block."""
        for start, stop in blocks(document.text):
            block = document.text[start:stop]
            structured = document.format == "markdown" and not _NESTED.search(block)
            splitter = self._markdown if structured else self._text
            if not structured and self._fits_at_once(block):
                # What the splitter finds, too, by trying every seam first: five times as slow.
                text = block.strip(WHITE)
                if text.strip():  # of separators alone nothing would be encoded
                    offset = start + block.index(text)
                    yield offset, offset + len(text)
                continue
            for offset, text in splitter.chunk_indices(block):
                if text.strip():
                    yield start + offset, start + offset + len(text)

    def _evened(self, spans: list[Span], text: str) -> list[Span]:
        """A paragraph that had to be cut leaves no small rest: its last two passages share it.

        A rest would be mostly context, and would rank above the passage that it belongs to.
        """
        if self.overlap:
            return spans
        for row in range(len(spans) - 1):
            first, rest = spans[row], spans[row + 1]
            size = rest[1] - first[0]
            if "\n" in text[first[1] : rest[0]] or 3 * (rest[1] - rest[0]) > size:
                continue
            middle = first[0] + size // 2
            window = max(first[0] + 1, middle - size // 6), min(first[1], middle + size // 6)
            seams = [seam.span() for seam in SENTENCE.finditer(text, *window)]
            if seams:
                stop, start = min(seams, key=lambda seam: abs(seam[1] - middle))
                if self._fits(text[start : rest[1]]):
                    spans[row : row + 2] = [(first[0], stop), (start, rest[1])]
        return spans

    def _joined(self, spans: Sequence[Span], text: str, sections: Sections) -> list[Span]:
        """Headings without text and tiny passages joined to the next, or to the one before.

        A heading that fits neither is left out if the next passage has it as context.
        """
        joined: list[Span] = []
        waiting: Span | None = None  # to be joined to the next
        for start, stop in spans:
            span = (start, stop)
            if waiting is not None:
                if self._fits(text[waiting[0] : stop]):
                    span = (waiting[0], stop)
                else:
                    self._put(joined, waiting, text, sections, following=span)
                waiting = None
            if self._is_small(span, text, sections):
                waiting = span
            else:
                joined.append(span)
        if waiting is not None:
            self._put(joined, waiting, text, sections, following=None)
        return joined

    def _put(
        self,
        joined: list[Span],
        span: Span,
        text: str,
        sections: Sections,
        *,
        following: Span | None,
    ) -> None:
        """A small passage that could not be joined to the following one."""
        if following and "headings" in self.context and _is_bare(span, text, sections):
            above = sections.path(_first_words(following, text, sections))
            if all(each.path == above[: len(each.path)] for each in sections.within(*span)):
                return
        if joined and self._fits(text[joined[-1][0] : span[1]]):
            joined[-1] = (joined[-1][0], span[1])
        else:
            joined.append(span)

    def _is_small(self, span: Span, text: str, sections: Sections) -> bool:
        if _is_bare(span, text, sections):
            return True
        passage = text[slice(*span)]
        return len(passage) < self.tokens and self._count(passage) * TINY < self.tokens

    def _chunk(
        self,
        document: Document,
        position: int,
        span: Span,
        sections: Sections,
        breaks: Sequence[int],
    ) -> Chunk:
        text = document.text[slice(*span)]
        path = sections.path(_first_words(span, document.text, sections))
        own = [heading.path[-1] for heading in sections.within(*span)]
        place: dict[str, Any] = {"span": list(span)}
        if path:
            place["headings"] = list(path)
        if breaks:
            place["page"] = bisect_left(breaks, span[0]) + 1
        title = document.metadata.get("title")
        parts = [title] if "title" in self.context and isinstance(title, str) else []
        parts += [each for each in path if each != title] if "headings" in self.context else []
        context = self._fitting([each for each in parts if each not in own], text)
        if context:
            place["_context"] = " ".join(context)
        return Chunk(
            chunk_id(document.id, position),
            document.id,
            position,
            text,
            encoded_text(text, None, context),
            place,
        )

    def _fitting(self, context: list[str], text: str) -> list[str]:
        """As much of the context as the encoder takes with the passage, from its inner end."""
        context = [" ".join(each.split()) for each in context]
        while context and self._count(encoded_text(text, None, context)) > self._limit:
            context = context[1:]
        return context

    def _fits_at_once(self, text: str) -> bool:
        return len(text) <= LONG_TOKEN * self.tokens and self._fits(text)

    def _fits(self, text: str) -> bool:
        return self._count(text) <= self.tokens

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))


def _is_marks(span: Span, text: str) -> bool:
    """Whether a passage is lines of nothing but marks: not a sign that was cut off a line."""
    start, stop = span
    line = text.rfind("\n", 0, start) + 1
    end = text.find("\n", stop)
    return (
        _MARKS.fullmatch(text, start, stop) is not None
        and not text[line:start].strip()
        and not text[stop : end if end >= 0 else None].strip()
    )


def _is_bare(span: Span, text: str, sections: Sections) -> bool:
    """Whether a passage is nothing but headings and marks."""
    offset = span[0]
    headings = sections.within(*span)
    for heading in headings:
        if not _MARKS.fullmatch(text, offset, max(offset, heading.start)):
            return False
        offset = heading.stop
    return bool(headings) and (
        offset >= span[1] or _MARKS.fullmatch(text, offset, span[1]) is not None
    )


def _first_words(span: Span, text: str, sections: Sections) -> int:
    """Where the text of a passage begins, after the headings that it opens with."""
    place = span[0]
    for heading in sections.within(*span):
        if text[place : max(place, heading.start)].strip():
            break
        place = max(place, heading.stop - 1)
    return place


def blocks(text: str) -> Iterator[Span]:
    """A text in parts that are split one by one: most texts are a single one.

    What has no white space for more than 4,096 characters is cut each 1,024, after a sentence or a
    clause if there is one; what is longer than 262,144 characters, before a heading or a paragraph.

    >>> list(blocks("a b " + "c" * 4_096)), len(list(blocks("a b " + "c" * 4_097)))
    ([(0, 4100)], 6)
    """
    offset = 0
    if max(map(len, text.split()), default=0) > LONG_WORD:
        for word in re.finditer(r"\S+", text):
            if word.end() - word.start() > LONG_WORD:
                yield from _sliced(text, offset, word.start(), LONG_TEXT, "\n#", "\n\n", "\n", " ")
                yield from _sliced(
                    text, *word.span(), PART_OF_WORD, "\u3002", ".", "\uff0c", ",", ";"
                )
                offset = word.end()
    yield from _sliced(text, offset, len(text), LONG_TEXT, "\n#", "\n\n", "\n", " ")


def _sliced(text: str, start: int, stop: int, limit: int, *seams: str) -> Iterator[Span]:
    while stop - start > limit:
        ends = (text.rfind(seam, start + limit // 2, start + limit) for seam in seams)
        cut = next((at + 1 for at in ends if at >= 0), start + limit)
        yield start, cut
        start = cut
    if start < stop:
        yield start, stop


def added_tokens(encoder: Encoder) -> int:
    """How many tokens the encoder adds to a passage: special ones and its prefix, if any."""
    return int(encoder.encode([""], legs=encoder.info.fingerprint.legs).n_tokens[0])
