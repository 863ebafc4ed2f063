"""Test collections in the BEIR layout, written: whole folders, and small copies for measuring in a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from m3connect.datasets import beir, lines
from m3connect.datasets.beir import Dataset
from m3connect.disk import aside

HEADER = "query-id\tcorpus-id\tscore"
"""The first line of ``qrels.tsv``, as BEIR has it."""


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
        folder: its name; what lies there is replaced.
        corpus: documents, with ``_id`` and ``text``.
        queries: with ``_id`` and ``text``.
        qrels: query id, document id, relevance.
        gzipped: whether corpus and queries are.

    Raises:
        M3ConnectError: there is no room.
    """
    ending = ".jsonl.gz" if gzipped else ".jsonl"
    with aside(folder) as unfinished:
        unfinished.mkdir()
        lines.write(unfinished / f"corpus{ending}", corpus)
        lines.write(unfinished / f"queries{ending}", queries)
        write_qrels(unfinished / "qrels.tsv", qrels)


def write_qrels(path: Path, qrels: Iterable[tuple[str, str, int]]) -> None:
    """Write judgements: query id, document id, relevance.

    Raises:
        M3ConnectError: there is no room.
    """
    with aside(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(f"{HEADER}\n")
        file.writelines(f"{query}\t{document}\t{score}\n" for query, document, score in qrels)


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
