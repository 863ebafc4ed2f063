"""A database that is away for a while: the run pauses, says so once, and goes on by itself."""

import logging
import threading
from typing import Any

import pytest

from m3connect.connecting import retry
from m3connect.errors import InputError, TransientError
from m3connect.ingestion import ingest
from m3connect.stores.memory import MemoryConnector
from m3connect.types import Document

BEFORE = [Document(f"d{at}", f"word{at} and more") for at in range(20)]
AFTER = [Document(each.id, each.text, {"n": 1}) for each in BEFORE[5:]] + BEFORE[:3]
FAILURES = 3
OPERATIONS = ("upsert", "delete", "fetch", "flush")


class Flaky(MemoryConnector):
    """Every operation fails so many times before it is done, or always once it is away."""

    def __init__(self):
        super().__init__(collection="docs")
        self.failures = 0
        self.away = threading.Event()
        self._left = 0
        for name in OPERATIONS:
            setattr(self, name, self._flaky(getattr(super(), name)))

    def _flaky(self, operation):
        def call(*args, **options):
            if self.away.is_set():
                raise TransientError("away", connector="memory", operation="any")
            if self._left:
                self._left -= 1
                raise TransientError("restarting", connector="memory", operation="any")
            self._left = self.failures
            return operation(*args, **options)

        return call


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    """Between two tries."""
    monkeypatch.setattr(retry, "PAUSE", 0.0)
    monkeypatch.setattr(retry, "PAUSES", 0.0)


def content(connector):
    """Its payloads, without a failure."""
    return {id_: payload for batch in MemoryConnector.scan(connector) for id_, payload in
            zip(batch.ids, batch.payloads, strict=True)}  # fmt: skip


def test_the_collection_is_as_if_it_had_never_been_away(encoder, caplog):
    """With writes, metadata alone, deletions, pruning; each wait is said in two lines."""
    expected, flaky = MemoryConnector(collection="docs"), Flaky()
    how: dict[str, Any] = {"prune": True, "max_delete_ratio": 0.5, "chunk_tokens": 2}
    for documents in (BEFORE, AFTER):
        whole = ingest(documents, encoder, expected, **how)
        flaky.failures = flaky._left = FAILURES
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            report = ingest(documents, encoder, flaky, patience=60, **how)
        said = [record.getMessage() for record in caplog.records]
        assert {line.split(",")[0] for line in said[::2]} == {"paused"}
        assert all(line.startswith("the database is back") for line in said[1::2])
        assert (
            said[0] == "paused, for up to 60 s, until the database is back: memory any: restarting"
        )
        flaky.failures = flaky._left = 0
        assert content(flaky) == content(expected)
        assert (report.written, report.pruned, report.metadata_only) == (
            whole.written, whole.pruned, whole.metadata_only,
        )  # fmt: skip


def test_half_a_refused_document_is_removed_with_the_same_patience(encoder):
    """The others go on; none of it is left."""
    flaky = Flaky()
    flaky.failures = flaky._left = FAILURES
    upsert = flaky.upsert

    def refusing(batch):
        if "bad#0" in batch.ids:
            raise InputError("too large")
        upsert(batch)

    flaky.upsert = refusing  # type: ignore[method-assign]
    documents = [Document("bad", "many words in more passages than two"), *BEFORE]
    report = ingest(documents, encoder, flaky, patience=60, chunk_tokens=2)
    assert (report.written, report.failed) == (len(BEFORE), 1)
    flaky.failures = flaky._left = 0
    assert {id_.partition("#")[0] for id_ in content(flaky)} == {each.id for each in BEFORE}


def test_without_patience_the_first_failure_ends_the_run(encoder):
    """As an orchestrator wants it, which tries again by itself."""
    flaky = Flaky()
    flaky._left = 1
    with pytest.raises(TransientError):
        ingest(BEFORE, encoder, flaky)


def test_patience_ends(encoder, monkeypatch):
    """With the database's own error; the wait before would end after it."""
    flaky = Flaky()
    flaky.away.set()
    monkeypatch.setattr(retry, "PAUSE", 100.0)
    monkeypatch.setattr(retry, "PAUSES", 100.0)
    with pytest.raises(TransientError, match="away"):
        ingest(BEFORE, encoder, flaky, patience=50)


def test_who_gives_up_does_not_wait(encoder, monkeypatch):
    """Ctrl-C, or an error elsewhere, ends the waiting of the thread that writes."""
    flaky, stop = Flaky(), RuntimeError("out of memory")
    monkeypatch.setattr(retry, "PAUSE", 1000.0)
    monkeypatch.setattr(retry, "PAUSES", 1000.0)
    paused = threading.Event()
    monkeypatch.setattr(retry.log, "warning", lambda *_: paused.set())
    encode = encoder.encode

    def failing(texts, **options):
        if flaky.away.is_set():
            assert paused.wait(30)
            raise stop
        if flaky._records:  # the group that is encoded now will wait to be written
            flaky.away.set()
        return encode(texts, **options)

    monkeypatch.setattr("m3connect.ingestion.steps.GROUP_PASSAGES", 1)
    monkeypatch.setattr(encoder, "encode", failing)
    with pytest.raises(RuntimeError) as raised:
        ingest(BEFORE, encoder, flaky, patience=5000)
    assert raised.value is stop
    assert not [each for each in threading.enumerate() if each.name.startswith("m3connect-writer")]
