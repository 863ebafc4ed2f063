"""From a text to hits on the in-memory connector with a fake encoder."""

import numpy as np
import pytest

from m3connect.contract import CollectionSchema
from m3connect.errors import ConfigError, FingerprintMismatch, InputError
from m3connect.filters import F
from m3connect.ingestion import ingest
from m3connect.searching import planner, scoring
from m3connect.searching.modes import Setting, fusion_from_json, fusion_to_json, note_of
from m3connect.searching.names import MODES
from m3connect.searching.search import build_queries, search, search_many
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Compression, Document, RecordBatch, Rrf, Weighted

TEXTS = [
    "the quick brown fox jumps",
    "a lazy dog sleeps in the sun",
    "the fox and the dog are friends",
    "rotate the api key every month",
    "keys and locks",
]


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


@pytest.mark.parametrize("leg_scores", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "fusion",
    [None, Rrf(k=3, sparse=2.0), Weighted(1, 0.5, 0.2), Weighted(1, 0.5, 0.2, rescore=False)],
)
def test_explanations_add_up(notes, encoder, mode, fusion, leg_scores):
    """Parts sum to the score, terms to the sparse score, tokens to the MaxSim score."""
    asked = {"mode": mode, "fusion": fusion, "depth": 3, "limit": 3}
    hits = search(notes, encoder, "the fox and a key", **asked, leg_scores=leg_scores)
    scored = search(notes, encoder, "the fox and a key", **asked, leg_scores=True)
    assert hits
    assert all((hit.scores is not None) == leg_scores for hit in hits)
    for hit, part in zip(scored, hits.explain(), strict=True):
        assert sum(part.parts.values()) == pytest.approx(hit.score, abs=1e-5)
        if hits.query.sparse is not None:
            terms = sum(match.contribution for match in part.terms)
            assert terms == pytest.approx(hit.scores.sparse, abs=1e-5)
        if hits.query.multivector is not None:
            tokens = sum(match.contribution for match in part.tokens)
            assert tokens == pytest.approx(hit.scores.multivector, abs=1e-3)


def test_explanations_name_terms_and_tokens(notes, encoder):
    """The shared word appears as a term and as a pair of equal tokens."""
    best = search(notes, encoder, "locks", mode="all").explain()[0]
    assert [match.term for match in best.terms] == ["locks"]
    assert ("locks", "locks") in [(match.query, match.passage) for match in best.tokens]


def test_reranked_hits_are_explained_by_maxsim_alone(notes, encoder):
    """With rerank the score is the MaxSim score."""
    hits = search(notes, encoder, "fox", mode="all", rerank=3, leg_scores=True)
    assert len(hits) == 3
    for hit, part in zip(hits, hits.explain(), strict=True):
        assert part.parts == {"multivector": hit.score}
        assert hit.score == pytest.approx(hit.scores.multivector, abs=1e-3)


def test_hits_know_their_query_and_plan(notes, encoder):
    """What was asked and how it was answered come with the hits, which are a plain list besides."""
    hits = search(notes, encoder, "fox", mode="all", limit=3)
    assert hits == planner.run(notes, [hits.query])[0]
    assert hits.text == "fox"
    assert hits.plan == planner.plan(hits.query, notes.capabilities)
    assert hits.query.legs == ("dense", "sparse", "multivector")


def test_leg_scores_cost_nothing_that_is_not_asked_for(encoder, notes):
    """A native answer is one request; the engine's own leg scores are not asked for twice."""
    calls = []

    def fetch(*arguments, **options):
        calls.append(arguments)
        raise AssertionError("the vectors were read back")

    notes.fetch, original = fetch, notes.fetch
    notes._leg_scores = lambda query: _scores_by(original, notes, query)
    assert search(notes, encoder, "fox", mode="all")
    assert search(notes, encoder, "fox", mode="all", leg_scores=True)[0].scores.dense is not None
    assert calls == []


def _scores_by(fetch, connector, query):
    """The oracle's scores, whose reading of its own records is no request."""
    ids = connector._matching(query.filter)
    return scoring.leg_scores(query, ids, fetch(ids, vectors=query.legs).embeddings)


def test_the_filter_applies(notes, encoder):
    """Only matching passages are found."""
    hits = search(notes, encoder, "the fox", mode="all", filter=F("n") >= 2)
    assert {hit.payload["n"] for hit in hits} == {2, 3, 4}
    assert search(notes, encoder, "the fox", mode="all", filter="n >= 2") == hits
    with pytest.raises(InputError, match="filter"):
        search(notes, encoder, "the fox", filter="n >=")


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


def test_what_was_tuned_for_a_mode_is_that_modes_default(notes, encoder):
    """A note gives one mode its fusion and depth and leaves the others alone; arguments win."""

    def query(mode, **options):
        return build_queries(notes.describe(), encoder, ["fox"], mode=mode, **options)[0]

    before = query("all")
    assert (before.fusion, before.dense_depth) == (Weighted(1.0, 0.3, 1.0), 100)
    notes.annotate({note_of("hybrid"): Setting(Weighted(1, 0.2, 0), 50).to_json()})
    pair = query("dense+sparse")
    assert (pair.fusion, pair.dense_depth, pair.sparse_depth) == (Weighted(1, 0.2, 0), 50, 50)
    for mode in ("all", "multivector"):
        assert query(mode).dense_depth == 100
    assert query("all").fusion == before.fusion
    assert query("hybrid", depth=17).dense_depth == 17
    assert query("hybrid", fusion=Rrf(k=7)).fusion == Rrf(k=7)


