"""Filters mean on every engine what :func:`m3connect.filters.matches` says they mean."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial

import numpy as np

from m3connect.contract import Connector, FieldKind
from m3connect.errors import InputError
from m3connect.filters import And, Eq, Exists, F, Filter, In, Not, Or, Range, matches, parse
from m3connect.searching import planner
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import check_hits, oracle, refusal
from m3connect.types import Payload, RecordBatch

LONG = "word " * 8_000
PAYLOADS: list[Payload] = [
    {},
    {"a": None},
    {"a": []},
    {"a": [None, []]},
    {"a": {}},
    {"a": ""},
    {"a": "x"},
    {"a": "X"},
    {"a": "x y"},
    {"a": "y x"},
    {"a": ["x", "y"]},
    {"a": [["x"], []]},
    {"a": "xy"},
    {"a": "x\u0000"},
    {"a": LONG},
    {"a": LONG + "."},
    {"a": True},
    {"a": False},
    {"a": 1},
    {"a": 1.0},
    {"a": "1"},
    {"a": "true"},
    {"a": 0},
    {"a": -0.0},
    {"a": [1, "x", True]},
    {"a": 0.1},
    {"a": 1e-300},
    {"a": 2**53},
    {"a": 2**53 + 1},
    {"a": float(2**53)},
    {"a": 2**63 - 1},
    {"a": [5, 50]},
    {"a": {"b": "x"}},
    {"a": {"b": {"c": 1}}},
    {"a": [{"b": "x"}, {"b": "y", "c": 1}]},
    {"a": [{"b": ["x", None]}, {"b": [{"c": 1.5}]}]},
    {"a.b": "x"},
    {"a": {"0": "x"}},
    {"ä": "x", "a\u0308": "y"},
    {"two words": "x", 'quo"te': "x", "tick`": "x", "it's": "x", "semi;colon": 1, "b[0]": "x"},
    {"and": 1, "exists": 2, "true": 3, "text": "in", "id": "x", "vector": 1, "dense": "x"},
    {"when": "2024-02-29"},
    {"when": "2024-02-29T00:00:00"},
    {"when": "2024-02-29T00:00:00Z"},
    {"when": "2024-02-29 01:00+01:00"},
    {"when": "2024-02-28T23:00:00.000001-01:00"},
    {"when": "2024-02-28T23:59:59.999999Z"},
    {"when": ["2019-12-31", "2030-01-01T00:00:00Z"]},
    {"when": "2023-02-29"},
    {"when": "2024-2-9"},
    {"when": "2024-02-28T24:00:00Z"},
    {"when": "20240229"},
    {"when": "2024-02-29T00:00:00Zulu"},
    {"when": "2024-02-29\n"},
    {"when": " 2024-02-29"},
    {"when": 1709164800},
    {"when": "0001-01-01"},
    {"when": "9999-12-31T23:59:59.999999Z"},
]
DAY = date(2024, 2, 29)
MOMENT = datetime(2024, 2, 29, tzinfo=UTC)
FILTERS: list[Filter] = [
    *(Eq("a", value) for value in ("", "x", "X", "x y", "x\u0000", "1", "true", LONG)),
    *(Eq("a", value) for value in (True, False, 0, 1, 1.0, -0.0, 0.1, 1e-300, 5, 1.5)),
    *(Eq("a", value) for value in (2**53, 2**53 + 1, float(2**53), 2**63 - 1, 2**64)),
    *(Eq("a", value) for value in ("*", "x*", ".*", "'", '"', "\\", '" or a == "x', "x' OR '1")),
    *(Not(Eq("a", value)) for value in ("x", 1, True, "1", LONG)),
    *(Eq(f"a.{part}", "x") for part in ("b", "0", "b.c", "b.0")),
    Eq("a.b.c", 1),
    Eq("a.b.c", 1.5),
    Eq("a.c", 1),
    And((Eq("a.b", "x"), Eq("a.c", 1))),
    In("a", ()),
    In("a", ("x",)),
    In("a", ("x", 1)),
    In("a", (True, "1", 0.1)),
    In("a", ("nothing", "else")),
    In("a", (*(f"v{i}" for i in range(300)), "x")),
    Not(In("a", ())),
    Not(In("a", ("x", 1, True))),
    Exists("a"),
    Exists("a.b"),
    Exists("a.b.c"),
    Exists("a.0"),
    Exists("nowhere"),
    Not(Exists("a")),
    Not(Exists("a.b")),
    And((Exists("a"), Not(Eq("a", "x")))),
    Range("a", gte=0),
    Range("a", gt=0),
    Range("a", lt=0),
    Range("a", lte=0.0),
    Range("a", gt=0, lt=1),
    Range("a", gte=0.1, lte=0.1),
    Range("a", gt=2**53),
    Range("a", gte=2**53 + 1),
    Range("a", lt=2**53),
    Range("a", gt=10, lt=40),
    Range("a", gt=1, lt=10),
    *(Range("a", gt=low, gte=other) for low, other in ((1, 1), (0, 1), (2, 1))),
    *(Range("a", lt=high, lte=other) for high, other in ((10, 10), (1, 10), (10, 1))),
    Range("a.b.c", gt=1),
    Not(Range("a", gt=0)),
    Range("a", lte=2**63),
    Range("when", gt=0),
    Range("when", gte=DAY),
    Range("when", gt=DAY),
    Range("when", lt=DAY),
    Range("when", lte=MOMENT),
    Range("when", gte=DAY, lte=MOMENT),
    Range("when", gt=MOMENT - timedelta(microseconds=2), lt=MOMENT + timedelta(microseconds=1)),
    Range("when", gte=datetime(2024, 2, 29, 1, tzinfo=timezone(timedelta(hours=1)))),
    Range("when", gt=date(2024, 1, 1), lt=date(2024, 12, 31)),
    Range("when", gt=date(2020, 1, 1), lt=date(2024, 1, 1)),
    Range("when", gt=DAY, gte=DAY),
    Range("when", lt=DAY, lte=MOMENT),
    Range("when", gt=date(1, 1, 1)),
    Range("when", lt=date(9999, 12, 31)),
    Not(Range("when", lt=DAY)),
    Eq("when", "2024-02-29"),
    *(Eq(field, "x") for field in ("ä", "a\u0308", "two words", 'quo"te', "tick`", "it's", "b[0]")),
    *(Eq(field, "x") for field in ("id", "dense", "_m3_id", "_id", "payload", "$meta")),
    Eq("semi;colon", 1),
    Eq("text", "in"),
    Eq("vector", 1),
    Range("and", gte=1),
    Eq("exists", 2),
    And(()),
    Or(()),
    Not(And(())),
    Not(Or(())),
    Not(Not(Eq("a", "x"))),
    And((Eq("a", "x"),)),
    Or((Eq("a", "x"), And((Exists("a"), Not(Or((Eq("a", 1), Range("a", gt=2)))))))),
    Not(And((Exists("a"), Not(Eq("a", "x"))))),
    Or(tuple(Eq("a", f"v{i}") for i in range(100))),
    parse('a == "x" or not (a exists) and when < 2024-03-01'),
]


def with_payloads(seed: int, payloads: Sequence[Payload]) -> RecordBatch:
    """Corpus records that carry these payloads."""
    batch = corpus.records(seed, len(payloads))
    return replace(batch, payloads=payloads)


def check_filters(connector: Connector, batch: RecordBatch, filters: Sequence[Filter]) -> None:
    """Assert that scan and count agree with :func:`matches` for every filter."""
    for where in filters:
        pairs = list(zip(batch.ids, batch.payloads, strict=True))
        wanted = {id_ for id_, payload in pairs if matches(where, payload)}
        scanned = [id_ for page in connector.scan(where) for id_ in page.ids]
        wrong = [
            f"{'missed' if id_ in wanted else 'found'} {payload!r:.200}"
            for id_, payload in pairs
            if (id_ in wanted) != (id_ in scanned)
        ]
        assert not wrong, f"scan by {where!r:.300}: {'; '.join(wrong[:5])}"
        assert len(scanned) == len(wanted), f"scan by {where!r:.300} repeats records"
        counted = connector.count(where)
        assert counted == len(wanted), f"count of {where!r:.300}: {counted}, not {len(wanted)}"


class FilterTests:
    """Part of :class:`m3connect.testing.conformance.ConnectorConformance`."""

    def test_a_table_of_treacherous_filters(self, connector: Connector) -> None:
        """Types, missing fields, lists, nesting, quoting and dates mean the same everywhere."""
        batch = with_payloads(51, PAYLOADS)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        check_filters(connector, batch, FILTERS)

    def test_a_filter_may_be_text(self, connector: Connector) -> None:
        """Count, scan, search and delete take a filter's text; a mistake is shown by its place."""
        batch = corpus.records(58, 40)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        connector.flush()
        text = 'lang == "de" or not (lang exists)'
        where = parse(text)
        wanted = {
            id_
            for id_, payload in zip(batch.ids, batch.payloads, strict=True)
            if matches(where, payload)
        }
        assert 0 < len(wanted) < len(batch)
        assert connector.count(text) == len(wanted)
        assert {id_ for part in connector.scan(text) for id_ in part.ids} == wanted
        query = corpus.query(58, "dense", filter=text, limit=len(batch))
        assert {hit.id for hit in planner.run(connector, [query])[0]} == wanted
        attempts: dict[str, Callable[[], object]] = {
            "count": partial(connector.count, "lang = 1"),
            "scan": partial(next, connector.scan("lang = 1")),
            "search": partial(planner.run, connector, [replace(query, filter="lang = 1")]),
            "delete": partial(connector.delete, "lang = 1"),
        }
        for name, attempt in attempts.items():
            error = refusal(InputError, attempt, name)
            assert "filter 'lang = 1', character 6" in str(error), f"{name}: {error}"
        assert connector.delete(text) == len(wanted)
        assert connector.count() == len(batch) - len(wanted)

    def test_random_filters_on_random_payloads(self, connector: Connector) -> None:
        """Seeded random filters select exactly what they match; their negation the rest."""
        rng = random.Random(52)
        batch = corpus.records(52, 80)
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        filters = [corpus.condition(rng) for _ in range(120)]
        check_filters(connector, batch, filters)
        for where in filters[:20]:
            both = connector.count(where) + connector.count(~where)
            assert both == len(batch), f"{where!r} and its negation select {both} of {len(batch)}"

    def test_an_index_never_changes_a_filter(self, connector: Connector) -> None:
        """With payload indexes, values of other kinds are still stored, and filters still exact."""
        kinds: dict[str, FieldKind] = {
            "a": "keyword",
            "when": "datetime",
            "a.b": "integer",
            "year": "integer",
            "lang": "keyword",
            "parts.sub.size": "float",
            "author.langs": "keyword",
            "7-days": "boolean",
            'quo"te`d': "keyword",
        }
        table, randoms = with_payloads(53, PAYLOADS), corpus.records(54, 40, prefix="s")
        batch = RecordBatch.concat([table, randoms])
        connector.ensure(replace(corpus.SCHEMA, payload_fields=kinds))
        connector.upsert(batch)
        rng = random.Random(53)
        check_filters(connector, batch, [*FILTERS, *(corpus.condition(rng) for _ in range(40))])

    def test_searches_obey_filters(self, connector: Connector) -> None:
        """Every leg and every fusion finds only what the filter matches, and all of that."""
        rng = random.Random(55)
        batch = RecordBatch.concat(
            [with_payloads(55, PAYLOADS), corpus.records(56, 60, prefix="s")]
        )
        connector.ensure(corpus.SCHEMA)
        connector.upsert(batch)
        connector.flush()
        memory = oracle(batch, corpus.SCHEMA)
        filters = [*FILTERS[::4], *(corpus.condition(rng) for _ in range(25))]
        queries = [
            corpus.query(seed, leg, filter=where, limit=3 if seed % 2 else len(batch))
            for seed, where in enumerate(filters)
            for leg in ("dense", "sparse", "multivector")
        ]
        for query, hits in zip(queries, planner.run(connector, queries), strict=True):
            check_hits(memory, query, hits, f"{query.legs} where {query.filter!r:.300}")

    def test_delete_by_filter_takes_exactly_the_matching(self, connector: Connector) -> None:
        """Deleting by filter removes what matches, and leaves the rest."""
        rng = random.Random(57)
        connector.ensure(corpus.SCHEMA)
        left = RecordBatch.concat([with_payloads(57, PAYLOADS), corpus.records(58, 60, prefix="s")])
        connector.upsert(left)
        filters = [corpus.condition(rng) for _ in range(12)]
        for where in [F("when") < DAY, (F("a") != "x") & F("year").exists(), *filters]:
            rows = [r for r, p in enumerate(left.payloads) if not matches(where, p)]
            if not rows:
                continue
            gone = connector.delete(where)
            assert gone == len(left) - len(rows), f"{where!r}: {gone}"
            left = left.take(np.array(rows))
            ids = sorted(id_ for part in connector.scan() for id_ in part.ids)
            assert ids == sorted(left.ids), f"after deleting {where!r}"
        assert connector.delete(Exists("nowhere")) == 0
