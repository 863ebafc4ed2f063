"""mteb measures an encoder in every mode, on a task made here, and gets our figures."""

import gc
import warnings

import numpy as np
import pytest

from m3connect.datasets import beir
from m3connect.errors import InputError
from m3connect.evaluation import run
from m3connect.searching.names import MODES
from m3connect.testing.fakes import HashEncoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mteb = pytest.importorskip("mteb")
    from datasets import Dataset as Rows
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import EncoderProtocol, SearchProtocol
    from mteb.types import PromptType

from m3connect.integrations.mteb import DenseModel, SearchModel

pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = [
    "river",
    "engine",
    "violin",
    "harvest",
    "planet",
    "castle",
    "lantern",
    "meadow",
    "copper",
    "winter",
]
DOCUMENTS = [
    {"id": f"d{n:02}", "title": WORDS[n % 10], "text": f"{WORDS[n % 7]} and {WORDS[n % 9]} item{n}"}
    for n in range(40)
]
QUERIES = [{"id": f"q{n:02}", "text": f"{WORDS[n % 7]} item{n}"} for n in range(12)]
QRELS = {f"q{n:02}": {f"d{n:02}": 1, f"d{n + 7:02}": 1} for n in range(12)}


class TinyRetrieval(AbsTaskRetrieval):
    """Forty documents and twelve queries, made here instead of downloaded."""

    metadata = TaskMetadata(
        name="TinyRetrieval",
        description="Made by a test.",
        reference=None,
        dataset={"path": "none", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2025-01-01", "2025-01-02"),
        domains=["Written"],
        task_subtypes=[],
        license="mit",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )
    top_ranked = None

    def load_data(self, num_proc=None, **kwargs):
        """Fill the data set with the rows above."""
        split = {
            "corpus": Rows.from_list(DOCUMENTS),
            "queries": Rows.from_list(QUERIES),
            "relevant_docs": QRELS,
            "top_ranked": self.top_ranked,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def score(model, task=TinyRetrieval, metric="ndcg_at_10"):
    found = mteb.evaluate(model, [task()], cache=None, show_progress_bar=False, co2_tracker=False)
    return found.task_results[0].scores["test"][0][metric]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Our own figures on the same data."""
    folder = tmp_path_factory.mktemp("tiny")
    import json

    for name, rows in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = [f"{query}\t{doc}\t1" for query, judged in QRELS.items() for doc in judged]
    (folder / "qrels.tsv").write_text("\n".join(pairs))
    found = run.evaluate(beir.load(folder), HashEncoder(), names=("ndcg@10", "recall@100"))
    return {row.name: row.figures["ndcg@10"].mean() for row in found.rows}


@pytest.mark.parametrize("mode", MODES)
def test_mteb_gets_our_figures(mode, ours):
    """Every mode through the search protocol scores what our own evaluation says."""
    model = SearchModel(HashEncoder(), mode)
    assert isinstance(model, SearchProtocol)
    assert not isinstance(model, EncoderProtocol)
    assert score(model) == pytest.approx(ours[mode], abs=1e-4)


def test_the_dense_vector_works_through_the_encoder_protocol(ours):
    """mteb's own search over our vectors gives the dense figure."""
    model = DenseModel(HashEncoder())
    assert isinstance(model, EncoderProtocol)
    assert score(model) == pytest.approx(ours["dense"], abs=1e-4)


def test_queries_are_encoded_as_queries():
    """The prompt type decides the kind; vectors come in order of the batches."""
    kinds = []

    class Watched(HashEncoder):
        def encode(self, texts, *, kind="passage", legs=("dense",)):
            kinds.append(kind)
            return super().encode(texts, kind=kind, legs=legs)

    model = DenseModel(Watched())
    batches = [{"text": ["blue sky", "green"]}, {"text": ["red"]}]
    found = model.encode(batches, prompt_type=PromptType.query)
    assert kinds == ["query"]
    np.testing.assert_array_equal(found, HashEncoder().encode(["blue sky", "green", "red"]).dense)
    model.encode(batches, prompt_type=PromptType.document)
    assert kinds[1:] == ["passage"]
    assert model.similarity(found, found).shape == (3, 3)
    assert model.similarity_pairwise(found, found).tolist() == pytest.approx([1, 1, 1])


def test_candidates_are_reranked():
    """With candidates given, only they are scored."""

    class Reranking(TinyRetrieval):
        top_ranked = {query: [*judged, "d39", "d38"] for query, judged in QRELS.items()}  # type: ignore[assignment]  # noqa: RUF012

    model = SearchModel(HashEncoder(), "all")
    model.index(Rows.from_list(DOCUMENTS))
    found = model.search(Rows.from_list(QUERIES), top_k=10, top_ranked=Reranking.top_ranked)
    assert {query: set(scores) for query, scores in found.items()} == {
        query: set(ids) for query, ids in Reranking.top_ranked.items()
    }
    free = model.search(Rows.from_list(QUERIES), top_k=40)
    for query, scores in found.items():
        for id_, value in scores.items():
            assert value == pytest.approx(free[query][id_], abs=1e-5)
    assert score(model, Reranking) > 0.9


def test_the_model_names_its_mode_and_revision():
    """Results of two modes or two checkpoints are never taken for one another."""
    metas = [
        SearchModel(HashEncoder(seed=seed), mode).mteb_model_meta
        for seed in (0, 1)
        for mode in MODES
    ]
    assert len({(meta.name, meta.revision) for meta in metas}) == 10
    assert metas[-1].model_type == ["hybrid"]


def test_search_needs_an_index_and_texts():
    """Searching nothing, or something that is no text, is an error."""
    with pytest.raises(InputError, match="index a corpus"):
        SearchModel(HashEncoder(), "dense").search(Rows.from_list(QUERIES), top_k=1)
    with pytest.raises(InputError, match="only texts"):
        DenseModel(HashEncoder()).encode([{"text": [["turn"]]}])


def test_embeddings_live_as_long_as_the_model():
    """Without a cache the files go with the object."""
    model = SearchModel(HashEncoder(), "dense")
    model.index(Rows.from_list(DOCUMENTS))
    folder = model._cache
    assert list(folder.iterdir())
    del model
    gc.collect()
    assert not folder.exists()
