"""Documents in, acknowledged records out: counts, failures, threads and bounded memory."""

import json
import threading
import uuid
from dataclasses import replace
from datetime import date
from decimal import Decimal

import numpy as np
import pytest

from m3connect.contract import Capabilities
from m3connect.errors import (
    AuthError,
    ConfigError,
    FingerprintMismatch,
    InputError,
    PermanentError,
    SchemaMismatch,
    TransientError,
)
from m3connect.ingestion import Failure, ingest, open_source, steps
from m3connect.ingestion.pipeline import events, prepare
from m3connect.ingestion.report import KeptLetters
from m3connect.ingestion.seen import Seen
from m3connect.ingestion.sink import PENDING, Sink
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document


class Watched(MemoryConnector):
    """An in-memory collection that notes its calls and may be told to fail."""

    def __init__(self, *, on_upsert=None):
        super().__init__(collection="docs")
        self.calls = []
        self.threads = set()
        self.on_upsert = on_upsert

    def upsert(self, batch):
        self._note("upsert")
        if self.on_upsert is not None:
            self.on_upsert(batch)
        super().upsert(batch)

    def fetch(self, ids, *, vectors=True):
        self._note("fetch")
        return super().fetch(ids, vectors=vectors)

    def delete(self, where):
        self._note("delete")
        return super().delete(where)

    def flush(self):
        self.calls.append("flush")

    def _note(self, name):
        self.calls.append(name)
        self.threads.add(threading.current_thread().name)


def refuse(word, error):
    """An upsert that refuses every batch with a record whose text has this word."""

    def check(batch):
        if any(word in payload["text"] for payload in batch.payloads):
            raise error

    return check


def docs(n, words=3):
    return [Document(f"d{at:03}", " ".join(f"w{at}" for _ in range(words))) for at in range(n)]


def stored(connector):
    return sorted(id_ for batch in connector.scan() for id_ in batch.ids)


# ------------------------------------------------------------------------------------ the way in


def test_a_record_holds_its_passage_and_what_the_encoder_made(encoder, connector):
    """Payload, vectors and the mark are what the contract says."""
    ingest(
        [Document("a", "one two three four", {"lang": "en"})], encoder, connector, chunk_tokens=2
    )
    batch = connector.fetch(["a#0", "a#1"])
    first, second = batch.payloads
    assert first == {
        "lang": "en",
        "text": "one two",
        "document_id": "a",
        "position": 0,
        "span": [0, 7],
        "_ingest": first["_ingest"],
    }
    assert (first["_ingest"]["chunks"], first["_ingest"]["bound"]) == (2, 2)
    assert (second["position"], second["text"]) == (1, "three four")
    expected = encoder.encode(["one two", "three four"])
    assert np.array_equal(batch.embeddings.dense, expected.dense)
    assert batch.embeddings.sparse == expected.sparse
    assert batch.embeddings.multivector == expected.multivector


def test_the_collection_knows_model_and_chunker(encoder, connector):
    """The schema carries the fingerprint, legs and payload indexes."""
    ingest(
        docs(1),
        encoder,
        connector,
        chunk_tokens=9,
        legs=["sparse", "dense"],
        index_fields={"lang": "keyword"},
    )
    schema = connector.describe().schema
    assert schema.legs == schema.fingerprint.legs == ("dense", "sparse")
    assert schema.payload_fields == {"lang": "keyword"}
    assert schema.fingerprint.chunker == "semantic 2, 9 tokens, overlap 0, context title+headings"
    assert schema.fingerprint.weights == encoder.info.fingerprint.weights


def test_running_twice_changes_nothing(encoder):
    """The second run reads, looks up (the first passages, then all others) and writes nothing."""
    connector = Watched()
    first = ingest(docs(20, words=9), encoder, connector, chunk_tokens=3)
    assert (first.read, first.written, first.chunks, first.unchanged) == (20, 20, 60, 0)
    assert first.tokens == 60 * (3 + 2)
    connector.calls.clear()
    second = ingest(docs(20, words=9), encoder, connector, chunk_tokens=3)
    assert (second.read, second.written, second.chunks, second.unchanged) == (20, 0, 0, 20)
    assert connector.calls == ["fetch", "fetch", "flush"]


