"""Tuning: finds a planted optimum, reports on unseen queries only, and keeps the default if unsure."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from m3connect.cli.groups import expanded
from m3connect.cli.running import Services
from m3connect.cli.tune import tune as tune_command
from m3connect.contract import CollectionSchema
from m3connect.datasets.beir import Dataset, TextQuery
from m3connect.errors import AuthError, ConfigError, InputError, TransientError, Unsupported
from m3connect.evaluation import tune
from m3connect.evaluation.offline import OfflineSearch
from m3connect.evaluation.shards import EmbeddingStore
from m3connect.searching.modes import Preset, Setting
from m3connect.searching.search import served_preset
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Embeddings, MultiVectors, RecordBatch, Rrf, SparseVectors, Weighted

DEFAULT = Preset("default", Setting(Weighted(1, 0, 0), 50), Setting(Weighted(1, 0, 0.25), 50))


def planted(tmp_path, queries=60, documents=40, *, good):
    """A collection in which one leg knows the answer and the other is noise."""
    rng = np.random.default_rng(0)
    answer = rng.integers(0, documents, queries)
    truth = np.eye(documents, dtype=np.float32)
    noise = rng.random((documents, documents)).astype(np.float32)
    dense = truth if good == "dense" else noise
    lexical = noise if good == "dense" else truth
    passages = Embeddings(
        dense,
        SparseVectors.from_rows([dict(enumerate(row.tolist())) for row in lexical]),
        MultiVectors.from_rows([row[None] for row in noise]),
        np.ones(documents, np.int32),
        np.zeros(documents, np.bool_),
    )
    asked = Embeddings(
        truth[answer],
        SparseVectors.from_rows([{int(a): 1.0} for a in answer]),
        MultiVectors.from_rows([truth[a][None] for a in answer]),
        np.ones(queries, np.int32),
        np.zeros(queries, np.bool_),
    )
    ids = tuple(f"d{n:02}" for n in range(documents))
    texts = tuple(TextQuery(f"q{n:02}", "?") for n in range(queries))
    qrels = {f"q{n:02}": {ids[a]: 1} for n, a in enumerate(answer)}
    dataset = Dataset("planted", tmp_path, ids, texts, qrels, "x")
    return dataset, OfflineSearch(ids, EmbeddingStore.of([passages]), asked, DEFAULT, limit=10)


@pytest.mark.parametrize("mode", ["hybrid", "all"])
def test_finds_the_leg_that_knows(tmp_path, mode):
    """Where only the lexical leg knows, its weight rises and the held-out figure with it."""
    dataset, search = planted(tmp_path, good="sparse")
    found = tune.tune([tune.TuningSet(dataset, search)], mode, default=DEFAULT, depths=(20, 50))
    assert found.chosen.fusion.sparse > found.chosen.fusion.dense / 2
    assert found.after.mean > found.before.mean + 0.2
    assert found.gain.p_value < 0.01
    assert found.trials[0].mean >= found.trials[-1].mean


def test_what_was_tuned_on_is_not_reported_on(tmp_path):
    """The two parts share no query, cover all, and are drawn by the seed."""
    dataset, search = planted(tmp_path, good="sparse")
    found = tune.tune([tune.TuningSet(dataset, search)], "hybrid", default=DEFAULT, depths=(20,))
    assert not set(found.tuned_on) & set(found.held_out)
    assert len(found.tuned_on) + len(found.held_out) == 60
    assert tune.split(dataset, held_out=0.3, seed=0) != tune.split(dataset, held_out=0.3, seed=1)


@pytest.mark.parametrize("held_out", [0.0, 0.1, 0.9])
def test_refuses_to_report_on_what_it_tuned_on(tmp_path, held_out):
    """Without enough queries in both parts there is no report."""
    dataset, _ = planted(tmp_path, good="sparse")
    with pytest.raises(InputError, match="not reported on"):
        tune.split(dataset, held_out=held_out, seed=0)


def test_keeps_a_default_that_cannot_be_beaten(tmp_path):
    """Where the default is already perfect, nothing is chosen in its place."""
    dataset, search = planted(tmp_path, good="dense")
    found = tune.tune([tune.TuningSet(dataset, search)], "hybrid", default=DEFAULT, depths=(20,))
    assert found.before.mean == 1.0
    assert found.chosen == found.default


def test_a_choice_that_is_worse_on_unseen_queries_does_not_serve(tmp_path):
    """What is measured to lose is stored nowhere; what wins there, or is even, is."""
    dataset, search = planted(tmp_path, good="sparse")
    found = tune.tune([tune.TuningSet(dataset, search)], "hybrid", default=DEFAULT, depths=(20,))
    for mean, stays in ((-0.001, True), (0.0, False), (0.1, False)):
        difference = replace(found.gain.difference, mean=mean)
        measured = replace(found, gain=replace(found.gain, difference=difference))
        assert measured.default_stays is stays
        assert tune.notes(measured) == {"mode.hybrid": None if stays else found.chosen.to_json()}


def test_collections_count_alike(tmp_path):
    """The figures are means over the collections, however many queries each has."""
    small, large = (planted(tmp_path, n, good="sparse") for n in (40, 120))
    parts = [tune.TuningSet(*small), tune.TuningSet(*large)]
    together = tune.tune(parts, "hybrid", default=DEFAULT, depths=(20,))
    alone = [tune.tune([part], "hybrid", default=DEFAULT, depths=(20,)) for part in parts]
    expected = np.mean([found.before.mean for found in alone])
    assert together.before.mean == pytest.approx(expected)
    # Queries are resampled within each: where nothing varies in either, nothing does in the mean.
    assert (together.after.low, together.after.mean, together.after.high) == (1.0, 1.0, 1.0)
    means = [{trial.setting: trial.mean for trial in found.trials} for found in alone]
    for trial in together.trials:
        assert trial.mean == pytest.approx(np.mean([mean[trial.setting] for mean in means]))


def test_cross_validation_sees_through_luck():
    """Among settings that differ by noise only, the winner's advantage vanishes on unseen folds."""
    figures = np.random.default_rng(0).random((200, 60))
    assert figures.mean(axis=1).max() > 0.57
    assert tune.cross_validate(figures, folds=5, seed=0) == pytest.approx(0.5, abs=0.07)


