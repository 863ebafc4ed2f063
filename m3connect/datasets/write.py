"""Test collections in the BEIR layout, written: whole folders, and small copies for measuring in a run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from m3connect.datasets import beir, lines
from m3connect.datasets.beir import Dataset
from m3connect.disk import aside
from m3connect.errors import ConfigError, InputError

HEADER = "query-id\tcorpus-id\tscore"
"""The first line of ``qrels.tsv``, as BEIR has it."""
_BREAKS = frozenset("\t\r\n")
_FILES = frozenset(
    {"corpus.jsonl", "corpus.jsonl.gz", "queries.jsonl", "queries.jsonl.gz", "qrels.tsv"}
)
_JUDGING = threading.Lock()


def write_collection(
    folder: Path,
    corpus: Iterable[Mapping[str, Any]],
    queries: Iterable[Mapping[str, Any]],
    qrels: Iterable[tuple[str, str, int]],
    *,
    gzipped: bool = False,
) -> None:
    """Write a collection; its folder is there when it is whole.

    Args:
        folder: its name; a collection that lies there is replaced.
        corpus: documents, with ``_id`` and ``text``.
        queries: with ``_id`` and ``text``.
        qrels: query id, document id, relevance.
        gzipped: whether corpus and queries are.

    Raises:
        ConfigError: the folder holds other files, which would be lost.
        M3ConnectError: there is no room.
    """
    others = sorted({path.name for path in folder.glob("*")} - _FILES)
    if others:
        raise ConfigError(
            f"{folder} holds other files than a test collection's ({others[0]!r}): name another folder"
        )
    ending = ".jsonl.gz" if gzipped else ".jsonl"
    with aside(folder) as unfinished:
        unfinished.mkdir()
        lines.write(unfinished / f"corpus{ending}", corpus)
        lines.write(unfinished / f"queries{ending}", queries)
        write_qrels(unfinished / "qrels.tsv", qrels)


def write_qrels(path: Path, qrels: Iterable[tuple[str, str, int]]) -> None:
    """Write judgements: query id, document id, relevance.

    Raises:
        InputError: an id with a tab or a line break, which no line could hold.
        M3ConnectError: there is no room.
    """
    with aside(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(f"{HEADER}\n")
        for query, document, score in qrels:
            if _BREAKS.intersection(query + document):
                raise InputError(f"{path.name} cannot hold the ids {query!r} and {document!r}")
            file.write(f"{query}\t{document}\t{score}\n")


def add_judgement(
    folder: Path, query: str, document_id: str, relevance: int, corpus: Mapping[str, str]
) -> None:
    """Add a judgement to a collection, which is made if need be; the last one of a pair counts.

    What users say of single hits becomes so what ``m3connect eval``, ``mine`` and ``train`` read. Threads
    of one process take turns.

    Args:
        folder: of the collection, written anew.
        query: its text; one that was judged before keeps its id.
        document_id: of the corpus.
        relevance: 0 for not relevant.
        corpus: the text of each document, as it is now; what was judged earlier and is gone stays.

    Raises:
        InputError: there is no such document, or the folder holds no collection.
        M3ConnectError: there is no room.
    """
    if document_id not in corpus:
        raise InputError(f"there is no document {document_id!r} to judge")
    ids: dict[str, str] = {}
    judged: dict[tuple[str, str], int] = {}
    texts: dict[str, str] = {}
    with _JUDGING:
        if folder.exists():
            earlier = beir.load(folder)
            ids = {each.text: each.id for each in earlier.queries}
            judged = {
                (q, doc): grade for q, by in earlier.qrels.items() for doc, grade in by.items()
            }
            known = {document for _, document in judged}
            texts = {doc.id: doc.text for doc in earlier.documents() if doc.id in known}
        taken = set(ids.values())
        unused = (f"q{number}" for number in count(len(ids) + 1) if f"q{number}" not in taken)
        judged[ids.setdefault(query, next(unused)), document_id] = relevance
        write_collection(
            folder,
            ({"_id": id_, "text": text} for id_, text in {**texts, **corpus}.items()),
            ({"_id": id_, "text": text} for text, id_ in ids.items()),
            ((*pair, grade) for pair, grade in judged.items()),
        )


def small_copy(
    dataset: Dataset, folder: Path, *, queries: int, documents: int, seed: int = 0
) -> Dataset:
    """A part of a collection, written as one of its own, small enough to be measured during a run.

    Queries are a sample; documents are all that these queries judge, and as many others as asked for.
    A smaller pool makes every figure higher than on the whole collection: compare runs, not papers.

    Args:
        dataset: the whole.
        folder: where the part goes; if it is there already, it is taken as it is.
        queries: at most so many.
        documents: so many, or those that the queries judge, if these are more.
        seed: of the draw.
    """
    if not (folder / "qrels.tsv").is_file():
        sample = dataset.sample(queries, seed=seed)
        judged = {id_ for query in sample.queries for id_ in sample.qrels[query.id]}
        others = [id_ for id_ in dataset.ids if id_ not in judged]
        rng = np.random.default_rng(seed)
        extra = max(0, min(documents - len(judged), len(others)))
        rows = rng.choice(len(others), extra, replace=False)
        kept = judged | {others[row] for row in rows}
        write_collection(
            folder,
            ({"_id": doc.id, "text": doc.text} for doc in sample.documents() if doc.id in kept),
            (
                {"_id": query.id, "text": query.text, "lang": query.language}
                for query in sample.queries
            ),
            (
                (query.id, id_, score)
                for query in sample.queries
                for id_, score in sample.qrels[query.id].items()
            ),
        )
    return beir.load(folder)
