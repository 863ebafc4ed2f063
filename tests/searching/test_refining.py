"""What search() does with the hits it found: each step by itself, and the order of them."""

import asyncio
import threading

import pytest

from m3connect.errors import InputError
from m3connect.ingestion import ingest
from m3connect.searching.contexts import by_document
from m3connect.searching.search import search, search_async, search_many, search_many_async
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document

WORDS = ("river", "engine", "violin", "harvest", "planet", "castle")
NAMES = ("one", "two", "three", "four")


@pytest.fixture(scope="module")
def encoder():
    """The fake encoder."""
    return HashEncoder()


@pytest.fixture(scope="module")
def manuals(encoder):
    """Four documents of six passages, each under a heading."""
    connector = MemoryConnector(collection="manuals")
    documents = [
        Document(
            name,
            f"# {name}\n\n" + "\n\n".join(f"{name} {word} " * 8 + "ends here." for word in WORDS),
            {"tenant": "a" if name in ("one", "two") else "b"},
            "markdown",
        )
        for name in NAMES
    ]
    ingest(documents, encoder, connector, chunk_tokens=24)
    return connector


def longest_first(query, passages):
    """A reranker that a test can foresee."""
    return [float(len(passage)) for passage in passages]


def test_one_hit_a_document_and_pages_of_documents(manuals, encoder):
    """No document comes twice, not on the next page either, and ranks go on counting."""
    asked: dict = {"mode": "dense", "group_by": "document", "pool": 24}
    whole = search(manuals, encoder, "violin", limit=4, **asked)
    assert sorted(hit.document_id for hit in whole) == sorted(NAMES)
    assert [hit.rank for hit in whole] == [1, 2, 3, 4]
    pages = [search(manuals, encoder, "violin", limit=2, offset=at, **asked) for at in (0, 2)]
    assert [*pages[0], *pages[1]] == list(whole)


def test_a_context_grows_around_the_hit_within_the_filter(manuals, encoder):
    """Neighbours come in the hit's context; nothing that the filter forbids is read."""
    asked: dict = {"mode": "sparse", "limit": 1, "expand_tokens": 70}
    (alone,) = search(manuals, encoder, "one violin", **asked)
    (hit,) = search(manuals, encoder, "one violin", expand="neighbours", **asked)
    assert alone.context is None
    assert (hit.id, hit.text) == (alone.id, alone.text)
    assert "engine" in hit.context
    assert "harvest" in hit.context
    (whole,) = search(
        manuals, encoder, "one violin", **{**asked, "expand_tokens": 900}, expand="parent"
    )
    assert all(word in whole.context for word in WORDS)
    (kept,) = search(
        manuals, encoder, "one violin", expand="parent", filter=f"position <= {hit.payload['position']}",
        **asked,
    )  # fmt: skip
    assert "harvest" not in kept.context


def test_the_reranker_scores_last_and_reads_what_the_encoder_read(manuals, encoder):
    """Its order and its scores are the hits', and the search's own score is explained."""
    read = []

    def reranker(query, passages):
        read.append((query, passages))
        return longest_first(query, passages)

    hits = search(manuals, encoder, "violin", limit=3, pool=8, reranker=reranker, mode="all")
    ((query, passages),) = read
    assert (query, len(passages)) == ("violin", 8)
    texts = [hit.text for hit in search(manuals, encoder, "violin", limit=8, mode="all")]
    assert passages != texts
    assert all(given.endswith(text) for given, text in zip(passages, texts, strict=True))
    assert [hit.score for hit in hits] == sorted(map(len, passages), reverse=True)[:3]
    searched = {hit.id: hit for hit in search(manuals, encoder, "violin", limit=8, mode="all")}
    for hit, part in zip(hits, hits.explain(), strict=True):
        assert sum(part.parts.values()) == pytest.approx(searched[hit.id].score, abs=1e-5)


def test_the_best_passage_of_a_document_is_the_rerankers(manuals, encoder):
    """Documents are told apart after the reranker, which may prefer another passage of them."""
    (hit,) = search(
        manuals, encoder, "one violin", limit=1, pool=6, filter='document_id == "one"',
        reranker=lambda _, texts: ["planet" in text for text in texts], group_by="document",
    )  # fmt: skip
    assert "planet" in hit.text


@pytest.mark.parametrize("scores", [[1.0], [float("nan")] * 5, [[1.0]] * 5])
def test_a_reranker_that_gives_no_score_a_passage_is_refused(manuals, encoder, scores):
    """Too few, no numbers or more than one each."""
    with pytest.raises(InputError, match="each of 5 passages"):
        search(manuals, encoder, "violin", limit=1, reranker=lambda *_: scores)


