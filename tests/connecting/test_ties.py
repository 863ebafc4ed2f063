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

    def best(self, *limits, spare=None, most=None):
        """The best by score and id."""
        return ties.best(
            limits, self.ask, score=lambda a: a[0], id_=lambda a: a[1], spare=spare, most=most
        )


@given(records, st.lists(st.integers(1, 70), max_size=4), st.integers(1, 5))
def test_the_best_are_ordered_by_score_and_id(stored, limits, spare):
    """Every query gets the same as if all records had been seen."""
    everyone = sorted(stored, key=lambda one: (-one[0], one[1]))
    found = Engine(stored).best(*limits, spare=[spare] * len(limits))
    assert found == [everyone[:limit] for limit in limits]


def test_a_tie_that_ends_among_the_spare_is_not_asked_again():
    """Two are wanted and tie with a third: seen with two to spare, it is settled at once."""
    engine = Engine([(2.0, "c"), (2.0, "b"), (2.0, "a"), (1.0, "d")])
    assert engine.best(2, 2, spare=[2, 1]) == [[(2.0, "a"), (2.0, "b")]] * 2
    assert engine.asked == [[(0, 4), (1, 3)], [(1, 18)]]


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
