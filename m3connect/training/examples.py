"""Training examples: a query, texts that answer it, texts that do not.

Two kinds of sources, read by row and never held in memory as a whole:

========= =========================================================================================
a file    JSON lines or Parquet with ``query``, ``pos`` (list), optional ``neg``, ``pos_scores``,
          ``neg_scores``, ``prompt``, ``lang``: the format of FlagEmbedding; other fields are yours
a folder  the BEIR layout: ``corpus.jsonl``, ``queries.jsonl`` (or ``.gz``), ``qrels.tsv`` or
          ``qrels/train.tsv``; every judgement above 0 is a positive
========= =========================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from m3connect.datasets import beir
from m3connect.datasets.lines import Records
from m3connect.errors import InputError


@dataclass(frozen=True, slots=True)
class Example:
    """One query with its passages.

    Args:
        query: with its prompt already before it.
        positives: texts that answer it, at least one.
        negatives: texts that do not, none of them also a positive.
        positive_scores, negative_scores: a teacher's scores of these, or None.
        language: of the query, empty when the data does not say.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    positive_scores: tuple[float, ...] | None = None
    negative_scores: tuple[float, ...] | None = None
    language: str = ""


class Source(Protocol):
    """Examples by row."""

    name: str

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> Example: ...


def open_source(path: Path) -> Source:
    """The examples of a file or a folder.

    Raises:
        InputError: nothing there, or not one example in it.
    """
    source: Source = PairFolder(path) if path.is_dir() else ExampleFile(path)
    if not len(source):
        raise InputError(f"{path}: no examples")
    return source


class ExampleFile:
    """Examples of a JSON-lines or Parquet file.

    Args:
        path: the file.

    Raises:
        InputError: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name.partition(".")[0]
        self._records = Records.open(path)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, row: int) -> Example:
        """The example of a row.

        Raises:
            InputError: the line is malformed; names file, line and field.
        """
        where, record = self._records.where(row), self._records[row]
        positives = _texts(where, record, "pos")
        if not positives:
            raise InputError(f"{where}: 'pos' holds no text")
        negatives = _texts(where, record, "neg")
        negative_scores = _scores(where, record, "neg_scores", len(negatives))
        kept = [number for number, text in enumerate(negatives) if text not in positives]
        return Example(
            _optional(where, record, "prompt") + _text(where, record, "query"),
            positives,
            tuple(negatives[number] for number in kept),
            _scores(where, record, "pos_scores", len(positives)),
            negative_scores and tuple(negative_scores[number] for number in kept),
            _optional(where, record, "lang"),
        )


class PairFolder:
    """Examples of a folder in the BEIR layout: one a query that has a relevant document.

    Args:
        path: the folder.

    Raises:
        InputError: a file is missing or malformed.
    """

    def __init__(self, path: Path) -> None:
        dataset = beir.load(path, qrels="train" if (path / "qrels/train.tsv").is_file() else None)
        self.name = dataset.name
        texts = ({"text": document.text} for document in dataset.documents())
        self._corpus = Records.of(f"{path}: corpus", texts)
        rows = {id_: row for row, id_ in enumerate(dataset.ids)}
        self._pairs = []
        for query in dataset.queries:
            judged = dataset.qrels[query.id].items()
            relevant = [rows[id_] for id_, relevance in judged if relevance > 0 and id_ in rows]
            if relevant:
                self._pairs.append((query, relevant))

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, row: int) -> Example:
        """The example of a row."""
        query, documents = self._pairs[row]
        positives = tuple(
            _text(self._corpus.where(document), self._corpus[document], "text")
            for document in documents
        )
        return Example(query.text, positives, language=query.language)


def _text(where: str, record: Mapping[str, Any], key: str) -> str:
    text = record.get(key)
    if not isinstance(text, str):
        raise InputError(f"{where}: {key!r} must hold a string, got {text!r}")
    if not text.strip():
        raise InputError(f"{where}: {key!r} is blank: there is nothing to learn from it")
    return text


def _optional(where: str, record: Mapping[str, Any], key: str) -> str:
    """Nothing where the field is absent or null."""
    text = record.get(key)
    if not isinstance(text, str | None):
        raise InputError(f"{where}: {key!r} must hold a string, got {text!r}")
    return text or ""


def _texts(where: str, record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    texts = record.get(key)
    if texts is None:
        return ()
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where}: {key!r} must hold a list of strings")
    if not all(text.strip() for text in texts):
        raise InputError(f"{where}: {key!r} holds a blank text: there is nothing to learn from it")
    return tuple(texts)


def _scores(
    where: str, record: Mapping[str, Any], key: str, expected: int
) -> tuple[float, ...] | None:
    scores = record.get(key)
    if scores is None or scores == []:
        return None
    if (
        not isinstance(scores, list)
        or len(scores) != expected
        or not all(isinstance(score, int | float) and math.isfinite(score) for score in scores)
    ):
        raise InputError(f"{where}: {key!r} must hold {expected} finite numbers, one a text")
    return tuple(map(float, scores))
