"""Which examples meet in a batch."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from m3connect.errors import ConfigError, InputError
from m3connect.training.examples import Example
from m3connect.training.recipe import BatchingTable, DataTable
from m3connect.training.sampling import Sampler, generator, grouped, plan_epoch


class Source(list):
    """Examples in memory."""

    name = "source"


def source(count, language=lambda number: ""):
    """Positives of 1 to 9 words; a tenth of the texts share theirs."""
    return Source(
        Example(
            f"q{number}", ("w " * (1 + number % 9) + str(number // 2),), language=language(number)
        )
        for number in range(count)
    )


def lengths(drawn):
    """Words of each example's longest text."""
    return np.array([max(len(text.split()) for text in example.passages) for example in drawn])


def sampler(*sources, tables=None, seed=0, **batching):
    table: dict[str, Any] = {"edges": (4, 8, 512), "sizes": 4, "smallest": 1} | batching
    tables = tables or [DataTable(path="x")] * len(sources)
    return Sampler(sources, tables, BatchingTable(**table), seed)


def places(plan):
    return [(batch.dataset, batch.rows.tolist(), batch.bucket) for batch in plan]


def test_a_batch_is_of_one_dataset_and_one_range_of_lengths():
    """Every example is in one batch, with its like, and batches have their range's size."""
    stack = sampler(source(60), source(42), sizes=(8, 4, 2))
    plan = plan_epoch(stack, 0, 1, lengths)
    seen = Counter((batch.dataset, row) for batch in plan for row in batch.rows.tolist())
    assert len(seen) == 102
    assert set(seen.values()) == {1}
    edges = [0, 4, 8, 512]
    for batch in plan:
        found = lengths([stack.sample(0, batch.dataset, row) for row in batch.rows.tolist()])
        assert (found > edges[batch.bucket]).all()
        assert (found <= edges[batch.bucket + 1]).all()
        assert len(batch.rows) <= (8, 4, 2)[batch.bucket]


def test_a_token_budget_sizes_batches():
    """Twice the length, half the queries; negatives count."""
    table = BatchingTable(edges=(100, 200, 512), tokens=2000, negatives=1)
    assert [table.size(bucket) for bucket in range(3)] == [10, 5, 1]


def test_the_papers_table_is_a_preset():
    """Table 9 of the paper, per process."""
    table = BatchingTable(sizes="paper-finetune", passage_length=8192)
    assert [table.size(bucket) for bucket in range(9)] == [48, 32, 20, 18, 14, 14, 12, 10, 8]


def test_plans_follow_from_seed_and_epoch():
    """The same seed and epoch plan the same; another of either plans something else."""
    first = places(plan_epoch(sampler(source(50)), 0, 1, lengths))
    assert first == places(plan_epoch(sampler(source(50)), 0, 1, lengths))
    assert first != places(plan_epoch(sampler(source(50)), 1, 1, lengths))
    assert first != places(plan_epoch(sampler(source(50), seed=1), 0, 1, lengths))


@pytest.mark.parametrize("processes", [2, 3])
def test_every_process_gets_as_many_queries(processes):
    """A batch divides evenly, the short last ones too."""
    plan = plan_epoch(sampler(source(50)), 0, processes, lengths)
    assert all(len(batch.rows) % processes == 0 for batch in plan)
    assert max(len(batch.rows) for batch in plan) == 4 * processes


def test_a_limit_is_drawn_evenly_over_languages():
    """A language with few examples is not crowded out."""
    many = source(100, lambda number: "sw" if number < 10 else "en")
    stack = sampler(many, tables=[DataTable(path="x", examples=16)])
    languages = Counter(many[row].language for row in stack.rows(0, 0).tolist())
    assert languages == {"sw": 8, "en": 8}


