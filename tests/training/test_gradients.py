"""Plain, cached and gathered gradients are the same."""

import os
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from m3connect.model.m3 import M3Model
from m3connect.training.collate import Batch
from m3connect.training.criterion import Criterion, similarities, targets_of
from m3connect.training.gradcache import cached_backward, plain_backward
from m3connect.training.losses import Objective
from m3connect.training.sampling import Sample
from m3connect.types import LEGS
from tests.training.processes import free_port, run_processes

PAPER = Objective(
    0.02,
    {"dense": 1.0, "sparse": 0.3, "multivector": 1.0},
    {"dense": 1.0, "sparse": 0.1, "multivector": 1.0},
)


def drawn(count, negatives=1):
    """Examples of unlike lengths; the first two share their positive."""
    found = []
    for number in range(count):
        topic = " ".join(f"w{(7 * number + at) % 60}" for at in range(2 + number % 5))
        positive = f"{topic} w{number}" if number > 1 else "w1 w2 w3"
        worse = [f"w{(3 * number + at) % 60} w{at} " * (1 + at) for at in range(negatives)]
        found.append(Sample(topic, (positive, *worse), (positive,), None, ""))
    return found


def gradients(model, batch, *, backward, budget, criterion=None):
    """Loss, and every gradient by name."""
    criterion = criterion or Criterion(PAPER)
    model.zero_grad()

    def loss_of(reps):
        return criterion(reps[0], reps[1], batch, self_distill=True)[0]

    loss = backward(model, (batch.queries, batch.passages), loss_of, LEGS, budget)
    return loss, {name: weight.grad.clone() for name, weight in model.named_parameters()}


