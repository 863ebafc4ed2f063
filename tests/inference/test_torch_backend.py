"""The torch backend: batches that memory does not hold."""

import logging

import pytest
import torch

from m3connect.errors import ConfigError
from m3connect.inference import M3Encoder, torch_backend
from m3connect.model.ragged import represent

TEXTS = [f"The river {number} rises in the hills. " * (1 + number % 7) for number in range(20)]


class Memory:
    """A device that holds so many tokens in a forward pass."""

    def __init__(self, tokens, error):
        self.tokens = tokens
        self.error = error
        self.asked = []

    def __call__(self, model, texts, legs):
        self.asked.append(len(texts.ids))
        if len(texts.ids) > self.tokens:
            raise self.error
        return represent(model, texts, legs)


@pytest.fixture
def limited(tiny_m3, monkeypatch):
    """A function: an encoder on a device with little memory, and that memory."""

    def make(tokens, error, budget=1000):
        memory = Memory(tokens, error)
        encoder = M3Encoder.load(tiny_m3, backend="torch", batch_tokens=budget)
        monkeypatch.setattr(torch_backend, "represent", memory)
        return encoder, memory

    return make


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("out"), MemoryError()])
def test_a_batch_that_memory_does_not_hold_is_halved(limited, caplog, tiny_m3, error):
    """The results are the same, it is said once, and later batches are no larger."""
    encoder, memory = limited(600, error)
    with caplog.at_level(logging.WARNING):
        found = encoder.encode(TEXTS)
    whole = M3Encoder.load(tiny_m3, backend="torch", batch_tokens=100_000)
    memory.tokens = 100_000
    expected = whole.encode(TEXTS)
    assert found.n_tokens.tolist() == expected.n_tokens.tolist()
    assert abs(found.dense - expected.dense).max() < 1e-6
    assert found.sparse.indices.tolist() == expected.sparse.indices.tolist()
    assert abs(found.multivector.vectors - expected.multivector.vectors).max() < 1e-3
    assert len(caplog.records) == 1
    assert "out of memory with" in caplog.text
    memory.asked = []
    encoder.encode(TEXTS)
    assert max(memory.asked) <= 600


def test_halves_that_do_not_fit_are_an_error(limited):
    """It is halved once a batch; the message has numbers and what to do."""
    encoder, _ = limited(100, torch.cuda.OutOfMemoryError("out"))
    with pytest.raises(ConfigError, match=r"cpu is out of memory .* --batch-tokens"):
        encoder.encode(TEXTS)


def test_a_single_text_that_does_not_fit_is_an_error(limited):
    """There is nothing to halve."""
    encoder, _ = limited(1, torch.cuda.OutOfMemoryError("out"))
    with pytest.raises(ConfigError, match=r"with 1 texts, \d+ tokens.*--max-length"):
        encoder.encode(TEXTS[:1])


def test_other_failures_are_not_taken_for_it(limited):
    """Whatever their message says."""
    encoder, memory = limited(1, RuntimeError("CUDA out of memory, says who?"))
    with pytest.raises(RuntimeError, match="says who"):
        encoder.encode(TEXTS)
    assert len(memory.asked) == 1