def test_minimum_scores_hold_for_each_leg(manuals, encoder):
    """A hit reaches all of them; a leg that the mode does not ask is an error, not an empty answer."""
    every = search(manuals, encoder, "violin", limit=24, leg_scores=True)
    least = sorted(hit.scores.dense for hit in every)[-3]
    some = search(
        manuals, encoder, "violin", limit=24, min_scores={"dense": least, "sparse": 0.001}
    )
    assert 0 < len(some) <= 3
    assert all(hit.scores.dense >= least and hit.scores.sparse > 0 for hit in some)
    assert [hit.rank for hit in some] == list(range(1, len(some) + 1))
    with pytest.raises(InputError, match="names multivector; the query scores by dense, sparse"):
        search(manuals, encoder, "violin", min_scores={"multivector": 0.1})


def test_unlike_hits_are_chosen_from_the_pool(manuals, encoder):
    """With full diversity the second hit is not the best's neighbour in meaning."""
    asked: dict = {"mode": "dense", "limit": 2}
    plain = search(manuals, encoder, "one violin two", **asked)
    mixed = search(manuals, encoder, "one violin two", diversity=1.0, pool=24, **asked)
    assert mixed[0].id == plain[0].id
    assert mixed[1].id != plain[1].id


def test_no_passage_is_read_twice(manuals, encoder):
    """A hit that stands in the context of a better one is left out; of other documents they stay."""
    asked: dict = {"mode": "dense", "limit": 8, "expand": "parent"}
    found = search(manuals, encoder, "violin", **asked, expand_tokens=1)
    assert len(found) == 8
    whole = search(manuals, encoder, "violin", **asked, expand_tokens=900)
    assert [hit.id for hit in whole] == [hit.id for hit in by_document(found)]
    assert len(whole) < 8


def test_the_best_sentences_are_marked(manuals, encoder):
    """In the passage, or in its context; as many as were asked for."""
    texts = ["A first remark. The badger digs at night. A last remark.\nMore of it."]
    with MemoryConnector(collection="badgers") as connector:
        ingest([Document("b", texts[0])], encoder, connector)
        (hit,) = search(connector, encoder, "badger digs night", highlight=1)
    assert hit.marked("[", "]") == texts[0].replace(
        "The badger digs at night.", "[The badger digs at night.]"
    )
    two = search(manuals, encoder, "one violin", limit=2, highlight=2, expand="neighbours")
    for hit in two:
        assert len(hit.highlights) == 2
        assert hit.marked("", "") == hit.context
        for mark in hit.highlights:
            assert hit.context[mark.start : mark.stop].endswith(("here.", *NAMES))


def test_one_pass_encodes_all_sentences(manuals):
    """Highlighting ten hits costs two passes more: the query's and the sentences'."""
    calls = []

    class Counting(HashEncoder):
        def encode(self, texts, **options):
            calls.append(len(texts))
            return super().encode(texts, **options)

    search(manuals, Counting(), "violin", limit=10, highlight=2)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": "tenant"}, "group_by is document"),
        ({"pool": 50}, "nothing chooses from it"),
        ({"pool": 5, "group_by": "document"}, "less than the 10 hits"),
        ({"expand": "around"}, "expand is nothing, neighbours or parent"),
        ({"diversity": 1.5}, "between 0 and 1"),
        ({"highlight": -1}, "number of sentences"),
    ],
)
def test_bad_options_are_refused(manuals, encoder, options, message):
    """The error says what is allowed."""
    with pytest.raises(InputError, match=message):
        search(manuals, encoder, "violin", **options)


def test_the_async_twins_answer_alike_and_take_turns(encoder):
    """Many at once give what the calls give; the connector is never used by two threads."""

    class Alone(MemoryConnector):
        busy = threading.Lock()

        def search(self, queries):
            assert self.busy.acquire(blocking=False), "two threads at once"
            try:
                return super().search(queries)
            finally:
                self.busy.release()

    with Alone(collection="turns") as connector:
        ingest([Document(word, f"a {word}") for word in WORDS], encoder, connector)

        async def ask():
            return await asyncio.gather(
                *(search_async(connector, encoder, word, limit=2) for word in WORDS),
                search_many_async(connector, encoder, list(WORDS), limit=2),
            )

        *singly, together = asyncio.run(ask())
        assert singly == together == search_many(connector, encoder, WORDS, limit=2)
