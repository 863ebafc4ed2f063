"""A collection anew on a real server: searched without a pause, cut off, completed, switched, and back."""

import threading

import pytest

from m3connect import Document, ingest, reembed, rollback, search
from m3connect.errors import FingerprintMismatch
from m3connect.testing.fakes import HashEncoder

pytestmark = pytest.mark.live
OLD, NEW = HashEncoder(width=4), HashEncoder(width=4, seed=1)


def source(version, ids):
    return [Document(f"d{at}", f"v{version} number {at}. " * (at % 4 + 1)) for at in ids]


def fill(connector, docs, encoder=OLD):
    return ingest(docs, encoder, connector, chunk_tokens=8)


class CutOffError(Exception):
    """The process ended here."""


class CutOff(HashEncoder):
    """The new model, on a machine that fails in the second group."""

    def encode(self, texts, **options):
        if len(texts) > 1:  # more than the question how many tokens are added
            self.groups = getattr(self, "groups", 0) + 1
        if getattr(self, "groups", 0) > 1:
            raise CutOffError
        return super().encode(texts, **options)


@pytest.fixture
def handbook(opened, collection):
    """The collection by its own name, and by an alias; what is made beside it goes, too."""
    first = opened()
    fill(first, source(0, range(300)))
    name = first.beside(f"{collection}-name")
    name.switch(collection)
    yield first, name
    first._server.client.options(ignore_status=404).indices.delete(index=f"{collection}_2")


@pytest.mark.parametrize("by_alias", [True, False], ids=["alias", "note"])
def test_it_is_switched_in_one_step(handbook, opened, by_alias):
    """Whoever searches meanwhile, with either model, finds the old, or the new, and never a mixture."""
    first, alias = handbook
    name = alias if by_alias else first
    client = first._server.client
    found: dict[str, set[tuple[str, ...]]] = {"old": set(), "new": set()}
    wrong: list[Exception] = []
    over = threading.Event()

    def look():
        """Each search is by a connector of its own or by one that was opened before."""
        with name.beside(name.collection) as held:
            while not over.is_set():
                for encoder, model in ((OLD, "old"), (NEW, "new")):
                    try:
                        hits = search(held, encoder, "number 7", mode="hybrid")
                        found[model].add(tuple(hit.id for hit in hits))
                    except FingerprintMismatch:
                        pass  # it is the other one's turn
                    except Exception as error:  # noqa: BLE001 - shown by the test
                        wrong.append(error)

    expected = tuple(hit.id for hit in search(name, OLD, "number 7"))
    with pytest.raises(CutOffError):
        reembed(name, CutOff(width=4, seed=1))
    fill(first, source(1, [5, 400]))
    first.delete('document_id == "d9"')
    first.flush()
    looking = threading.Thread(target=look)
    before = tuple(hit.id for hit in search(name, OLD, "number 7"))
    looking.start()
    try:
        report = reembed(name, NEW)
        after = tuple(hit.id for hit in search(name, NEW, "number 7"))
    finally:
        over.set()
        looking.join()
    assert wrong == []
    assert found["old"] <= {expected, before}
    assert found["new"] <= {after}
    assert 0 < report.encoded < report.passages == name.count()
    assert name.fetch(["d5#0", "d9#0", "d400#0"], vectors=False).ids == ["d5#0", "d400#0"]
    held = client.indices.get_alias(index=f"{first.collection}*", name=alias.collection)
    assert [*held] == [report.new if by_alias else first.collection]
    assert name.describe().stands_for == report.new == f"{first.collection}_2"
    assert fill(name, source(1, [5]), NEW).tokens == 0
    assert rollback(name).back == first.collection
    assert tuple(hit.id for hit in search(name, OLD, "number 7")) == before