def assert_same(one, other, tolerance=1e-6):
    """Losses and gradients agree."""
    assert one[0].item() == pytest.approx(other[0].item(), abs=tolerance)
    for name, gradient in one[1].items():
        torch.testing.assert_close(other[1][name], gradient, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("budget", [1, 20, 40, 100_000])
def test_cached_gradients_are_the_plain_ones(model, collator, budget):
    """Two passes over sub-batches of unlike lengths give the gradients of one pass over all."""
    model = model.double()
    batch = collator.batch(drawn(9, negatives=2))
    plain = gradients(model, batch, backward=plain_backward, budget=100_000)
    assert_same(plain, gradients(model, batch, backward=cached_backward, budget=budget))
    assert all(gradient.abs().max() > 0 for gradient in plain[1].values())


def test_dropout_is_the_same_in_both_passes(config, collator):
    """With dropout the cached gradients are those of the same draws."""
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    config = config.model_copy(update={"body": config.body.model_copy(update=rates)})
    torch.manual_seed(0)
    model = M3Model(config).double().train()
    batch = collator.batch(drawn(5))
    torch.manual_seed(1)
    plain = gradients(model, batch, backward=plain_backward, budget=30)
    torch.manual_seed(1)
    assert_same(plain, gradients(model, batch, backward=cached_backward, budget=30))


@pytest.mark.parametrize("size", [1, 3])
def test_chunked_maxsim_is_the_whole(model, collator, size):
    """Scoring a few queries at a time changes neither loss nor gradients."""
    model = model.double()
    batch = collator.batch(drawn(8))
    whole = gradients(
        model,
        batch,
        backward=plain_backward,
        budget=99_999,
        criterion=Criterion(PAPER, score_queries=64),
    )
    chunked = gradients(
        model,
        batch,
        backward=plain_backward,
        budget=99_999,
        criterion=Criterion(PAPER, score_queries=size),
    )
    assert_same(whole, chunked, 1e-12)


def test_padding_of_a_longer_neighbour_changes_no_score(model, collator):
    """A pair's scores do not depend on what else is in the batch, in training either."""
    model = model.double()
    alone, together = drawn(3)[2:], drawn(9, negatives=1)[2:]
    scores = []
    for examples in (alone, together):
        batch = collator.batch(examples)
        with torch.no_grad():
            reps = [
                dict(zip(LEGS, model(texts.ids, texts.mask), strict=True))
                for texts in (batch.queries, batch.passages)
            ]
        scores.append(similarities(reps[0], batch.queries, reps[1], batch.passages, 64))
    for leg in LEGS:
        torch.testing.assert_close(scores[0][leg][0, :2], scores[1][leg][0, :2])


def test_a_known_positive_is_no_negative(collator):
    """Another example's passage with the text of one's own positive is left out; one's own counts."""
    batch = collator.batch(drawn(3))
    targets = targets_of(batch, batch.passage_keys, batch.query_keys, 0, in_batch=True)
    assert targets.positive_B.tolist() == [0, 2, 4]
    assert targets.allowed_BN[:2].tolist() == [
        [True, True, False, True, True, True],
        [False, True, True, True, True, True],
    ]


def test_a_query_asked_twice_has_the_positives_of_both(collator):
    """What answers it in another example is no negative of it; that example's negatives stay so."""
    samples = drawn(4)[1:]
    samples[2] = replace(samples[2], query=samples[0].query)
    batch = collator.batch(samples)
    targets = targets_of(batch, batch.passage_keys, batch.query_keys, 0, in_batch=True)
    assert targets.allowed_BN.tolist() == [
        [True, True, True, True, False, True],
        [True] * 6,
        [False, True, True, True, True, True],
    ]


def test_without_in_batch_negatives_only_the_own_group_counts(model, collator):
    """The integrated loss is over the group, not over one candidate: it is above 0 and trains."""
    model = model.double()
    batch = collator.batch(drawn(6))
    targets = targets_of(batch, batch.passage_keys, batch.query_keys, 0, in_batch=False)
    assert targets.allowed_BN.sum(1).tolist() == [2] * 6
    loss, found = gradients(
        model,
        batch,
        backward=cached_backward,
        budget=50,
        criterion=Criterion(PAPER, in_batch=False),
    )
    assert loss > 0
    assert all(gradient.abs().max() > 0 for gradient in found.values())


def test_the_vocabulary_has_no_size(model, collator):
    """Term ids beyond any vocabulary train as well: nothing is made that has its size."""
    batch = collator.batch(drawn(6))
    criterion = Criterion(PAPER)
    found = []
    for shift in (0, 10**12):
        shifted = replace(
            batch,
            queries=replace(batch.queries, terms=batch.queries.terms + shift),
            passages=replace(batch.passages, terms=batch.passages.terms + shift),
        )
        found.append(
            gradients(model, shifted, backward=plain_backward, budget=10**6, criterion=criterion)
        )
    assert_same(found[0], found[1], 0)


# ----------------------------------------------------------------------------------- processes


def share(batch, rank, processes):
    """A process's part of a batch of all."""
    queries, passages = len(batch.queries) // processes, len(batch.passages) // processes

    def rows(texts, count):
        part = slice(rank * count, (rank + 1) * count)
        longest = int(texts.mask[part].sum(1).max())
        return type(texts)(
            *(
                getattr(texts, name)[part, :longest].contiguous()
                for name in ("ids", "mask", "terms", "lexical", "content")
            )
        )

    return Batch(
        rows(batch.queries, queries),
        rows(batch.passages, passages),
        batch.query_keys[rank * queries : (rank + 1) * queries],
        batch.passage_keys[rank * passages : (rank + 1) * passages],
        batch.positive_keys[rank * queries : (rank + 1) * queries],
        None,
    )


def work(rank, processes, port, model, batch, backward, path):
    """One process's share of a step, as the training loop does it."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    wrapped = DistributedDataParallel(model)
    mine = share(batch, rank, processes)

    def loss_of(reps):
        return Criterion(PAPER)(reps[0], reps[1], mine, self_distill=True)[0]

    texts = (mine.queries, mine.passages)
    if backward == "cached":
        loss = cached_backward(wrapped, texts, loss_of, LEGS, 25, no_sync=wrapped.no_sync)
    else:
        loss = plain_backward(wrapped, texts, loss_of, LEGS, 25)
    dist.all_reduce(loss)
    if rank == 0:
        found = {name: weight.grad for name, weight in model.named_parameters()}
        torch.save((loss / processes, found), path)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "backward"), [(2, "cached"), (4, "cached"), (2, "plain")])
def test_more_processes_give_the_same_gradients(model, collator, tmp_path, processes, backward):
    """Two and four processes give the loss and gradients of one, for all heads (float64)."""
    model = model.double()
    samples = drawn(8)
    samples[7] = replace(samples[7], query=samples[0].query)  # asked in two processes
    batch = collator.batch(samples)
    one = gradients(model, batch, backward=plain_backward, budget=100_000)
    model.zero_grad()
    path = tmp_path / "gradients.pt"
    run_processes(work, processes, processes, free_port(), model, batch, backward, path)
    assert_same(one, torch.load(path, weights_only=True))
