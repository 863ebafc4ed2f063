"""Test collections out of nothing but documents: each query is taken out of the passages that it must find again.

Three kinds, each a collection of its own over the same passages:

    titles       a document's title; relevant are the document's passages
    headings     a section's heading; relevant are the section's passages, those of its subsections, too
    sentences    a sentence; relevant are the passages that hold it

What became a query is removed from what the encoder reads of its relevant passages, title and headings
included, whatever marks stand between its words: otherwise it would find itself word for word (for
sentences this is the inverse cloze task of Lee, Chang and Toutanova, ACL 2019). A text that stands in
other documents, too, is no query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from m3connect.datasets import beir
from m3connect.datasets.beir import Dataset
from m3connect.datasets.write import write_collection
from m3connect.errors import ConfigError, InputError
from m3connect.ingestion import DocumentSource, Failure, read
from m3connect.ingestion.chunking import SENTENCE, Chunker
from m3connect.types import Chunk, Document

Kind = Literal["titles", "headings", "sentences"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LIMITS = (
    "These queries are known items: texts of your own documents, looked for after they were taken out. They "
    "compare settings on your texts, and show what finds nothing again. They do not show how people's "
    "questions fare: the words of a query are those of its document's writer, which favours the modes with "
    "terms; no query asks in another language; and passages that answer as well count as wrong. Write "
    "down fifty real questions with their documents before you decide."
)
"""What such a measurement can and cannot show: said wherever one is made."""

TOKENS: dict[Kind, tuple[int, int]] = {
    "titles": (2, 40),
    "headings": (2, 40),
    "sentences": (8, 48),
}
"""Fewest and most tokens of a query: less names nothing, more is no query."""
LEFT = 0.5
"""What must be left of a passage, in characters, after its sentence was taken out."""
_WORD = re.compile(r"\w+")
_BETWEEN = r"(?:\]\([^)\n]*\)|[\W_])+"
"""Words: white space, Markdown's marks, the address of a link."""


@dataclass(frozen=True, slots=True)
class Item:
    """A query, the passages that it was taken out of, and their language, if their document says it."""

    text: str
    passages: tuple[str, ...]
    language: str = ""


def build(
    path: str | Path,
    chunker: Chunker,
    folder: Path,
    *,
    queries: int = 200,
    seed: int = 0,
    language: str = "",
) -> list[Dataset]:
    """Write and load a test collection for each kind that the documents give queries of.

    The passages are in memory while they are cut.

    Args:
        path: a test collection, of which only the corpus is read, or what ingestion reads: a file, a
            folder, a glob, a URL.
        chunker: cuts the documents.
        folder: for the collections, which are named after the path (:func:`called`) and the kind.
        queries: most queries of each kind, drawn at random.
        seed: of the draw.
        language: of documents that do not name theirs.

    Raises:
        ConfigError: there is nothing to read, or the folder lies in what is read.
        InputError: no document gives any query.
    """
    source, failures = _source(path), list[Failure]()
    if Path(source).is_dir() and folder.resolve().is_relative_to(Path(source).resolve()):
        raise ConfigError(
            f"{folder} lies in {path}, whose files are read: the next run would take this one's for "
            "documents; choose another --output (or --cache)"
        )
    documents = list(_cut(source, chunker, failures))
    rng = np.random.default_rng(seed)
    by_kind = items(documents, chunker)
    drawn = {kind: _draw(by_kind[kind], queries, rng) for kind in KINDS}
    texts = dict(_masked(documents, drawn))
    made = []
    for kind in KINDS:
        if not drawn[kind]:
            continue
        where = folder / f"{called(path)}-{kind}"
        write_collection(
            where,
            (
                {"_id": chunk.id, "text": texts[chunk.id], "lang": _language(document)}
                for document, chunks in documents
                for chunk in chunks
            ),
            (
                {"_id": f"{kind}-{n}", "text": item.text, "lang": item.language}
                for n, item in enumerate(drawn[kind])
            ),
            (
                (f"{kind}-{n}", id_, 1)
                for n, item in enumerate(drawn[kind])
                for id_ in item.passages
            ),
        )
        made.append(beir.load(where, language=language))
    lost = _lost(failures, len(documents))
    if not made:
        raise InputError(
            f"{path}: no title, heading or sentence of {len(documents)} documents makes a query"
            + "".join(f"; {told}" for told in lost)
        )
    return [replace(dataset, warnings=(*dataset.warnings, *lost)) for dataset in made]


def called(path: str | Path) -> str:
    """What the collections of a source are called after.

    >>> called("manuals/"), called(".")
    ('manuals', 'documents')
    """
    return Path(path).name or "documents"


