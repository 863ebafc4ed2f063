"""A run that is killed at any point is completed by the next one."""

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.errors import AuthError, WritesRefused
from m3connect.ingestion import delete_documents, ingest, steps
from m3connect.ingestion.ledger import FIELD
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document

IDS = ("a", "b", "c#0")
ENCODER = HashEncoder(width=4)


class Killed(BaseException):
    """The process is gone; nothing in it may run on."""


class MortalConnector:
    """A connector that dies in its n-th call, after a random part of it, and stays dead."""

    def __init__(self, inner, calls, seed):
        self.inner = inner
        self.left = calls
        self.random = random.Random(seed)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def upsert(self, batch):
        self._live(lambda: [self.inner.upsert(one) for one in self._some(batch)])
        self.inner.upsert(batch)

    def delete(self, where):
        self._live(lambda: self.inner.delete(self._some(where)))
        return self.inner.delete(where)

    def fetch(self, ids, *, vectors=True):
        self._live(lambda: None)
        return self.inner.fetch(ids, vectors=vectors)

    def flush(self):
        self._live(lambda: None)

    def _live(self, last_act):
        if self.left == 0:
            last_act()
        self.left -= 1
        if self.left < 0:
            raise Killed

    def _some(self, items):
        """A random part in random order, as an unordered bulk request may leave it."""
        chosen = [item for item in items if self.random.random() < 0.5]
        self.random.shuffle(chosen)
        return chosen


def source(version, lengths):
    """Documents of as many sentences as told; each sentence is a passage and names its version."""
    return [
        Document(id_, " ".join(f"v{version} w{at} x y." for at in range(n)), {"version": version})
        for id_, n in zip(IDS, lengths, strict=True)
    ]


def run(docs, connector):
    return ingest(docs, ENCODER, connector, chunk_tokens=5)


def content(connector):
    """Records without the bound in their mark, which remembers history."""
    records = {}
    for batch in connector.scan(vectors=True):
        for row, (id_, payload) in enumerate(zip(batch.ids, batch.payloads, strict=True)):
            mark = payload.pop(FIELD)
            kept = {key: mark[key] for key in mark if key != "bound"}
            records[id_] = (payload, kept, batch.embeddings[row].dense.tobytes())
    return records