def test_every_kind_of_setting_is_tried():
    """Weighted sums and reciprocal ranks, with and without multi-vectors, at every depth."""
    pair = [setting.fusion for setting in tune.settings("hybrid", [20])]
    assert {type(fusion) for fusion in pair} == {Weighted, Rrf}
    assert all(fusion.multivector == 0 for fusion in pair)
    both = tune.settings("all", [20, 50])
    assert {setting.depth for setting in both} == {20, 50}
    assert len(set(both)) == len(both)


class Kept(MemoryConnector):
    """Stays open, so that the test can look into it."""

    def close(self):
        """Do nothing."""


def test_the_choice_is_stored_in_the_collection(tmp_path, monkeypatch):
    """With a target the collection's defaults are the choice; a dry run stores nothing, no gain clears."""
    topics = [f"topic{n} alpha beta gamma delta word{n % 7}" for n in range(40)]
    rows: dict[str, list[dict[str, Any]]] = {
        "corpus.jsonl": [{"_id": f"d{n}", "text": text} for n, text in enumerate(topics)],
        "queries.jsonl": [{"_id": f"q{n}", "text": f"topic{n} alpha"} for n in range(40)],
        "qrels.jsonl": [{"qid": f"q{n}", "docid": f"d{n}", "score": 1} for n in range(40)],
    }
    for name, values in rows.items():
        (tmp_path / name).write_text("\n".join(map(json.dumps, values)))
    encoder = HashEncoder(width=2, max_length=7)  # too narrow to tell topics apart
    connector = Kept(collection="tiny")
    connector.ensure(CollectionSchema(2, True, 2, fingerprint=encoder.info.fingerprint))
    ids = [f"d{n}" for n in range(40)]
    connector.upsert(RecordBatch(ids, [{} for _ in ids], encoder.encode(topics)))
    monkeypatch.setattr(tune, "SPARSE_WEIGHTS", (0.3, 4.0))
    monkeypatch.setattr(tune, "RRF_K", (60.0,))
    app = typer.Typer()
    app.command()(expanded(tune_command))
    services = Services(lambda *_, **__: connector, lambda *_, **__: encoder)

    def run(*more):
        arguments = ["--dataset", str(tmp_path), "--live", "--json", *more]
        outcome = CliRunner().invoke(app, arguments, catch_exceptions=False, obj=services)
        assert "40 of 40 records are longer than the model reads and were cut" in outcome.stderr
        return json.loads(outcome.stdout)

    assert not run("--dry-run")["stored"]
    assert connector.describe().notes == {}
    found = run()
    assert found["stored"]
    assert found["after"]["mean"] > found["before"]["mean"]
    assert served_preset(encoder.info, connector.describe()).all.to_json() == found["chosen"]

    for kind in (AuthError, Unsupported, TransientError):

        def refuse(_notes, kind=kind):
            raise kind("no notes here", connector="memory", operation="annotate")

        with monkeypatch.context() as patch:
            patch.setattr(connector, "annotate", refuse)
            arguments = ["--dataset", str(tmp_path), "--live", "--json"]
            outcome = CliRunner().invoke(app, arguments, obj=services)
        assert type(outcome.exception) is kind
        assert "could not be stored" in str(outcome.exception), (
            "said after the result, not in its place"
        )
        assert json.loads(outcome.stdout) | {"stored": True} == found
    with pytest.raises(ConfigError, match="one --dataset with --live"):
        run("--dataset", "another")
    monkeypatch.setattr(tune, "settings", lambda *_: [])
    assert not run()["stored"]
    assert connector.describe().notes == {}
