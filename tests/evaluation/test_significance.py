"""Intervals and tests: known answers, seeded, and honest about no difference."""

import numpy as np
import pytest

from m3connect.evaluation import significance
from m3connect.evaluation.significance import Interval, compare, compare_means, interval


def test_an_interval_is_near_the_normal_one():
    """For many values the bootstrap agrees with the mean plus or minus 1.96 standard errors."""
    values = np.random.default_rng(0).random(400)
    found = interval(values)
    error = 1.96 * values.std() / 20
    assert found.mean == values.mean()
    assert found.low == pytest.approx(values.mean() - error, abs=0.003)
    assert found.high == pytest.approx(values.mean() + error, abs=0.003)
    assert found == interval(values)
    assert found != interval(values, seed=1)


@pytest.mark.parametrize("values", [[0.5], [0.25] * 9])
def test_an_interval_of_equal_values_is_a_point(values):
    """One value, or all the same, leaves nothing to resample."""
    assert interval(np.array(values)) == Interval(values[0], values[0], values[0])


def test_the_test_is_exact_with_few_queries():
    """Five differences of one sign: 2 of the 32 sign flips are as extreme."""
    better = np.array([0.9, 0.8, 0.7, 0.9, 0.8])
    worse = np.array([0.5, 0.5, 0.5, 0.4, 0.4])
    found = compare(better, worse)
    assert found.p_value == pytest.approx(2 / 32)
    assert found.difference.mean == pytest.approx(0.36)
    assert compare(worse, better).difference.mean == pytest.approx(-0.36)


def test_noise_is_not_significant_and_a_shift_is():
    """Two draws from one distribution differ by chance; a shift of half a deviation does not."""
    rng = np.random.default_rng(1)
    first, second = rng.random(300), rng.random(300)
    assert compare(first, second).p_value > 0.05
    assert compare(first + 0.15, second).p_value < 0.001


def test_equal_rows_do_not_differ():
    """The same figures twice: no difference, p is 1."""
    values = np.array([0.1, 0.9])
    assert compare(values, values).p_value == 1.0


def test_the_two_tests_agree_where_one_takes_over(monkeypatch):
    """For many queries Student's test gives the randomisation test's answer."""
    rng = np.random.default_rng(3)
    first, second = rng.random(600), rng.random(600) - 0.04
    students = compare(first, second).p_value
    monkeypatch.setattr(significance, "MANY", 1000)
    assert compare(first, second).p_value == pytest.approx(students, abs=0.015)


def test_one_dataset_is_the_plain_comparison():
    """The mean over one dataset is compared as that dataset is."""
    rng = np.random.default_rng(4)
    first, second = rng.random(50), rng.random(50)
    assert compare_means([first], [second]) == compare(first, second)


def test_the_mean_over_datasets_is_as_sure_as_its_queries():
    """Datasets of one size and kind, compared in the mean, agree with all their queries at once."""
    rng = np.random.default_rng(5)
    first, second = rng.random((4, 150)), rng.random((4, 150)) - 0.03
    parts, whole = compare_means([*first], [*second]), compare(first.ravel(), second.ravel())
    assert parts.p_value == pytest.approx(whole.p_value, abs=0.01)
    assert 0.001 < parts.p_value < 0.5
    assert parts.difference.mean == pytest.approx(whole.difference.mean)
    assert parts.difference.low == pytest.approx(whole.difference.low, abs=0.004)
    assert parts.difference.high == pytest.approx(whole.difference.high, abs=0.004)


def test_a_small_dataset_makes_the_mean_unsure():
    """Every dataset counts the same, so four queries with a large spread widen the interval."""
    rng = np.random.default_rng(6)
    base = rng.random(2000)
    large, small = base + rng.normal(0.05, 0.01, 2000), np.array([-0.9, 0.9, -0.8, 0.8])
    alone = compare(large, base).difference
    both = compare_means([large, small], [base, np.zeros(4)])
    assert alone.high - alone.low < 0.001
    assert both.difference.mean == pytest.approx(0.025, abs=0.001)
    assert both.difference.low < -0.3
    assert both.p_value > 0.5


def test_one_query_adds_to_the_mean_and_not_to_its_spread():
    """A dataset of one query, or of equal differences, cannot be resampled."""
    values = np.random.default_rng(7).random(40)
    found = compare_means([values, np.ones(1)], [values / 2, np.zeros(1)]).difference
    assert found.mean == pytest.approx((values.mean() / 2 + 1) / 2)
    assert 0 < found.high - found.low < 0.2
    flat = compare_means([np.ones(3), np.ones(1)], [np.zeros(3), np.zeros(1)])
    assert flat.difference == Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("differences", "chance"),
    [
        ([[0.5], [0.5]], 2 / 4),
        ([[0.5] * 2, [0.5] * 2], 2 / 16),
        ([[1.0], [0.1] * 4], 2 / 32),
    ],
)
def test_few_queries_of_several_datasets_are_tested_exactly(differences, chance):
    """Every way to flip the signs is counted, with each dataset counting the same."""
    first = [np.array(each) for each in differences]
    found = compare_means(first, [np.zeros(len(each)) for each in first])
    assert found.p_value == pytest.approx(chance)


def test_equal_differences_of_many_queries_are_tested():
    """They have no standard error: signs are flipped."""
    found = compare(np.ones(501), np.zeros(501))
    assert found.p_value == pytest.approx(2 / 5001)


def test_one_query_proves_nothing():
    """A language of a single query has a difference, and no chance of being sure of it."""
    found = compare(np.array([1.0]), np.array([0.2]))
    assert found.difference.mean == pytest.approx(0.8)
    assert found.p_value == 1.0
