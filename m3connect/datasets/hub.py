"""Published test collections by name, from the Hugging Face hub, rewritten in the BEIR layout.

    beir-NAME        such as beir-scifact (test judgements; msmarco: dev)
    nanobeir-NAME    such as nanobeir-SciFact
    miracl-LANG      dev; passages whose id equals the query's stay in
    mldr-LANG        test
    mkqa-LANG        answers instead of judgements, the passages of BEIR's nq

A collection is fetched once, into the cache; what comes after reads that folder.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from m3connect.datasets import lines
from m3connect.datasets.write import write_collection
from m3connect.errors import ConfigError, InputError

Rows = Iterator[dict[str, Any]]
Fetch = Callable[[str, str], list[Path]]
"""Files of a repository whose names match a pattern, fetched; ``(repository, pattern)``."""

KINDS = ("beir", "nanobeir", "miracl", "mldr", "mkqa")


@dataclass(frozen=True, slots=True)
class _Parts:
    """A collection as rows of the BEIR layout; relevance by query id and document id."""

    corpus: Rows
    queries: Rows
    qrels: Iterable[tuple[str, str, int]]


def is_name(name: str) -> bool:
    """Whether this names a published collection.

    >>> is_name("miracl-de"), is_name("my-data")
    (True, False)
    """
    return name.partition("-")[0] in KINDS and "-" in name


def folder(name: str, cache: Path, fetch: Fetch | None = None) -> Path:
    """A published collection's folder; fetched if it is not there yet.

    Args:
        name: such as ``miracl-de``.
        cache: where collections are kept.
        fetch: of files; default: from the hub.

    Raises:
        ConfigError: there is no such collection.
        InputError: the hub cannot be reached, or holds it in another form than known.
    """
    kind, _, which = name.partition("-")
    if not is_name(name) or not which:
        raise ConfigError(f"no collection {name!r}: a folder, or {'-..., '.join(KINDS)}-...")
    home = cache / name
    if home.is_dir():
        return home
    parts = _PARTS[kind](which, fetch or from_hub)
    write_collection(home, parts.corpus, parts.queries, parts.qrels, gzipped=True)
    return home


def from_hub(repository: str, pattern: str) -> list[Path]:
    """The files of a data set on the hub that match a pattern, in order of their names.

    Raises:
        InputError: the hub refuses or cannot be reached, or no file matches.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        home = snapshot_download(repository, repo_type="dataset", allow_patterns=pattern)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"data set {repository!r} cannot be fetched: {error}. Give a folder in the BEIR layout "
            "instead; gated data need `hf auth login`"
        ) from error
    files = sorted(Path(home).glob(pattern))
    if not files:
        raise InputError(f"data set {repository!r} has no file like {pattern!r}")
    return files


# ------------------------------------------------------------------------------ the collections


def _beir(name: str, fetch: Fetch) -> _Parts:
    split = "validation" if name == "msmarco" else "test"
    judged = _rows(fetch(f"BeIR/{name}-qrels", f"{split}.tsv"))
    return _Parts(
        _rows(fetch(f"BeIR/{name}", "corpus/*.parquet")),
        _rows(fetch(f"BeIR/{name}", "queries/*.parquet")),
        ((row["query-id"], row["corpus-id"], int(row["score"])) for row in judged),
    )


def _nanobeir(name: str, fetch: Fetch) -> _Parts:
    repository = "sentence-transformers/NanoBEIR-en"

    def part(which: str) -> Rows:
        return _rows(fetch(repository, f"{which}/Nano{name}-*.parquet"))

    judged = ((row["query-id"], row["corpus-id"], 1) for row in part("qrels"))
    return _Parts(part("corpus"), part("queries"), judged)


def _miracl(language: str, fetch: Fetch) -> _Parts:
    stem = f"miracl-v1.0-{language}"
    passages = _rows(
        fetch("miracl/miracl-corpus", f"miracl-corpus-v1.0-{language}/docs-*.jsonl.gz")
    )
    topics = fetch("miracl/miracl", f"{stem}/topics/topics.{stem}-dev.tsv")
    judged = fetch("miracl/miracl", f"{stem}/qrels/qrels.{stem}-dev.tsv")
    return _Parts(
        (
            {"_id": row["docid"], "title": row["title"], "text": row["text"], "lang": language}
            for row in passages
        ),
        (
            {"_id": row["id"], "text": row["text"], "lang": language}
            for row in _rows(topics, columns=("id", "text"))
        ),
        (
            (row["query"], row["document"], int(row["relevance"]))
            for row in _rows(judged, columns=("query", "iteration", "document", "relevance"))
        ),
    )


def _mldr(language: str, fetch: Fetch) -> _Parts:
    where = f"mldr-v1.0-{language}"
    asked = list(_rows(fetch("Shitao/MLDR", f"{where}/test.jsonl.gz")))
    return _Parts(
        (
            {"_id": row["docid"], "text": row["text"], "lang": language}
            for row in _rows(fetch("Shitao/MLDR", f"{where}/corpus.jsonl.gz"))
        ),
        ({"_id": row["query_id"], "text": row["query"], "lang": language} for row in asked),
        (
            (row["query_id"], passage["docid"], relevance)
            for row in asked
            for key, relevance in (("positive_passages", 1), ("negative_passages", 0))
            for passage in row[key]
        ),
    )


def _mkqa(language: str, fetch: Fetch) -> _Parts:
    (archive,) = fetch("Shitao/bge-m3-data", "MKQA_test-data.zip")
    return _Parts(
        _rows(fetch("BeIR/nq", "corpus/*.parquet")),
        (
            {
                "_id": str(row["id"]),
                "text": row["question"],
                "lang": language.split("_", maxsplit=1)[0],
                "answers": row["answers"],
            }
            for row in _zipped(archive, f"{language}.jsonl")
        ),
        (),
    )


_PARTS: dict[str, Callable[[str, Fetch], _Parts]] = {
    "beir": _beir,
    "nanobeir": _nanobeir,
    "miracl": _miracl,
    "mldr": _mldr,
    "mkqa": _mkqa,
}


# ---------------------------------------------------------------------------------------- files


def _rows(paths: Iterable[Path], columns: tuple[str, ...] | None = None) -> Rows:
    """Rows of Parquet, JSON lines and tab-separated files; without a header, name the columns."""
    for path in paths:
        if path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches():
                yield from batch.to_pylist()
        elif path.suffix == ".tsv":
            with path.open(encoding="utf-8", newline="") as file:
                yield from csv.DictReader(
                    file, fieldnames=columns, delimiter="\t", quoting=csv.QUOTE_NONE
                )
        else:
            yield from (row for _, row in lines.read(path))


def _zipped(archive: Path, ending: str) -> Rows:
    with zipfile.ZipFile(archive) as files:
        names = [name for name in files.namelist() if Path(name).name == ending]
        if len(names) != 1:
            raise InputError(f"{archive}: expected one {ending}, found {names}")
        with files.open(names[0]) as file:
            for number, line in enumerate(file, start=1):
                yield lines.parse(line, f"{archive}: {names[0]}:{number}")
