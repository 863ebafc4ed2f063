"""The torch scores equal loops written from the paper, and numpy's in ``m3connect.searching.scoring``."""

import numpy as np
import pytest
import torch

from m3connect.model.scores import dense_scores, maxsim_scores, sparse_scores
from m3connect.searching import scoring
from m3connect.types import MultiVectors, SparseVectors

QUERIES, PASSAGES, WIDTH = 3, 5, 8


@pytest.fixture(params=range(3))
def batch(request):
    """Random representations with ragged masks; similarities of both signs."""
    generator = torch.Generator().manual_seed(request.param)

    def side(count, longest):
        lengths = torch.randint(1, longest + 1, (count, 1), generator=generator)
        return {
            "dense": torch.randn(count, WIDTH, generator=generator, dtype=torch.float64),
            "ids": torch.randint(0, 12, (count, longest), generator=generator),
            "weights": torch.rand(count, longest, generator=generator, dtype=torch.float64),
            "vectors": torch.randn(count, longest, WIDTH, generator=generator, dtype=torch.float64),
            "mask": torch.arange(longest) < lengths,
        }

    return side(QUERIES, 4), side(PASSAGES, 9)


def terms(side, row):
    """``{term: largest weight}`` of one text."""
    found = {}
    for id_, weight, counts in zip(
        side["ids"][row].tolist(), side["weights"][row].tolist(), side["mask"][row], strict=True
    ):
        if counts:
            found[id_] = max(weight, found.get(id_, 0.0))
    return found


def vectors(side, row):
    """The token vectors that count."""
    return side["vectors"][row][side["mask"][row]].numpy()


def sparse_args(query, passage):
    """Arguments in order."""
    return (
        *(query[name] for name in ("ids", "weights", "mask")),
        *(passage[name] for name in ("ids", "weights", "mask")),
    )


def test_dense_is_the_inner_product(batch):
    """Of every query with every passage."""
    query, passage = batch
    expected = np.einsum("qd,pd->qp", query["dense"].numpy(), passage["dense"].numpy())
    np.testing.assert_allclose(dense_scores(query["dense"], passage["dense"]), expected)


def test_sparse_equals_a_loop(batch):
    """The sum over shared terms of the products of their largest weights."""
    query, passage = batch
    expected = [
        [
            sum(
                weight * terms(passage, p)[term]
                for term, weight in terms(query, q).items()
                if term in terms(passage, p)
            )
            for p in range(PASSAGES)
        ]
        for q in range(QUERIES)
    ]
    np.testing.assert_allclose(sparse_scores(*sparse_args(query, passage)), expected)


def test_maxsim_equals_a_loop(batch):
    """The mean over query tokens of the best passage token; padding takes no part."""
    query, passage = batch
    expected = [
        [
            np.mean(
                [max(q_vec @ p_vec for p_vec in vectors(passage, p)) for q_vec in vectors(query, q)]
            )
            for p in range(PASSAGES)
        ]
        for q in range(QUERIES)
    ]
    found = maxsim_scores(query["vectors"], query["mask"], passage["vectors"], passage["mask"])
    np.testing.assert_allclose(found, expected)


def test_numpy_scores_are_the_same(batch):
    """One formula in two places: the client's scores are those that training optimises."""
    query, passage = batch
    sparse = SparseVectors.from_rows([terms(passage, row) for row in range(PASSAGES)])
    multi = MultiVectors.from_rows(
        [vectors(passage, row).astype(np.float32) for row in range(PASSAGES)]
    )
    torch_sparse = sparse_scores(*sparse_args(query, passage))
    torch_multi = maxsim_scores(
        query["vectors"], query["mask"], passage["vectors"], passage["mask"]
    )
    for row in range(QUERIES):
        own = SparseVectors.from_rows([terms(query, row)])[0]
        np.testing.assert_allclose(
            scoring.sparse_scores(own, sparse), torch_sparse[row], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            scoring.maxsim_scores(vectors(query, row).astype(np.float32), multi),
            torch_multi[row],
            rtol=1e-5,
            atol=1e-6,
        )
        np.testing.assert_allclose(
            scoring.dense_scores(query["dense"][row].numpy(), passage["dense"].numpy()),
            dense_scores(query["dense"], passage["dense"])[row],
            rtol=1e-5,
            atol=1e-6,
        )


def test_padding_never_wins_a_maximum():
    """A passage that is only unlike the query keeps its negative score, however much is padded."""
    query, passage = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[-1.0, 0.0]]])
    one = torch.tensor([[True]])
    padded = torch.cat([passage, torch.zeros(1, 3, 2)], dim=1)
    mask = torch.tensor([[True, False, False, False]])
    assert maxsim_scores(query, one, passage, one).item() == -1
    assert maxsim_scores(query, one, padded, mask).item() == -1


def test_sparse_gradients_are_those_over_the_whole_vocabulary(batch):
    """Looking only at the terms that occur changes no gradient."""
    query, passage = batch
    gradients = []
    for vocabulary in (None, 12):
        weights = [side["weights"].clone().requires_grad_() for side in batch]
        sides = [
            {**side, "weights": weight}
            for side, weight in zip((query, passage), weights, strict=True)
        ]
        if vocabulary is None:
            scores = sparse_scores(*sparse_args(*sides))
        else:
            rows = [
                torch.zeros(len(side["ids"]), vocabulary, dtype=torch.float64).scatter_reduce(
                    1, side["ids"], side["weights"] * side["mask"], "amax"
                )
                for side in sides
            ]
            scores = rows[0] @ rows[1].T
        scores.square().sum().backward()
        gradients.append([weight.grad for weight in weights])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)
