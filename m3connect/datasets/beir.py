"""Test collections on disk: a corpus, queries and judgements, in the BEIR layout.

    DIR/corpus.jsonl    {"_id": ..., "text": ..., "title": ..., "lang": ...}   title and lang optional
    DIR/queries.jsonl   {"_id": ..., "text": ..., "lang": ..., "answers": [...]}
    DIR/qrels.tsv       query-id, corpus-id, relevance      (or DIR/qrels/test.tsv)

``id`` serves for ``_id``, every file may be gzipped, and judgements may also be TREC's four columns
or JSON lines. Judgements under another name (``qrels.mono.tsv``, ``qrels/dev.tsv``) are chosen by
it. Where the judgements are empty, the queries with answers count. What cannot be right is an error
with file and line; what is merely odd is counted and reported.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from m3connect.datasets import lines
from m3connect.errors import InputError
from m3connect.types import Document, encoded_text

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance by query id and document id; above 0 is relevant."""

_ENDINGS = ("tsv", "tsv.gz", "txt", "jsonl", "jsonl.gz")
_QUERY_KEYS = ("query-id", "query_id", "qid")
_DOCUMENT_KEYS = ("corpus-id", "corpus_id", "docid", "doc_id")
_RELEVANCE_KEYS = ("relevance", "score")
_HIGHEST_RELEVANCE = 1_000_000


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A query of a test collection.

    Args:
        id: unique in its collection.
        text: what is searched for.
        language: as the file says, empty when it does not.
        answers: strings that answer it, for :mod:`m3connect.evaluation.answers`.
    """

    id: str
    text: str
    language: str = ""
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """A test collection. The corpus stays on disk; ids, queries and judgements are in memory.

    Args:
        name: of the collection, with the judgements' name where it is not the usual one.
        folder: where it lies.
        ids: document ids in file order; none where there is no corpus.
        queries: those with judgements or answers, in file order.
        qrels: judgements of these queries.
        content: hash of the documents, so that cached embeddings are never another corpus's.
        language: of texts that do not name theirs.
        warnings: what was odd, with counts.
    """

    name: str
    folder: Path
    ids: tuple[str, ...]
    queries: tuple[TextQuery, ...]
    qrels: Qrels
    content: str
    language: str = ""
    warnings: tuple[str, ...] = ()

    def documents(self) -> Iterator[Document]:
        """The corpus in file order, read anew; the text is the title and the text."""
        return read_corpus(corpus_file(self.folder), self.language)

    def sample(self, size: int, *, seed: int = 0) -> Dataset:
        """The same collection with at most ``size`` of its queries, drawn at random."""
        if size >= len(self.queries):
            return self
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(len(self.queries), size, replace=False))
        queries = tuple(self.queries[row] for row in rows)
        note = f"{size} of {len(self.queries)} queries, drawn with seed {seed}"
        return replace(self.only(queries), warnings=(*self.warnings, note))

    def only(self, queries: tuple[TextQuery, ...]) -> Dataset:
        """The same collection with these of its queries."""
        qrels = {query.id: self.qrels[query.id] for query in queries}
        return replace(self, queries=queries, qrels=qrels)


def load(
    folder: str | Path, *, qrels: str | None = None, language: str = "", bare: bool = False
) -> Dataset:
    """Read a test collection.

    Args:
        folder: its folder.
        qrels: which judgements, such as ``mono`` for ``qrels.mono.tsv`` or ``dev`` for
            ``qrels/dev.tsv``; None for ``qrels.tsv`` or ``qrels/test.tsv``.
        language: of texts that do not name theirs.
        bare: whether the corpus may be missing, as where a database holds it.

    Raises:
        InputError: a missing file, a malformed line, an id that occurs twice, contradicting
            judgements, or no judged query at all.
    """
    folder = Path(folder)
    name = folder.resolve().name + (f"/{qrels}" if qrels else "")
    corpus = _found(folder, "corpus") if bare else corpus_file(folder)
    asked = _read_queries(_find(folder, "queries"), language)
    ids, content, empty, themselves = _scan_corpus(corpus, asked) if corpus else ([], "", 0, set())
    judged, repeated = _read_qrels(_find_qrels(folder, qrels))
    known = set(ids)
    kept = tuple(q for q in asked.values() if q.id in judged or (not judged and q.answers))
    if not kept:
        raise InputError(f"{folder}: no query has a judgement; do the ids of the files agree?")
    qrels_kept = {query.id: judged.get(query.id, {}) for query in kept}
    unknown = sum(
        doc not in known
        for by_document in (qrels_kept.values() if corpus else ())
        for doc in by_document
    )
    counts = {
        "documents without text": empty,
        "queries without judgements left out": len(asked) - len(kept),
        "judgements of unknown queries left out": sum(
            len(by_document) for query, by_document in judged.items() if query not in asked
        ),
        "judgements of unknown documents (kept: they count as never found)": unknown,
        "judgements given twice": repeated,
        "queries that are documents of the corpus (kept: each finds itself, which the figures of BEIR "
        "and MTEB leave out)": sum(query.id in themselves for query in kept),
        "queries without a relevant document (kept: they score 0)": sum(
            bool(by_document) and max(by_document.values()) <= 0
            for by_document in qrels_kept.values()
        ),
    }
    return Dataset(
        name,
        folder,
        tuple(ids),
        kept,
        qrels_kept,
        content,
        language,
        tuple(f"{count} {what}" for what, count in counts.items() if count),
    )


def corpus_file(folder: Path) -> Path:
    """The corpus of a test collection.

    Raises:
        InputError: there is none.
    """
    return _find(folder, "corpus")


def read_corpus(path: Path, language: str = "") -> Iterator[Document]:
    """The documents of a corpus file in order; the text is the title and the text.

    Args:
        path: JSON lines, gzipped or not.
        language: of documents that do not name theirs.

    Raises:
        InputError: a malformed line.
    """
    return (document for _, document in _documents(path, language))


# ---------------------------------------------------------------------------------------- files


def _documents(path: Path, language: str = "") -> Iterator[tuple[str, Document]]:
    """With file and line."""
    for where, values in lines.read(path):
        title = values.get("title")
        text = encoded_text(_text(where, values, "text"), title if isinstance(title, str) else None)
        id_ = _identifier(where, values, ("_id", "id"))
        yield where, Document(id_, text, {"lang": _language(where, values) or language})


def _find(folder: Path, stem: str) -> Path:
    found = _found(folder, stem)
    if found is None:
        raise InputError(f"{folder}: no {stem}.jsonl and no {stem}.jsonl.gz")
    return found


def _found(folder: Path, stem: str) -> Path | None:
    paths = (folder / f"{stem}.{ending}" for ending in ("jsonl", "jsonl.gz"))
    return next((path for path in paths if path.is_file()), None)


def _find_qrels(folder: Path, name: str | None) -> Path:
    stems = [f"qrels.{name}", f"qrels/{name}"] if name else ["qrels", "qrels/test"]
    for stem in stems:
        for ending in _ENDINGS:
            path = folder / f"{stem}.{ending}"
            if path.is_file():
                return path
    names = sorted(str(path.relative_to(folder)) for path in folder.glob("qrels*/*"))
    names += sorted(path.name for path in folder.glob("qrels*") if path.is_file())
    raise InputError(
        f"{folder}: no judgements named {name or 'qrels.tsv'!r}; there are {names or 'none'}"
    )


def _identifier(where: str, values: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    value = next((values[key] for key in keys if key in values), None)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(f"{where}: no id: one of {list(keys)} must hold a string or a number")
    try:
        return str(value).encode().decode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: the id {value!r} holds half a surrogate pair") from error


def _text(where: str, values: Mapping[str, Any], key: str) -> str:
    text = values.get(key)
    if not isinstance(text, str):
        raise InputError(f"{where}: {key!r} must hold a string, got {text!r}")
    return text


def _language(where: str, values: Mapping[str, Any]) -> str:
    """As the line says; empty where it does not."""
    language = values.get("lang")
    if not isinstance(language, str | None):
        raise InputError(f"{where}: 'lang' must hold a string such as 'en', got {language!r}")
    return language or ""


def _answers(where: str, given: object) -> tuple[str, ...]:
    """Strings or numbers that answer a query; a single one may stand by itself."""
    listed = given if isinstance(given, list) else [] if given is None else [given]
    for answer in listed:
        if (
            isinstance(answer, bool)
            or not isinstance(answer, str | int | float)
            or not _says_something(str(answer))
        ):
            raise InputError(f"{where}: 'answers' must hold strings that are not blank: {given!r}")
    return tuple(map(str, listed))


def _says_something(text: str) -> bool:
    """Whether more than white space and control characters is in a text: it could be looked for."""
    return any(unicodedata.category(character)[0] not in "CZ" for character in text)


# --------------------------------------------------------------------------------------- records


def _scan_corpus(
    path: Path, asked: Mapping[str, TextQuery]
) -> tuple[list[str], str, int, set[str]]:
    """Ids, a hash of ids and texts, how many documents are empty, and which are a query, too."""
    digest = hashlib.blake2b(digest_size=16)
    ids: dict[str, None] = {}
    empty = 0
    themselves: set[str] = set()
    for where, document in _documents(path):
        if document.id in ids:
            raise InputError(f"{where}: document id {document.id!r} occurs twice")
        ids[document.id] = None
        empty += not document.text
        query = asked.get(document.id)
        if query and _is_text_of(query.text, document.text):  # ids alone may agree by chance
            themselves.add(document.id)
        digest.update(json.dumps([document.id, document.text]).encode())
    if not ids:
        raise InputError(f"{path}: no documents")
    return list(ids), digest.hexdigest(), empty, themselves


def _is_text_of(query: str, document: str) -> bool:
    """Whether a query is a document's text, before which a title may stand."""
    plain = query.strip()
    return bool(plain) and document.rstrip().endswith(plain) and 2 * len(plain) >= len(document)