@pytest.mark.parametrize(
    "changed",
    [
        Document("d000", "other text"),
        Document("d000", "w0 w0 w0", {"new": 1}),
        Document("d000", "w0 w0 w0", {}, "markdown"),
    ],
)
def test_a_changed_document_is_written_again(encoder, connector, changed):
    """Text, metadata and format count."""
    ingest(docs(3), encoder, connector)
    report = ingest([changed, *docs(3)[1:]], encoder, connector)
    assert (report.written, report.unchanged) == (1, 2)


def test_a_document_that_shrank_loses_its_stale_passages(encoder, connector):
    """They are counted as deleted, once."""
    ingest([Document("a", "one two three four five")], encoder, connector, chunk_tokens=1)
    report = ingest([Document("a", "one two")], encoder, connector, chunk_tokens=1)
    assert (report.deleted, stored(connector)) == (3, ["a#0", "a#1"])
    assert ingest([Document("a", "one two")], encoder, connector, chunk_tokens=1).deleted == 0


@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "server"])
def test_what_was_deleted_once_is_not_deleted_in_each_later_run(encoder, embedded):
    """Though the mark remembers how many passages there have been; what is there after all goes."""
    connector = Watched()
    connector.capabilities = replace(connector.capabilities, embedded=embedded)
    long, short = Document("a", "one two three four five"), Document("a", "one")
    for document in (long, short):
        ingest([document], encoder, connector, chunk_tokens=1)
    connector.calls.clear()
    assert ingest([short], encoder, connector, chunk_tokens=1).unchanged == 1
    assert "delete" not in connector.calls
    other = MemoryConnector(collection="other")
    ingest([long], encoder, other, chunk_tokens=1)
    connector.upsert(other.fetch(["a#1", "a#3"]))
    assert ingest([short], encoder, connector, chunk_tokens=1).deleted == 2
    assert stored(connector) == ["a#0"]


def test_paths_are_read(encoder, connector, tmp_path):
    """One path or several, with the options of reading."""
    (tmp_path / "x.jsonl").write_text('{"key": "a", "body": "text"}\n')
    (tmp_path / "y.txt").write_text("text")
    report = ingest(
        [tmp_path / "x.jsonl", str(tmp_path / "y.txt")],
        encoder,
        connector,
        id_field="key",
        text_field="body",
    )
    assert (report.written, stored(connector)) == (2, ["a#0", "y.txt#0"])
    assert ingest(tmp_path / "y.txt", encoder, connector).unchanged == 1


def test_an_empty_source_makes_the_collection_and_no_record(encoder, connector):
    """Nothing is read and nothing fails."""
    report = ingest([], encoder, connector)
    assert (report.read, report.failed, connector.count()) == (0, 0, 0)


def test_progress_ends_with_all_documents(encoder, connector):
    """The callback sees growing counts of documents and tokens; how many there are nobody knows."""
    seen: list[tuple[str, int, int | None]] = []
    report = ingest(docs(300), encoder, connector, progress=lambda *told: seen.append(told))
    for stage, last in (("documents", 300), ("tokens", report.tokens)):
        counts = [done for name, done, _ in seen if name == stage]
        assert (counts, counts[-1]) == (sorted(counts), last)
    assert {total for _, _, total in seen} == {None}
    assert report.written == 300
    assert report.seconds > 0


def test_what_is_written_counts_before_the_next_is_queued(encoder, connector):
    """Though there would be room in the queue for more."""
    source = open_source(docs(600), encoder)
    chosen, *_ = prepare(source, connector, None, {})
    with Sink(connector, KeptLetters()) as sink, Seen() as seen:
        first, second, third = events(source, chosen, seen, sink.look_up)
        sink.take(first)
        sink.look_up([]).result()  # the one thread that writes is done with all before it
        assert sink.written == 0
        sink.take(second)
        assert sink.written == len(first.batch)
        sink.take(third)
        sink.finish()
    assert sink.written == 600


# ------------------------------------------------------------------------------- what is refused


