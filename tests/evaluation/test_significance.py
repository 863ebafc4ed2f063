"""Intervals and tests: known answers, seeded, and honest about no difference."""

import numpy as np
import pytest

from m3connect.evaluation import significance
from m3connect.evaluation.significance import Interval, compare, interval


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
