"""Documents by their best passage: cut and counted as ingestion and search do it."""

from zlib import crc32

import pytest

from m3connect.datasets import beir
from m3connect.datasets.write import write_collection
from m3connect.errors import ConfigError, FingerprintMismatch, InputError
from m3connect.evaluation import live, run
from m3connect.evaluation.passages import cut
from m3connect.ingestion import ingest
from m3connect.ingestion.chunking import Chunker
from m3connect.searching.contexts import by_document
from m3connect.searching.names import MODES
from m3connect.searching.search import search
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from tests.evaluation.coarse import CoarseEncoder

ENCODER = CoarseEncoder()  # ranks equal passages by their ids
WORDS = ("river", "engine", "violin", "harvest", "planet", "castle", "lantern")


def collection(folder, documents, queries, judged):
    """A test collection in the BEIR layout."""
    write_collection(folder, documents, queries, ((query, id_, 1) for query, id_ in judged))
    return beir.load(folder)


@pytest.fixture
def chapters(tmp_path):
    """Ten documents of three paragraphs, each about three topics, and a query for each last one."""
    documents = [
        {
            "_id": f"d{n}",
            "title": f"book{n}",
            "text": "\n\n".join(
                f"{WORDS[(n + part) % 7]} tale{n + 3 * part} of the {WORDS[(n * part) % 7]} told"
                for part in range(3)
            ),
        }
        for n in range(10)
    ]
    queries = [{"_id": f"q{n}", "text": f"{WORDS[(n + 2) % 7]} tale{n + 6}"} for n in range(10)]
    return collection(
        tmp_path / "chapters", documents, queries, [(f"q{n}", f"d{n}") for n in range(10)]
    )


