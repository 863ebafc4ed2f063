"""Strict mode, which hosted clusters switch on: stay within it, or name the setting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m3connect.errors import ConnectorError, InputError, InvalidFilter, Unsupported, WritesRefused
from m3connect.filters import F, Filter
from m3connect.ingestion import ingest, ledger
from m3connect.searching import planner
from m3connect.searching.search import search
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_hits, check_records, oracle
from m3connect.testing.fakes import HashEncoder
from m3connect.types import LEGS, Leg, Query, Rrf, Weighted
from m3connect_qdrant import QdrantConnector
from m3connect_qdrant.engine.client import ServerEngine

FIELDS = replace(
    corpus.SCHEMA, payload_fields={"lang": "keyword", "year": "integer", "price": "float"}
)


@pytest.fixture(params=["rest", pytest.param("by_grpc", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest) -> QdrantConnector:
    """A connector by each protocol."""
    connector: QdrantConnector = request.getfixturevalue(request.param)
    return connector


def filled(connector: QdrantConnector, store: Any, n: int = 60, **settings: Any) -> Any:
    """The oracle of n records that are in both; strict mode is on before they are written."""
    connector.ensure(FIELDS)
    store.restrict(**settings)
    connector.describe()
    batch = corpus.records(70, n)
    connector.upsert(batch)
    connector.flush()
    return oracle(batch, FIELDS)


def queries(**options: Any) -> list[Query]:
    """Each way of scoring."""
    depth = options.pop("depth", 20)
    wanted: list[tuple[tuple[Leg, ...], Any, int | None]] = [
        (("dense",), None, None),
        (("sparse",), None, None),
        (("dense", "sparse"), Rrf(), None),
        (("dense", "sparse"), Weighted(1.0, 0.3), None),
        (LEGS, Weighted(1.0, 0.3, 1.0), None),
        (LEGS, Rrf(), 10),
    ]
    return [
        replace(
            corpus.query(70, *legs, fusion=fusion, limit=5),
            rerank=rerank,
            dense_depth=depth,
            sparse_depth=depth,
            **options,
        )
        for legs, fusion, rerank in wanted
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_query_limit": 30},
        {"search_max_batchsize": 2},
        {"upsert_max_batchsize": 7},
        {"read_rate_limit": 30},
        {"search_allow_exact": False},
    ],
    ids=str,
)
def test_everything_works_within_the_settings(
    server: QdrantConnector, store: Any, settings: dict[str, Any]
) -> None:
    """Writes, reads, counts and every way of searching keep to the limits and equal the oracle."""
    memory = filled(server, store, **settings)
    asked = queries()
    for query, hits in zip(asked, planner.run(server, asked), strict=True):
        check_hits(memory, query, hits, f"{query.legs} under {settings}")
    assert server.count() == 60
    assert server.count(F("lang") == "de") == memory.count(F("lang") == "de") > 0
    whole = by_id(memory.scan(vectors=True))
    check_records(whole, by_id(server.scan(vectors=True)), FIELDS)
    check_records(whole, server.fetch(whole.ids), FIELDS)
    assert server.delete(F("lang") == "de") == memory.delete(F("lang") == "de")


def test_the_users_own_limit_is_reached(server: QdrantConnector, store: Any) -> None:
    """As many hits as the server gives; one more is refused by number, before it is sent."""
    memory = filled(server, store, max_query_limit=30)
    (most,) = planner.run(server, [replace(corpus.query(70, "dense"), limit=30)])
    assert [hit.id for hit in most] == [
        hit.id for hit in memory.search([replace(corpus.query(70, "dense"), limit=30)])[0]
    ]
    with pytest.raises(InputError, match=r"limit is 31, and a search .* at most 30"):
        planner.run(server, [replace(corpus.query(70, "dense"), limit=31)])


@pytest.mark.parametrize(
    "condition",
    [
        F("year") > 2001,
        F("price") <= 9.5,
        (F("lang") == "de") & (F("year") < 2**60),
        F("year").exists(),
    ],
    ids=str,
)
def test_declared_fields_can_be_filtered_without_unindexed_reads(
    server: QdrantConnector, store: Any, condition: Filter
) -> None:
    """All that a condition on a declared field reads has an index; other fields are named."""
    memory = filled(
        server, store, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
    )
    assert server.count(condition) == memory.count(condition)
    (hits,) = planner.run(server, [replace(corpus.query(70, "dense"), filter=condition)])
    query = replace(corpus.query(70, "dense"), filter=condition)
    check_hits(memory, query, hits, str(condition))
    with pytest.raises(InvalidFilter, match=r"--index-field NAME:KIND"):
        server.count(F("author.name") == "Li")
    assert server.delete(condition) == memory.delete(condition)


def test_an_ingest_reads_only_what_has_an_index(
    server: QdrantConnector, store: Any, tmp_path: Path
) -> None:
    """First and again, with what a source no longer has, its counts, and the passages around a hit."""
    store.restrict(unindexed_filtering_retrieve=False, unindexed_filtering_update=False)
    encoder = HashEncoder()
    for name in ("keys", "backups"):
        lines = [f"{name} number {line} are described here." for line in range(9)]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(lines))
    first = ingest(tmp_path, encoder, server, chunk_tokens=20)
    assert first.chunks > first.written == 2
    (tmp_path / "backups.txt").unlink()
    again = ingest(tmp_path, encoder, server, chunk_tokens=20)
    assert (again.unchanged, again.left_over) == (1, 1)
    assert sum(ledger.sources(server).values()) == 2
    (hit,) = search(server, encoder, "keys number 4", limit=1, expand="neighbours")
    assert hit.context is not None
    assert "number 3" in hit.context
    assert (
        ingest(tmp_path, encoder, server, chunk_tokens=20, prune=True, max_delete_ratio=1).pruned
        == 1
    )


@pytest.mark.parametrize(
    ("settings", "ask", "kind", "named"),
    [
        (
            {"filter_max_conditions": 4},
            lambda one: one.count(F("year") > 2001),
            InvalidFilter,
            "filter_max_conditions",
        ),
        (
            {"read_rate_limit": 2},
            lambda one: planner.run(one, queries()[-2:-1]),
            ConnectorError,
            "read_rate_limit",
        ),
    ],
)
def test_what_cannot_be_done_names_the_setting(
    server: QdrantConnector, store: Any, settings: dict[str, Any], ask: Any, kind: Any, named: str
) -> None:
    """Where no smaller request would do, the message says which setting stands in the way."""
    filled(server, store, **settings)
    with pytest.raises(kind, match=named):
        ask(server)


def test_an_exact_search_is_refused_by_its_setting(rest_url: str, store: Any) -> None:
    """The option cannot be had where the collection forbids it."""
    engine = ServerEngine(
        "docs", rest_url, api_key=None, timeout=30, prefer_grpc=False, grpc_port=1
    )
    with QdrantConnector("docs", engine, exact=True) as connector:
        filled(connector, store, search_allow_exact=False)
        with pytest.raises(Unsupported, match="search_allow_exact"):
            connector.search([corpus.query(70, "dense")])


@pytest.mark.parametrize(
    "said",
    [
        "Max vector storage size limit of 12MB reached!",
        "Max payload storage size limit of 12MB reached!",
        "Max points count limit of 100 reached!",
    ],
)
def test_a_collection_at_its_size_takes_no_writes(
    rest: QdrantConnector, store: Any, said: str
) -> None:
    """It is the kind of failure that ends a run, not one of a document."""
    rest.ensure(FIELDS)
    store.faults.append(lambda handler: handler.refuse(400, f"Wrong input: {said}"))
    with pytest.raises(WritesRefused, match="strict mode allows no more"):
        rest.upsert(corpus.records(1, 2))


def test_notes_of_many_at_once_are_all_kept(server: QdrantConnector) -> None:
    """Notes are merged by the server, key by key; those of an older version stay and can go."""
    server.ensure(FIELDS)
    engine = server._engine
    older = server._stored("annotate").annotated({"old": 1, "older": 2})
    engine.set_metadata(older.to_text())
    others = [QdrantConnector("docs", engine) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda at: others[at].annotate({f"k{at}": [at]}), range(6)))
    server.annotate({"old": None, "k0": None})
    kept = {f"k{at}": [at] for at in range(1, 6)}
    assert dict(server.describe().notes) == {"older": 2, **kept}
    server.ensure(replace(FIELDS, payload_fields={"tags": "keyword"}))
    assert dict(server.describe().notes) == {"older": 2, **kept}
