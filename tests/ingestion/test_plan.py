"""What a run would do: the same counts as the run, and nothing is written."""

from dataclasses import replace
from typing import Any

import pytest

from m3connect.contract import Limits
from m3connect.errors import FingerprintMismatch, SchemaMismatch
from m3connect.ingestion import ingest, open_source, plan
from m3connect.ingestion.planning import SAMPLE
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document

WRITES = ("ensure", "upsert", "delete", "flush", "annotate", "drop")
BEFORE = [
    Document("same", "one two"),
    Document("shrinks", "one two three four five"),
    Document("tagged", "one two"),
    Document("emptied", "one two three four five"),
    Document("gone", "one two three"),
]
AFTER = [
    Document("same", "one two"),
    Document("shrinks", "one"),
    Document("tagged", "one two", {"lang": "en"}),
    Document("emptied", ""),
    Document("new", "six seven eight nine"),
    *(Document(f"n{at}", " ".join(f"w{at}" for _ in range(at % 9 + 1))) for at in range(50)),
]
COUNTS = (
    "read", "unchanged", "written", "metadata_only", "deleted", "pruned", "empty", "failed", "chunks",
    "tokens", "truncated",
)  # fmt: skip


class Server(MemoryConnector):
    """As a server; writes can be forbidden."""

    capabilities = replace(MemoryConnector.capabilities, embedded=False)


def sealed(connector, monkeypatch):
    """Nothing may be written to it."""

    def refuse(*_, **__):
        raise AssertionError("a plan wrote")

    for name in WRITES:
        monkeypatch.setattr(connector, name, refuse)
    return connector


@pytest.mark.parametrize("kind", [MemoryConnector, Server])
def test_the_plan_is_what_the_run_reports(kind, encoder, monkeypatch):
    """Counts and tokens to the number, with changes of every kind; the payloads to the byte."""
    connector = kind(collection="docs")
    ingest(BEFORE, encoder, connector, chunk_tokens=2)
    how: dict[str, Any] = {"prune": True, "max_delete_ratio": 0.5}
    with monkeypatch.context() as patch:
        planned = plan(open_source(AFTER, encoder, chunk_tokens=2), sealed(connector, patch), **how)
    done = ingest(AFTER, encoder, connector, chunk_tokens=2, **how)
    assert {name: getattr(planned, name) for name in COUNTS} == {
        name: getattr(done, name) for name in COUNTS
    }
    assert (planned.pruned, planned.metadata_only, planned.empty) == (1, 1, 1)
    assert (planned.encoded, planned.sample) == (planned.chunks - 1, SAMPLE)
    assert planned.seconds > 0


def test_the_bytes_are_those_of_the_collection(encoder, connector):
    """By representation: of dense vectors to the byte, of all others as far as a sample tells."""
    planned = plan(open_source(AFTER, encoder, chunk_tokens=2), connector)
    ingest(AFTER, encoder, connector, chunk_tokens=2)
    held = connector.fetch([id_ for batch in connector.scan() for id_ in batch.ids]).embeddings
    assert planned.bytes["dense"] == held.dense.nbytes
    for leg in ("sparse", "multivector"):
        assert planned.bytes[leg] == pytest.approx(getattr(held, leg).nbytes, rel=0.1)
    assert set(planned.bytes) == {"payload", "dense", "sparse", "multivector"}
    again = plan(open_source(AFTER, encoder, chunk_tokens=2), connector)
    assert (again.written, again.chunks, again.bytes, again.sample) == (0, 0, {}, 0)


def test_a_collection_that_does_not_fit_is_refused_as_by_the_run(encoder, connector):
    """Though nothing would be written to it."""
    ingest(BEFORE, encoder, connector, chunk_tokens=2)
    cases: list[Any] = [(["dense"], 2, SchemaMismatch), (None, 3, FingerprintMismatch)]
    for legs, tokens, error in cases:
        with pytest.raises(error):
            plan(open_source(AFTER, encoder, chunk_tokens=tokens), connector, legs=legs)
        with pytest.raises(error):
            ingest(AFTER, encoder, connector, chunk_tokens=tokens, legs=legs)


def test_failures_are_told_by_their_reasons(encoder, connector):
    """And are no dead letters."""
    items = [Document("a", "x"), Document("a", "x"), Document("b", "x", {"text": 1}), {"id": "c"}]
    planned = plan(open_source(items, encoder), connector)
    assert (planned.read, planned.failed, planned.written) == (4, 3, 1)
    assert sum(planned.reasons.values()) == 3
    assert "another document of this run has the same id" in planned.reasons


def test_what_the_database_would_refuse_is_counted(encoder, monkeypatch):
    """By its limits: each of the passages that exceeds one."""
    limits = Limits(id_bytes=4, payload_bytes=300, multivector_floats=6 * 16)
    connector = MemoryConnector(collection="docs")
    patched = replace(connector.capabilities, limits=limits)
    monkeypatch.setattr(MemoryConnector, "capabilities", patched)
    items = [
        Document("fits", ""),
        Document("ok", "one two three"),
        Document("longer", "one"),
        Document("x", "one", {"note": "n" * 300}),
        Document("y", "one two three four five six"),
    ]
    planned = plan(open_source(items, encoder, chunk_tokens=9), connector)
    assert planned.beyond == {"id_bytes": 1, "payload_bytes": 1, "multivector_floats": 1}


def test_long_passages_are_counted_as_truncated():
    """Their tokens up to the limit, as the encoder counts them."""
    encoder, connector = HashEncoder(max_length=6), MemoryConnector(collection="docs")
    items = [Document("a", "unbroken" * 3), Document("b", "x " * 20)]
    planned = plan(open_source(items, encoder, context=()), connector)
    done = ingest(items, encoder, connector, context=())
    assert (planned.tokens, planned.truncated) == (done.tokens, done.truncated)