def _read_queries(path: Path, language: str) -> dict[str, TextQuery]:
    queries: dict[str, TextQuery] = {}
    for where, values in lines.read(path):
        id_ = _identifier(where, values, ("_id", "id"))
        if id_ in queries:
            raise InputError(f"{where}: query id {id_!r} occurs twice")
        answers = _answers(where, values.get("answers"))
        text = _text(where, values, "text")
        queries[id_] = TextQuery(id_, text, _language(where, values) or language, answers)
    return queries


def _read_qrels(path: Path) -> tuple[dict[str, dict[str, int]], int]:
    """Judgements, and how many pairs were given twice with the same relevance."""
    qrels: dict[str, dict[str, int]] = {}
    repeated = 0
    for where, query, document, relevance in _judgements(path):
        judged = qrels.setdefault(query, {})
        if judged.get(document, relevance) != relevance:
            raise InputError(
                f"{where}: {document!r} has relevance {relevance} for {query!r} here and "
                f"{judged[document]} above"
            )
        repeated += document in judged
        judged[document] = relevance
    return qrels, repeated


def _judgements(path: Path) -> Iterator[tuple[str, str, str, int]]:
    if ".jsonl" in path.suffixes:
        for where, values in lines.read(path):
            query = _identifier(where, values, _QUERY_KEYS)
            document = _identifier(where, values, _DOCUMENT_KEYS)
            given = next((values[key] for key in _RELEVANCE_KEYS if key in values), None)
            yield where, query, document, _relevance(where, str(given))
        return
    for row, (where, line) in enumerate(lines.text_lines(path)):
        columns = line.split("\t") if "\t" in line else line.split()
        if len(columns) not in {3, 4}:
            raise InputError(
                f"{where}: expected query, document, relevance (or TREC's four columns), "
                f"got {len(columns)} columns"
            )
        if row == 0 and columns[-1] in _RELEVANCE_KEYS:
            continue
        document = columns[1] if len(columns) == 3 else columns[2]
        yield where, columns[0], document, _relevance(where, columns[-1])


def _relevance(where: str, text: str) -> int:
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{where}: relevance {text!r} is not a number") from error
    if not value.is_integer():
        raise InputError(f"{where}: relevance {text!r} is not a whole number")
    if value > _HIGHEST_RELEVANCE:  # trec_eval counts the judgements of each grade in a table
        raise InputError(f"{where}: relevance {text!r} is more than {_HIGHEST_RELEVANCE}")
    return int(value)
