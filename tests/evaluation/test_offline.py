"""Every mode offline equals the in-memory oracle; the paper's settings equal hand-worked numbers."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from m3connect.errors import ConfigError
from m3connect.evaluation.offline import OfflineSearch
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.searching import modes, planner
from m3connect.searching.modes import MIRACL, MLDR, MLDR_SCRIPTS, Preset, Setting, to_query
from m3connect.searching.names import MODES, Mode
from m3connect.stores.memory import MemoryConnector
from m3connect.testing import corpus
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Embeddings, MultiVectors, Rrf, SparseVectors, Weighted

UNION = Preset(
    "union",
    hybrid=Setting(Weighted(1, 0.3, 0), 20),
    all=Setting(Weighted(1, 0.3, 1), 15),
    multivector=replace(MIRACL.multivector, depth=15, pool="union"),
)
PRESETS = {
    "weighted": UNION,
    "missing scores are 0": replace(UNION, hybrid=Setting(Weighted(1, 0.3, 0, rescore=False), 20)),
    "rrf": modes.with_fusion(UNION, kind="rrf", weights=(1, 0.5, 2)),
    "exhaustive multi-vectors": replace(
        UNION, multivector=replace(UNION.multivector, pool="everything")
    ),
    "the dense leg's candidates": replace(
        UNION, multivector=replace(UNION.multivector, pool="dense")
    ),
    "depths below the limit": modes.for_database(UNION, 3),
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("mode", MODES)
def test_equals_the_oracle(mode, name):
    """Ids, order and scores are the in-memory connector's for the very same query."""
    batch = corpus.records(5, 80)
    texts = corpus.embeddings(np.random.default_rng(6), 9)
    search = OfflineSearch(
        tuple(batch.ids),
        EmbeddingStore.of([batch.embeddings[:33], batch.embeddings[33:]]),
        texts,
        PRESETS[name],
        limit=10,
    )
    answers = list(search.run(mode))
    with MemoryConnector(collection="oracle") as oracle:
        oracle.ensure(corpus.SCHEMA)
        oracle.upsert(batch)
        asked = [to_query(mode, PRESETS[name], texts[row], limit=10) for row in range(9)]
        expected = planner.run(oracle, asked)
    for answer, hits in zip(answers, expected, strict=True):
        assert list(answer) == [hit.id for hit in hits]
        assert list(answer.values()) == pytest.approx([hit.score for hit in hits], abs=1e-5)


class ReadStore(EmbeddingStore):
    """Remembers the rows whose multi-vectors were read."""

    read: ClassVar[list[int]] = []

    def tokens(self, row):
        self.read.append(row)
        return super().tokens(row)


def test_modes_with_the_same_candidates_share_their_maxsim():
    """``multivector`` and ``all`` read each candidate once in all; other candidates are read anew."""
    batch = corpus.records(5, 80)
    store = ReadStore.of([batch.embeddings])
    texts = corpus.embeddings(np.random.default_rng(6), 9)
    search = OfflineSearch(tuple(batch.ids), store, texts, UNION, limit=10)
    first = {mode: list(search.run(mode)) for mode in ("multivector", "all")}
    once = len(ReadStore.read)
    assert once == len(set(ReadStore.read)) > 0
    assert list(search.run("all")) == first["all"]
    assert len(ReadStore.read) == once
    search.preset = PRESETS["the dense leg's candidates"]
    alone = replace(search)
    assert list(search.run("multivector")) == list(alone.run("multivector")) != first["multivector"]
    assert len(ReadStore.read) > once


