"""Two runs into one collection at once: whatever they leave behind, the next run repairs."""

import copy
from dataclasses import replace

import pytest

from m3connect.ingestion import steps
from tests.ingestion.overlap import IDS, Server, content, orders, run, source, writes_of


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Several requests even for a few short documents."""
    monkeypatch.setattr(steps, "GROUP_PASSAGES", 3)


def started(*before):
    connector = Server(collection="docs")
    for docs in before:
        run(docs, connector)
    return connector


def after(connector, writes):
    """A copy of the collection in which these writes were made."""
    changed = copy.deepcopy(connector)
    for write in writes:
        write(changed)
    return changed


def with_contents(*versions):
    """Each version with what a run over it gives alone."""
    return [(docs, content(started(docs))) for docs in versions]


def check_repaired(connector, versions):
    """Each version, as the next run, gives what it gives alone, and a run after it writes nothing."""
    for docs, alone in versions:
        collection = copy.deepcopy(connector)
        run(docs, collection)
        assert content(collection) == alone
        assert run(docs, collection) == 0


@pytest.mark.parametrize("before", [False, True], ids=["new", "changed"])
@pytest.mark.parametrize(
    ("one", "other"), [(1, 4), (6, 2), pytest.param(5, 3, marks=pytest.mark.slow)]
)
def test_every_order_of_two_runs_is_repaired_by_the_next(one, other, before):
    """One document; both runs looked it up before either wrote."""
    connector = started(*([source(0, [2])] if before else [[]]))
    first, second = source(1, [one]), source(2, [other])
    versions = with_contents(first, second)
    for writes in orders(writes_of(first, connector), writes_of(second, connector)):
        check_repaired(after(connector, writes), versions)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_runs_that_begin_and_die_anywhere_are_repaired(seed):
    """Three documents; the second run begins amid the first, and either may be killed."""
    first, second, third = source(1, (5, 2, 7)), source(2, (3, 4, 1)), source(3, (2, 2, 2))
    versions = with_contents(first, second, third)
    connector = started(source(0, (2, 3, 1)))
    begun = writes_of(first, connector)
    for start in range(0, len(begun) + 1, 2):
        amid = after(connector, begun[:start])
        for writes in orders(begun[start:], writes_of(second, amid), seed, 4):
            check_repaired(after(amid, writes), versions)


def test_passages_that_went_missing_come_back():
    """Whoever deleted them: a document counts as unchanged only if it is there."""
    docs = source(1, (5, 2, 7))
    connector = started(docs)
    connector.delete([f"{IDS[0]}#3", f"{IDS[2]}#6"])
    assert run(docs, connector) == 2
    assert content(connector) == content(started(docs))


def test_records_of_other_hands_are_no_passages():
    """A record that only says it belongs to a document is neither read nor deleted."""
    docs = source(1, (3, 2, 2))
    connector = started(docs)
    mine = connector.fetch(["a#0"], vectors=True)
    connector.upsert(replace(mine, ids=["mine"], payloads=[{"document_id": "a", "position": 7}]))
    assert run(docs, connector) == 0
    assert connector.count() == 8


def test_a_servers_collection_is_indexed_for_what_is_asked_in_each_run():
    """Document, source and place in it, beside what the user asks for."""
    connector = started(source(1, [1]))
    fields = connector.describe().schema.payload_fields
    assert fields == {
        "document_id": "keyword",
        "position": "integer",
        "_ingest.chunks": "integer",
        "_ingest.source": "keyword",
    }
