"""What is written comes back, exactly, once, and under its own id."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from m3connect.contract import Connector
from m3connect.errors import M3ConnectError, Unsupported
from m3connect.filters import F
from m3connect.searching import planner
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_hits, check_records, oracle, refusal
from m3connect.types import (
    MultiVectors,
    Payload,
    Query,
    RecordBatch,
    SparseVectors,
    TokenDtype,
    Weighted,
)

IDS = [
    "a",
    "A",
    "a ",
    " a",
    "a/b",
    "a\\b",
    "a#0",
    "a#00",
    "a\nb",
    "a\tb",
    "a\x00b",
    "a'b",
    'a"b',
    "a%2Fb",
    "a?b=c&d",
    '" or id != "',
    "' OR ''='",
    "*",
    "_id",
    "_m3",
    "..",
    "None",
    "null",
    "true",
    "0",
    "00",
    "7",
    "7.0",
    "-7",
    "18446744073709551616",
    "550e8400-e29b-41d4-a716-446655440000",
    "550E8400-E29B-41D4-A716-446655440000",
    "550e8400e29b41d4a716446655440000",
    "\u00e4",
    "a\u0308",
    "straße",
    "strasse",
    "ﬀ",
    "日本語",
    "العربية",
    "\N{SLIGHTLY SMILING FACE}",
    "\u200b",
    "x" * 500,
    "x" * 499 + "y",
    "\N{SLIGHTLY SMILING FACE}" * 500,
    "\N{SLIGHTLY SMILING FACE}" * 499 + "\N{WINKING FACE}",
]
PAYLOADS: list[Payload] = [
    {},
    {"text": ""},
    {"null": None, "true": True, "false": False, "zero": 0, "one": 1, "float": 1.0},
    {"tenth": 0.1, "tiny": 1e-300, "huge": 1.7e308, "negative": -0.5, "denormal": 5e-324},
    {"beyond double": 2**53 + 1, "largest": 2**63 - 1, "smallest": -(2**63)},
    {"list": [], "object": {}, "nested": [[], [[]], {}, [{}]], "nulls": [None, [None]]},
    {"mixed": [1, 1.0, "1", True, None, {"a": [1, {"b": "c"}]}]},
    {"a.b": 1, "a": {"b": 2, "c.d": 3}, "": "empty key", " ": "blank key", "$ref": 4},
    {"ключ": "значение", "emoji \N{SLIGHTLY SMILING FACE}": "\N{SLIGHTLY SMILING FACE}" * 3},
    {'quo"te': "'", "new\nline": "\r\n\t", "nul": "a\x00b", "back\\slash": "\\u0041", "`": "`"},
    {"id": "not the id", "_id": 1, "score": 2, "vector": [0.5], "dense": "no vector", "sparse": {}},
    {"date": "2024-02-29", "time": "2024-02-29T23:59:59.999999-11:00", "number": "1e3"},
    {"deep": {"0": {"1": {"2": {"3": {"4": {"5": {"6": {"7": {"8": {"9": ["end"]}}}}}}}}}}},
    {f"field {i}": i for i in range(300)},
    {"k" * 300: "v" * 40_000},
]


def many(n: int, payloads: Sequence[Payload] | None = None, ids: Sequence[str] = ()) -> RecordBatch:
    """Corpus records with the given payloads or ids instead of their own."""
    batch = corpus.records(20, n)
    return RecordBatch(ids or batch.ids, payloads or batch.payloads, batch.embeddings)


class StorageTests:
    """Part of :class:`m3connect.testing.conformance.ConnectorConformance`."""

    def test_records_come_back_exactly(self, connector: Connector) -> None:
        """Vectors, payloads, token counts: all of a record, from plain and strided batches."""
        batch = corpus.records(21, 60)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch[:20])
        connector.upsert(batch[20::2])
        connector.upsert(batch[21::2])
        check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)

    @pytest.mark.parametrize("given", ["float16", "float32"])
    @pytest.mark.parametrize("stored", ["float16", "float32", "int8", "binary"])
    def test_token_vectors_keep_their_precision(
        self, connector: Connector, given: Literal["float16", "float32"], stored: TokenDtype
    ) -> None:
        """Token vectors come back in the schema's dtype, rounded once at most, and score as they are."""
        schema = replace(corpus.SCHEMA, multivector_dtype=stored)
        batch = corpus.records(22, 10, schema)
        tokens = batch.embeddings.multivector
        assert tokens is not None
        values = np.random.default_rng(22).normal(size=tokens.vectors.shape).astype(given)
        embeddings = replace(batch.embeddings, multivector=MultiVectors(tokens.offsets, values))
        batch = replace(batch, embeddings=embeddings)
        if stored not in connector.capabilities.token_dtypes:
            refusal(Unsupported, lambda: connector.ensure(schema), f"token vectors in {stored}")
            return
        connector.ensure(schema)
        connector.upsert(batch)
        connector.flush()
        check_records(batch, connector.fetch(batch.ids), schema)
        query = corpus.query(
            22, "dense", "multivector", schema=schema, fusion=Weighted(1, 1, 1), limit=5
        )
        (hits,) = planner.run(connector, [query])
        check_hits(oracle(batch, schema), query, hits, f"token vectors in {stored}")

    def test_a_long_passage_keeps_all_tokens(self, connector: Connector) -> None:
        """1,000 token vectors of width 1,024 are stored whole, and scored."""
        schema = replace(corpus.SCHEMA, multivector_width=1024)
        batch = corpus.records(23, 3, schema)
        long = np.random.default_rng(23).normal(size=(1000, 1024)).astype(np.float16)
        multi = batch.embeddings.multivector
        assert multi is not None
        multi = MultiVectors.from_rows([multi[0], long, multi[2]])
        batch = replace(batch, embeddings=replace(batch.embeddings, multivector=multi))
        connector.ensure(schema)
        connector.upsert(batch)
        connector.flush()
        check_records(batch, connector.fetch(batch.ids), schema)
        query = replace(corpus.query(23, "dense", "multivector", schema=schema), rerank=3)
        (hits,) = planner.run(connector, [query])
        check_hits(oracle(batch, schema), query, hits, "1,000 tokens")

    def test_payloads_of_every_shape_come_back(self, connector: Connector) -> None:
        """Any JSON object is a payload: fetched, scanned and found as it was written."""
        batch = many(len(PAYLOADS), PAYLOADS)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        connector.flush()
        check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)
        check_records(by_id([batch]), by_id(connector.scan(vectors=True)), corpus.SCHEMA)
        query = corpus.query(24, "dense", limit=len(batch))
        check_hits(
            oracle(batch, corpus.SCHEMA), query, planner.run(connector, [query])[0], "payloads"
        )

    def test_a_payload_of_a_megabyte_comes_back(self, connector: Connector) -> None:
        """1 MB of text is stored whole, and its record is still filtered by its other fields."""
        big = {"text": "größe " * 150_000, "lang": "de"}
        batch = many(2, [big, {"text": "small", "lang": "fr"}])
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)
        assert [list(page.ids) for page in connector.scan(F("lang") == "de")] == [[batch.ids[0]]]

    def test_integers_beyond_64_bits_are_not_mangled(self, connector: Connector) -> None:
        """An integer beyond 64 bits comes back as it was, or is refused."""
        batch = many(1, [{"big": 2**64 + 1, "negative": -(2**70)}])
        connector.ensure(corpus.SCHEMA)
        try:
            connector.upsert(batch)
        except M3ConnectError:
            assert connector.count() == 0
        else:
            check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)

    def test_any_string_is_an_id(self, connector: Connector) -> None:
        """Ids that look alike, look like syntax or are 500 characters long stay apart."""
        batch = many(len(IDS), ids=IDS)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        connector.flush()
        check_records(batch, connector.fetch(IDS), corpus.SCHEMA)
        check_records(by_id([batch]), by_id(connector.scan(vectors=True)), corpus.SCHEMA)
        query = corpus.query(25, "dense", limit=len(IDS))
        check_hits(oracle(batch, corpus.SCHEMA), query, planner.run(connector, [query])[0], "ids")
        assert connector.delete(IDS[::2]) == len(IDS[::2])
        assert list(connector.fetch(IDS).ids) == IDS[1::2]

    def test_the_last_of_equal_ids_wins(self, connector: Connector) -> None:
        """Within a batch and across batches, the last record with an id is the one kept."""
        batch = corpus.records(26, 30)
        ids = ["first", *["twice", "thrice"] * 14, "thrice"]
        connector.ensure(corpus.SCHEMA)
        connector.upsert(replace(batch, ids=ids))
        expected = replace(batch, ids=ids).take(np.array([0, 27, 29]))
        check_records(expected, connector.fetch(["first", "twice", "thrice"]), corpus.SCHEMA)
        again = replace(corpus.records(27, 1), ids=["twice"])
        connector.upsert(again)
        check_records(again, connector.fetch(["twice"]), corpus.SCHEMA)
        assert connector.count() == 3
        assert sorted(id_ for page in connector.scan() for id_ in page.ids) == sorted(set(ids))

    def test_overwriting_leaves_nothing_behind(self, connector: Connector) -> None:
        """A record's old fields, terms and tokens are gone once it is written anew."""
        batch = corpus.records(28, 2)
        tokens = np.ones((1, 8), np.float16)
        old = replace(
            batch,
            payloads=[{"lang": "de", "old": {"field": 1}}, {"lang": "de"}],
            embeddings=replace(
                batch.embeddings,
                sparse=SparseVectors.from_rows([{1: 1.0, 2: 1.0}, {3: 1.0}]),
                multivector=MultiVectors.from_rows([np.repeat(8 * tokens, 50, axis=0), tokens]),
            ),
        )
        new = replace(
            batch,
            payloads=[{"lang": "fr"}, {"lang": "de"}],
            embeddings=replace(
                batch.embeddings,
                sparse=SparseVectors.from_rows([{2: 0.5}, {3: 1.0}]),
                multivector=MultiVectors.from_rows([tokens, tokens]),
            ),
        )
        connector.ensure(corpus.SCHEMA)
        connector.upsert(old)
        connector.flush()
        connector.upsert(new)
        connector.flush()
        check_records(new, connector.fetch(batch.ids), corpus.SCHEMA)
        assert connector.count() == 2
        assert connector.count(F("lang") == "de") == 1
        assert connector.count(F("old.field").exists()) == 0
        terms = SparseVectors.from_rows([{1: 1.0}])[0]
        queries = [Query(sparse=terms), Query(multivector=np.ones((2, 8), np.float32))]
        gone, late = planner.run(connector, queries)
        assert gone == []
        assert [hit.score for hit in late] == pytest.approx([8.0, 8.0])

    def test_nothing_given_is_changed(self, connector: Connector) -> None:
        """Batches and queries, read-only arrays included, are left as they were."""
        batch = corpus.records(29, 20)
        query = corpus.query(29, "dense", filter=F("lang").exists())
        _freeze(batch, query)
        payloads = copy.deepcopy(batch.payloads)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        connector.flush()
        planner.run(connector, [query])
        assert list(batch.ids) == list(corpus.records(29, 20).ids)
        assert list(batch.payloads) == list(payloads)
        assert batch.embeddings == corpus.records(29, 20).embeddings

    def test_what_is_returned_is_the_callers(self, connector: Connector) -> None:
        """Changing a fetched or found payload changes nothing that is stored."""
        batch = many(1, [{"nested": {"list": [1]}}])
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        connector.flush()
        (hit,) = planner.run(connector, [corpus.query(30, "dense")])[0]
        for payload in (connector.fetch(batch.ids).payloads[0], hit.payload):
            payload["nested"]["list"].append(2)
        check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)

    def test_tuples_are_sequences(self, connector: Connector) -> None:
        """Ids, payloads and queries come in any sequence."""
        batch = corpus.records(31, 5)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(replace(batch, ids=tuple(batch.ids), payloads=tuple(batch.payloads)))
        connector.flush()
        check_records(batch, connector.fetch(tuple(batch.ids)), corpus.SCHEMA)
        assert len(planner.run(connector, (corpus.query(31, "dense"),))[0]) == 5
        assert connector.delete(tuple(batch.ids[:2])) == 2


def _freeze(batch: RecordBatch, query: Query) -> None:
    embeddings = batch.embeddings
    assert embeddings.dense is not None
    assert embeddings.sparse is not None
    assert embeddings.multivector is not None
    assert query.dense is not None
    for array in (
        embeddings.dense,
        embeddings.sparse.indptr,
        embeddings.sparse.indices,
        embeddings.sparse.values,
        embeddings.multivector.offsets,
        embeddings.multivector.vectors,
        query.dense,
    ):
        array.setflags(write=False)
