"""One Parquet file of embeddings lands in three databases, and a query ranks alike in each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect import transfer
from m3connect.connecting.registry import connect
from m3connect.contract import Connector
from m3connect.filters import F
from m3connect.inference import M3Encoder
from m3connect.inference.remote import RemoteEncoder
from m3connect.ingestion import ingest
from m3connect.searching.names import MODES
from m3connect.searching.search import search_many
from m3connect.stores.memory import MemoryConnector
from m3connect.types import Rrf, Weighted

CORPUS = Path(__file__).parents[2] / "examples" / "data" / "tldr.jsonl"
PAGES = 62
QUERIES = ["copy files over ssh", "wie viel Speicherplatz ist frei?", "git stash"]


@pytest.fixture(scope="module")
def encoder() -> M3Encoder | RemoteEncoder:
    return M3Encoder.load("m3-mini")


@pytest.fixture(scope="module")
def file(encoder: M3Encoder | RemoteEncoder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The beginnings of 62 pages in eight languages, encoded once, as a Parquet file."""
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()[::6]]
    texts = [row["text"][:160] for row in rows]
    table = encoder.encode(texts).to_arrow()
    for name in ("lang", "id"):
        table = table.add_column(0, name, pa.array([row[name] for row in rows]))
    table = table.add_column(0, "text", pa.array(texts))
    path = str(tmp_path_factory.mktemp("one") / "embeddings.parquet")
    pq.write_table(table, path)
    return path


@pytest.fixture
def databases(node: SimpleNamespace, tmp_path: Path) -> Iterator[Callable[[str], list[Connector]]]:
    """Opens one collection in each of the three databases."""
    with ExitStack() as stack:

        def open_all(collection: str) -> list[Connector]:
            places = {
                "qdrant": {"path": str(tmp_path / "qdrant")},
                "milvus": {"path": str(tmp_path / "milvus.db")},
                "elasticsearch": {"url": node.url},
            }
            return [
                stack.enter_context(connect(name, collection=collection, **options))
                for name, options in places.items()
            ]

        yield open_all


@pytest.mark.live
def test_one_file_three_databases_one_ranking(
    encoder: M3Encoder | RemoteEncoder, file: str, databases: Callable[[str], list[Connector]]
) -> None:
    """Every mode, fusion and filter gives the oracle's ids, order and scores everywhere."""
    oracle = MemoryConnector(collection="one_file")
    opened = databases("one_file")
    for database in (oracle, *opened):
        report = ingest(file, None, database)
        assert (report.read, report.written, report.failed) == (PAGES, PAGES, 0)
    fusions = (Weighted(), Rrf(), Weighted(0.2, 0.8, 0.5, rescore=False))
    conditions = (None, F("lang").isin(["en", "de", "zh"]))
    for mode, fusion, condition in product(MODES, fusions, conditions):
        asked: dict[str, Any] = {"mode": mode, "fusion": fusion, "filter": condition, "depth": 30}
        expected = search_many(oracle, encoder, QUERIES, **asked)
        for database in opened:
            where = (database.name, mode, fusion, condition)
            found = search_many(database, encoder, QUERIES, **asked)
            for wanted, got in zip(expected, found, strict=True):
                assert [hit.id for hit in got] == [hit.id for hit in wanted], where
                np.testing.assert_allclose(
                    [hit.score for hit in got],
                    [hit.score for hit in wanted],
                    atol=1e-4,
                    err_msg=str(where),
                )


@pytest.mark.live
def test_copies_in_all_directions_are_equal(
    file: str, databases: Callable[[str], list[Connector]]
) -> None:
    """From each database to each, a copy has the same records and the same top tens."""
    for source in databases("copied"):
        ingest(file, None, source)
        source.annotate({"made": "here"})
        for target in databases(f"from_{source.name}"):
            assert transfer.copy(source, target).written == PAGES
            assert target.describe().notes == {"made": "here"}
            found = transfer.verify(source, target, samples=10)
            assert found.equal, (source.name, target.name, found)
            assert min(found.overlap.values()) == 1.0, (source.name, target.name, found.overlap)
