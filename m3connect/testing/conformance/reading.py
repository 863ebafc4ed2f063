"""Fetching, scanning, counting and deleting: each record once, in order, and at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest

from m3connect.contract import CollectionSchema, Connector
from m3connect.errors import InputError
from m3connect.filters import F, Filter, matches
from m3connect.searching import planner
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_hits, check_records, oracle, refusal
from m3connect.testing.conformance.lifecycle import LEG_SETS
from m3connect.types import LEGS, Leg, RecordBatch


class ReadingTests:
    """Part of :class:`m3connect.testing.conformance.ConnectorConformance`."""

    def test_nothing_is_a_batch_too(self, connector: Connector) -> None:
        """Empty batches, id lists and query lists do nothing, on an empty collection as well."""
        batch = corpus.records(32, 3)
        connector.ensure(corpus.SCHEMA)
        for count in (0, 3):
            connector.upsert(batch[:0])
            assert connector.count() == count
            assert connector.delete([]) == 0
            assert connector.search([]) == []
            empty = connector.fetch([])
            check_records(batch[:0], empty, corpus.SCHEMA)
            assert len(connector.fetch(["missing"], vectors=False)) == 0
            answers = planner.run(
                connector, [corpus.query(32, "dense"), corpus.query(32, "sparse")]
            )
            assert [bool(hits) for hits in answers] == [count > 0, count > 0]
            connector.upsert(batch)
            connector.flush()
        connector.delete(batch.ids)
        assert list(connector.scan(vectors=True)) == []

    def test_delete_counts_what_went(self, connector: Connector) -> None:
        """Deleting tells how many records went; missing and repeated ids do not count."""
        batch = corpus.records(33, 40)
        condition = F("lang").exists()
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        connector.flush()
        assert connector.delete(["r00003", "missing", "r00003", "r00005"]) == 2
        left = [row for row, id_ in enumerate(batch.ids) if id_ not in {"r00003", "r00005"}]
        going = [row for row in left if matches(condition, batch.payloads[row])]
        staying = [row for row in left if row not in going]
        assert connector.delete(condition) == len(going) > 0
        assert connector.delete(condition) == 0
        assert connector.count() == len(staying) > 0
        connector.flush()
        kept = batch.take(np.array(staying))
        check_records(by_id([kept]), by_id(connector.scan(vectors=True)), corpus.SCHEMA)
        query = corpus.query(33, "dense", limit=40)
        check_hits(
            oracle(kept, corpus.SCHEMA), query, planner.run(connector, [query])[0], "deleted"
        )
        connector.upsert(batch)
        assert connector.count() == 40

    def test_fetch_keeps_the_order_asked(self, connector: Connector) -> None:
        """Records come in the order of the ids, missing ones are left out, vectors on demand."""
        batch = corpus.records(34, 30)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        rows = np.random.default_rng(34).permutation(30)
        asked = ["missing", *(batch.ids[row] for row in rows), "r99999"]
        check_records(batch.take(rows), connector.fetch(asked), corpus.SCHEMA)
        bare = connector.fetch(asked, vectors=False)
        assert bare.embeddings.legs == ()
        check_records(_without_vectors(batch.take(rows)), bare, corpus.SCHEMA)

    def test_only_the_wanted_legs_come(self, connector: Connector) -> None:
        """Fetch and scan bring the legs that were named, and refuse one that is not stored."""
        batch = corpus.records(46, 12)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        for legs in LEG_SETS:
            wanted = _with_legs(batch, legs)
            named = tuple(reversed(legs))
            check_records(wanted, connector.fetch(batch.ids, vectors=named), corpus.SCHEMA)
            check_records(wanted[:0], connector.fetch(["missing"], vectors=legs), corpus.SCHEMA)
            scanned = by_id(connector.scan(vectors=list(legs), batch_size=5))
            check_records(by_id([wanted]), scanned, corpus.SCHEMA)
        wrong: list[Any] = [("dense", "colbert"), "dense"]
        for vectors in wrong:
            fetch = partial(connector.fetch, batch.ids, vectors=vectors)
            refusal(InputError, fetch, f"fetch of {vectors!r}")
            scan = connector.scan(vectors=vectors)
            refusal(InputError, partial(next, scan), f"scan of {vectors!r}")

    def test_writes_are_read_at_once(self, connector: Connector) -> None:
        """Fetch, count and scan see what was acknowledged, before any flush."""
        connector.ensure(corpus.SCHEMA)
        for seed, total in ((35, 10), (36, 10), (37, 12)):
            batch = corpus.records(seed, total)
            connector.upsert(batch)
            assert connector.count() == total
            check_records(batch, connector.fetch(batch.ids), corpus.SCHEMA)
            check_records(by_id([batch]), by_id(connector.scan(vectors=True)), corpus.SCHEMA)
        assert connector.delete(F("lang").exists() | ~F("lang").exists()) == 12
        assert connector.count() == 0

    @pytest.mark.parametrize("where", [None, F("lang").exists()], ids=["all", "filtered"])
    def test_scan_gives_each_record_once(self, connector: Connector, where: Filter | None) -> None:
        """Whatever the batch size, a scan gives every matching record once, and no larger batch."""
        batch = corpus.records(38, 100)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        rows = [r for r, p in enumerate(batch.payloads) if where is None or matches(where, p)]
        for size in (1, 7, 1000):
            for vectors in (False, True):
                parts = list(connector.scan(where, vectors=vectors, batch_size=size))
                assert all(0 < len(part) <= size for part in parts), f"batch size {size}"
                wanted = by_id([batch.take(np.array(rows))])
                wanted = wanted if vectors else _without_vectors(wanted)
                check_records(wanted, by_id(parts), corpus.SCHEMA)

    def test_scans_do_not_disturb_each_other(self, connector: Connector) -> None:
        """Scans may be paused and run side by side; each still gives every record once."""
        batch = corpus.records(40, 50)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        paused = iter(connector.scan(batch_size=5))
        first = next(paused)
        scans = (connector.scan(batch_size=7), connector.scan(F("lang").exists(), batch_size=3))
        pairs = list(zip_longest(*scans))
        everyone = [id_ for part, _ in pairs if part is not None for id_ in part.ids]
        some = [id_ for _, part in pairs if part is not None for id_ in part.ids]
        assert sorted(everyone) == sorted(batch.ids)
        assert len(some) == len(set(some)) == connector.count(F("lang").exists())
        rest = [id_ for part in paused for id_ in part.ids]
        assert sorted([*first.ids, *rest]) == sorted(batch.ids)

    def test_ten_thousand_records_stream_through(self, connector: Connector) -> None:
        """10,000 records are written in large batches, counted, fetched, scanned and searched."""
        schema = CollectionSchema(dense_width=8, sparse=False, multivector_width=None)
        batch = corpus.records(39, 10_000, schema)
        batch = replace(batch, payloads=[{"n": i} for i in range(10_000)])
        connector.ensure(schema)
        for start in range(0, 10_000, 2500):
            connector.upsert(batch[start : start + 2500])
        connector.flush()
        assert connector.count() == 10_000
        assert connector.count(F("n") >= 9_990) == 10
        check_records(batch[:3000], connector.fetch(batch.ids[:3000]), schema)
        scanned = [id_ for found in connector.scan(batch_size=1000) for id_ in found.ids]
        assert sorted(scanned) == sorted(batch.ids)
        memory = oracle(batch, schema)
        queries = [corpus.query(seed, "dense", schema=schema) for seed in range(20)]
        answers = planner.run(connector, queries)
        exact = [{hit.id for hit in hits} for hits in memory.search(queries)]
        if connector.capabilities.exact:
            for query, hits in zip(queries, answers, strict=True):
                check_hits(memory, query, hits, "10,000 records")
        shared = [
            len(ids & {hit.id for hit in hits}) for ids, hits in zip(exact, answers, strict=True)
        ]
        assert sum(shared) >= 0.95 * 200, (
            f"recall@10 is {sum(shared) / 200}, at least 0.95 is wanted"
        )


def _with_legs(batch: RecordBatch, legs: Sequence[Leg]) -> RecordBatch:
    gone: dict[str, Any] = {leg: None for leg in LEGS if leg not in legs}
    return replace(batch, embeddings=replace(batch.embeddings, **gone))


def _without_vectors(batch: RecordBatch) -> RecordBatch:
    return _with_legs(batch, ())