def _lost(failures: Sequence[Failure], sound: int) -> list[str]:
    """A warning where documents could not be read."""
    if not failures:
        return []
    first = failures[0]
    share = f"{len(failures)} of {len(failures) + sound}"
    where = first.id or first.where
    return [f"{share} documents could not be read; the first: {where}: {first.reason}"]


def _language(document: Document) -> str:
    language = document.metadata.get("lang")
    return language if isinstance(language, str) else ""


def items(
    documents: Sequence[tuple[Document, Sequence[Chunk]]], chunker: Chunker
) -> dict[Kind, list[Item]]:
    """Every possible query of each kind, in the order of the documents."""
    return {kind: list(_items(kind, documents, chunker)) for kind in KINDS}


def _items(
    kind: Kind, documents: Sequence[tuple[Document, Sequence[Chunk]]], chunker: Chunker
) -> Iterator[Item]:
    holders: dict[str, dict[str, Chunk]] = {}
    languages = {document.id: _language(document) for document, _ in documents}
    for document, chunks in documents:
        for chunk in chunks:
            for text in _texts(kind, document, chunk):
                holders.setdefault(text, {})[chunk.id] = chunk
    for text, held in holders.items():
        owners = {chunk.document_id for chunk in held.values()}
        shortest = min(len(chunk.text) for chunk in held.values())
        enough = kind != "sentences" or len(text) <= (1 - LEFT) * shortest
        if len(owners) == 1 and enough and _is_query(text, kind, chunker):
            yield Item(text, tuple(held), languages[owners.pop()])


def _texts(kind: Kind, document: Document, chunk: Chunk) -> list[str]:
    """Texts that may become queries and that this passage is, or would be, relevant to."""
    title = document.metadata.get("title")
    if kind == "titles":
        return [title.strip()] if isinstance(title, str) else []
    if kind == "headings":
        return [heading for heading in chunk.place.get("headings", ()) if heading != title]
    return [sentence.strip() for sentence in SENTENCE.split(chunk.text)]


def _is_query(text: str, kind: Kind, chunker: Chunker) -> bool:
    fewest, most = TOKENS[kind]
    if not re.search(r"\w", text) or len(text) > 40 * most:
        return False
    size = len(chunker.encoder.tokenizer.encode(text, add_special_tokens=False))
    return fewest <= size <= most


def _draw(candidates: Sequence[Item], size: int, rng: np.random.Generator) -> list[Item]:
    """At most so many, and at most one a passage: what is left of a passage is enough to find it by."""
    taken: set[str] = set()
    drawn: list[Item] = []
    for row in rng.permutation(len(candidates)).tolist():
        if len(drawn) < size and taken.isdisjoint(candidates[row].passages):
            drawn.append(candidates[row])
            taken.update(candidates[row].passages)
    return drawn


def _masked(
    documents: Iterable[tuple[Document, Sequence[Chunk]]], drawn: Mapping[Kind, Sequence[Item]]
) -> Iterator[tuple[str, str]]:
    """What the encoder reads of every passage, without what became a query of it."""
    removed: dict[str, list[str]] = {}
    for kind in KINDS:
        for item in drawn[kind]:
            for id_ in item.passages:
                removed.setdefault(id_, []).append(item.text)
    for _, chunks in documents:
        for chunk in chunks:
            yield chunk.id, without(chunk.encoded, removed.get(chunk.id, ()))


def without(text: str, queries: Iterable[str]) -> str:
    """A text with every occurrence of some queries taken out, of one in another, too.

    >>> without("# The **old** [pump](a.html) hums. All day.", ["The old pump hums.", "old pump"])
    '#  . All day.'
    """
    gone = [
        match.span()
        for query in queries
        for match in re.finditer(_BETWEEN.join(map(re.escape, _WORD.findall(query))), text)
    ]
    left, end = [], 0
    for start, stop in sorted(gone):
        if start >= end:
            left.append(text[end:start])
        end = max(end, stop)
    return " ".join([*left, text[end:]]).strip()


def _source(path: str | Path) -> str | Path:
    """The corpus of a test collection, or the path itself."""
    try:
        return beir.corpus_file(Path(path))
    except InputError:  # no test collection: whatever ingestion reads
        return path


def _cut(
    source: str | Path, chunker: Chunker, failures: list[Failure]
) -> Iterator[tuple[Document, list[Chunk]]]:
    """Sound documents with their passages; ``failures`` is filled with all others."""
    for candidate in DocumentSource(read([source]), chunker.encoder, chunker).candidates():
        if isinstance(candidate, Failure):
            failures.append(candidate)
        else:
            yield candidate.item, chunker.chunks(candidate.item)