@pytest.mark.parametrize(
    ("options", "passages"),
    [({"tokens": 6}, 30), ({"tokens": 8, "overlap": 3, "context": ()}, 30), ({"tokens": 12}, 20)],
)
def test_offline_is_live_is_search(chapters, options, passages):
    """In every mode the figures and scores are those of the ingested collection, grouped by document."""
    offline, there = {}, {}
    found = run.evaluate(
        chapters,
        ENCODER,
        passages=Chunker(ENCODER, **options),
        record=lambda row, query, answer: offline.update({(row, query): dict(answer)}),
    )
    renamed = {"tokens": "chunk_tokens", "overlap": "chunk_overlap", "context": "context"}
    with MemoryConnector(collection="chapters") as connector:
        ingest(
            [chapters.folder / "corpus.jsonl"],
            ENCODER,
            connector,
            **{renamed[name]: value for name, value in options.items()},
        )
        assert connector.count() == passages
        measured = live.evaluate(
            chapters,
            ENCODER,
            connector,
            passages=Chunker(ENCODER, **options),
            record=lambda row, query, answer: there.update({(row, query): dict(answer)}),
        )
        limit = 100 * (passages // 10)
        for mode in MODES:
            for query in chapters.queries:
                hits = by_document(search(connector, ENCODER, query.text, mode=mode, limit=limit))
                expected = {hit.payload["document_id"]: hit.score for hit in hits}
                assert offline[mode, query.id] == pytest.approx(expected, abs=1e-6)
                assert list(offline[mode, query.id]) == list(expected)
                assert list(there[mode, query.id]) == list(expected)
    assert len(offline) == 50
    for ours, theirs in zip(found.rows, measured.rows, strict=True):
        assert ours.figures["ndcg@10"].tolist() == theirs.figures["ndcg@10"].tolist()
        assert theirs.live["overlap@10"] == 1
    assert found.settings["passages"]["count"] == passages


def test_a_document_scores_what_its_best_passage_scores(tmp_path):
    """Not the sum, and not what a cut-off reading saw: worked out from the fake's term weights."""
    documents = [
        {"_id": "late", "text": "river castle of old\n\nviolin engine at night\n\nviolin planet"},
        {"_id": "early", "text": "engine planet and more\n\nharvest castle"},
    ]
    queries = [{"_id": "q", "text": "violin planet"}]
    dataset = collection(tmp_path / "two", documents, queries, [("q", "late")])

    def weight(word):
        return 0.1 + crc32(word.encode()) % 90 / 100

    scores = {}
    short = HashEncoder(max_length=7)
    for passages in (None, Chunker(short, tokens=4, context=())):
        run.evaluate(
            dataset,
            short,
            modes=("sparse",),
            passages=passages,
            record=lambda _, __, answer: scores.update(answer),
        )
        if passages is None:
            assert "late" not in scores or scores["late"] < weight("violin") ** 2 + 1e-6
    assert scores == pytest.approx(
        {"late": weight("violin") ** 2 + weight("planet") ** 2, "early": weight("planet") ** 2}
    )


def test_documents_without_a_passage_are_told(tmp_path):
    """Blank ones, and a title alone: a collection has no record of them."""
    documents = [
        {"_id": "title", "title": "river engine", "text": " "},
        {"_id": "blank", "text": ""},
        {"_id": "text", "text": "river"},
    ]
    dataset = collection(
        tmp_path / "x", documents, [{"_id": "q", "text": "river"}], [("q", "text")]
    )
    cutter = Chunker(ENCODER, tokens=6)
    found = run.evaluate(dataset, ENCODER, modes=("sparse",), passages=cutter)
    assert any(told.startswith("2 documents have no passage") for told in found.warnings)


def test_enough_passages_are_looked_at(tmp_path):
    """Of documents that have one and a half, twice as many as the metric looks at."""
    documents = [
        {"_id": f"d{n}", "text": "river river\n\nriver castle" if n % 2 else "river violin"}
        for n in range(8)
    ]
    judged = [("q", f"d{n}") for n in range(8)]
    dataset = collection(tmp_path / "x", documents, [{"_id": "q", "text": "river"}], judged)
    cutter = Chunker(ENCODER, tokens=3, context=())
    found = run.evaluate(dataset, ENCODER, modes=("dense",), passages=cutter, names=["recall@6"])
    assert found.settings["passages"]["count"] == 12
    assert found.rows[0].figures["recall@6"].tolist() == [6 / 8]


def test_bytes_are_those_of_all_passages(chapters):
    """Three passages of a document cost three dense vectors."""
    cutter = Chunker(ENCODER, tokens=6)
    (row,) = run.evaluate(chapters, ENCODER, modes=("dense",), passages=cutter).rows
    (whole,) = run.evaluate(chapters, ENCODER, modes=("dense",)).rows
    assert row.size == 3 * whole.size


def test_a_cache_tells_cuts_apart(chapters, tmp_path):
    """The same corpus cut in another way, or with its title, is encoded anew."""
    cuts = [
        cut(chapters, Chunker(ENCODER, tokens=tokens, context=context)).content
        for tokens in (6, 12)
        for context in ((), ("title",))
    ]
    assert len(set(cuts)) == 4
    assert cut(chapters, Chunker(ENCODER, tokens=6, context=())).content == cuts[0]


def test_what_ingestion_refuses_is_an_error_with_a_name(tmp_path):
    """A field that ingestion keeps for itself, and ids that it would take from elsewhere."""
    queries, judged = [{"_id": "q", "text": "river"}], [("q", "a")]
    for number, (document, message) in enumerate(
        [
            ({"_id": "a", "text": "river", "position": 1}, "document a: ingestion refuses it"),
            ({"_id": "a", "id": "b", "text": "river"}, "names a document 'b'"),
            ({"_id": "a", "text": " "}, "no document has any text"),
        ]
    ):
        dataset = collection(tmp_path / str(number), [document], queries, judged)
        with pytest.raises(InputError, match=message):
            cut(dataset, Chunker(ENCODER))


def test_a_collection_that_was_cut_otherwise_is_refused(chapters):
    """With the chunker given, a live evaluation measures that cut or none."""
    with MemoryConnector(collection="chapters") as connector:
        ingest([chapters.folder / "corpus.jsonl"], ENCODER, connector, chunk_tokens=6)
        with pytest.raises(FingerprintMismatch, match=r"6 tokens.*say.*12 tokens"):
            live.evaluate(chapters, ENCODER, connector, passages=Chunker(ENCODER, tokens=12))


def test_passages_longer_than_the_model_are_refused():
    """Nothing would be measured that ingestion does not do."""
    with pytest.raises(ConfigError, match="--chunk-tokens must be between"):
        Chunker(HashEncoder(max_length=32), tokens=64)
