"""Hard negatives: never a positive, never too near one, the same for the same seed."""

import json
from collections.abc import Mapping
from dataclasses import replace
from unittest.mock import Mock

import pytest
import typer
from typer.testing import CliRunner

from m3connect.cli.groups import expanded
from m3connect.cli.mine import mine as mine_command
from m3connect.cli.running import Services
from m3connect.connecting.registry import connect
from m3connect.contract import CollectionSchema
from m3connect.datasets.beir import Dataset, TextQuery
from m3connect.errors import ConfigError
from m3connect.evaluation import run
from m3connect.evaluation.offline import OfflineSearch
from m3connect.searching import modes
from m3connect.searching.names import MODES
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.training_data import mining
from m3connect.training_data.miner import mine_to_file
from m3connect.training_data.mining import Mined, Rules, Tally, mine
from m3connect.training_data.report import Report
from m3connect.types import Leg, RecordBatch

TEXTS = {
    "pos": "the answer",
    "same": "The  ANSWER",
    "query": "a question",
    "near": "nearly the answer",
    "n1": "something else",
    "n2": "Something else",
    "n3": "another thing",
    "n4": "a third thing",
}
FOUND = {
    "near": 0.99,
    "pos": 0.9,
    "same": 0.85,
    "query": 0.84,
    "n1": 0.8,
    "n2": 0.7,
    "n3": 0.6,
    "n4": 0.5,
}


class Fixed:
    """Gives the same candidates to every query."""

    weights: Mapping[Leg, float] = {"dense": 1.0}

    def __init__(self, queries=1):
        self.queries = queries

    def answers(self):
        return iter([FOUND] * self.queries)

    def score(self, row, ids):
        return {id_: FOUND[id_] for id_ in ids}


def collection(tmp_path, queries=1, qrels=None):
    asked = tuple(TextQuery(f"q{n}", "A question") for n in range(queries))
    judged = {query.id: qrels or {"pos": 1, "n4": 0} for query in asked}
    return Dataset("x", tmp_path, tuple(TEXTS), asked, judged, "x")


ANY = Rules(first=1, pick="best", max_share=None)


def negatives(tmp_path, rules):
    tally = Tally()
    (mined,) = mine(collection(tmp_path), TEXTS, Fixed(), rules, tally)
    return list(mined.negatives), tally


def test_no_positive_and_no_equal_text_is_a_negative(tmp_path):
    """Positives, their copies, the query's copy and copies of negatives are dropped and counted."""
    found, tally = negatives(tmp_path, ANY)
    assert found == ["near", "n1", "n3", "n4"]
    assert tally.dropped == {
        "positive": 1,
        "same text as the query, a positive or another negative": 3,
    }


def test_the_positives_of_a_query_asked_twice_are_negatives_of_neither(tmp_path):
    """Nor are their copies, even where the other's judgement says 0, or where only one of them was drawn."""
    asked = (TextQuery("q0", "A question"), TextQuery("q1", "a  QUESTION"))
    judged = {"q0": {"pos": 1, "n1": 0}, "q1": {"n1": 1}}
    twice = Dataset("x", tmp_path, tuple(TEXTS), asked, judged, "x")
    first, second = mine(twice, TEXTS, Fixed(2), ANY, Tally())
    assert list(first.positives) == ["pos"]
    assert list(first.negatives) == list(second.negatives) == ["near", "n3", "n4"]
    drawn = twice.sample(1)
    (only,) = mine(drawn, TEXTS, Fixed(), ANY, Tally(), sample_of=twice)
    assert list(only.negatives) == ["near", "n3", "n4"]


def test_what_a_collection_holds_beyond_the_dataset_is_no_negative(tmp_path):
    """Its text is not known: it is dropped and counted."""
    tally = Tally()
    texts = {id_: text for id_, text in TEXTS.items() if id_ not in {"near", "n3"}}
    (mined,) = mine(collection(tmp_path), texts, Fixed(), ANY, tally)
    assert list(mined.negatives) == ["n1", "n4"]
    assert tally.dropped["not among the dataset's documents"] == 2


def test_a_folder_is_refused_before_anything_is_encoded(dataset, tmp_path):
    """It keeps what it holds."""
    with pytest.raises(ConfigError, match="is a folder"):
        mine_to_file(dataset, Mock(), tmp_path)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (replace(ANY, max_score=0.75), ["n2", "n3", "n4"]),
        (replace(ANY, max_share=0.8), ["n2", "n3", "n4"]),
        (replace(ANY, margin=0.25), ["n3", "n4"]),
        (replace(ANY, first=5, last=7), ["n1", "n3"]),
        (replace(ANY, negatives=1), ["near"]),
    ],
)
def test_thresholds_and_ranks(tmp_path, rules, kept):
    """Absolute, share of the positive (0.9), margin below it, ranks, and number."""
    assert negatives(tmp_path, rules)[0] == kept


