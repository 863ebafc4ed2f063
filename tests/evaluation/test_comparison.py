"""Two evaluations are compared query by query, by dataset, by language and in the mean."""

from dataclasses import replace

import numpy as np
import pytest

from m3connect.datasets.beir import TextQuery
from m3connect.errors import InputError
from m3connect.evaluation.measure import Result, Row
from m3connect.evaluation.reports import comparison
from m3connect.evaluation.significance import compare

METRIC = "ndcg@10"


def result(name, languages="de fr", **rows):
    """A result whose rows have these figures; its queries take the languages in turn."""
    size = len(next(iter(rows.values())))
    held = languages.split()
    queries = tuple(TextQuery(f"q{at}", "?", held[at % len(held)]) for at in range(size))
    made = tuple(Row(row, {METRIC: np.array(values)}, 0.5) for row, values in rows.items())
    return Result(name, 100, queries, made)


BASE = [
    result("mixed", dense=[0.1, 0.5] * 4, all=[0.5] * 8),
    result("german", "de", dense=[0.2] * 4, all=[0.6] * 4),
]
NEW = [
    result("mixed", dense=[0.3, 0.5] * 4, all=[0.5] * 8, bm25=[0.4] * 8),
    result("german", "de", dense=[0.6] * 4, all=[0.5] * 4, bm25=[0.2] * 4),
]


def test_every_row_is_compared_on_the_same_queries():
    """Means, difference, interval and p-value are those of the paired test on that dataset."""
    cell = comparison.compare(BASE, NEW, METRIC).datasets["mixed"]["dense"]
    new, base = np.array([0.3, 0.5] * 4), np.array([0.1, 0.5] * 4)
    assert (cell.queries, cell.mean, cell.base) == (8, new.mean(), base.mean())
    assert cell.gain == compare(new, base)
    assert cell.gain.difference.mean == pytest.approx(0.1)


def test_datasets_count_the_same_in_the_mean():
    """Eight queries of one dataset weigh as much as four of another."""
    mean = comparison.compare(BASE, NEW, METRIC).datasets["mean"]
    assert mean["dense"].base == pytest.approx((0.3 + 0.2) / 2)
    assert mean["dense"].mean == pytest.approx((0.4 + 0.6) / 2)
    assert mean["dense"].gain.difference.mean == pytest.approx((0.1 + 0.4) / 2)
    assert mean["dense"].queries == 12


def test_languages_are_those_of_the_queries():
    """A dataset with several has a table; over all, a language's datasets count the same."""
    languages = comparison.compare(BASE, NEW, METRIC).languages
    assert list(languages) == ["mean", "mixed"]
    assert languages["mixed"]["de"]["dense"].gain.difference.mean == pytest.approx(0.2)
    assert languages["mixed"]["fr"]["dense"].gain.difference.mean == 0
    assert languages["mean"]["de"]["dense"].gain.difference.mean == pytest.approx((0.2 + 0.4) / 2)
    assert languages["mean"]["fr"]["dense"] == languages["mixed"]["fr"]["dense"]


def test_the_short_table_fits_a_model_card():
    """One line a dataset, the new mean with what it gained; what only the new one has stands bare."""
    table = comparison.short(comparison.compare(BASE, NEW, METRIC))[0].markdown()
    assert table.splitlines() == [
        "| ndcg@10 | dense | all | bm25 |",
        "|---|---|---|---|",
        "| mixed | 0.400 (+0.100 =) | 0.500 (+0.000 =) | 0.400 |",
        "| german | 0.600 (+0.400 =) | 0.500 (-0.100 =) | 0.200 |",
        "| **mean** | 0.500 (+0.250) | 0.500 (-0.050 =) | 0.300 |",
    ]


def test_the_long_table_has_intervals():
    """One line a cell, with both means, the difference, its interval and p-value."""
    (table, *_) = comparison.long(comparison.compare(BASE, NEW, METRIC))
    lines = table.markdown().splitlines()
    assert "| mixed | all | 8 | 0.500 | 0.500 | +0.000 | +0.000 to +0.000 | 1.000 |" in lines
    assert "| mixed | bm25 | 8 |  | 0.400 |  |  |  |" in lines
    assert "| german | dense | 4 | 0.200 | 0.600 | +0.400 | +0.400 to +0.400 | 0.125 |" in lines


def test_rows_of_several_evaluations_stand_together():
    """Baselines from one folder, modes from another; a row that both have is an error."""
    lexical = result("mixed", bm25=[0.4] * 8)
    (joined, _) = comparison.join([BASE, [lexical]])
    assert [row.name for row in joined.rows] == ["dense", "all", "bm25"]
    with pytest.raises(InputError, match=r"mixed: two of the folders measured \['all', 'dense'\]"):
        comparison.join([BASE, BASE])
    (chosen, _) = comparison.only(BASE, ["all"])
    assert [row.name for row in chosen.rows] == ["all"]
    with pytest.raises(InputError, match="nothing was measured for"):
        comparison.only(BASE, ["bm26"])


def test_what_cannot_be_compared_is_refused():
    """Other datasets, other queries, another metric."""
    with pytest.raises(InputError, match="no dataset in common"):
        comparison.compare(BASE, [replace(NEW[0], dataset="other")], METRIC)
    fewer = replace(NEW[0], queries=NEW[0].queries[:5])
    with pytest.raises(InputError, match="8 and 5 queries, 5 in common"):
        comparison.compare(BASE, [fewer], METRIC)
    with pytest.raises(InputError, match="'mrr@10' was not measured"):
        comparison.compare(BASE, NEW, "mrr@10")