def test_bad_documents_are_set_aside_and_the_run_goes_on(encoder, connector, tmp_path):
    """Each is a dead letter with id and reason; counts add up."""
    letters = tmp_path / "dead.jsonl"
    bad = [
        Failure("not JSON", where="x.jsonl:3"),
        Document("good", "again"),
        Document("", "text"),
        Document("reserved", "text", {"position": 3}),
        Document("prefixed", "text", {"_m3x": 3}),
        Document("nan", "text", {"x": float("nan")}),
        Document("object", "text", {"x": object()}),
        Document("surrogate", "a\ud800"),
        Document("id\udc00", "text"),
        Document("key", "text", {5: "not a name"}),  # type: ignore[dict-item]
        Document("none", None),
        Document(True, "text"),  # type: ignore[arg-type]
        Document("bytes", "text", {"x": {"y": b"raw"}}),
        Document("text", "text", "lang"),  # type: ignore[arg-type]
        Document("zero", "a\0b"),
    ]
    report = ingest([Document("good", "text"), *bad], encoder, connector, dead_letters=letters)
    assert (report.read, report.written, report.failed) == (16, 1, 15)
    assert report.read == report.unchanged + report.written + report.empty + report.failed
    assert stored(connector) == ["good#0"]
    written = [json.loads(line) for line in letters.read_text().splitlines()]
    reasons = {letter["id"] or letter["where"]: letter["reason"] for letter in written}
    for id_, reason in {
        "x.jsonl:3": "not JSON",
        "good": "the same id",
        "reserved": "'position' is reserved",
        "prefixed": "'_m3x' is reserved",
        "nan": "'x' holds nan",
        "object": "'x' holds a object",
        "key": "5 has a name that is no text",
        "none": "the text is no text but None",
        "document 13": "True is no id",
        "bytes": "'x.y' holds a bytes",
        "text": "metadata that are no dict",
        "zero": "NUL",
        "surrogate": "not valid unicode",
        "id\udc00": "not valid unicode",
    }.items():
        assert reason in reasons[id_]


def test_a_dead_letter_file_that_cannot_be_made_ends_the_run(encoder, connector, tmp_path):
    """Before anything is written: a failure is never dropped, and nothing is overwritten."""
    (tmp_path / "file").write_text("mine\n")
    (tmp_path / "mine.jsonl").write_text('{"id": "a", "text": "mine"}\n')
    for name, reason in {
        "file": "is no list of dead letters",
        "mine.jsonl": "is no list of dead letters",
        "file/x.jsonl": "is no folder",
        ".": "is no regular file",
    }.items():
        with pytest.raises(ConfigError, match=rf"--dead-letters .*{reason}"):
            ingest([Document("a", "text")], encoder, connector, dead_letters=tmp_path / name)
    assert not stored(connector)
    assert (tmp_path / "file").read_text() == "mine\n"


def test_dead_letters_of_an_earlier_run_stay(encoder, connector, tmp_path):
    """Also above a line that a killed run did not finish; in a folder that is made if need be."""
    letters = tmp_path / "new" / "dead.jsonl"
    for id_ in ("first", "second"):
        ingest([Document(id_, None), Document("a", "x")], encoder, connector, dead_letters=letters)
    before = letters.read_text()
    assert [json.loads(line)["id"] for line in before.splitlines()] == ["first", "second"]
    letters.write_text(torn := before + '{"reason": "to')
    ingest([Document("a", "x")], encoder, connector, dead_letters=letters)
    assert letters.read_text() == torn
    ingest([Document("third", None), Document("a", "x")], encoder, connector, dead_letters=letters)
    assert letters.read_text().startswith(f"{torn}\n")
    assert json.loads(letters.read_text().splitlines()[-1])["id"] == "third"


def test_an_empty_document_is_no_failure_and_its_passages_go(encoder, connector):
    """It is counted, in each run, and its like may be pruned around it."""
    ingest([Document("a", "one two three"), Document("b", "x")], encoder, connector, chunk_tokens=1)
    assert len(stored(connector)) == 4
    report = ingest([Document("a", " \n"), Document("c", "")], encoder, connector, chunk_tokens=1)
    assert (report.read, report.empty, report.failed, report.deleted) == (2, 2, 0, 3)
    assert stored(connector) == ["b#0"]
    source = [Document("a", "")]
    again = ingest(source, encoder, connector, chunk_tokens=1, prune=True, max_delete_ratio=1)
    assert (again.empty, again.pruned) == (1, 1)
    assert not stored(connector)


