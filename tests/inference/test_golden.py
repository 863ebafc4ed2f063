"""The same checkpoint, the same texts: what we make of them is what FlagEmbedding makes of them."""

import json

import numpy as np
import pytest

from m3connect.inference import M3Encoder
from m3connect.model.checkpoint import open_checkpoint
from m3connect.model.export import export

pytestmark = pytest.mark.golden

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def inputs(golden):
    """Texts, pairs, weights and length limit."""
    return json.loads((golden / "inputs.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=["pickle", "safetensors", "narrow"])
def case(request, golden):
    """Checkpoint and expected arrays."""
    return golden / request.param, np.load(golden / request.param / "expected.npz")


@pytest.fixture(scope="module", params=["torch", "onnx"])
def encoder(request, case, inputs, tmp_path_factory):
    """The checkpoint on both backends; for ONNX Runtime it is exported first."""
    folder, _ = case
    if request.param == "onnx":
        exported = tmp_path_factory.mktemp("onnx") / "exported"
        export(open_checkpoint(folder), "onnx", exported)
        folder = exported
    return M3Encoder.load(
        folder,
        backend=request.param,
        max_length=inputs["max_length"],
        batch_tokens=100,
        multivector_dtype="float32",
    )


@pytest.fixture(scope="module")
def embeddings(encoder, inputs):
    """Of all texts."""
    return encoder.encode(inputs["texts"])


def test_dense_vectors_agree(embeddings, case):
    """Dense vectors are those of the reference."""
    np.testing.assert_allclose(embeddings.dense, case[1]["dense"], rtol=0, atol=TOLERANCE)


def test_lexical_weights_agree(embeddings, case):
    """The same term ids in every text, with the same weights."""
    expected = case[1]
    ends = np.cumsum(expected["sparse_lengths"])
    assert ends[-1] > 100
    for row, end in enumerate(ends):
        span = slice(end - expected["sparse_lengths"][row], end)
        order = np.argsort(expected["sparse_indices"][span])
        found = embeddings.sparse[row]
        assert found.indices.tolist() == expected["sparse_indices"][span][order].tolist()
        weights = expected["sparse_values"][span][order]
        np.testing.assert_allclose(found.values, weights, rtol=0, atol=TOLERANCE)


def test_multivectors_agree(embeddings, case):
    """The same token vectors for the same number of tokens."""
    expected = case[1]
    assert np.diff(embeddings.multivector.offsets).tolist() == (
        expected["multivector_lengths"].tolist()
    )
    np.testing.assert_allclose(
        embeddings.multivector.vectors, expected["multivector"], rtol=0, atol=TOLERANCE
    )


def test_all_five_scores_agree(encoder, inputs, case):
    """Every kind of pair score is the reference's."""
    texts = inputs["texts"]
    pairs = [(texts[query], texts[passage]) for query, passage in inputs["pairs"]]
    scores = encoder.compute_score(pairs, weights=tuple(inputs["weights"]))
    assert len(scores) == 5
    for kind, found in scores.items():
        name = {"hybrid": "dense+sparse"}.get(kind, kind)  # as the reference calls it
        expected = case[1][f"score_{name}"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE, err_msg=kind)


def test_truncation_is_seen(embeddings, inputs):
    """What was cut has exactly the limit's number of tokens, and nothing else reaches beyond it."""
    assert embeddings.truncated[inputs["texts"].index("many words " * 60)]
    assert not embeddings.truncated[inputs["texts"].index("x")]
    assert set(embeddings.n_tokens[embeddings.truncated]) == {inputs["max_length"]}
    assert (embeddings.n_tokens <= inputs["max_length"]).all()
