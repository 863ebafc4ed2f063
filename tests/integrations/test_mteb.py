"""mteb measures an encoder in every mode, on a task made here, and gets our figures."""

import gc
import json
import warnings

import numpy as np
import pytest

from m3connect.datasets import beir
from m3connect.errors import InputError
from m3connect.evaluation import run
from m3connect.searching.names import MODES
from m3connect.testing.fakes import HashEncoder

# mteb takes seconds to import: where these tests run, not where they are collected.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def tiny():
    """The task, its rows and ``score``."""
    pytest.importorskip("mteb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tests.integrations import tiny_task
    return tiny_task


@pytest.fixture(scope="module")
def models(tiny):  # tiny: mteb, imported without its warnings
    """Our two adapters."""
    from m3connect.integrations import mteb

    return mteb


@pytest.fixture(scope="module")
def ours(tiny, tmp_path_factory):
    """Our own figures on the same data."""
    folder = tmp_path_factory.mktemp("tiny")
    for name, rows in (("corpus", tiny.DOCUMENTS), ("queries", tiny.QUERIES)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = [f"{query}\t{doc}\t1" for query, judged in tiny.QRELS.items() for doc in judged]
    (folder / "qrels.tsv").write_text("\n".join(pairs))
    found = run.evaluate(beir.load(folder), HashEncoder(), names=("ndcg@10", "recall@100"))
    return {row.name: row.figures["ndcg@10"].mean() for row in found.rows}


@pytest.mark.parametrize("mode", MODES)
def test_mteb_gets_our_figures(mode, ours, tiny, models):
    """Every mode through the search protocol scores what our own evaluation says."""
    from mteb.models import EncoderProtocol, SearchProtocol

    model = models.SearchModel(HashEncoder(), mode)
    assert isinstance(model, SearchProtocol)
    assert not isinstance(model, EncoderProtocol)
    assert tiny.score(model) == pytest.approx(ours[mode], abs=1e-4)


def test_the_dense_vector_works_through_the_encoder_protocol(ours, tiny, models):
    """mteb's own search over our vectors gives the dense figure."""
    from mteb.models import EncoderProtocol

    model = models.DenseModel(HashEncoder())
    assert isinstance(model, EncoderProtocol)
    assert tiny.score(model) == pytest.approx(ours["dense"], abs=1e-4)


def test_queries_are_encoded_as_queries(models):
    """The prompt type decides the kind; vectors come in order of the batches."""
    from mteb.types import PromptType

    kinds = []

    class Watched(HashEncoder):
        def encode(self, texts, *, kind="passage", legs=("dense",)):
            kinds.append(kind)
            return super().encode(texts, kind=kind, legs=legs)

    model = models.DenseModel(Watched())
    batches = [{"text": ["blue sky", "green"]}, {"text": ["red"]}]
    found = model.encode(batches, prompt_type=PromptType.query)
    assert kinds == ["query"]
    np.testing.assert_array_equal(found, HashEncoder().encode(["blue sky", "green", "red"]).dense)
    model.encode(batches, prompt_type=PromptType.document)
    assert kinds[1:] == ["passage"]
    assert model.similarity(found, found).shape == (3, 3)
    assert model.similarity_pairwise(found, found).tolist() == pytest.approx([1, 1, 1])


def test_candidates_are_reranked(tiny, models):
    """With candidates given, only they are scored."""

    class Reranking(tiny.TinyRetrieval):  # type: ignore[name-defined]
        top_ranked = {query: [*judged, "d39", "d38"] for query, judged in tiny.QRELS.items()}  # noqa: RUF012

    model = models.SearchModel(HashEncoder(), "all")
    model.index(tiny.Rows.from_list(tiny.DOCUMENTS))
    found = model.search(
        tiny.Rows.from_list(tiny.QUERIES), top_k=10, top_ranked=Reranking.top_ranked
    )
    assert {query: set(scores) for query, scores in found.items()} == {
        query: set(ids) for query, ids in Reranking.top_ranked.items()
    }
    free = model.search(tiny.Rows.from_list(tiny.QUERIES), top_k=40)
    for query, scores in found.items():
        for id_, value in scores.items():
            assert value == pytest.approx(free[query][id_], abs=1e-5)
    assert tiny.score(model, Reranking) > 0.9


def test_the_model_names_its_mode_and_revision(models):
    """Results of two modes or two checkpoints are never taken for one another."""
    metas = [
        models.SearchModel(HashEncoder(seed=seed), mode).mteb_model_meta
        for seed in (0, 1)
        for mode in MODES
    ]
    assert len({(meta.name, meta.revision) for meta in metas}) == 10
    assert metas[-1].model_type == ["hybrid"]


def test_search_needs_an_index_and_texts(tiny, models):
    """Searching nothing, or something that is no text, is an error."""
    with pytest.raises(InputError, match="index a corpus"):
        models.SearchModel(HashEncoder(), "dense").search(
            tiny.Rows.from_list(tiny.QUERIES), top_k=1
        )
    with pytest.raises(InputError, match="only texts"):
        models.DenseModel(HashEncoder()).encode([{"text": [["turn"]]}])


def test_embeddings_live_as_long_as_the_model(tiny, models):
    """Without a cache the files go with the object."""
    model = models.SearchModel(HashEncoder(), "dense")
    model.index(tiny.Rows.from_list(tiny.DOCUMENTS))
    folder = model._cache
    assert list(folder.iterdir())
    del model
    gc.collect()
    assert not folder.exists()
