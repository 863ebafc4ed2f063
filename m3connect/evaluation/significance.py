"""How sure a figure is: bootstrap intervals and a paired randomisation test, over queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 5000
MANY = 500
_FEW = 30
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


def interval_of_means(values: Sequence[NDArray[np.float64]], *, seed: int = 0) -> Interval:
    """The percentile bootstrap of the mean of several datasets' means.

    Queries are resampled within each dataset; one of a single query, or of equal values, stays as it is.

    Args:
        values: for each dataset ``float64 [Q]``, one figure a query.
        seed: of the resampling.
    """
    if len(values) == 1:
        return interval(values[0], seed=seed)
    mean = float(np.mean([each.mean() for each in values]))
    varied = [each for each in values if np.ptp(each) > 0]
    if not varied:
        return Interval(mean, mean, mean)
    return _stratified(mean, varied, len(values), seed)


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
    spread = np.ptp(differences) > 0
    test = _students if len(differences) > MANY and spread else _randomised
    return Comparison(interval(differences, seed=seed), test(differences, seed))


def compare_means(
    first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]], *, seed: int = 0
) -> Comparison:
    """Whether ``first`` is better than ``second`` in the mean over several datasets.

    Every dataset counts the same, however many queries it has. The datasets are taken as given:
    queries are resampled within each. The test flips the signs of the differences, each weighted as it
    counts; of more than ``MANY`` queries it is the normal one with the standard error of the mean of
    their means, which a dataset of few queries or of equal differences has not. One dataset is
    :func:`compare`.

    Args:
        first, second: for each dataset ``float64 [Q]``, one figure a query, in the same order.
        seed: of the resampling.
    """
    if len(first) == 1:
        return compare(first[0], second[0], seed=seed)
    differences = [score - other for score, other in zip(first, second, strict=True)]
    weighted = np.concatenate([each / len(each) for each in differences])
    found = interval_of_means(differences, seed=seed)
    if not weighted.any():
        return Comparison(found, 1.0)
    unsure = any(len(each) < _FEW or np.ptp(each) == 0 for each in differences)
    if unsure or len(weighted) <= MANY:
        return Comparison(found, _randomised(weighted, seed))
    return Comparison(found, _normal(differences))


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


def _normal(differences: Sequence[NDArray[np.float64]]) -> float:
    from scipy.stats import norm

    total = abs(sum(float(each.mean()) for each in differences))
    error = np.sqrt(sum(each.var(ddof=1) / len(each) for each in differences))
    return float(2 * norm.sf(total / error))


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
