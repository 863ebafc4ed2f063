"""Tables, JSON and files say what was measured, beside what the paper says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from m3connect.datasets.beir import TextQuery
from m3connect.errors import InputError, M3ConnectError
from m3connect.evaluation.measure import Result, Row
from m3connect.evaluation.reports import files, published, tables
from m3connect.evaluation.run import evaluate
from m3connect.testing.fakes import HashEncoder


def result(name="mldr-de", **rows):
    """A result whose rows have these figures in two languages."""
    queries = tuple(TextQuery(f"q{at}", "?", "de" if at % 2 else "fr") for at in range(8))
    made = tuple(Row(row, {"ndcg@10": np.array(values)}, 0.5) for row, values in rows.items())
    return Result(name, 100, queries, made)


GOOD = [0.9, 0.8, 0.9, 0.8, 0.9, 0.8, 0.9, 0.8]
BAD = [0.1] * 8
LIKE_GOOD = [0.8, 0.9, 0.9, 0.8, 0.9, 0.8, 0.8, 0.8]


def test_the_table_marks_the_best_and_what_equals_it():
    """The best row is bold, one that the test cannot tell from it has =, the paper stands below."""
    table = tables.figures([result(dense=BAD, sparse=LIKE_GOOD, all=GOOD)], "ndcg@10").markdown()
    assert table.splitlines() == [
        "| ndcg@10 | dense | sparse | all |",
        "|---|---|---|---|",
        "| mldr-de | 0.100 | 0.838 = | **0.850** |",
        "| *in the paper* | 0.461 | 0.530 | 0.579 |",
    ]


def test_the_mean_needs_every_dataset():
    """A row that one dataset lacks has no mean over all."""
    table = tables.figures(
        [result("a", dense=BAD, sparse=GOOD), result("b", dense=GOOD)], "ndcg@10"
    ).markdown()
    assert table.splitlines()[-1] == "| **mean** | **0.475** |  |"


def test_details_hold_intervals_comparisons_and_languages():
    """Every figure has an interval, every row its difference from the best."""
    found = tables.details(result(dense=BAD, all=GOOD))
    best = found["rows"]["all"]
    assert best["metrics"]["ndcg@10"]["low"] < 0.85 < best["metrics"]["ndcg@10"]["high"]
    assert best["languages"]["de"] == {"ndcg@10": pytest.approx(0.8)}
    (pair,) = found["comparisons"]
    assert (pair["row"], pair["minus"], pair["metric"]) == ("dense", "all", "ndcg@10")
    assert pair["difference"] == pytest.approx(-0.75)
    assert pair["p_value"] < 0.05
    assert found["published"]["all"] == {"ndcg@10": 0.579}
    json.dumps(found)


def test_languages_are_a_table_of_their_own():
    """Means by language and row, empty for one language."""
    both = result(all=GOOD)
    assert tables.by_language(both, "ndcg@10") == {
        "de": {"all": pytest.approx(0.8)},
        "fr": {"all": pytest.approx(0.9)},
    }
    one = replace(both, queries=tuple(replace(query, language="de") for query in both.queries))
    assert tables.by_language(one, "ndcg@10") == {}


def test_files_can_be_read_back(dataset, tmp_path):
    """Results, each query's figures and TREC runs land in the folder and agree with the summary."""
    record = files.RunFiles(tmp_path / "runs", dataset.name)
    for _ in range(2):  # a second run replaces the first
        found = evaluate(dataset, HashEncoder(), modes=("dense",), record=record)
        record = files.RunFiles(tmp_path / "runs", dataset.name)
    files.write([found], tmp_path)
    summary = tables.summary([found])["tiny"]["dense"]
    stored = json.loads((tmp_path / "results.json").read_text())[0]
    assert stored["rows"]["dense"]["metrics"]["ndcg@10"]["mean"] == summary["ndcg@10"]
    assert stored["settings"]["model"]["weights"] == HashEncoder().info.fingerprint.weights
    lines = [
        json.loads(line) for line in (tmp_path / "tiny.queries.jsonl").read_text().splitlines()
    ]
    assert np.mean([line["rows"]["dense"]["ndcg@10"] for line in lines]) == summary["ndcg@10"]
    run = [
        line.split("\t")
        for line in (tmp_path / "runs" / "tiny.dense.trec").read_text().splitlines()
    ]
    assert len(run) == 12 * 36
    assert run[0][0] == "q00"
    assert run[0][3] == "1"
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "results.md").read_text().startswith("| ndcg@10 | dense |")
    assert json.loads((tmp_path / "summary.json").read_text()) == tables.summary([found])
    again = files.read(tmp_path)
    assert tables.figures(again, "ndcg@10") == tables.figures([found], "ndcg@10")
    assert tables.details(again[0]) == tables.details(found)


def test_a_full_disk_leaves_the_results_that_were_there(tmp_path, little_room):
    """Half of a file is no result."""
    (tmp_path / "results.json").write_text("earlier")
    little_room(100)
    with pytest.raises(M3ConnectError, match=r"results\.json could not be written"):
        files.write([result(dense=[0.5] * 9)], tmp_path)
    assert (tmp_path / "results.json").read_text() == "earlier"


def test_a_folder_without_results_is_refused(dataset, tmp_path):
    """What is missing is named."""
    with pytest.raises(InputError, match="take a folder that eval"):
        files.read(tmp_path)
    files.write([evaluate(dataset, HashEncoder(), modes=("dense",))], tmp_path)
    (tmp_path / "tiny.queries.jsonl").unlink()
    with pytest.raises(InputError, match=r"tiny.queries.jsonl is missing"):
        files.read(tmp_path)


def test_files_of_two_evaluations_are_no_result(tmp_path):
    """Nor is one that was cut off: its figures are another mean's."""
    files.write([result(dense=[0.5] * 8 + [1.0])], tmp_path)
    (path,) = tmp_path.glob("*.queries.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(
        InputError, match=r"queries\.jsonl and results\.json are not of one evaluation"
    ):
        files.read(tmp_path)


@pytest.mark.parametrize("benchmark", published.BENCHMARKS)
def test_the_papers_averages_are_those_of_its_languages(benchmark):
    """The shipped tables are whole: each row's average is the mean of its languages."""
    for row, values in published.read(benchmark)["rows"].items():
        languages = [value for language, value in values.items() if language != "avg"]
        if len(languages) > 1:
            assert np.mean(languages) == pytest.approx(values["avg"], abs=0.13), row


def test_other_datasets_have_no_published_figures():
    """Only the paper's benchmarks and languages are in the tables."""
    assert published.figures("scifact") == {}
    assert published.figures("miracl-xx") == {}


def test_the_summary_ends_with_the_mean_over_datasets():
    """Several datasets have a mean of the rows that all have; one dataset has none."""
    pair = [result("a", dense=BAD, sparse=GOOD), result("b", dense=GOOD)]
    assert tables.summary(pair)["mean"] == {"dense": {"ndcg@10": pytest.approx(0.475)}}
    assert list(tables.summary(pair)) == ["a", "b", "mean"]
    assert list(tables.summary(pair[:1])) == ["a"]