def test_what_an_older_version_tuned_is_said_and_not_taken(notes, encoder, caplog):
    """A choice without a mode stays unused, in the open; a user's own note is none."""
    plain = build_queries(notes.describe(), encoder, ["fox"])[0]
    notes.annotate({"fusion": "my own", "depth": 3})
    assert build_queries(notes.describe(), encoder, ["fox"])[0].fusion == plain.fusion
    assert not caplog.records
    notes.annotate({"fusion": fusion_to_json(Rrf(k=7)), "depth": 20})
    query = build_queries(notes.describe(), encoder, ["fox"])[0]
    assert (query.fusion, query.dense_depth) == (plain.fusion, plain.dense_depth)
    assert "tuned by an older m3connect" in caplog.text


def test_a_limit_above_the_depth_raises_it(encoder):
    """Of 1,000 records 400 are asked for and 400 come, page by page as in one."""
    texts = [f"word{n % 7} topic{n % 190} item{n}" for n in range(1000)]
    with MemoryConnector(collection="many") as many:
        many.ensure(CollectionSchema(16, True, 16, fingerprint=encoder.info.fingerprint))
        ids = [f"r{n:03}" for n in range(1000)]
        many.upsert(RecordBatch(ids, [{} for _ in ids], encoder.encode(texts)))
        for mode in ("hybrid", "all", "multivector"):
            whole = search(many, encoder, "word3 topic17 item3", mode=mode, limit=400)
            assert [hit.rank for hit in whole] == list(range(1, 401))
        page = search(many, encoder, "word3 topic17 item3", mode="all", limit=10, offset=390)
        whole = search(many, encoder, "word3 topic17 item3", mode="all", limit=400)
        assert page == whole[390:]


def test_a_hit_reads_like_a_passage(encoder):
    """Text, document and metadata have names of their own; what ingestion keeps does not show."""
    with MemoryConnector(collection="one") as one:
        one.ensure(CollectionSchema(16, True, 16, fingerprint=encoder.info.fingerprint))
        payload = {"text": "a fox", "document_id": "d", "position": 0, "_ingest": "f", "lang": "en"}
        one.upsert(RecordBatch(["d#0"], [payload], encoder.encode(["a fox"])))
        (hit,) = search(one, encoder, "fox")
        (stored,) = one.fetch(["d#0"]).payloads
    assert (hit.text, hit.document_id, hit.metadata) == ("a fox", "d", {"lang": "en"})
    assert "_ingest" not in hit.payload
    assert stored == payload  # a copy must bring the ledger's marks


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
    [
        ({"mode": "fuzzy"}, "mode is one of"),
        ({"rerank": 3}, "needs mode 'all'"),
        ({"offset": -1}, "offset must be at least 0"),
        ({"limit": 0, "offset": 3}, "limit must be at least 1, got 0"),
        ({"limit": -2, "offset": 5}, "limit must be at least 1, got -2"),
    ],
)
def test_bad_options_are_refused(notes, encoder, options, message):
    """The error says what is allowed."""
    with pytest.raises(InputError, match=message):
        search(notes, encoder, "fox", **options)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_refused(notes, encoder, text):
    """Nothing answers it, and its vectors would still find something; the error says which it was."""
    with pytest.raises(InputError, match="query 2 of 2 is an empty text"):
        search_many(notes, encoder, ["fox", text])


def test_tokens_are_named_where_context_was_encoded(encoder):
    """Title and headings go before the text that is encoded; an explanation names the right tokens."""
    manual = MemoryConnector(collection="manual")
    text = "# Pump B\n\n## Torque\n\nThe flange bolts take sixty five newton metres."
    ingest([Document("pump", text, {"title": "Pump manual"}, "markdown")], encoder, manual)
    hit = search(manual, encoder, "newton metres pump", mode="multivector").explain()[0]
    met = {match.query: match.passage for match in hit.tokens}
    assert met["newton"] == "newton"
    assert met["metres"] == "metres"
    assert met["pump"] == "pump"


@pytest.mark.parametrize("mode", MODES)
def test_a_compressed_collection_is_asked_as_it_was_stored(encoder, mode):
    """The whole model's queries are made as narrow; scores are those of what is stored, explained, too."""
    kept = Compression(dense_width=8, sparse_top=3, multivector_width=6, multivector_pool=2)
    made_by = encoder.info.fingerprint.compressed(kept)
    connector = MemoryConnector(collection="notes")
    connector.ensure(CollectionSchema.of(made_by, made_by.legs))
    stored = kept.of(encoder.encode(TEXTS), "passage")
    connector.upsert(RecordBatch(list("abcde"), [{"text": text} for text in TEXTS], stored))
    hits = search(connector, encoder, "rotate api key", mode=mode, leg_scores=True)
    assert hits[0].id == "d"
    asked = encoder.encode(["rotate api key"], kind="query")
    expected = kept.of(asked, "query").dense[0] @ stored.dense[3]
    if "dense" in hits.query.legs and mode != "multivector":
        assert hits[0].scores.dense == pytest.approx(expected, abs=1e-5)
    for part, hit in zip(hits.explain(), hits, strict=True):
        assert sum(part.parts.values()) == pytest.approx(hit.score, abs=1e-3)
        assert all(match.passage.startswith("[") for match in part.tokens)