@pytest.fixture(scope="module", autouse=True)
def small_groups():
    """Several windows and several groups even for a few short documents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "GROUP_PASSAGES", 3)
        patch.setattr(steps, "WINDOW_DOCUMENTS", 2)
        yield


lengths = st.tuples(*[st.integers(1, 7)] * len(IDS))
runs = st.lists(
    st.tuples(st.integers(0, 2), lengths, st.integers(0, 14), st.integers(0, 999)), max_size=4
)


@given(runs, st.integers(0, 2), lengths)
def test_after_any_killed_runs_a_complete_one_equals_an_undisturbed_one(history, version, last):
    """Nothing is lost, doubled or stale, whatever was killed before."""
    connector = MemoryConnector(collection="docs")
    for killed_version, killed_lengths, calls, seed in history:
        with contextlib.suppress(Killed):
            run(source(killed_version, killed_lengths), MortalConnector(connector, calls, seed))
    report = run(source(version, last), connector)
    assert report.read == report.unchanged + report.written == len(IDS)
    fresh = MemoryConnector(collection="docs")
    run(source(version, last), fresh)
    assert content(connector) == content(fresh)
    again = run(source(version, last), connector)
    assert (again.unchanged, again.written, again.deleted) == (len(IDS), 0, 0)


FIRST, KILLED, NEXT = (0, (5, 2, 3)), (1, (2, 6, 3)), (2, (3, 1, 3))


@pytest.mark.parametrize("last", [FIRST, KILLED, NEXT], ids=["reverted", "repeated", "changed"])
@pytest.mark.parametrize(
    "calls",
    [*range(0, 14, 3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(14) if n % 3)],
)
def test_a_kill_in_any_call_is_made_good_by_any_next_version(calls, last):
    """The old version again, the same one, or another one: the result is that one, whole."""
    for seed in range(3):
        connector = MemoryConnector(collection="docs")
        run(source(*FIRST), connector)
        with contextlib.suppress(Killed):
            run(source(*KILLED), MortalConnector(connector, calls, seed))
        run(source(*last), connector)
        fresh = MemoryConnector(collection="docs")
        run(source(*last), fresh)
        assert content(connector) == content(fresh)


@pytest.mark.parametrize("kind", [WritesRefused, AuthError])
def test_a_database_that_takes_no_writes_ends_the_run_at_once(tmp_path, kind):
    """One request, one error, no dead letter; the passages that were there stay."""
    asked = []

    class Full(MemoryConnector):
        """Takes no writes."""

        def upsert(self, batch):
            asked.append(batch)
            raise kind("the disk is full", connector="x", operation="upsert")

    connector = MemoryConnector(collection="docs")
    run(source(*FIRST), connector)
    before = content(connector)
    full = Full(collection="docs")
    full._stored, full._records = connector._stored, connector._records
    letters = tmp_path / "letters.jsonl"
    with pytest.raises(kind, match="the disk is full"):
        ingest(source(*NEXT), ENCODER, full, chunk_tokens=5, dead_letters=letters)
    assert len(asked) == 1
    assert not letters.exists() or letters.read_text() == ""
    assert content(connector) == before


def passages(collection):
    """The ids of its records."""
    return sorted(id_ for batch in collection.scan() for id_ in batch.ids)


@contextlib.contextmanager
def killed_in_deletion(collection, dies_at, cut):
    """The deletion of this number is killed when these of its ids are deleted."""
    delete, calls = collection.delete, iter(range(99))

    def torn(ids):
        if next(calls) == dies_at:
            delete(list(ids)[cut])
            raise KeyboardInterrupt
        return delete(ids)

    collection.delete = torn
    yield
    collection.delete = delete


@pytest.mark.parametrize("goes", ["empty", "pruned"])
@pytest.mark.parametrize("cut", [slice(None, None, 2), slice(1, None, 2), slice(0, 0)])
def test_a_document_that_goes_and_comes_again_is_whole(goes, cut):
    """Killed in any deletion, of which some ids were done: what comes again is not taken for there.

    It was, by Milvus Lite, where a kill tears a deletion.
    """
    encoder = HashEncoder(width=4)
    whole = [
        Document(f"d{size}", " ".join(f"w{at} x y." for at in range(size))) for size in range(1, 9)
    ]
    without = [Document("kept", "a b c."), *(Document(each.id, "") for each in whole)]
    if goes == "pruned":
        without = without[:1]

    def run(documents, collection):
        return ingest(
            documents, encoder, collection, chunk_tokens=5, prune=True, max_delete_ratio=1.0
        )

    undisturbed = MemoryConnector(collection="alone")
    run(whole, undisturbed)
    for dies_at in range(4):
        collection = MemoryConnector(collection="docs")
        run(whole, collection)
        with killed_in_deletion(collection, dies_at, cut), contextlib.suppress(KeyboardInterrupt):
            run(without, collection)
        run(whole, collection)
        assert passages(collection) == passages(undisturbed)


@pytest.mark.parametrize("cut", [slice(None, None, 2), slice(1, None, 2), slice(0, 0)])
def test_a_torn_deletion_is_completed_by_itself_or_made_good_by_any_version(cut):
    """Deleted again it is gone; ingested instead, the old version or a shorter one is there, whole."""

    lengths, shorter = (7, 2, 1), (3, 1, 1)
    for dies_at in range(3):
        for then in (lengths, shorter, None):
            collection, undisturbed = (MemoryConnector(collection=name) for name in "ab")
            run(source(0, lengths), collection)
            with (
                killed_in_deletion(collection, dies_at, cut),
                pytest.raises(KeyboardInterrupt),
            ):
                delete_documents(collection, IDS)
            if then is None:
                delete_documents(collection, IDS)
                assert passages(collection) == []
                continue
            run(source(0, then), collection)
            run(source(0, then), undisturbed)
            assert content(collection) == content(undisturbed)
            assert run(source(0, then), collection).written == 0


@pytest.mark.parametrize("position", range(5))
def test_what_was_deleted_by_hand_is_written_again(position):
    """Any passage of a document: it was so of servers, and of embedded engines only for the first two."""
    collection = MemoryConnector(collection="docs")
    run(source(0, (5, 2, 1)), collection)
    before = content(collection)
    collection.delete([f"a#{position}"])
    report = run(source(0, (5, 2, 1)), collection)
    assert (report.written, report.unchanged) == (1, 2)
    assert content(collection) == before
