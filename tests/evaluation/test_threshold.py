"""The score that tells queries with an answer from those without."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.evaluation.threshold import Calibration

SCORES = st.lists(st.integers(0, 9), max_size=4)


def calibrated(asked):
    """What rankings give: pairs of the scores of relevant documents and of others."""
    qrels = {
        str(row): {f"r{n}": 1 for n in range(len(relevant))} | {"judged": 0}
        for row, (relevant, _) in enumerate(asked)
    }
    calibration = Calibration(qrels)
    for row, (relevant, others) in enumerate(asked):
        answer = {f"r{n}": float(score) for n, score in enumerate(relevant)}
        calibration.note(str(row), answer | {f"o{n}": float(s) for n, s in enumerate(others)})
    return calibration.threshold()


@given(st.lists(st.tuples(SCORES, SCORES), max_size=6))
def test_no_other_score_tells_them_better(asked):
    """Every score between two observed ones, tried one by one."""
    held = [max(relevant + others) for relevant, others in asked if relevant]
    lacking = [max(others, default=-np.inf) for relevant, others in asked if others or not relevant]
    scores = sorted({score for score in held + lacking if np.isfinite(score)})
    found = calibrated(asked)
    if not held or not lacking or len(scores) < 2:
        assert found is None
        return
    tried = {
        (low + high) / 2: (
            sum(score >= (low + high) / 2 for score in held) / len(held),
            sum(score < (low + high) / 2 for score in lacking) / len(lacking),
        )
        for low, high in pairwise(scores)
    }
    assert (found.answered, found.refused) == pytest.approx(tried[found.score])
    assert found.answered + found.refused == pytest.approx(max(map(sum, tried.values())))


def test_what_cannot_be_told_is_none():
    """Without a relevant document anywhere, or with equal scores alone, there is no threshold."""
    assert calibrated([([], [1]), ([], [2])]) is None
    assert calibrated([([1], [1])]) is None
    assert calibrated([([2], [])]) is None
