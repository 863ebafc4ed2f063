"""Tenants of one collection are kept apart: whoever asks says whose records are meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from m3connect.contract import Connector
from m3connect.errors import InputError, PermanentError, SchemaMismatch
from m3connect.filters import EVERY_TENANT, And, Eq, Exists, F, Filter, In, Not, Or
from m3connect.searching import planner
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import by_id, check_hits, check_records, oracle, refusal
from m3connect.types import LEGS, Query, RecordBatch, Rrf, Weighted

FIELD = "team.name"
TENANTS = ("a", "b, c", "Größe/\u2603 \"x'")
SCHEMA = replace(corpus.SCHEMA, tenant_field=FIELD)
NAMED: dict[str, Filter] = {
    "one": F(FIELD) == TENANTS[1],
    "one and more": (F("year") >= 2000) & (F(FIELD) == TENANTS[2]),
    "two": F(FIELD).isin(TENANTS[:2]),
    "either": Or((Eq(FIELD, TENANTS[0]), And((Eq(FIELD, TENANTS[2]), Exists("lang"))))),
    "none of them": F(FIELD) == "nobody",
    "no string": In(FIELD, (7, True)),
    "all": F(FIELD).exists(),
    "every": EVERY_TENANT,
    "every, and more": (F("year") >= 2000) & EVERY_TENANT,
}
LEFT_OPEN: dict[str, Filter | None] = {
    "no filter": None,
    "another field": F("year") >= 2000,
    "all but one": F(FIELD) != TENANTS[0],
    "one or any": Or((Eq(FIELD, TENANTS[0]), Exists("lang"))),
    "not all": Not(Exists(FIELD)),
    "nothing": Or(()),
}


def shared_out(batch: RecordBatch, first: int = 0) -> RecordBatch:
    """The records in turn as one tenant's after the other."""
    payloads = [
        {**payload, "team": {"name": TENANTS[(first + row) % len(TENANTS)]}}
        for row, payload in enumerate(batch.payloads)
    ]
    return replace(batch, payloads=payloads)


def questions(where: Filter | None) -> list[Query]:
    """A query in every mode."""
    ask = partial(corpus.query, 81, filter=where, limit=7)
    return [
        *(ask(leg) for leg in LEGS),
        ask("dense", "sparse", fusion=Rrf()),
        ask("dense", "sparse", fusion=Weighted(), leg_scores=True),
        ask(*LEGS, fusion=Weighted(), dense_depth=20, sparse_depth=20),
    ]