def test_a_passage_serves_few_queries():
    """With ``per_passage`` no positive is drawn more often than allowed."""
    stack = sampler(source(100), tables=[DataTable(path="x", per_passage=1)])
    drawn = [stack.sample(0, 0, row).passages[0] for row in stack.rows(0, 0).tolist()]
    assert max(Counter(drawn).values()) == 1
    assert len(drawn) > 50


def test_neighbours_are_grouped():
    """Of points in tight clusters, each group is one cluster."""
    rng = generator(3)
    centres = np.repeat(np.eye(6, dtype=np.float32) * 10, 4, axis=0)
    vectors = (centres + rng.normal(0, 0.1, centres.shape)).astype(np.float32)
    shuffled = rng.permutation(24)
    order = grouped(vectors[shuffled], 4, rng)
    assert sorted(order.tolist()) == list(range(24))
    clusters = (shuffled[order] // 4).reshape(6, 4)
    assert (clusters == clusters[:, :1]).all()


def test_too_little_data_for_a_batch_is_an_error():
    """A dataset that does not fill a batch is named, with what to change."""
    with pytest.raises(InputError, match=r"source: 3 examples do not fill a batch of 8 .*sizes"):
        plan_epoch(sampler(source(3)), 0, 2, lengths)


def test_a_size_of_one_leaves_nobody_out(caplog):
    """Long texts whose budget is one query with its negatives are batches of one, and all are taken."""
    few = Source(Example(f"q{number}", ("w " * 900,), ("n",)) for number in range(20))
    stack = sampler(few, edges=(500, 1000), sizes=None, tokens=2000, negatives=1, smallest=2)
    plan = plan_epoch(stack, 0, 1, lengths)
    assert sorted(row for batch in plan for row in batch.rows.tolist()) == list(range(20))
    assert {len(batch.rows) for batch in plan} == {1}
    assert not caplog.records


@pytest.mark.parametrize(
    ("settings", "processes", "refused"),
    [
        ({}, 1, True),
        ({"passage_length": 4, "query_length": 4}, 1, False),
        ({}, 2, False),
        ({"across_processes": False}, 2, True),
    ],
)
def test_one_query_alone_has_nothing_to_learn_from(settings, processes, refused):
    """Batches of one without negatives are refused, unless no text is so long or others share them."""
    stack = sampler(source(60), sizes=(4, 1, 4), **settings)
    if refused:
        with pytest.raises(ConfigError, match=r"to 8 tokens .* one query.*negatives = 0.*tokens"):
            plan_epoch(stack, 0, processes, lengths)
    else:
        plan_epoch(stack, 0, processes, lambda drawn: np.minimum(lengths(drawn), 4))


@pytest.mark.parametrize(
    ("settings", "processes", "taken"),
    [
        ({}, 1, False),
        ({"negatives": 1}, 1, True),
        ({}, 2, True),
        ({"across_processes": False}, 2, False),
    ],
)
def test_what_is_left_over_is_a_batch_only_where_it_can_learn(settings, processes, taken):
    """A query that is alone in its process and has no negatives is left out, whatever `smallest` says."""
    alike = Source(
        Example(f"q{number}", (f"w {number}",), ("n",)) for number in range(5 * processes)
    )
    plan = plan_epoch(sampler(alike, **settings), 0, processes, lengths)
    left = [processes] if taken else []
    assert sorted(len(batch.rows) for batch in plan) == [*left, 4 * processes]


def test_what_an_epoch_leaves_out_is_said(caplog):
    """Many examples without a batch are a warning with numbers, a few are information."""
    plan_epoch(sampler(source(22), smallest=4, sizes=(4, 4, 4)), 3, 1, lengths)
    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert "source: epoch 3 leaves out 2 of 22 examples" in told.message
    caplog.clear()
    with caplog.at_level("INFO"):
        plan_epoch(sampler(source(99), smallest=2, sizes=(8, 8, 8)), 0, 2, lengths)
    (told,) = caplog.records
    assert told.levelname == "INFO"
