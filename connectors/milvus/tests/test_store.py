"""What lies in Milvus after writes, overwrites, deletions and crashes between them."""

from dataclasses import replace

import numpy as np
import pytest

from m3connect.errors import InputError, SchemaMismatch, TransientError
from m3connect.testing import corpus
from m3connect.types import MultiVectors, RecordBatch
from m3connect_milvus.engine.database import Database
from m3connect_milvus.storing.store import Store

LONG, LONGER = 10_000, 15_000
"""Token vectors that need 4 and 5 parts."""


class CrashError(Exception):
    """The process died here."""


def one_record(tokens, text="short"):
    """The record ``r`` with so many token vectors."""
    batch = corpus.records(1, 1)
    rng = np.random.default_rng(tokens)
    multi = MultiVectors.from_rows([rng.normal(size=(tokens, 8)).astype(np.float16)])
    return RecordBatch(["r"], [{"text": text}], replace(batch.embeddings, multivector=multi))


def parts_of(connector):
    """How many parts are stored; the description is no part."""
    store = connector._store
    found = store._query("test", store.parts, 'id != ""', ["id"])
    return len([row for row in found if row["id"] != "about"])


@pytest.fixture
def filled(lite):
    """A collection with the record ``r`` of 4 parts."""
    lite.ensure(corpus.SCHEMA)
    lite.upsert(one_record(LONG))
    assert parts_of(lite) == 4
    return lite


@pytest.mark.parametrize(("tokens", "parts"), [(3, 0), (LONG, 4), (LONGER, 5)])
def test_overwriting_leaves_no_stale_parts(filled, tokens, parts):
    """After an overwrite only the new version's parts are there, and it is read whole."""
    batch = one_record(tokens)
    filled.upsert(batch)
    assert parts_of(filled) == parts
    assert filled.fetch(["r"]).embeddings.multivector == batch.embeddings.multivector


def test_deleting_takes_the_parts(filled):
    """A deleted record leaves no part, whether it is named or matched."""
    assert filled.delete(["r", "missing"]) == 1
    assert parts_of(filled) == 0


@pytest.mark.parametrize("step", ["_upsert", "_delete"])
@pytest.mark.parametrize("tokens", [3, LONGER])
def test_a_crash_between_two_steps_is_healed_by_repeating(filled, monkeypatch, step, tokens):
    """Wherever an overwrite is cut short, a reader sees one version; a repetition cleans up."""
    old, new = one_record(LONG), one_record(tokens)
    steps = []

    def crash(store, operation, name, *rest):
        steps.append(name)
        if name == (store.records if step == "_upsert" else store.parts):
            raise CrashError
        return original(store, operation, name, *rest)

    original = getattr(Store, step)
    with monkeypatch.context() as patched:
        patched.setattr(Store, step, crash)
        with pytest.raises(CrashError):
            filled.upsert(new)
    assert steps
    seen = filled.fetch(["r"]).embeddings.multivector
    assert seen in (old.embeddings.multivector, new.embeddings.multivector)
    filled.upsert(new)
    assert parts_of(filled) == len(set(part_keys(filled)))
    assert filled.fetch(["r"]).embeddings.multivector == new.embeddings.multivector


def part_keys(connector):
    """The keys that the stored rows' texts have."""
    from m3connect_milvus.storing.texts import part_ids

    store = connector._store
    fields = ["payload_parts", "token_parts", "generation"]
    rows = store._query("test", store.records, 'id != ""', fields)
    return [id_ for row in rows for id_ in part_ids(row, ["payload", "tokens"])]


def test_a_deletion_cut_short_is_healed_by_repeating(filled, monkeypatch):
    """Parts whose record is gone go with the next deletion of its id."""
    store = filled._store
    store._delete("test", store.records, 'id != ""')
    assert filled.count() == 0
    assert parts_of(filled) == 4
    assert filled.delete(["r"]) == 0
    assert parts_of(filled) == 0


def test_a_record_rewritten_while_it_is_read_is_read_again(filled, monkeypatch):
    """A reader that holds an old row finds its parts gone, and reads the new version."""
    new = one_record(LONGER)
    original = Store.rows
    rewritten = []

    def rows(store, operation, keys, fields):
        found = original(store, operation, keys, fields)
        if operation == "fetch" and not rewritten:
            rewritten.append(True)
            filled.upsert(new)
        return found

    monkeypatch.setattr(Store, "rows", rows)
    assert filled.fetch(["r"]).embeddings.multivector == new.embeddings.multivector
    assert rewritten


def test_a_scanned_record_that_was_rewritten_is_read_again(filled, monkeypatch):
    """A page of a scan whose records were rewritten is read anew."""
    new = one_record(LONGER)
    original = Store.pages

    def pages(store, *arguments):
        for page in original(store, *arguments):
            filled.upsert(new)
            yield page

    monkeypatch.setattr(Store, "pages", pages)
    (batch,) = filled.scan(vectors=True)
    assert batch.embeddings.multivector == new.embeddings.multivector


def test_parts_that_never_come_are_an_error(filled, monkeypatch):
    """A record whose parts are lost is reported, not returned cut."""
    store = filled._store
    store._delete("test", store.parts, 'id != "about"')
    row = store.rows("fetch", part_owner(filled), ["payload_parts", "token_parts", "generation"])
    with pytest.raises(TransientError, match="rewritten"):
        store.texts("fetch", row, ["tokens"])


def part_owner(connector):
    """The key of the only record."""
    store = connector._store
    return [row["id"] for row in store._query("test", store.records, 'id != ""', ["id"])]


@pytest.mark.slow
def test_many_parts_and_rows_go_in_requests_of_bounded_size(lite, monkeypatch):
    """However large a record is, no request to the parts is larger than 16 MiB."""
    sizes = []
    original = Database.call

    def call(database, operation, method, *arguments, **options):
        if method.__name__ == "upsert" and arguments[0].endswith("__parts"):
            sizes.append(sum(len(row["text"]) for row in arguments[1]))
        return original(database, operation, method, *arguments, **options)

    monkeypatch.setattr(Database, "call", call)
    lite.ensure(corpus.SCHEMA)
    lite.upsert(one_record(900_000))
    assert len(sizes) >= 3
    assert max(sizes) <= 16 * 1024 * 1024
    assert len(lite.fetch(["r"]).embeddings.multivector[0]) == 900_000


def test_another_programs_collection_is_left_alone(lite):
    """A collection that m3connect did not make is refused, and stays."""
    store = lite._store
    lite.ensure(corpus.SCHEMA)
    store._delete("test", store.parts, 'id != ""')
    lite._layout = None
    with pytest.raises(SchemaMismatch, match="was not made by m3connect"):
        lite.ensure(corpus.SCHEMA)
    with pytest.raises(SchemaMismatch, match="was not made by m3connect"):
        lite.count()


def test_long_notes_are_refused(lite):
    """Notes have one field's room; more is an error, and what was noted stays."""
    lite.ensure(corpus.SCHEMA)
    lite.annotate({"k": 20})
    with pytest.raises(InputError, match="too long"):
        lite.annotate({"k": "x" * 70_000})
    assert lite.describe().notes == {"k": 20}
