"""Making, describing, annotating, closing and reopening a collection."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from m3connect.contract import CollectionSchema, Connector
from m3connect.errors import CollectionNotFound, ConnectorError, PermanentError, SchemaMismatch
from m3connect.filters import F
from m3connect.searching import planner
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_hits, check_records, oracle, refusal
from m3connect.types import LEGS, Fingerprint, Leg, Rrf

FINGERPRINT = Fingerprint(
    model="conformance/größe-1",
    weights="sha256:0a",
    tokenizer="sha256:0b",
    legs=LEGS,
    dense_width=16,
    multivector_width=8,
    max_length=8192,
    pooling="cls",
    chunker="markdown-512-64",
)
LEG_SETS: list[tuple[Leg, ...]] = [
    ("dense",),
    ("sparse",),
    ("multivector",),
    ("dense", "sparse"),
    ("dense", "multivector"),
    ("sparse", "multivector"),
]


def verbs(connector: Connector) -> dict[str, Callable[[], object]]:
    """Every operation on an existing collection."""
    return {
        "upsert": lambda: connector.upsert(corpus.records(1, 2)),
        "flush": connector.flush,
        "delete ids": lambda: connector.delete(["r00000"]),
        "delete filter": lambda: connector.delete(F("lang") == "de"),
        "fetch": lambda: connector.fetch(["r00000"]),
        "scan": lambda: list(connector.scan()),
        "search": lambda: connector.search([corpus.query(1, "dense")]),
        "count": connector.count,
        "annotate": lambda: connector.annotate({"key": "value"}),
        "describe": connector.describe,
        "size": connector.size,
        "drop": connector.drop,
    }


def schema_of(legs: tuple[Leg, ...]) -> CollectionSchema:
    """The corpus's schema with these representations only."""
    return CollectionSchema(
        corpus.SCHEMA.dense_width if "dense" in legs else None,
        "sparse" in legs,
        corpus.SCHEMA.multivector_width if "multivector" in legs else None,
    )