def test_python_values_are_converted(encoder, connector):
    """As the table in ``values.py`` says, wherever they come from."""
    id_ = uuid.UUID(int=7)
    metadata = {
        "day": date(2024, 5, 1),
        "key": id_,
        "n": np.float32(0.5),
        "all": (1, Decimal("2.5")),
    }
    ingest([Document(id_, "text", metadata), Document(5, "text")], encoder, connector)  # type: ignore[arg-type]
    assert stored(connector) == sorted([f"{id_}#0", "5#0"])
    (payload,) = connector.fetch([f"{id_}#0"]).payloads
    assert {name: payload[name] for name in metadata} == {
        "day": "2024-05-01",
        "key": str(id_),
        "n": 0.5,
        "all": [1, 2.5],
    }


def test_without_a_file_failures_are_logged(encoder, connector, caplog):
    """One warning each, with id and reason."""
    ingest([Document("none", None), Document("a", "x")], encoder, connector)
    assert caplog.messages == ["none: the text is no text but None"]


@pytest.mark.parametrize(
    "error",
    [InputError("bad"), PermanentError("bad", connector="memory", operation="upsert")],
    ids=["input", "permanent"],
)
def test_the_culprits_in_a_refused_batch_are_found(encoder, error):
    """All other documents of the batch are written."""
    connector = Watched(on_upsert=refuse("w7", error))
    report = ingest(docs(20), encoder, connector)
    assert (report.written, report.failed) == (19, 1)
    assert "d007#0" not in stored(connector)
    assert len(stored(connector)) == 19


@pytest.mark.parametrize("at_once", [2, 256])
def test_a_refused_document_is_not_half_there(encoder, monkeypatch, at_once):
    """If one passage in its middle is refused, none is left, or counted; its neighbours are whole."""
    monkeypatch.setattr(steps, "GROUP_PASSAGES", at_once)
    text = "one two three BAD five six"
    connector = Watched(on_upsert=refuse("BAD", InputError("bad")))
    source = [Document("a", "x y z"), Document("b", text), Document("c", "x y z")]
    report = ingest(source, encoder, connector, chunk_tokens=1)
    assert (report.written, report.failed, report.chunks) == (2, 1, 6)
    assert stored(connector) == ["a#0", "a#1", "a#2", "c#0", "c#1", "c#2"]


def test_a_document_refused_at_once_keeps_its_older_version(encoder):
    """Nothing of the new version was written, so nothing is removed."""
    connector = Watched()
    ingest([Document("a", "one two three")], encoder, connector, chunk_tokens=1)
    connector.on_upsert = refuse("NEW", InputError("bad"))
    with pytest.raises(InputError, match="the only document failed: a: bad"):
        ingest([Document("a", "NEW NEW")], encoder, connector, chunk_tokens=1)
    assert [payload["text"] for payload in connector.fetch(["a#0", "a#1", "a#2"]).payloads] == [
        "one",
        "two",
        "three",
    ]


@pytest.mark.parametrize(
    "error",
    [
        TransientError("gone", connector="memory", operation="upsert"),
        AuthError("no", connector="memory", operation="upsert"),
    ],
    ids=["transient", "auth"],
)
def test_an_error_that_is_no_documents_ends_the_run(encoder, error, monkeypatch):
    """It is raised, nothing is written after it, no thread is left, and a re-run completes."""
    monkeypatch.setattr(steps, "GROUP_PASSAGES", 5)
    connector = Watched(on_upsert=refuse("w12", error))
    with pytest.raises(type(error)) as raised:
        ingest(docs(60), encoder, connector)
    assert raised.value is error
    assert connector.count() == 10  # the two groups before the third
    assert not [t for t in threading.enumerate() if t.name.startswith("m3connect-writer")]
    connector.on_upsert = None
    report = ingest(docs(60), encoder, connector)
    assert (report.unchanged, report.written) == (10, 50)


