"""Texts longer than the model reads, against a plain implementation on a random checkpoint."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from m3connect.errors import ConfigError, FingerprintMismatch
from m3connect.inference import M3Encoder
from m3connect.model import long_texts
from m3connect.model.checkpoint import open_checkpoint
from m3connect.model.weights import load_model
from m3connect.types import Embeddings, Fingerprint

EVERY, LIMIT = 20, 100
TEXTS = [" ".join(f"river{word}" for word in range(count)) for count in (0, 1, 5, 14, 33, 90)]


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch):
    """The tiny model reads 128 tokens, half of one of the paper's blocks."""
    monkeypatch.setattr(long_texts, "MCLS_EVERY", EVERY)


@pytest.fixture(scope="module")
def model(tiny_m3):
    """The network alone."""
    return load_model(open_checkpoint(tiny_m3))


def load(folder, mode, **options):
    """An encoder that computes and returns float32."""
    return M3Encoder.load(
        folder, long_mode=mode, max_length=LIMIT, multivector_dtype="float32", **options
    )


def passes(model, ids):
    """Last hidden states and representations of one input."""
    with torch.no_grad():
        states = model.backbone(torch.tensor([ids]), None)
        return states[0], model.heads(states, None)


def rows(embeddings):
    """Each text's alone."""
    return [embeddings[row : row + 1] for row in range(len(embeddings))]


def assert_text(found, dense, ids, weights, vectors):
    """A row is these vectors, and the largest weight of each of these tokens."""
    np.testing.assert_allclose(found.dense[0], dense, atol=1e-5)
    np.testing.assert_allclose(found.multivector[0], vectors, atol=1e-5)
    expected = {}
    for id_, weight in zip(ids, weights, strict=True):
        if id_ > 3 and weight > 0:
            expected[id_] = max(weight, expected.get(id_, 0))
    sparse = found.sparse[0]
    assert dict(zip(sparse.indices.tolist(), sparse.values.tolist(), strict=True)) == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.parametrize("prefix", ["", "sea: "])
def test_mcls_is_the_mean_of_a_first_token_every_so_many(vary, model, prefix):
    """Its state is pooled, normalised once; weights and token vectors are of the text alone."""
    encoder = load(vary(passage_prefix=prefix), "mcls")
    start = len(encoder.tokenizer.encode(prefix.strip()).ids) - 1
    for text, found in zip(TEXTS, rows(encoder.encode(TEXTS)), strict=True):
        first, *rest = encoder.tokenizer.encode((prefix + text).strip()).ids
        ids, firsts, content = [first], [0], []
        for number, id_ in enumerate(rest[:-1], start=1):
            if number >= start + EVERY and (number - start) % EVERY == 0:
                firsts.append(len(ids))
                ids.append(first)
            content += [len(ids)] * (number >= start)
            ids.append(id_)
        cut = len(ids) + 1 > LIMIT
        if cut:
            ids = ids[: LIMIT - 1]
            firsts, content = ([at for at in some if at < LIMIT - 1] for some in (firsts, content))
        content.append(len(ids))
        ids.append(rest[-1])
        states, whole = passes(model, ids)
        dense = normalize(states[firsts].mean(0), dim=0)
        weights, vectors = whole.sparse[0][content], whole.multivector[0][content]
        assert_text(found, dense, [ids[at] for at in content], weights.tolist(), vectors)
        assert (found.truncated[0], found.n_tokens[0]) == (cut, len(ids))
    assert encoder.tokens(TEXTS[-1])[-1] == "</s>"


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_chunks_are_windows_of_about_equal_length(vary, model, backend):
    """The dense vector is the mean of theirs; nothing is cut, and all weights and vectors count."""
    encoder = load(vary(passage_prefix="sea: "), "chunk", backend=backend)
    before = encoder.tokenizer.encode("sea:").ids[:-1]
    room = LIMIT - len(before) - 1
    for text, found in zip(TEXTS, rows(encoder.encode(TEXTS)), strict=True):
        ids = encoder.tokenizer.encode(f"sea: {text}".strip()).ids
        own, end = ids[len(before) : -1], ids[-1]
        parts = np.array_split(np.array(own, int), max(1, -(-len(own) // room)))
        made = [passes(model, [*before, *part.tolist(), end])[1] for part in parts]
        dense = normalize(torch.stack([each.dense[0] for each in made]).mean(0), dim=0)
        weights = torch.cat([each.sparse[0][len(before) :] for each in made])
        vectors = torch.cat([each.multivector[0][len(before) :] for each in made])
        kept = [id_ for part in parts for id_ in [*part.tolist(), end]]
        assert_text(found, dense, kept, weights.tolist(), vectors)
        assert found.truncated.tolist() == [False]
        assert found.n_tokens[0] == sum(len(part) + len(before) + 1 for part in parts)
        assert len(encoder.tokens(text)) == len(vectors)


@pytest.mark.parametrize("mode", ["chunk", "mcls"])
def test_short_texts_are_as_ever(tiny_m3, mode):
    """What fits into one window or block is not touched."""
    short = [text for text in TEXTS if len(text) < 40]
    assert load(tiny_m3, mode, backend="auto").encode(short) == load(
        tiny_m3, "truncate", backend="torch" if mode == "mcls" else "auto"
    ).encode(short)


@pytest.mark.parametrize("mode", ["chunk", "mcls"])
def test_streamed_is_encoded(tiny_m3, mode):
    """Texts of several windows stay whole, whatever is tokenised and computed together."""
    encoder = load(tiny_m3, mode, batch_tokens=60)
    texts = TEXTS * 30
    streamed = Embeddings.concat(list(encoder.stream(texts)))
    whole = encoder.encode(texts)
    np.testing.assert_allclose(streamed.dense, whole.dense, atol=1e-6)
    assert streamed.sparse.indices.tolist() == whole.sparse.indices.tolist()
    assert streamed.multivector.offsets.tolist() == whole.multivector.offsets.tolist()


def test_no_mark_is_last():
    """The last block has text in it, however the limit falls; the limit is not exceeded."""
    for limit in range(2 + EVERY, 5 * EVERY):
        row, cut = long_texts.marked([0, *range(10, 10 + 6 * EVERY), 2], 1, limit)
        marks = list(long_texts.marks(len(row), 1))
        assert cut
        assert limit - 1 <= len(row) <= limit
        assert [at for at, id_ in enumerate(row) if id_ == 0] == [0, *marks]
        assert row[-2] != 0


def test_mcls_is_refused_where_it_has_no_meaning(tiny_m3, vary):
    """By ONNX Runtime and for a mean of all tokens; left to itself, it takes torch."""
    assert load(tiny_m3, "mcls").backend.name == "torch"
    with pytest.raises(ConfigError, match="mcls runs on torch"):
        load(tiny_m3, "mcls", backend="onnx")
    with pytest.raises(ConfigError, match="takes the mean of all"):
        load(vary(pooling="mean"), "mcls")
    with pytest.raises(ConfigError, match="long_mode 'all' is none of"):
        load(tiny_m3, "all")


def test_the_fingerprint_knows_it(tiny_m3):
    """A collection of one way takes no passages of another, and answers queries of all."""
    prints = [load(tiny_m3, mode).info.fingerprint for mode in ("chunk", "truncate")]
    prints[1].require(prints[0], collection="c", writing=False)
    with pytest.raises(FingerprintMismatch, match=r"long_mode.*Pass --long-mode chunk, or"):
        prints[1].require(prints[0], collection="c", writing=True)
    older = prints[1].to_json()
    del older["long_mode"]
    assert Fingerprint.from_json(older) == prints[1]