class LifecycleTests:
    """Part of :class:`m3connect.testing.conformance.ConnectorConformance`."""

    def test_an_unknown_collection_is_reported(self, connector: Connector) -> None:
        """Before ensure, every operation says that there is no such collection."""
        for name, verb in verbs(connector).items():
            error = refusal(CollectionNotFound, verb, name)
            assert connector.collection in str(error), f"{name}: {error}"

    def test_ensure_keeps_what_is_there(self, connector: Connector) -> None:
        """Ensuring twice changes nothing and drops nothing."""
        batch = corpus.records(11, 20)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        connector.ensure(corpus.SCHEMA)
        check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)
        assert connector.count() == 20

    @pytest.mark.parametrize(
        "change",
        [
            {"dense_width": 17},
            {"sparse": False},
            {"multivector_width": 9},
            {"multivector_width": None},
            {"multivector_dtype": "float32"},
        ],
        ids=lambda change: "-".join(f"{key}-{value}" for key, value in change.items()),
    )
    def test_ensure_refuses_another_schema(
        self, connector: Connector, change: dict[str, object]
    ) -> None:
        """A collection of another shape is named as such and stays as it is."""
        connector.ensure(corpus.SCHEMA)
        connector.upsert(corpus.records(12, 3))
        with pytest.raises(SchemaMismatch) as caught:
            connector.ensure(replace(corpus.SCHEMA, **change))  # type: ignore[arg-type]
        assert next(iter(change)) in str(caught.value)
        assert connector.describe().schema == corpus.SCHEMA
        assert connector.count() == 3

    def test_ensure_adds_payload_indexes(self, connector: Connector) -> None:
        """Missing payload indexes are added, the others are kept."""
        connector.ensure(replace(corpus.SCHEMA, payload_fields={"lang": "keyword"}))
        connector.upsert(corpus.records(13, 5))
        connector.ensure(replace(corpus.SCHEMA, payload_fields={"year": "integer"}))
        fields = dict(connector.describe().schema.payload_fields)
        assert fields == {"lang": "keyword", "year": "integer"}
        assert connector.count() == 5

    def test_describe_gives_the_schema_back(self, connector: Connector) -> None:
        """A collection tells its name, schema, fingerprint and engine."""
        schema = replace(
            corpus.SCHEMA,
            multivector_dtype="float32",
            payload_fields={
                "lang": "keyword",
                "year": "integer",
                "price": "float",
                "public": "boolean",
                "author.born": "datetime",
            },
            fingerprint=FINGERPRINT,
        )
        connector.ensure(schema)
        info = connector.describe()
        assert info.name == connector.collection
        assert info.schema == schema
        assert dict(info.notes) == {}
        assert info.engine == connector.capabilities.engine != ""

    def test_the_fingerprint_is_never_replaced(self, connector: Connector) -> None:
        """Ensuring with another model's fingerprint leaves the stored one."""
        connector.ensure(replace(corpus.SCHEMA, fingerprint=FINGERPRINT))
        connector.ensure(replace(corpus.SCHEMA, fingerprint=replace(FINGERPRINT, weights="other")))
        assert connector.describe().schema.fingerprint == FINGERPRINT

    def test_notes_are_merged(self, connector: Connector) -> None:
        """Notes of any JSON are merged by key, None removes one, records do not touch them."""
        connector.ensure(replace(corpus.SCHEMA, fingerprint=FINGERPRINT))
        connector.annotate({"weights": [1.0, 0.3, 1], "größe": {"a.b": None, "ü": "\n"}, "x": 1})
        connector.annotate({"x": None, "y": True, "missing": None})
        connector.upsert(corpus.records(14, 3))
        connector.delete(["r00001"])
        info = connector.describe()
        assert dict(info.notes) == {
            "weights": [1.0, 0.3, 1],
            "größe": {"a.b": None, "ü": "\n"},
            "y": True,
        }
        assert info.schema.fingerprint == FINGERPRINT
        assert connector.count() == 2

    def test_a_collection_is_listed_and_dropped(self, connector: Connector) -> None:
        """A collection is listed from ensure to drop, which leaves nothing for a new one."""
        assert connector.collection not in connector.collections()
        connector.ensure(corpus.SCHEMA)
        connector.upsert(corpus.records(19, 20))
        connector.annotate({"k": 20})
        connector.flush()
        assert connector.collection in connector.collections()
        size = connector.size()
        assert size is None or size > 0
        connector.drop()
        assert connector.collection not in connector.collections()
        for name, verb in verbs(connector).items():
            refusal(CollectionNotFound, verb, f"{name} after drop")
        schema = schema_of(("dense",))
        connector.ensure(schema)
        assert connector.count() == 0
        info = connector.describe()
        assert (info.schema, dict(info.notes)) == (schema, {})

    def test_what_another_connector_dropped_is_missed(self, connector: Connector) -> None:
        """Whoever has used the collection before is told so, lists it no more, and can make it anew."""
        make = partial(connector.ensure, corpus.SCHEMA)
        for seed, name in enumerate(["upsert", "delete filter", "annotate", "describe"]):
            make()
            connector.upsert(corpus.records(seed, 3))
            connector.describe()
            with connector.beside(connector.collection) as other:
                try:
                    other.drop()
                except PermanentError:  # an engine of one user at a time: nobody can
                    return
            error = refusal(CollectionNotFound, verbs(connector)[name], f"{name} after the drop")
            assert f"but {connector.collection!r}" not in str(error), error
            assert connector.collection not in connector.collections()
        make()
        assert connector.count() == 0

    @pytest.mark.parametrize("legs", LEG_SETS, ids="-".join)
    def test_any_set_of_legs_makes_a_collection(
        self, connector: Connector, legs: tuple[Leg, ...]
    ) -> None:
        """Collections that store only some representations are written, read and searched."""
        schema = schema_of(legs)
        batch = corpus.records(15, 30, schema)
        connector.ensure(schema)
        connector.upsert(batch)
        connector.flush()
        assert connector.describe().schema == schema
        check_records(batch, connector.fetch(batch.ids), schema)
        memory = oracle(batch, schema)
        fusion = Rrf() if len(legs) > 1 else None
        query = corpus.query(15, *legs, fusion=fusion, limit=5)
        (hits,) = planner.run(connector, [query])
        check_hits(memory, query, hits, f"a collection of {legs}")

    def test_closing_twice_is_fine(self, connector: Connector) -> None:
        """A connector can be closed twice, used or not, and closes as a context manager."""
        with connector as entered:
            assert entered is connector
            connector.ensure(corpus.SCHEMA)
        connector.close()
        connector.close()

    def test_a_closed_connector_refuses_everything(self, connector: Connector) -> None:
        """After close every operation raises a ConnectorError."""
        connector.ensure(corpus.SCHEMA)
        connector.close()
        everything = {
            "ensure": lambda: connector.ensure(corpus.SCHEMA),
            "collections": connector.collections,
            "switch": lambda: connector.switch(connector.collection),
            **verbs(connector),
        }
        for name, verb in everything.items():
            error = refusal(ConnectorError, verb, name)
            assert not isinstance(error, CollectionNotFound), f"{name} blames the collection"

    def test_what_was_acknowledged_survives(
        self, connector: Connector, reopen: Callable[[], Connector] | None
    ) -> None:
        """Records, overwrites, deletions, notes and schema outlive the connection, without flush."""
        if reopen is None:
            pytest.skip("held in memory only")
        schema = replace(corpus.SCHEMA, payload_fields={"lang": "keyword"}, fingerprint=FINGERPRINT)
        memory = oracle(corpus.records(16, 40), schema)
        connector.ensure(schema)
        connector.annotate({"k": 20})
        connector.upsert(corpus.records(16, 40))
        for twin in (connector, memory):
            twin.delete([f"r{i:05}" for i in range(20, 30)])
            twin.upsert(corpus.records(17, 10))
        connector.close()
        with reopen() as again:
            assert again.count() == memory.count() == 30
            kept = by_id(memory.scan(vectors=True))
            check_records(kept, by_id(again.scan(vectors=True)), schema)
            info = again.describe()
            assert (info.schema, dict(info.notes)) == (schema, {"k": 20})
            again.ensure(schema)
            again.flush()
            query = corpus.query(16, "dense")
            check_hits(memory, query, planner.run(again, [query])[0], "after reopening")

    def test_any_thread_may_use_it(self, connector: Connector) -> None:
        """Threads other than the one that made the connector can write and search."""
        batch = corpus.records(18, 30)
        query = corpus.query(18, "dense")
        connector.ensure(corpus.SCHEMA)
        for work in (partial(connector.upsert, batch), connector.flush):
            with ThreadPoolExecutor(1) as pool:
                pool.submit(work).result()
        with ThreadPoolExecutor(1) as pool:
            hits = pool.submit(planner.run, connector, [query]).result()[0]
        check_hits(oracle(batch, corpus.SCHEMA), query, hits, "from another thread")
