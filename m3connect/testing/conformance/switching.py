"""A name that stands for another collection, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from m3connect.contract import CollectionSchema, Connector
from m3connect.errors import CollectionGone, CollectionNotFound, PermanentError
from m3connect.searching import planner
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_hits, check_records, oracle, refusal
from m3connect.testing.conformance.lifecycle import FINGERPRINT
from m3connect.types import RecordBatch

NEWER = replace(corpus.SCHEMA, dense_width=12, multivector_dtype="float32")
"""Of the other collection: what fits one of the two does not fit the other."""
OLDER = replace(corpus.SCHEMA, fingerprint=FINGERPRINT)


def other_name(connector: Connector, number: int = 2) -> str:
    """A name that every engine takes."""
    return f"{connector.collection}_{number}"


def make(connector: Connector, seed: int, count: int, schema: CollectionSchema) -> RecordBatch:
    """Make a collection, with a note of its seed."""
    batch = corpus.records(seed, count, schema)
    connector.ensure(schema)
    connector.upsert(batch)
    connector.annotate({"seed": seed})
    connector.flush()
    return batch


def check(
    connector: Connector, batch: RecordBatch, schema: CollectionSchema, name: str, seed: int
) -> None:
    """Assert that a connector reads this collection, by whichever name it was opened."""
    info = connector.describe()
    assert (info.name, info.stands_for) == (connector.collection, name)
    assert (info.schema, dict(info.notes)) == (schema, {"seed": seed})
    holds(connector, batch, schema)


def holds(connector: Connector, batch: RecordBatch, schema: CollectionSchema) -> None:
    """Assert that reads and searches see these records and no others."""
    assert connector.count() == len(batch)
    check_records(by_id([batch]), by_id(connector.scan(vectors=True)), schema)
    check_records(batch, connector.fetch(batch.ids), schema)
    memory = oracle(batch, schema)
    query = corpus.query(1, "dense", limit=5)
    query = replace(query, dense=corpus.records(3, 1, schema).embeddings.dense[0])  # type: ignore[index]
    (hits,) = planner.run(connector, [query], schema=schema)
    check_hits(memory, query, hits, "by the other name")


class SwitchTests:
    """Part of :class:`m3connect.testing.conformance.ConnectorConformance`."""

    def test_a_collection_beside_is_another_one(self, connector: Connector) -> None:
        """It has records, notes and a schema of its own, is listed, and can be dropped alone."""
        batch = make(connector, 91, 20, OLDER)
        name = other_name(connector)
        with connector.beside(name) as other:
            refusal(CollectionNotFound, other.describe, "before it is made")
            newer = make(other, 92, 10, NEWER)
            check(other, newer, NEWER, name, 92)
            check(connector, batch, OLDER, connector.collection, 91)
            assert {name, connector.collection} <= {*connector.collections()}
        with connector.beside(name) as other:
            holds(other, newer, NEWER)
            other.drop()
        assert name not in connector.collections()
        check(connector, batch, OLDER, connector.collection, 91)

    def test_a_switched_name_brings_the_other_collection(
        self, connector: Connector, reopen: Callable[[], Connector] | None
    ) -> None:
        """All that is read, written and noted by the name is the other collection's, until it is undone."""
        batch = make(connector, 93, 20, OLDER)
        name = other_name(connector)
        with connector.beside(name) as other:
            newer = make(other, 94, 10, NEWER)
        connector.switch(name)
        connector.switch(name)  # twice is as once
        check(connector, newer, NEWER, name, 94)
        connector.ensure(NEWER)
        assert connector.delete(newer.ids[:4]) == 4
        connector.upsert(newer[:2])
        newer = RecordBatch.concat([newer[:2], newer[4:]])
        connector.flush()
        if reopen is not None:
            connector.close()
            connector = reopen()
            holds(connector, newer, NEWER)  # before it is described
            check(connector, newer, NEWER, name, 94)
        connector.switch(connector.collection)
        check(connector, batch, OLDER, connector.collection, 93)
        with connector.beside(name) as other:
            check(other, newer, NEWER, name, 94)
            other.drop()
        if reopen is not None:
            connector.close()

    def test_what_began_on_one_collection_is_not_finished_on_another(
        self, connector: Connector
    ) -> None:
        """Until the name is described again, all goes to the collection that it stood for before."""
        batch = make(connector, 95, 20, OLDER)
        name = other_name(connector)
        with connector.beside(name) as other:
            newer = make(other, 96, 10, NEWER)
        connector.switch(name)
        holds(connector, batch, OLDER)
        connector.ensure(OLDER)
        assert connector.delete(batch.ids[:5]) == 5
        connector.upsert(batch[:1])
        connector.flush()
        holds(connector, RecordBatch.concat([batch[:1], batch[5:]]), OLDER)
        check(connector, newer, NEWER, name, 96)
        connector.switch(connector.collection)
        holds(connector, newer, NEWER)
        connector.describe()
        assert connector.count() == 16

    def test_a_name_stands_for_what_there_is(self, connector: Connector) -> None:
        """An unknown collection is refused; neither a name nor what it stands for goes unnoticed."""
        refusal(CollectionNotFound, partial(connector.switch, other_name(connector)), "nothing yet")
        batch = make(connector, 97, 5, OLDER)
        name = other_name(connector)
        unknown = refusal(CollectionNotFound, partial(connector.switch, name), "unknown")
        assert name in str(unknown)
        check(connector, batch, OLDER, connector.collection, 97)
        with connector.beside(name) as other:
            newer = make(other, 98, 4, NEWER)
        connector.switch(name)
        error = refusal(PermanentError, connector.drop, "a name that stands for another")
        assert name in str(error)
        check(connector, newer, NEWER, name, 98)
        connector.close()

    def test_what_a_name_stands_for_is_missed(self, connector: Connector) -> None:
        """Where it was removed, that is said, and nothing else is served in its place."""
        batch = make(connector, 99, 5, OLDER)
        name = other_name(connector)
        with connector.beside(name) as other:
            make(other, 98, 4, NEWER)
        connector.switch(name)
        with connector.beside(name) as other:
            other.drop()
        for verb in (connector.describe, connector.count, partial(connector.ensure, OLDER)):
            error = refusal(CollectionGone, verb, "a collection that is gone")
            assert name in str(error)
        connector.switch(connector.collection)
        check(connector, batch, OLDER, connector.collection, 99)

    def test_a_free_name_becomes_an_alias(self, connector: Connector) -> None:
        """Where there are aliases it is set and moved; it is no collection, and goes with its last."""
        one, two, alias = (other_name(connector, number) for number in (2, 3, 4))
        first, second = connector.beside(one), connector.beside(two)
        batch = make(first, 101, 8, OLDER)
        newer = make(second, 102, 6, NEWER)
        first.close()
        second.close()
        with connector.beside(alias) as name:
            if not connector.capabilities.aliases:
                refusal(CollectionNotFound, partial(name.switch, one), "no aliases here")
                return
            name.switch(one)
            check(name, batch, OLDER, one, 101)
            name.switch(two)
            holds(name, batch, OLDER)
            check(name, newer, NEWER, two, 102)
            refusal(PermanentError, name.drop, "an alias")
            assert {one, two} <= {*name.collections()}
            assert alias not in name.collections()
        for each in (one, two):
            with connector.beside(each) as other:
                other.drop()
        with connector.beside(alias) as name, pytest.raises(CollectionNotFound):
            name.describe()
