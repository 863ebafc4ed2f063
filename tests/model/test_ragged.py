"""Texts end to end give what transformers gives for each text alone."""

import numpy as np
import pytest
import torch

from m3connect.model import ragged
from m3connect.model.config import BodyConfig, M3Config
from m3connect.model.m3 import M3Model
from m3connect.model.ragged import RaggedTexts, represent
from m3connect.types import LEGS
from tests.model.bodies import KINDS, random_body

pytestmark = pytest.mark.slow  # transformers takes that long to import

POSITIONS = 8200
SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="module", params=KINDS)
def bodies(request):
    """The same random body in transformers and in two models of ours, with the poolings."""
    config, theirs = random_body(request.param, **SIZES)
    ours = {}
    for pooling in ("cls", "mean"):
        ours[pooling] = M3Model(
            M3Config(
                name="random",
                body=BodyConfig.model_validate(config.to_dict()),
                multivector_width=8,
                pooling=pooling,
                max_length=8192,
                special_ids=(0, 1, 2, 3),
                weights_hash="",
            )
        ).eval()
        ours[pooling].backbone.load_state_dict(theirs.state_dict())
    return theirs, ours


def texts_of(lengths):
    """Random texts of these lengths, end to end."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(4, 50, sum(lengths)))
    return RaggedTexts(ids, torch.tensor([0, *np.cumsum(lengths)]), lengths)


def padded(theirs, model, texts):
    """What transformers' body and our heads make of the texts, 64 in a padded batch."""
    rows = list(torch.split(texts.ids, texts.lengths))
    for start in range(0, len(rows), 64):
        ids = torch.nn.utils.rnn.pad_sequence(rows[start : start + 64], batch_first=True)
        lengths = torch.tensor(texts.lengths[start : start + 64])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        states = theirs(
            input_ids=ids.masked_fill(~mask, theirs.config.pad_token_id),
            attention_mask=mask.long(),
        ).last_hidden_state
        yield mask, model.heads(states, mask)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_texts_of_every_length(bodies, pooling):
    """From 1 to 512 tokens and of 8192, in one sequence: as transformers has it, to 1e-5."""
    theirs, ours = bodies
    model = ours[pooling]
    texts = texts_of([*range(1, 513), 8192] if pooling == "cls" else [1, 2, 2, 2, 77, 512, 512])
    with torch.inference_mode():
        found = represent(model, texts, LEGS)
        expected = [
            (whole.dense, whole.sparse[mask], whole.multivector[mask])
            for mask, whole in padded(theirs, model, texts)
        ]
    for leg, parts in zip(LEGS, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(found[leg], torch.cat(parts), rtol=0, atol=1e-5)


def test_only_what_is_asked_for(bodies):
    """A head that nobody asks for does not run."""
    _, ours = bodies
    with torch.inference_mode():
        assert represent(ours["cls"], texts_of([3, 4]), ["sparse"]).keys() == {"sparse"}


def pretend_varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, **_):
    """What torch's ``varlen_attn`` is to compute, a text at a time; it has no kernel for CPUs."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert max_q == max_k == int(cu_seq_q.diff().max())
    mixed = []
    for start, end in cu_seq_q.unfold(0, 2, 1).tolist():
        q, k, v = (part[start:end].transpose(0, 1) for part in (query, key, value))
        weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)
        mixed.append((weights @ v).transpose(0, 1))
    return torch.cat(mixed)


@pytest.mark.parametrize("lengths", [[7], [5, 5, 5], [300, 40, 40, 3, 1, 1]])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_every_way_of_attention_is_the_same(lengths):
    """Those of a GPU as well: nested tensors, and what surrounds ``varlen_attn``."""
    texts = texts_of(lengths)
    torch.manual_seed(0)
    query, key, value = torch.randn(3, sum(lengths), 4, 8)
    expected = pretend_varlen(
        query, key, value, texts.offsets.int(), texts.offsets.int(), max(lengths), max(lengths)
    )
    ways = [
        ragged._by_length(texts),
        ragged._nested(texts),
        ragged._variable(pretend_varlen, texts),
    ]
    with torch.no_grad():
        for attend in ways:
            mixed = attend(query, key, value, 0.0)
            torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-5)


def test_varlen_attention_is_used_where_its_arguments_are_known(monkeypatch):
    """This torch has it; one with other arguments would be left alone."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    ragged._varlen.cache_clear()
    assert ragged._varlen() is varlen.varlen_attn
    monkeypatch.setattr(varlen, "varlen_attn", lambda queries, keys: None)
    ragged._varlen.cache_clear()
    assert ragged._varlen() is None
    ragged._varlen.cache_clear()