def test_an_error_in_the_encoder_ends_the_run(encoder, connector, monkeypatch):
    """What was encoded before it is written; no thread is left."""
    monkeypatch.setattr(steps, "GROUP_PASSAGES", 5)
    encode = encoder.encode

    def failing(texts, **options):
        if any("w12" in text for text in texts):
            raise RuntimeError("out of memory")
        return encode(texts, **options)

    monkeypatch.setattr(encoder, "encode", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        ingest(docs(60), encoder, connector)
    assert connector.count() == 10
    assert not [t for t in threading.enumerate() if t.name.startswith("m3connect-writer")]


def test_an_interrupt_keeps_what_was_encoded_and_flushes(encoder, monkeypatch):
    """Ctrl-C arrives while the source is read; the next run continues."""
    monkeypatch.setattr(steps, "GROUP_PASSAGES", 5)
    monkeypatch.setattr(steps, "WINDOW_DOCUMENTS", 5)

    def interrupted():
        yield from docs(30)
        raise KeyboardInterrupt

    connector = Watched()
    with pytest.raises(KeyboardInterrupt):
        ingest(interrupted(), encoder, connector)
    assert connector.calls[-1] == "flush"
    assert connector.count() == 25  # the last window was only looked up
    assert ingest(docs(30), encoder, connector).unchanged == 25


# --------------------------------------------------------------------------- overlap and memory


def test_encoding_goes_on_while_the_database_writes_but_not_without_end(encoder, monkeypatch):
    """While one write is held up, the encoder fills the queue and then waits."""
    monkeypatch.setattr(steps, "GROUP_PASSAGES", 1)
    encoded = []
    full = threading.Event()
    encode = encoder.encode

    def watched(texts, **options):
        encoded.extend(texts)
        if len(encoded) == 1 + 1 + PENDING + 1:  # the chunker's probe, being written, queued, next
            full.set()
        return encode(texts, **options)

    def hold(batch):
        assert full.wait(10), "nothing was encoded during the write"
        held.append(len(encoded))

    held = []
    monkeypatch.setattr(encoder, "encode", watched)
    report = ingest(docs(50), encoder, Watched(on_upsert=hold))
    assert report.written == 50
    assert held[0] <= 1 + 1 + PENDING + 1 + 1


def test_one_thread_makes_all_calls_to_the_database(encoder):
    """No connector needs to be safe for threads."""
    connector = Watched()
    ingest(docs(600), encoder, connector)
    assert len(connector.threads) == 1


def test_reading_is_never_far_ahead_of_writing(encoder, connector, monkeypatch):
    """The number of documents in memory does not depend on the size of the source."""
    monkeypatch.setattr(steps, "GROUP_PASSAGES", 4)
    monkeypatch.setattr(steps, "WINDOW_DOCUMENTS", 8)
    ahead = []

    def source():
        for at, document in enumerate(docs(500)):
            ahead.append(at - (connector.count() if at else 0))
            yield document

    ingest(source(), encoder, connector)
    assert max(ahead) <= 3 * 8 + (PENDING + 3) * 4


# ---------------------------------------------------------------------------- the right collection


def test_another_model_is_refused(encoder, connector):
    """Before anything is written, with the way out."""
    ingest(docs(2), encoder, connector)
    with pytest.raises(FingerprintMismatch, match=r"made by 'hash-0'.*--collection"):
        ingest(docs(4), HashEncoder(seed=1), connector)
    with pytest.raises(FingerprintMismatch, match="chunker"):
        ingest(docs(4), encoder, connector, chunk_tokens=5)
    with pytest.raises(SchemaMismatch, match="multivector_width"):
        ingest(docs(4), encoder, connector, legs=["dense", "sparse"])
    assert connector.count() == 2


def test_legs_must_be_there_and_storable(encoder, connector, monkeypatch):
    """By default what both sides have is stored."""
    monkeypatch.setattr(
        MemoryConnector,
        "capabilities",
        Capabilities("x", embedded=True, legs=frozenset(), stores=frozenset({"dense", "sparse"})),
    )
    with pytest.raises(ConfigError, match="memory cannot store multivector"):
        ingest(docs(1), encoder, connector, legs=["multivector"])
    with pytest.raises(ConfigError, match="at least one of dense"):
        ingest(docs(1), encoder, connector, legs=[])
    ingest(docs(1), encoder, connector)
    assert connector.describe().schema.legs == ("dense", "sparse")


@pytest.mark.parametrize("source", [[3], [b"path"]])
def test_a_source_of_another_type_is_refused(encoder, connector, source):
    """It names the type."""
    with pytest.raises(InputError, match="paths, Documents or Arrow batches, not"):
        ingest(source, encoder, connector)


def test_documents_need_an_encoder(connector):
    """Only embeddings go without."""
    with pytest.raises(ConfigError, match="need an encoder"):
        ingest(docs(1), None, connector)
