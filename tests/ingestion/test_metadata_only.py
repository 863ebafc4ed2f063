"""A change of metadata alone writes payloads and encodes nothing; the result is that of a whole run."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3connect.ingestion import ingest, open_source, plan, steps
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document
from tests.ingestion.overlap import Server, content


class Counting(HashEncoder):
    """Notes what it encodes."""

    def __init__(self):
        super().__init__(width=4)
        self.encoded = []

    def encode(self, texts, **options):
        self.encoded += filter(None, texts)  # the empty one tells what is added to each
        return super().encode(texts, **options)


TEXTS = (
    "one two. three four.",
    "one two. five six. seven.",
    "# A\n\none two.\n\n# B\n\nthree four.",
)
versions = st.tuples(
    st.sampled_from(TEXTS),
    st.sampled_from([{}, {"lang": "en"}, {"lang": "de", "n": 1}, {"title": "A"}, {"title": "T"}]),
    st.sampled_from(["text", "markdown"]),
    st.sampled_from(["one", "other"]),
)


def source(drawn):
    return [
        Document(f"d{at}", text, metadata, form, name)
        for at, (text, metadata, form, name) in enumerate(drawn)
    ]


def as_encoded(drawn):
    text, metadata, form, _ = drawn
    return text, metadata.get("title"), form


def run(docs, connector, **options):
    encoder = Counting()
    report = ingest(docs, encoder, connector, chunk_tokens=4, take_over=True, **options)
    return report, encoder.encoded


@settings(max_examples=min(60, settings().max_examples))
@given(
    st.lists(versions, min_size=3, max_size=3),
    st.lists(versions, min_size=3, max_size=3),
    st.sampled_from([MemoryConnector, Server]),
)
@pytest.mark.slow
def test_a_change_equals_a_whole_run(before, after, kind):
    """Records, payloads, marks and vectors; and what was encoded before is not encoded again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "GROUP_PASSAGES", 4)
        changed, fresh = kind(collection="docs"), kind(collection="docs")
        run(source(before), changed)
        report, encoded = run(source(after), changed)
        _, whole = run(source(after), fresh)
    assert content(changed) == content(fresh)
    assert (report.tokens == 0) == (not encoded)
    assert set(encoded) <= set(whole)
    pairs = zip(before, after, strict=True)
    if all(as_encoded(one) == as_encoded(other) for one, other in pairs):
        assert not encoded


def test_the_report_says_so(connector):
    """In a count of its own, beside documents of which the text changed."""
    run([Document("a", "one two."), Document("b", "one two.")], connector)
    docs = [Document("a", "one two.", {"n": 1}), Document("b", "three.")]
    estimated = plan(open_source(docs, Counting(), chunk_tokens=4), connector)
    assert (estimated.encoded, estimated.metadata_only, estimated.tokens) == (1, 1, 4)
    report, encoded = run(docs, connector)
    assert (report.written, report.metadata_only, encoded) == (2, 1, ["three."])
    assert connector.fetch(["a#0"]).payloads[0]["n"] == 1


def test_a_title_is_encoded_and_so_no_metadata_alone(connector):
    """It stands before each passage, unless the context is none."""
    run([Document("a", "one two.")], connector)
    _, encoded = run([Document("a", "one two.", {"title": "T"})], connector)
    assert encoded == ["T one two."]
    bare = MemoryConnector(collection="bare")
    run([Document("a", "one two.")], bare, context=())
    assert run([Document("a", "one two.", {"title": "T"})], bare, context=())[1] == []


def test_vectors_that_are_gone_meanwhile_are_made_again(connector, monkeypatch):
    """Between look-up and recall another run may delete."""
    docs = [Document("a", "one two. three four. five six.")]
    run(docs, connector)
    fetch = connector.fetch

    def forgetful(ids, vectors=True):
        return fetch([id_ for id_ in ids if not vectors or id_ != "a#1"], vectors=vectors)

    monkeypatch.setattr(connector, "fetch", forgetful)
    changed = [replace(docs[0], metadata={"n": 1})]
    assert len(run(changed, connector)[1]) == 1
    fresh = MemoryConnector(collection="docs")
    run(changed, fresh)
    monkeypatch.undo()
    assert content(connector) == content(fresh)