def test_a_share_of_a_negative_score_is_still_below_it():
    """The bound lies below the positive's score whatever its sign."""
    assert Rules(max_share=0.9).highest(-0.5) == pytest.approx(-0.55)
    assert Rules(max_share=None).highest(0.5) == float("inf")


def test_draws_are_seeded_by_query(tmp_path):
    """The same seed draws the same for a query, alone or among others; another seed differs."""
    rules = replace(ANY, negatives=2, pick="random")
    many = list(mine(collection(tmp_path, 20), TEXTS, Fixed(20), rules, Tally()))
    (alone,) = mine(collection(tmp_path), TEXTS, Fixed(), rules, Tally())
    assert many[0] == alone
    assert len({tuple(each.negatives) for each in many}) > 1
    other = list(mine(collection(tmp_path, 20), TEXTS, Fixed(20), replace(rules, seed=1), Tally()))
    assert many != other


def test_queries_without_negatives_are_counted(tmp_path):
    """A query with no positive or no allowed negative is left out, never filled up at random."""
    tally = Tally()
    assert not list(mine(collection(tmp_path), TEXTS, Fixed(), Rules(first=90, last=99), tally))
    assert not list(mine(collection(tmp_path, qrels={"n4": 0}), TEXTS, Fixed(), ANY, tally))
    assert (tally.queries, tally.left_out) == (0, 2)


@pytest.mark.parametrize("bad", [{"negatives": 0}, {"first": 0}, {"first": 9, "last": 8}])
def test_senseless_rules_are_refused(bad):
    """Ranks start at 1, in order, and there is at least one negative."""
    with pytest.raises(ConfigError, match="ranks"):
        Rules(**bad)


def test_a_percentile_is_one():
    """It lies between 0 and 100."""
    with pytest.raises(ConfigError, match="between 0 and 100, got 101"):
        Rules(percentile=101)


@pytest.mark.parametrize("mode", MODES)
def test_live_and_offline_sources_agree(dataset, tmp_path, mode):
    """Candidates and scores are the same through a database and by exact search."""
    encoder = HashEncoder()
    legs = modes.needed([mode])
    store, queries = run.encode(dataset, encoder, legs, tmp_path)
    preset = modes.for_database(modes.preset_for(encoder.info), 50)
    search = OfflineSearch(dataset.ids, store, queries, preset, limit=30)
    texts = {document.id: document.text for document in dataset.documents()}
    with MemoryConnector(collection="tiny") as connector:
        connector.ensure(CollectionSchema(16, True, 16))
        ids = list(texts)
        connector.upsert(RecordBatch(ids, [{} for _ in ids], encoder.encode(list(texts.values()))))
        live = mining.LiveSource(connector, encoder, queries, texts, mode, preset, limit=30)
        offline = mining.OfflineSource(search, mode)
        for row, (here, there) in enumerate(zip(live.answers(), offline.answers(), strict=True)):
            assert list(here) == list(there)
            assert here == pytest.approx(there, abs=1e-4)
            some = list(there)[:4]
            expected = {id_: there[id_] for id_ in some}
            assert offline.score(row, some) == pytest.approx(expected, abs=1e-5)
            assert live.score(row, some) == pytest.approx(expected, abs=1e-4)


def test_the_percentile_is_of_all_positives(tmp_path):
    """Positives score 0.9, 0.7 and 0.5 over the dataset: none above the median is taken."""
    asked = tuple(TextQuery(f"q{n}", f"Question {n}") for n in range(3))
    judged = {"q0": {"pos": 1}, "q1": {"n2": 1}, "q2": {"n4": 1}}
    three = Dataset("x", tmp_path, tuple(TEXTS), asked, judged, "x")
    tally = Tally()
    first, *_ = mine(three, TEXTS, Fixed(3), replace(ANY, percentile=50), tally)
    assert tally.max_score == pytest.approx(0.7)
    assert list(first.negatives) == ["n2", "n3", "n4"]
    first, *_ = mine(three, TEXTS, Fixed(3), replace(ANY, percentile=50, max_score=0.6), Tally())
    assert list(first.negatives) == ["n3", "n4"]
    assert "by the percentile | 0.700 |" in Report(tally, TEXTS).markdown()