class TenantTests:
    """Part of :class:`m3connect.testing.conformance.ConnectorConformance`."""

    def test_a_question_finds_the_records_of_the_tenants_it_names(
        self, connector: Connector
    ) -> None:
        """Searches in every mode, scans, counts and deletions keep to the tenants of their filter."""
        batch = shared_out(corpus.records(81, 60))
        connector.ensure(SCHEMA)
        connector.upsert(batch)
        connector.flush()
        memory = oracle(batch, SCHEMA)
        for name, where in NAMED.items():
            for query, hits in zip(
                asked := questions(where), planner.run(connector, asked), strict=True
            ):
                check_hits(memory, query, hits, f"{query.legs} of {name}")
            wanted = sorted(batch.matching(where).ids)
            assert sorted(id_ for part in connector.scan(where) for id_ in part.ids) == wanted, name
            assert connector.count(where) == len(wanted), name
        for where in (NAMED["one and more"], NAMED["either"]):
            assert connector.delete(where) == memory.delete(where)
        kept = by_id(memory.scan(EVERY_TENANT, vectors=True))
        check_records(kept, by_id(connector.scan(EVERY_TENANT, vectors=True)), SCHEMA)

    def test_a_question_that_leaves_the_tenant_open_is_refused(self, connector: Connector) -> None:
        """It is answered with how to say whose records are meant; by ids, all is answered as ever."""
        batch = shared_out(corpus.records(82, 9))
        connector.ensure(SCHEMA)
        connector.upsert(batch)
        connector.flush()
        for name, where in LEFT_OPEN.items():
            attempts: dict[str, Callable[[], object]] = {
                "count": partial(connector.count, where),
                "scan": partial(next, connector.scan(where)),
                **{
                    f"search {query.legs}": partial(planner.run, connector, [query])
                    for query in questions(where)
                },
            }
            if where is not None:
                attempts["delete"] = partial(connector.delete, where)
            for what, attempt in attempts.items():
                error = refusal(InputError, attempt, f"{what}, {name}")
                assert f'{FIELD} == "a"' in str(error), f"{what}, {name}: {error}"
        assert connector.count(EVERY_TENANT) == connector.count(f"{FIELD} exists") == 9
        assert connector.count(EVERY_TENANT & F("nowhere").exists()) == 0
        check_records(batch, connector.fetch(batch.ids), SCHEMA)
        query = corpus.query(82, "dense", within=tuple(batch.ids[:4]))
        check_hits(oracle(batch, SCHEMA), query, planner.run(connector, [query])[0], "within ids")
        both = replace(query, filter=EVERY_TENANT & F("lang").exists())
        check_hits(oracle(batch, SCHEMA), both, planner.run(connector, [both])[0], "ids, and all")
        assert connector.delete([*batch.ids[:2], "missing"]) == 2
        assert connector.delete(EVERY_TENANT) == 7

    def test_an_id_belongs_to_one_tenant(self, connector: Connector) -> None:
        """A record under another tenant's id is named, and its batch is not written."""
        batch = shared_out(corpus.records(83, 6))
        connector.ensure(SCHEMA)
        connector.upsert(batch)
        taken = shared_out(corpus.records(83, 6), first=1)
        news = shared_out(corpus.records(84, 3, prefix="new"))
        both = RecordBatch.concat([news, taken[3:4]])
        error = refusal(InputError, partial(connector.upsert, both), "a taken id")
        assert repr(taken.ids[3]) in str(error), error
        twice = RecordBatch.concat([news, replace(shared_out(news, first=1), ids=news.ids)])
        refusal(InputError, partial(connector.upsert, twice), "one id of two tenants")
        for payload in ({}, {"team": {"name": ""}}, {"team": {"name": ["a", "b"]}}, {"team": "a"}):
            error = refusal(
                InputError, partial(connector.upsert, replace(news[:1], payloads=[payload])), "none"
            )
            assert repr(news.ids[0]) in str(error), error
        check_records(batch, connector.fetch([*batch.ids, *news.ids]), SCHEMA)
        own = shared_out(corpus.records(85, 6))
        connector.upsert(replace(own, ids=batch.ids))
        assert connector.count(EVERY_TENANT) == 6
        assert connector.delete(taken.ids[:1]) == 1
        connector.upsert(taken[:1])
        assert connector.count(EVERY_TENANT) == 6
        assert connector.count(F(FIELD) == TENANTS[0]) == 1

    def test_who_knew_the_collection_without_tenants_keeps_to_them(
        self, connector: Connector
    ) -> None:
        """Where another made it anew, with tenants, none of them is overwritten or deleted unnamed."""
        batch = shared_out(corpus.records(86, 6))
        attempts: dict[str, Callable[[], object]] = {
            "a taken id": partial(connector.upsert, shared_out(batch, first=1)[:1]),
            "no tenant": partial(connector.upsert, corpus.records(87, 1, prefix="new")),
            "delete": partial(connector.delete, Exists("lang")),
        }
        for what, attempt in attempts.items():
            connector.ensure(corpus.SCHEMA)
            connector.describe()
            with connector.beside(connector.collection) as other:
                try:
                    other.drop()
                except PermanentError:  # an engine of one user at a time: nobody can
                    return
                other.ensure(SCHEMA)
                other.upsert(batch)
                refusal(InputError, attempt, what)
                check_records(by_id([batch]), by_id(other.scan(EVERY_TENANT, vectors=True)), SCHEMA)
                other.drop()

    def test_a_collection_keeps_its_tenants(self, connector: Connector) -> None:
        """What keeps tenants apart is part of the collection, and is never another field."""
        connector.ensure(SCHEMA)
        connector.ensure(corpus.SCHEMA)  # which does not ask for it
        assert connector.describe().schema.tenant_field == FIELD
        other = replace(corpus.SCHEMA, tenant_field="customer")
        error = refusal(SchemaMismatch, partial(connector.ensure, other), "another field")
        assert "tenant_field" in str(error), error
        refusal(InputError, connector.count, "no tenant")
