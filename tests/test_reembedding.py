"""A collection anew with another model: equal to one that was ingested so, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from m3connect import Document, connect, ingest, reembed, rollback, search
from m3connect.contract import CollectionSchema, Connector
from m3connect.errors import (
    CollectionNotFound,
    ConfigError,
    FingerprintMismatch,
    InputError,
    PermanentError,
    Refused,
    TransientError,
    Unsupported,
)
from m3connect.ingestion.ledger import FIELD
from m3connect.integrations import arrow
from m3connect.reembedding import ReembedReport, passages
from m3connect.stores.memory import MemoryConnector
from m3connect.stores.parquet import ParquetConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Compression, RecordBatch

OLD, NEW = HashEncoder(width=4), HashEncoder(width=6, seed=1)
IDS = ("a", "b", "c#0", "d", "e")


def source(version: int = 0, ids=IDS) -> list[Document]:
    """Documents of one to seven passages under a title and headings."""
    return [
        Document(
            id_,
            f"# Part {id_}\n\n"
            + " ".join(f"v{version} {id_} w{word} x y." for word in range(at % 7 + 1)),
            {"title": f"Book {id_}", "version": version},
            "markdown",
        )
        for at, id_ in enumerate(ids, 2)
    ]


def fill(connector: Connector, docs: list[Document], encoder: HashEncoder = OLD, **options):
    return ingest(docs, encoder, connector, chunk_tokens=8, **options)


def content(connector: Connector) -> dict[str, object]:
    """All records, without what tells by which model's run and over which versions they were written."""
    records: dict[str, object] = {}
    for batch in connector.scan(vectors=True):
        for row, (id_, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
            mark = {key: payload[FIELD].get(key) for key in ("chunks", "source", "encoded")}
            vectors = batch.embeddings[row]
            assert vectors.dense is not None
            assert vectors.multivector is not None
            records[id_] = (
                {**payload, FIELD: mark},
                vectors.dense.round(4).tolist(),
                vectors.multivector.vectors.round(3).tolist(),
            )
    return records


def ingested(docs: list[Document], encoder: HashEncoder = NEW) -> dict[str, object]:
    """What a new collection holds of documents."""
    with MemoryConnector(collection="fresh") as fresh:
        fill(fresh, docs, encoder)
        return content(fresh)


def made_of_docs(connector: Connector) -> dict[str, object]:
    """The note of a finished collection, of which nothing has come from elsewhere."""
    held = passages.digest_of(passages.digests(connector))
    return {"reembedded": {"of": "docs", "finished": True, "holds": held}}


@pytest.fixture
def docs():
    """A collection of the old model."""
    connector = Hooked(collection="docs")
    fill(connector, source())
    return connector


class Hooked(MemoryConnector):
    """Calls something before it writes, or switches, wherever in its database."""

    before: Callable[[Hooked, str], object] = staticmethod(lambda *_: None)

    def beside(self, collection):
        other = super().beside(collection)
        other.before = self.before
        return other

    def upsert(self, batch):
        self.before(self, "upsert")
        super().upsert(batch)

    def switch(self, collection):
        self.before(self, "switch")
        super().switch(collection)

    def undisturbed(self) -> Hooked:
        """The same name, for someone else."""
        other = super().beside(self.collection)
        assert isinstance(other, Hooked)
        return other


# ------------------------------------------------------------------------------------ what comes out


def test_it_equals_a_collection_ingested_with_the_new_model(docs):
    """Ids, payloads, marks, vectors and schema; title and headings are part of what is encoded."""
    docs.annotate({"mine": 1, "mode.hybrid": {"tuned": "for the old model"}})
    report = reembed(docs, NEW)
    info = docs.describe()
    assert (report.name, report.old, report.new, info.stands_for) == (
        "docs",
        "docs",
        "docs_2",
        "docs_2",
    )
    assert content(docs) == ingested(source())
    assert report.passages == report.encoded == docs.count() == len(ingested(source()))
    assert (report.switched, report.deleted, report.late) == (True, 0, 0)
    made = NEW.info.fingerprint
    chunker = info.schema.fingerprint.chunker
    assert "8 tokens" in chunker
    assert info.schema.fingerprint == replace(made, chunker=chunker)
    assert info.notes == {"mine": 1, **made_of_docs(docs)}
    hits = search(docs, NEW, "w3 b")
    assert hits[0].payload["document_id"] == "b"
    with pytest.raises(FingerprintMismatch):
        search(docs, OLD, "w3 b")


def test_the_next_ingestion_encodes_nothing(docs):
    """The marks tell what the vectors were made of; what changed is encoded."""
    reembed(docs, NEW)
    report = fill(docs, source(), NEW)
    assert (report.metadata_only, report.tokens) == (len(IDS), 0)
    assert content(docs) == ingested(source())
    changed = [*source()[:2], *source(1)[2:3]]
    assert fill(docs, changed, NEW).written == 1


def test_another_precision_and_other_legs(docs):
    """The same weights: what was tuned stays, and the next ingestion finds all unchanged."""
    precise = HashEncoder(width=4)
    precise.info = replace(
        precise.info, fingerprint=replace(precise.info.fingerprint, precision="int8")
    )
    docs.annotate({"mode.hybrid": {"tuned": 1}})
    report = reembed(docs, precise, legs=["dense", "sparse"], into="smaller")
    info = docs.describe()
    assert (report.new, info.stands_for, info.schema.legs) == (
        "smaller",
        "smaller",
        ("dense", "sparse"),
    )
    assert info.schema.fingerprint.precision == "int8"
    assert info.notes["mode.hybrid"] == {"tuned": 1}
    assert fill(docs, source(), precise, legs=["dense", "sparse"]).unchanged == len(IDS)


@pytest.mark.parametrize("dtype", ["int8", "binary"])
def test_smaller_token_vectors(docs, dtype):
    """What is stored is what the new model keeps, and verifies as such."""
    small = HashEncoder(width=4)
    kept = small.info.fingerprint.compressed(Compression(multivector_dtype=dtype))
    small.info = replace(small.info, fingerprint=kept)
    reembed(docs, small)
    schema = docs.describe().schema
    assert (schema.multivector_dtype, schema.fingerprint.compression) == (dtype, kept.compression)
    assert reembed(docs, OLD).new == "docs_3"
    assert content(docs) == ingested(source(), OLD)


def test_again_it_has_nothing_to_do(docs):
    """The same command twice; a third model makes a third collection."""
    reembed(docs, NEW)
    again = reembed(docs, NEW)
    assert (again.encoded, again.old, again.new, again.switched) == (0, "docs", "docs_2", True)
    third = HashEncoder(width=4, seed=2)
    assert reembed(docs, third).new == "docs_3"
    assert content(docs) == ingested(source(), third)


def test_records_that_came_with_their_vectors():
    """They have no document; their text is encoded, and what else they carry is kept."""
    with MemoryConnector(collection="docs") as plain:
        plain.ensure(CollectionSchema(4, False, None))
        texts = ["one", "two", "three"]
        payloads = [{"text": text, "n": at} for at, text in enumerate(texts)]
        plain.upsert(
            RecordBatch(["x", "y", "z"], payloads, OLD.encode(["one"] * 3, legs=["dense"]))
        )
        reembed(plain, NEW)
        found = plain.fetch(["x", "y", "z"])
        assert list(found.payloads) == payloads
        assert np.allclose(found.embeddings.dense, NEW.encode(texts).dense)


# ------------------------------------------------------------------------------------------ meanwhile


def test_searches_see_the_old_or_the_new(docs):
    """While the new one fills, searches by the name find the old one's, with the old model."""
    asked = []
    expected = [hit.id for hit in search(docs, OLD, "w1 e")]

    def look(connector, operation):
        someone = connector.beside("docs")
        asked.append(operation)
        assert [hit.id for hit in search(someone, OLD, "w1 e")] == expected

    docs.before = look
    reembed(docs, NEW)
    assert asked.count("upsert") >= 1
    assert asked[-1] == "switch"


@pytest.mark.parametrize("seed", range(4))
def test_what_is_ingested_meanwhile_is_caught_up(docs, seed, monkeypatch):
    """At random writes, documents change, come and go in the old collection; the new one has them all."""
    monkeypatch.setattr(passages, "GROUP_PASSAGES", 3)
    monkeypatch.setattr(passages, "PAGE", 4)
    chance = random.Random(seed)
    state = {document.id: document for document in source()}
    switched: list[str] = []

    def disturb(connector, operation):
        if switched:  # whoever goes on with the old model is refused
            return
        switched.extend([operation] * (operation == "switch"))
        if switched or chance.random() < 0.3:
            version = chance.randint(1, 99)
            ids = chance.sample([*IDS, "f", "g"], 2)
            for document in source(version, ids):
                state[document.id] = document
            someone = docs.undisturbed()
            fill(someone, source(version, ids))
            gone = chance.choice(sorted(state))
            someone.delete(f'document_id == "{gone}"')
            del state[gone]

    docs.before = disturb
    report = reembed(docs, NEW)
    docs.before = lambda *_: None
    assert docs.describe().stands_for == "docs_2"
    assert content(docs) == ingested([*state.values()])
    assert report.passages == docs.count()


def test_what_comes_at_the_very_last_is_caught_up_after_the_switch(docs):
    """But what somebody else wrote into the new collection since stays."""

    def at_the_switch(connector, operation):
        if operation == "switch":
            fill(docs.undisturbed(), [*source(5, ["a"]), *source(6, ["b"]), *source(7, ["new"])])
            docs.undisturbed().delete('document_id == "d"')
            with connector.beside("docs_2") as new:
                fill(new, [*source(8, ["b"])], NEW)

    docs.before = at_the_switch
    report = reembed(docs, NEW)
    assert report.late > 0
    docs.describe()
    final = [*source(5, ["a"]), *source(8, ["b"]), *source(7, ["new"])]
    kept = [document for document in source() if document.id in {"c#0", "e"}]
    assert content(docs) == ingested([*final, *kept])


def test_who_never_pauses_is_told(docs):
    """Not switched, and the next run goes on."""
    version = iter(range(1, 99))
    docs.before = lambda connector, operation: fill(
        docs.undisturbed(), source(next(version), ["a"])
    )
    with pytest.raises(Refused, match="Pause ingestion"):
        reembed(docs, NEW)
    docs.before = lambda *_: None
    assert docs.describe().stands_for == "docs"
    assert reembed(docs, NEW).encoded < 10


@pytest.mark.parametrize("legs", [None, ["dense"]], ids=["another-model", "other-legs"])
def test_a_run_that_outlives_the_switch_is_told(docs, legs):
    """What it wrote last is in the old collection alone; also where the model is the same."""
    someone = docs.undisturbed()

    def once(connector, operation):
        someone.before = lambda *_: None
        reembed(docs, OLD if legs else NEW, legs=legs)

    someone.before = once
    with pytest.raises(FingerprintMismatch, match="was switched from 'docs' to 'docs_2' while"):
        fill(someone, source(1))
    assert "version" in docs.fetch(["a#0"]).payloads[0]


def test_a_sink_that_outlives_the_switch_is_told(docs, monkeypatch):
    """When it is flushed; and it writes nothing of its model into the new collection."""
    monkeypatch.setattr(arrow, "connect", lambda *_, **__: docs.undisturbed())
    table = pa.table({"id": ["z"], "text": ["one two"]})
    sink = arrow.Sink("memory", "docs", encoder=OLD, chunk_tokens=8)
    assert sink.write(table).written == 1
    sink.flush()
    reembed(docs, HashEncoder(width=4, seed=1))
    with pytest.raises(FingerprintMismatch, match="was switched"):
        sink.flush()
    with pytest.raises(FingerprintMismatch, match="made by 'hash-1'"):
        sink.write(table)
    sink.close()


# ---------------------------------------------------------------------------------------------- kills


class Killed(BaseException):
    """The process is gone; nothing in it may run on."""


class Mortal(MemoryConnector):
    """Dies in the n-th writing call of its process, after a random part of it, and stays dead."""

    def __init__(self, *, collection, tenant_field=None):
        super().__init__(collection=collection, tenant_field=tenant_field)
        self.left: list[int] = [10**9]
        self.chance = random.Random(0)

    def beside(self, collection):
        other = super().beside(collection)
        other.left, other.chance = self.left, self.chance
        return other

    def _live(self, some: Callable[[], object] = lambda: None) -> None:
        if self.left[0] == 0 and self.chance.random() < 0.7:
            some()
        self.left[0] -= 1
        if self.left[0] < 0:
            raise Killed

    def ensure(self, schema):
        self._live(lambda: super(Mortal, self).ensure(schema))
        super().ensure(schema)

    def annotate(self, notes):
        self._live(lambda: super(Mortal, self).annotate(notes))
        super().annotate(notes)

    def upsert(self, batch):
        rows = [row for row in range(len(batch)) if self.chance.random() < 0.5]
        self._live(lambda: super(Mortal, self).upsert(batch.take(np.array(rows, np.intp))))
        super().upsert(batch)

    def delete(self, where):
        self._live(lambda: super(Mortal, self).delete(where))
        return super().delete(where)

    def switch(self, collection):
        self._live(lambda: super(Mortal, self).switch(collection))
        super().switch(collection)


@pytest.mark.parametrize(
    "calls",
    [0, 4, 8, 12, *(pytest.param(n, marks=pytest.mark.slow) for n in range(13) if n % 4)],
)
def test_a_kill_in_any_call_is_completed_by_the_next_run(calls, monkeypatch):
    """The name stands for all of the old or all of the new, at every point; and in the end for the new."""
    monkeypatch.setattr(passages, "GROUP_PASSAGES", 3)
    old, same, new = ingested(source(), OLD), ingested(source()), ingested(source(1))
    for seed in range(2):
        first = Mortal(collection="docs")
        fill(first, source())
        first.left, first.chance = [calls], random.Random(seed)
        with contextlib.suppress(Killed):
            reembed(first, NEW)
        second = Mortal(collection="docs")
        second.database = first.database
        if second.describe().stands_for == "docs":
            assert content(second) == old
            fill(second, source(1))
        else:
            assert content(second) == same
            fill(second, source(1), NEW)
        second.left = [calls]  # and once more
        with contextlib.suppress(Killed):
            reembed(second, NEW)
        third = Mortal(collection="docs")
        third.database = first.database
        report = reembed(third, NEW)
        assert report.switched
        assert third.describe().stands_for == "docs_2"
        assert third.describe().notes == made_of_docs(third)
        assert content(third) == new


# -------------------------------------------------------------------------------------------- and back


def test_back_and_forth(docs):
    """A rollback says what the two do not share; going forward again brings over what came to the old one."""
    with pytest.raises(ConfigError, match="nothing to go back to"):
        rollback(docs)
    reembed(docs, NEW)
    back = rollback(docs)
    assert (back.name, back.left, back.back, back.differing) == ("docs", "docs_2", "docs", 0)
    fill(docs, source(2, ["b"]))
    docs.delete('document_id == "d"')
    report = reembed(docs, NEW)
    assert report.encoded > 0
    assert report.deleted > 0
    docs.describe()
    expected = {document.id: document for document in [*source(), *source(2, ["b"])]}
    del expected["d"]
    assert content(docs) == ingested([*expected.values()])


@pytest.mark.parametrize("came", ["new", "a"], ids=["added", "changed"])
def test_what_came_after_the_switch_is_not_lost_unasked(docs, came):
    """It is in no other collection: going forward again is refused, with the ways out; nothing is changed."""
    reembed(docs, NEW)
    fill(docs, source(1, [came]), NEW)
    held = content(docs)
    assert rollback(docs).differing == 3
    for _ in range(2):
        with pytest.raises(Refused, match=rf"such as '{came}#0'.*--into NAME.*--discard"):
            reembed(docs, NEW)
        assert docs.describe().stands_for == "docs"
        assert content(docs.beside("docs_2")) == held
    other = docs.beside("handbook")
    other.switch("docs")
    assert reembed(other, NEW, into="docs_3").new == "docs_3"
    assert reembed(docs, NEW, discard=True).switched
    docs.describe()
    assert content(docs) == ingested(source())


def test_what_the_old_collection_was_given_too_is_not_lost(docs):
    """Whoever ingested the same documents into both goes forward; marks of another run are no loss."""
    reembed(docs, NEW)
    assert fill(docs, source(), NEW).metadata_only == len(IDS)
    fill(docs, source(1, ["new"]), NEW)
    rollback(docs)
    fill(docs, source(1, ["new"]))
    assert reembed(docs, NEW).deleted == 0
    docs.describe()
    assert content(docs) == ingested([*source(), *source(1, ["new"])])


def test_what_came_after_a_killed_switch_is_not_lost_either(docs):
    """Whether or not its last look was made."""
    killed_after_the_switch(docs)
    docs.describe()
    fill(docs, source(8, ["mine"]), NEW)
    for looks in (0, 1):
        if looks:
            reembed(docs, NEW)
        rollback(docs)
        with pytest.raises(Refused, match="passages, such as"):
            reembed(docs, NEW)
        docs.switch("docs_2")
        docs.describe()


def test_back_from_what_is_gone(docs):
    """The new collection was dropped: the name stands for the old one again."""
    reembed(docs, NEW)
    docs.beside("docs_2").drop()
    assert rollback(docs).back == "docs"
    assert content(docs) == ingested(source(), OLD)


@pytest.mark.parametrize("kind", [TransientError, PermanentError])
def test_a_server_that_does_not_answer_is_not_gone_back_from(docs, monkeypatch, kind):
    """Only what is known to be gone is left."""
    reembed(docs, NEW)
    with monkeypatch.context() as patch:
        away = kind("no answer", connector="memory", operation="describe")
        patch.setattr(docs, "describe", Mock(side_effect=away))
        with pytest.raises(kind):
            rollback(docs)
    assert docs.describe().stands_for == "docs_2"


def killed_after_the_switch(connector):
    """What comes into the old collection at the last moment, and no look for it."""

    def at_the_switch(connector, operation):
        if operation == "switch":
            fill(connector.undisturbed(), [*source(5, ["a"]), *source(7, ["new"])])
            connector.undisturbed().delete('document_id == "d"')
            connector.undisturbed().switch("docs_2")
            raise Killed

    connector.before = at_the_switch
    with pytest.raises(Killed):
        reembed(connector, NEW)
    connector.before = lambda *_: None


@pytest.mark.parametrize("name", ["docs", "handbook"])
def test_a_last_look_that_was_not_made_is_repeated(docs, name):
    """Killed after the switch, by the collection's own name or an alias: the next run makes it."""
    named = docs if name == "docs" else docs.beside(name)
    if name != "docs":
        named.switch("docs")
    killed_after_the_switch(named)
    report = reembed(named, NEW)
    assert report.late > 0
    assert report.encoded > 0
    assert report.deleted > 0
    kept = [document for document in source() if document.id in {"b", "c#0", "e"}]
    assert content(named) == ingested([*source(5, ["a"]), *source(7, ["new"]), *kept])
    assert named.describe().stands_for == "docs_2"
    assert named.describe().notes == made_of_docs(named)
    again = reembed(named, NEW)
    assert (again.late, again.encoded) == (0, 0)


def test_a_last_look_that_cannot_be_repeated_is_told(docs, caplog):
    """Where others have written since: what they wrote stays, and it is said once what may be missing."""
    killed_after_the_switch(docs)
    docs.describe()
    fill(docs.undisturbed(), source(8, ["b"]), NEW)
    held = content(docs)
    assert reembed(docs, NEW).encoded == 0
    assert "before its last look was over, and 'docs_2' was written to since" in caplog.text
    assert content(docs) == held
    caplog.clear()
    reembed(docs, NEW)
    assert caplog.text == ""


def test_a_last_look_into_what_is_gone_is_told(docs, caplog):
    """The old collection was dropped meanwhile."""
    alias = docs.beside("handbook")
    alias.switch("docs")
    killed_after_the_switch(alias)
    docs.undisturbed().drop()
    assert reembed(alias, NEW).late == 0
    assert "the last look into 'docs' was not made, and it is gone" in caplog.text


def test_an_alias_is_moved(docs):
    """Where the name is an alias, the old collection is not touched at all, and can be dropped."""
    name = docs.beside("handbook")
    name.switch("docs")
    report = reembed(name, NEW)
    assert (report.old, report.new) == ("docs", "docs_2")
    assert name.describe().stands_for == "docs_2"
    assert docs.describe().stands_for == "docs"
    assert docs.describe().notes == {}
    assert rollback(name).back == "docs"
    reembed(name, NEW)
    docs.drop()
    assert content(name) == ingested(source())
    with pytest.raises(CollectionNotFound):
        name.describe() and rollback(name)


def test_without_the_switch(docs):
    """The new collection can be looked at first; the next run switches."""
    assert not reembed(docs, NEW, switch=False).switched
    assert docs.describe().stands_for == "docs"
    assert content(docs.beside("docs_2")) == ingested(source())
    report = reembed(docs, NEW)
    assert (report.encoded, report.switched) == (0, True)


# ------------------------------------------------------------------------------------------- refusals


def test_what_cannot_be_done_is_refused_before_anything_is_switched(docs, tmp_path):
    """Each says what to do."""
    docs.upsert(RecordBatch(["bare"], [{"n": 1}], OLD.encode(["one"])))
    with pytest.raises(InputError, match="'bare' has no text"):
        reembed(docs, NEW)
    docs.delete(["bare"])
    sparse_only = HashEncoder(width=4, seed=3)
    fingerprint = replace(sparse_only.info.fingerprint, legs=("sparse",))
    sparse_only.info = replace(sparse_only.info, fingerprint=fingerprint)
    with pytest.raises(ConfigError, match="makes no"):
        reembed(docs, sparse_only)
    with pytest.raises(FingerprintMismatch, match="was begun with 'hash-1'"):
        reembed(docs, HashEncoder(width=4, seed=2))
    fill(docs.beside("taken"), source())
    with pytest.raises(ConfigError, match="was not made of 'docs'"):
        reembed(docs, NEW, into="taken")
    with (
        ParquetConnector(collection="c", path=str(tmp_path / "c.parquet")) as file,
        pytest.raises((Unsupported, CollectionNotFound)),
    ):
        reembed(file, NEW)
    assert docs.describe().stands_for == "docs"


class Careless(MemoryConnector):
    """Stores every record with its neighbour's vectors."""

    def upsert(self, batch):
        if self.collection == "docs_2":
            batch = replace(
                batch, embeddings=batch.embeddings.take(np.roll(np.arange(len(batch)), 1))
            )
        super().upsert(batch)


def test_what_does_not_verify_is_not_switched_to(docs):
    """Other vectors than the text's; records that somebody else put there."""
    careless = Careless(collection="docs")
    fill(careless, source())
    with pytest.raises(Refused, match="dense vectors are not those of its text"):
        reembed(careless, NEW)
    assert careless.describe().stands_for == "docs"

    def intrude(connector, operation):
        if connector.collection == "docs_2":
            connector.before = lambda *_: None
            fill(connector.beside("docs_2"), source(9, ["intruder"]), NEW)

    docs.before = intrude
    with pytest.raises(Refused, match=r"passages are not as in the old: 'intruder#\d'"):
        reembed(docs, NEW)
    docs.before = lambda *_: None
    assert docs.describe().stands_for == "docs"
    reembed(docs, NEW)  # removes it
    docs.describe()
    assert content(docs) == ingested(source())


# -------------------------------------------------------------------------------------- a real engine


def run(path: str, dies_after: int | None = None) -> ReembedReport:
    """Re-embed in embedded Qdrant; with ``dies_after``, until so many groups were written."""
    passages.GROUP_PASSAGES = 4
    with connect("qdrant", collection="docs", path=path) as collection:
        if dies_after is None:
            return reembed(collection, NEW)
        beside, left = collection.beside, dies_after

        def mortal(name: str) -> Connector:
            other = beside(name)
            upsert = other.upsert

            def dying(batch: RecordBatch) -> None:
                nonlocal left
                upsert(batch)
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            other.upsert = dying  # type: ignore[method-assign]
            return other

        collection.beside = mortal  # type: ignore[method-assign,assignment]
        return reembed(collection, NEW)


@pytest.mark.slow
def test_a_killed_process_is_completed_by_the_next(tmp_path, monkeypatch):
    """In embedded Qdrant: killed after two groups, changed, completed, rolled back."""
    pytest.importorskip("m3connect_qdrant", reason='needs pip install "m3connect[qdrant]"')
    monkeypatch.setattr(passages, "GROUP_PASSAGES", 4)
    path = str(tmp_path)
    with connect("qdrant", collection="docs", path=path) as collection:
        fill(collection, source())
    child = subprocess.run([sys.executable, Path(__file__), path, "2"], check=False)
    assert child.returncode == -signal.SIGKILL
    with connect("qdrant", collection="docs", path=path) as collection:
        assert content(collection) == ingested(source(), OLD)
        fill(collection, source(1, ["a"]))
    report = run(path)
    assert 0 < report.encoded < report.passages
    final = [*source(1, ["a"]), *source()[1:]]
    with connect("qdrant", collection="docs", path=path) as collection:
        assert content(collection) == ingested(final)
        assert collection.describe().stands_for == "docs_2"
        assert fill(collection, final, NEW).tokens == 0
        assert rollback(collection).back == "docs"
    with connect("qdrant", collection="docs", path=path) as collection:
        assert content(collection) == ingested(final, OLD)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