def test_rank_fusion_is_bounded_by_ranks(dataset, tmp_path):
    """Fused ranks give the candidates and their order; a positive beyond them has no score."""
    encoder = HashEncoder()
    preset = modes.with_fusion(modes.for_database(modes.MIRACL, 50), kind="rrf")
    store, queries = run.encode(dataset, encoder, ("dense", "sparse"), tmp_path)
    search = OfflineSearch(dataset.ids, store, queries, preset, limit=8)
    texts = {document.id: document.text for document in dataset.documents()}
    source = mining.OfflineSource(search, "hybrid")
    rules = Rules(first=3, last=8, negatives=8, max_share=None)
    ranked = dict(zip(dataset.queries, source.answers(), strict=True))
    for mined, (query, answer) in zip(
        mine(dataset, texts, source, rules, Tally()), ranked.items(), strict=True
    ):
        allowed = [id_ for id_ in list(answer)[2:] if dataset.qrels[query.id].get(id_, 0) < 1]
        assert list(mined.negatives) == allowed
        assert mined.positives == {id_: answer.get(id_, 0.0) for id_ in mined.positives}


@pytest.mark.parametrize(
    "bound", [{"max_score": 0.5}, {"max_share": 1.0}, {"margin": 0.1}, {"percentile": 5}]
)
def test_rank_fusion_has_no_scores_to_compare(bound):
    """Every threshold needs scores, so with reciprocal rank fusion it is refused."""
    by_leg = mining.weights("all", modes.with_fusion(modes.MIRACL, kind="rrf"))
    with pytest.raises(ConfigError, match="bound its ranks"):
        mining.check(replace(Rules(max_share=None), **bound), by_leg)
    with pytest.raises(ConfigError, match="no scores of single documents"):
        mining.combined(None, ["d"], None, by_leg)


@pytest.fixture
def command(folder, tmp_path):
    """Run the command on the small collection; returns its lines and its report."""
    with (folder / "queries.jsonl").open("a") as queries:
        queries.write('\n{"_id": "x", "text": "never judged"}\n')
    app = typer.Typer()
    app.command()(expanded(mine_command))
    services = Services(connect, lambda *_, **__: HashEncoder())

    def call(*more):
        out, report = tmp_path / "train.jsonl", tmp_path / "report.md"
        arguments = ["--dataset", folder, "--output", out, "--report", report]
        arguments += ["--first", 1, "--last", 30, "--cache", tmp_path / "cache", *more]
        outcome = CliRunner().invoke(
            app, list(map(str, arguments)), catch_exceptions=False, obj=services
        )
        assert outcome.exit_code == 0
        assert "1 queries without judgements left out" in outcome.stderr
        return [json.loads(line) for line in out.read_text().splitlines()], report.read_text()

    return call


def test_the_command_writes_training_data_and_a_report(command, tmp_path):
    """Lines have query, pos and neg as texts; the report has counts, quantiles and samples."""
    lines, report = command("--negatives", 4, "--mode", "all")
    assert len(lines) == 12
    for line in lines:
        assert set(line) == {"query", "pos", "neg"}
        assert len(line["pos"]) == 2
        assert 1 <= len(line["neg"]) <= 4
        assert not set(line["pos"]) & set(line["neg"])
    assert "| queries with negatives | 12 |" in report
    assert f"| {lines[0]['query']} | + |" in report
    assert not list(tmp_path.glob("*.part"))


def test_the_command_fuses_ranks(command):
    """Ranks alone bound the negatives; a threshold beside them is an error before encoding."""
    lines, _ = command("--mode", "hybrid", "--fusion", "rrf", "--negatives", 28)
    assert {len(line["neg"]) for line in lines} == {28}
    with pytest.raises(ConfigError, match="no scores that a threshold could compare"):
        command("--mode", "all", "--fusion", "rrf", "--max-share", 0.9)


def test_an_empty_report_can_be_written():
    """Mining nothing still gives a report, in both forms."""
    report = Report(Tally(), {})
    assert "| positives | nan |" in report.markdown()
    assert "<h1>Mined negatives</h1>" in report.page()


def test_a_report_in_place_of_a_folder_is_refused(tmp_path):
    """By name, as hours of mining end with it."""
    with pytest.raises(ConfigError, match="is a folder"):
        Report(Tally(), {}).write(tmp_path)


def test_cut_texts_are_reported(dataset, tmp_path):
    """What was searched without its end may answer there: the report says how much that is."""
    report = mine_to_file(dataset, HashEncoder(max_length=6), tmp_path / "out.jsonl")
    told = "36 of 36 documents are longer than the model reads and were cut"
    assert report.to_json()["warnings"] == [told]
    assert f"| {told} |" in report.markdown()


def test_half_a_surrogate_pair_harms_no_report(tmp_path):
    """UTF-8 cannot hold it, and hours of mining end with the report."""
    shown = Mined("q", "half a pair: \ud83d", {"d": 1.0}, {})
    Report(Tally(), {"d": "\ud83d"}, samples=[shown]).write(tmp_path / "report.md")
    assert "half a pair: \\ud83d" in (tmp_path / "report.md").read_text()
