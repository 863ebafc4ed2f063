"""Ties at the limit are settled by id, whatever order the engine has them in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.connecting import ties

records = st.lists(st.integers(0, 3), max_size=60).map(
    lambda scores: [(float(score), f"{n * 7 % 61:02}") for n, score in enumerate(scores)]
)


class Engine:
    """Orders by score alone, ties as they were written; notes what it was asked."""

    def __init__(self, stored):
        self.stored = stored
        self.asked = []

    def ask(self, queries, sizes):
        """The same answers to all queries."""
        self.asked.append(list(zip(queries, sizes, strict=True)))
        ranked = sorted(self.stored, key=lambda one: -one[0])
        return [ranked[:size] for size in sizes]

    def best(self, *limits, most=None):
        """The best by score and id."""
        return ties.best(limits, self.ask, score=lambda a: a[0], id_=lambda a: a[1], most=most)


@given(records, st.lists(st.integers(1, 70), max_size=4))
def test_the_best_are_ordered_by_score_and_id(stored, limits):
    """Every query gets the same as if all records had been seen."""
    everyone = sorted(stored, key=lambda one: (-one[0], one[1]))
    assert Engine(stored).best(*limits) == [everyone[:limit] for limit in limits]


@pytest.mark.parametrize(
    ("scores", "again"),
    [([3, 2, 1], False), ([3, 2, 2], True), ([3, 2], False), ([2, 2, 1], False), ([2, 2, 2], True)],
)
def test_only_a_tie_at_the_limit_is_asked_again(scores, again):
    """Two are wanted, three were asked for: more may tie if the third ties with the second."""
    engine = Engine([(float(score), str(n)) for n, score in enumerate(scores)])
    engine.best(2)
    assert engine.asked == [[(0, 3)], [(0, 18)]][: 1 + again]


def test_no_more_is_asked_than_the_engine_takes():
    """At the engine's own limit a tie stays as it is cut."""
    engine = Engine([(1.0, f"{n:03}") for n in range(300)])
    assert len(engine.best(10, 100, most=100)[1]) == 100
    assert max(size for asked in engine.asked for _, size in asked) == 100
