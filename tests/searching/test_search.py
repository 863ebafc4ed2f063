"""From a text to hits on the in-memory connector with a fake encoder."""

import numpy as np
import pytest

from m3connect.contract import CollectionSchema
from m3connect.errors import ConfigError, FingerprintMismatch, InputError
from m3connect.filters import F
from m3connect.searching import planner
from m3connect.searching.explain import explain
from m3connect.searching.search import (
    build_queries,
    fusion_from_json,
    fusion_to_json,
    search,
    search_many,
)
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import RecordBatch, Rrf, Weighted

TEXTS = [
    "the quick brown fox jumps",
    "a lazy dog sleeps in the sun",
    "the fox and the dog are friends",
    "rotate the api key every month",
    "keys and locks",
]
MODES = ["dense", "sparse", "multivector", "hybrid", "all"]


@pytest.fixture
def encoder():
    """A fake encoder with a fixed seed."""
    return HashEncoder()


@pytest.fixture
def notes(encoder):
    """Five passages in memory."""
    connector = MemoryConnector(collection="notes")
    connector.ensure(CollectionSchema(16, True, 16, fingerprint=encoder.info.fingerprint))
    payloads = [{"text": text, "n": n} for n, text in enumerate(TEXTS)]
    connector.upsert(RecordBatch([f"p{n}" for n in range(5)], payloads, encoder.encode(TEXTS)))
    return connector


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_finds_the_passage_with_the_words(notes, encoder, mode):
    """The passage that holds the query's words comes first."""
    hits = search(notes, encoder, "rotate api key", mode=mode)
    assert hits[0].payload["text"] == TEXTS[3]
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fusion", [None, Rrf(k=3, sparse=2.0), Weighted(1, 0.5, 0.2)])
def test_explanations_add_up(notes, encoder, mode, fusion):
    """Parts sum to the score, terms to the sparse score, tokens to the MaxSim score."""
    text = "the fox and a key"
    (query,) = build_queries(notes.describe(), encoder, [text], mode=mode, fusion=fusion)
    (hits,) = planner.run(notes, [query])
    assert hits
    for hit, part in zip(hits, explain(notes, encoder, text, query, hits), strict=True):
        assert sum(part.parts.values()) == pytest.approx(hit.score, abs=1e-5)
        if query.sparse is not None:
            found = sum(match.contribution for match in part.terms)
            assert found == pytest.approx(hit.scores.sparse, abs=1e-5)
        if query.multivector is not None:
            found = sum(match.contribution for match in part.tokens)
            assert found == pytest.approx(hit.scores.multivector, abs=1e-3)


def test_explanations_name_terms_and_tokens(notes, encoder):
    """The shared word appears as a term and as a pair of equal tokens."""
    (query,) = build_queries(notes.describe(), encoder, ["locks"], mode="all")
    (hits,) = planner.run(notes, [query])
    best = explain(notes, encoder, "locks", query, hits)[0]
    assert [match.term for match in best.terms] == ["locks"]
    assert ("locks", "locks") in [(match.query, match.passage) for match in best.tokens]


def test_reranked_hits_are_explained_by_maxsim_alone(notes, encoder):
    """With rerank the score is the MaxSim score."""
    (query,) = build_queries(notes.describe(), encoder, ["fox"], mode="all", rerank=3)
    (hits,) = planner.run(notes, [query])
    assert len(hits) == 3
    for hit, part in zip(hits, explain(notes, encoder, "fox", query, hits), strict=True):
        assert part.parts == {"multivector": hit.score}
        assert hit.score == pytest.approx(hit.scores.multivector, abs=1e-3)


def test_the_filter_applies(notes, encoder):
    """Only matching passages are found."""
    hits = search(notes, encoder, "the fox", mode="all", filter=F("n") >= 2)
    assert {hit.payload["n"] for hit in hits} <= {2, 3, 4}


def test_many_equals_one_by_one(notes, encoder):
    """Searching together changes nothing."""
    texts = ["fox", "dog", "key"]
    together = search_many(notes, encoder, texts, mode="all")
    for text, hits in zip(texts, together, strict=True):
        alone = search(notes, encoder, text, mode="all")
        assert [hit.id for hit in alone] == [hit.id for hit in hits]
        np.testing.assert_allclose([h.score for h in alone], [h.score for h in hits], atol=1e-6)


def test_another_model_is_refused(notes):
    """A query by another model would compare apples with oranges."""
    with pytest.raises(FingerprintMismatch, match="hash-0"):
        search(notes, HashEncoder(seed=1), "fox")


def test_the_tuned_fusion_of_the_collection_is_the_default(notes, encoder):
    """A note in the collection wins over the checkpoint's weights."""
    notes.annotate({"fusion": fusion_to_json(Rrf(k=7))})
    (query,) = build_queries(notes.describe(), encoder, ["fox"], mode="all")
    assert query.fusion == Rrf(k=7)
    notes.annotate({"fusion": None})
    (query,) = build_queries(notes.describe(), encoder, ["fox"], mode="all")
    assert query.fusion == Weighted(1.0, 0.3, 1.0)


def test_the_tuned_depth_of_the_collection_is_the_default(notes, encoder):
    """A note in the collection gives the candidates of each leg; an argument wins over it."""

    def depths(**options):
        (query,) = build_queries(notes.describe(), encoder, ["fox"], mode="all", **options)
        return query.dense_depth, query.sparse_depth

    assert depths() == (100, 100)
    notes.annotate({"depth": 50})
    assert depths() == (50, 50)
    assert depths(depth=7) == (7, 7)


def test_fusions_round_trip_as_json():
    """A stored fusion comes back equal; nonsense is refused."""
    for fusion in (Rrf(10, 1, 2, 3), Weighted(0.2, 0.8, 0.1, rescore=False)):
        assert fusion_from_json(fusion_to_json(fusion)) == fusion
    for bad in ({"kind": "dbsf"}, {"kind": "rrf", "q": 1}, {}):
        with pytest.raises(ConfigError, match="no fusion"):
            fusion_from_json(bad)


def test_a_mode_the_collection_cannot_serve_is_refused(encoder):
    """A dense-only collection has no hybrid mode, and says what it stores."""
    connector = MemoryConnector(collection="dense-only")
    connector.ensure(CollectionSchema(16, False, None))
    with pytest.raises(InputError, match="stores dense; mode 'hybrid' needs sparse"):
        search(connector, encoder, "fox")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "fuzzy"}, "mode is one of"), ({"rerank": 3}, "needs mode 'all'")],
)
def test_bad_options_are_refused(notes, encoder, options, message):
    """The error says what is allowed."""
    with pytest.raises(InputError, match=message):
        search(notes, encoder, "fox", **options)
