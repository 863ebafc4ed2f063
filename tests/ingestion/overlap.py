"""Two runs that write into one collection at once, as every order of their writes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from m3connect.contract import Connector
from m3connect.filters import Exists
from m3connect.ingestion import ingest
from m3connect.ingestion.ledger import FIELD
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document, RecordBatch

ENCODER = HashEncoder(width=4)
IDS = ("a", "b", "c#0")
Write = Callable[[Connector], object]


class Server(MemoryConnector):
    """As a server: others may write meanwhile, so all passages are looked up."""

    capabilities = replace(MemoryConnector.capabilities, embedded=False)


def source(version: int, lengths: Sequence[int]) -> list[Document]:
    """Documents of as many sentences as told; each sentence is a passage and names its version."""
    return [
        Document(id_, " ".join(f"v{version} w{at} x y." for at in range(length)))
        for id_, length in zip(IDS, lengths, strict=False)
    ]


def run(docs: Sequence[Document], connector: Connector) -> int:
    """Ingest; returns how many documents were written."""
    return ingest(docs, ENCODER, connector, chunk_tokens=5).written


def writes_of(docs: Sequence[Document], connector: Connector) -> list[Write]:
    """What a run would write now, one request each; nothing is written."""
    found: list[Write] = []
    real = connector.upsert, connector.delete

    def upsert(batch: RecordBatch) -> None:
        found.append(lambda collection: collection.upsert(batch))

    def delete(where: Sequence[str]) -> int:
        found.append(lambda collection: collection.delete(where))
        return 0

    connector.upsert, connector.delete = upsert, delete  # type: ignore[method-assign,assignment]
    try:
        run(docs, connector)
    finally:
        connector.upsert, connector.delete = real  # type: ignore[method-assign]
    return found


def orders(
    one: Sequence[Write], other: Sequence[Write], seed: int | None = None, count: int = 0
) -> Iterator[list[Write]]:
    """Both sequences in every order that keeps each; or some such orders, with runs cut short."""
    if seed is None:
        total = len(one) + len(other)
        for places in combinations(range(total), len(one)):
            left = iter(one), iter(other)
            yield [next(left[at not in places]) for at in range(total)]
        return
    chance = random.Random(seed)
    for _ in range(count):
        first, second = (list(each[: chance.randint(0, len(each))]) for each in (one, other))
        mixed = []
        while first or second:
            taken = first if not second or (first and chance.random() < 0.5) else second
            mixed.append(taken.pop(0))
        yield mixed


def check_some_orders(connect: Callable[[str], Connector], seed: int, count: int) -> None:
    """On a server: each run and its reads have a connection of their own, as two processes have.

    Args:
        connect: to a collection of this name, which is new.
        seed, count: which orders, and how many.
    """
    first, second = source(1, (5, 2, 7)), source(2, (3, 4, 1))
    with connect("docs") as setup, connect("docs") as one, connect("docs") as other:
        run(source(0, (2, 3, 1)), setup)
        begun, ended = writes_of(first, one), writes_of(second, other)
        with connect("undisturbed") as alone:
            run(second, alone)
            expected = content(alone)
        for writes in orders(begun, ended, seed, count):
            for write in writes:
                write(one if write in begun else other)
            with connect("docs") as later:
                run(second, later)
                assert content(later) == expected
                assert run(second, later) == 0
                later.delete(Exists("document_id"))


def content(connector: Connector) -> dict[str, object]:
    """All records, their marks without the bound, which remembers history."""
    records: dict[str, object] = {}
    for batch in connector.scan(vectors=True):
        for row, (id_, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
            mark = {key: value for key, value in payload[FIELD].items() if key != "bound"}
            dense = batch.embeddings[row].dense
            assert dense is not None
            records[id_] = ({**payload, FIELD: mark}, dense.round(5).tolist())
    return records
