"""Development collections small enough to be measured during a run.

Queries are a sample; documents are all that these queries judge, and as many others as asked for. A
smaller pool makes every figure higher than on the whole collection: compare runs, not papers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from m3connect.datasets import beir
from m3connect.datasets.beir import Dataset


def small_copy(
    dataset: Dataset, folder: Path, *, queries: int, documents: int, seed: int = 0
) -> Dataset:
    """A part of a collection, written as one of its own.

    Args:
        dataset: the whole.
        folder: where the part goes; if it is there already, it is taken as it is.
        queries: at most so many.
        documents: so many, or those that the queries judge, if these are more.
        seed: of the draw.
    """
    if not (folder / "qrels.tsv").is_file():
        part = dataset.sample(queries, seed=seed)
        judged = {id_ for query in part.queries for id_ in part.qrels[query.id]}
        others = [id_ for id_ in dataset.ids if id_ not in judged]
        rng = np.random.default_rng(seed)
        extra = max(0, min(documents - len(judged), len(others)))
        kept = judged | {others[at] for at in rng.choice(len(others), extra, replace=False)}
        _write(part, kept, folder)
    return beir.load(folder)


def _write(part: Dataset, kept: set[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_lines(
        folder / "corpus.jsonl",
        ({"_id": doc.id, "text": doc.text} for doc in part.documents() if doc.id in kept),
    )
    _write_lines(
        folder / "queries.jsonl",
        ({"_id": query.id, "text": query.text, "lang": query.language} for query in part.queries),
    )
    rows = [
        f"{query.id}\t{id_}\t{relevance}"
        for query in part.queries
        for id_, relevance in part.qrels[query.id].items()
    ]
    content = "\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n"
    (folder / "qrels.tsv").write_text(content, encoding="utf-8")


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
