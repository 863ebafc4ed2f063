"""Results as files: JSON, Markdown, HTML, each query's figures, and TREC runs; and back again."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m3connect.datasets import lines
from m3connect.datasets.beir import TextQuery
from m3connect.disk import aside
from m3connect.errors import InputError
from m3connect.evaluation.measure import Answer, Result, Row
from m3connect.evaluation.reports import page, tables
from m3connect.evaluation.threshold import Threshold
from m3connect.searching.names import ALIASES

log = logging.getLogger(__name__)


def write(results: Sequence[Result], folder: Path) -> list[Path]:
    """Put JSON, Markdown, HTML and each query's figures into a folder.

    ``results.json`` holds everything, ``summary.json`` the means, ``results.md`` and ``tables.html``
    the tables, ``DATASET.queries.jsonl`` one line a query.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = list(dict.fromkeys(name for result in results for name in _metrics(result)))
    shown = [tables.figures(results, metric) for metric in asked]
    if live := tables.live(results):
        shown.append(live)
    text = "\n\n".join(table.markdown() for table in shown)
    written = {
        "results.json": json.dumps([tables.details(result) for result in results], indent=1),
        "summary.json": json.dumps(tables.summary(results), indent=1),
        "results.md": text + "\n",
        "report.html": page.page(results),
    }
    written |= {_queries_name(result.dataset): _queries(result) for result in results}
    for name, content in written.items():
        with aside(folder / name) as unfinished:
            unfinished.write_text(content, encoding="utf-8")
    return [folder / name for name in written]


def read(folder: Path) -> list[Result]:
    """The results that :func:`write` put into a folder. Texts of queries are not among them.

    Raises:
        InputError: it holds none, or a file of them is missing or damaged.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise InputError(f"{folder}: no results.json; take a folder that eval --output has written")
    try:
        return [_read_one(stored, folder) for stored in json.loads(path.read_bytes())]
    except InputError:
        raise
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not what eval --output has written: {error!r}") from error


def _read_one(stored: Mapping[str, Any], folder: Path) -> Result:
    name = stored["dataset"]
    path = folder / _queries_name(name)
    if not path.is_file():
        raise InputError(f"{path} is missing: it holds the figures of {name}'s queries")
    queries = [query for _, query in lines.read(path)]
    if old := ALIASES.keys() & stored["rows"]:
        log.warning(
            "%s: rows of an older m3connect: %s",
            folder,
            ", ".join(f"{name} is read as {ALIASES[name]}" for name in sorted(old)),
        )
    rows = [
        Row(
            ALIASES.get(name, name),
            {
                metric: np.array([query["rows"][name][metric] for query in queries])
                for metric in row["metrics"]
            },
            row["seconds"],
            row.get("bytes_per_document"),
            row.get("live", {}),
            Threshold(**row["threshold"]) if "threshold" in row else None,
        )
        for name, row in stored["rows"].items()
    ]
    if any(
        not np.isclose(row.figures[metric].mean(), figure["mean"], equal_nan=True)
        for row, before in zip(rows, stored["rows"].values(), strict=True)
        for metric, figure in before["metrics"].items()
    ):
        raise InputError(
            f"{path} and results.json are not of one evaluation, or one of them is cut off: their "
            f"figures of {name} differ; run eval again"
        )
    return Result(
        name,
        stored["documents"],
        tuple(TextQuery(query["id"], "", query["lang"]) for query in queries),
        tuple(rows),
        stored["settings"],
        tuple(stored["warnings"]),
    )


class RunFiles:
    """Writes answers as TREC run files: query, Q0, document, rank, score, row, with tabs between.

    Args:
        folder: for the files, ``DATASET.ROW.trec``.
        dataset: its name.
    """

    def __init__(self, folder: Path, dataset: str) -> None:
        self.folder = folder
        self.dataset = dataset
        self.folder.mkdir(parents=True, exist_ok=True)
        self._begun: set[str] = set()

    def __call__(self, row: str, query: str, answer: Answer) -> None:
        """Append one answer; the first of a row begins its file anew."""
        path = self.folder / f"{file_name(self.dataset)}.{file_name(row)}.trec"
        mode = "a" if row in self._begun else "w"
        self._begun.add(row)
        with path.open(mode, encoding="utf-8") as file:
            for rank, (document, score) in enumerate(answer.items(), start=1):
                file.write(f"{query}\tQ0\t{document}\t{rank}\t{score!r}\t{row}\n")


def _queries_name(dataset: str) -> str:
    return f"{file_name(dataset)}.queries.jsonl"


def _metrics(result: Result) -> list[str]:
    return list(result.rows[0].figures) if result.rows else []


def _queries(result: Result) -> str:
    """One JSON line a query: its figures in every row."""
    lines = []
    for place, query in enumerate(result.queries):
        figures: Mapping[str, Any] = {
            row.name: {name: float(values[place]) for name, values in row.figures.items()}
            for row in result.rows
        }
        lines.append(json.dumps({"id": query.id, "lang": query.language, "rows": figures}))
    return "\n".join(lines) + "\n"


def file_name(name: str) -> str:
    """What files of a dataset or a row are called after."""
    return name.replace("/", ".").replace(" ", "-")