def small() -> OfflineSearch:
    """Four documents and one query, with scores that can be worked out by hand.

    Dense a .9, b .8, c .7, d .1; lexical a 0, b .05 (.101 x .5), c 1, d 2; MaxSim a .1, b .5, c .9,
    d 1.
    """
    dense = np.array([[0.9], [0.8], [0.7], [0.1]], np.float32)
    sparse = SparseVectors.from_rows([{2: 1.0}, {1: 0.101}, {1: 2.0}, {1: 4.0}])
    multi = MultiVectors.from_rows([np.array([[x, 0]], np.float32) for x in (0.1, 0.5, 0.9, 1.0)])
    documents = Embeddings(dense, sparse, multi, np.ones(4, np.int32), np.zeros(4, np.bool_))
    query = Embeddings(
        np.array([[1]], np.float32),
        SparseVectors.from_rows([{1: 0.5}]),
        MultiVectors.from_rows([np.array([[1, 0]], np.float32)]),
        np.ones(1, np.int32),
        np.zeros(1, np.bool_),
    )
    return OfflineSearch(tuple("abcd"), EmbeddingStore.of([documents]), query, MIRACL)


def answer(preset: Preset, mode: Mode) -> dict[str, float]:
    search = small()
    search.preset = preset
    (only,) = search.run(mode)
    return {id_: round(score, 6) for id_, score in only.items()}


def test_miracl_fuses_the_union_and_reranks_the_dense_best():
    """Dense + sparse: 1 and 0.3 on the union; all: 1, 0.3 and 1 on the dense candidates alone."""
    two = replace(
        MIRACL,
        hybrid=replace(MIRACL.hybrid, depth=2),
        all=replace(MIRACL.all, depth=2),
        multivector=replace(MIRACL.multivector, depth=2),
    )
    # union of dense {a, b} and sparse {d, c}: a .9, b .8 + .3 * .0505, c .7 + .3, d .1 + .6
    assert answer(two, "hybrid") == {"c": 1.0, "a": 0.9, "b": 0.81515, "d": 0.7}
    # dense {a, b}: a .9 + 0 + .1, b .8 + .01515 + .5
    assert answer(two, "all") == {"b": 1.31515, "a": 1.0}
    assert answer(two, "multivector") == {"b": 0.5, "a": 0.1}


def test_mldr_weighs_the_lexical_leg_most():
    """0.2 and 0.8; 0.15, 0.5 and 0.35."""
    assert answer(MLDR, "hybrid") == {"d": 1.62, "c": 0.94, "b": 0.2004, "a": 0.18}
    assert answer(MLDR, "all") == {"d": 1.365, "c": 0.92, "b": 0.32025, "a": 0.17}


def test_the_published_scripts_round_weights_up_and_do_not_rescore():
    """0.101 counts as 0.11; a candidate of one leg gets 0 from the other; ``all`` is not rounded."""
    assert answer(MLDR_SCRIPTS, "sparse") == {"d": 2.0, "c": 1.0, "b": 0.055}
    two = replace(MLDR_SCRIPTS, hybrid=replace(MLDR_SCRIPTS.hybrid, depth=2))
    assert answer(two, "hybrid") == {"d": 1.6, "c": 0.8, "a": 0.18, "b": 0.16}
    assert answer(MLDR_SCRIPTS, "all") == answer(MLDR, "all")


def test_a_preset_comes_by_name_or_from_the_model():
    """Without a name the model's own weights count; an unknown name lists the known ones."""
    info = HashEncoder().info
    assert modes.preset_for(info).all == Setting(Weighted(1.0, 0.3, 1.0), 100)
    assert modes.preset_for(info, "paper").all == Setting(Weighted(1.0, 0.3, 1.0), 200, "dense")
    assert modes.preset_for(info, "mldr") is MLDR
    with pytest.raises(ConfigError, match=r"no preset 'beir'.*'miracl'"):
        modes.preset_for(info, "beir")


def test_fusions_replace_those_of_a_preset():
    """Kind and weights can be set apart; nothing set changes nothing."""
    assert modes.with_fusion(MLDR) is MLDR
    assert modes.with_fusion(MLDR, kind="weighted") is MLDR
    assert modes.with_fusion(MLDR, kind="rrf", k=10).hybrid.fusion == Rrf(10, 1, 1, 0)
