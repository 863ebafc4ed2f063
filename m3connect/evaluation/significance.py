"""How sure a figure is: bootstrap intervals and a paired randomisation test, over queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 5000
MANY = 500
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row minus another, query by query.

    Args:
        difference: mean and its 95 % interval.
        p_value: chance of such a difference, either way, if the rows were the same system.
    """

    difference: Interval
    p_value: float


def interval(values: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """The percentile bootstrap of a mean.

    >>> interval(np.array([0.0, 1.0] * 50))
    Interval(mean=0.5, low=0.4, high=0.6)
    """
    from scipy.stats import bootstrap

    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    bounds = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(bounds.low), float(bounds.high))


def compare(
    first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int = 0
) -> Comparison:
    """Whether ``first`` is better than ``second`` on the same queries.

    The randomisation test flips the signs of the differences, every way there is when there are few
    queries. Beyond ``MANY`` queries it is Student's paired test, which then agrees with it and takes
    no time (Smucker, Allan and Carterette, CIKM 2007, compare them for retrieval).

    Args:
        first, second: ``float64 [Q]``, one figure a query, in the same order.
        seed: of the resampling.
    """
    differences = first - second
    if not differences.any():
        return Comparison(Interval(0.0, 0.0, 0.0), 1.0)
    if len(differences) == 1:  # either sign is as far from zero as the other
        return Comparison(interval(differences), 1.0)
    test = _students if len(differences) > MANY else _randomised
    return Comparison(interval(differences, seed=seed), test(differences, seed))


def compare_means(
    first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]], *, seed: int = 0
) -> Comparison:
    """Whether ``first`` is better than ``second`` in the mean over several datasets.

    Every dataset counts the same, however many queries it has. The datasets are taken as given:
    queries are resampled within each, and the test is the normal one with the standard error of the
    mean of their means. One dataset is :func:`compare`.

    Args:
        first, second: for each dataset ``float64 [Q]``, one figure a query, in the same order.
        seed: of the resampling.
    """
    if len(first) == 1:
        return compare(first[0], second[0], seed=seed)
    differences = [score - other for score, other in zip(first, second, strict=True)]
    mean = float(np.mean([each.mean() for each in differences]))
    # A dataset of one query, or of equal differences, has no spread to resample.
    varied = [each for each in differences if np.ptp(each) > 0]
    if not varied:
        return Comparison(Interval(mean, mean, mean), 1.0 if mean == 0 else 0.0)
    return Comparison(
        _stratified(mean, varied, len(differences), seed), _normal(mean, varied, len(differences))
    )


def _stratified(
    mean: float, varied: Sequence[NDArray[np.float64]], datasets: int, seed: int
) -> Interval:
    """The percentile bootstrap of a mean of means, each dataset resampled by itself."""
    from scipy.stats import bootstrap

    still = mean - sum(float(each.mean()) for each in varied) / datasets

    def mean_of_means(*samples: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        total: NDArray[np.float64] = sum(sample.mean(axis=axis) for sample in samples)
        return still + total / datasets

    bounds = bootstrap(
        tuple(varied),
        mean_of_means,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(bounds.low), float(bounds.high))


def _normal(mean: float, varied: Sequence[NDArray[np.float64]], datasets: int) -> float:
    from scipy.stats import norm

    error = np.sqrt(sum(each.var(ddof=1) / len(each) for each in varied)) / datasets
    return float(2 * norm.sf(abs(mean) / error))


def _randomised(differences: NDArray[np.float64], seed: int) -> float:
    from scipy.stats import permutation_test

    test = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def _students(differences: NDArray[np.float64], seed: int) -> float:
    from scipy.stats import ttest_1samp

    del seed
    return float(ttest_1samp(differences, 0.0).pvalue)
