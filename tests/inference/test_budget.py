"""The token budget of a batch: measured once, by long jobs alone."""

import numpy as np
import pytest

from m3connect import disk
from m3connect.inference import M3Encoder, budget
from m3connect.inference import encoder as encoders
from m3connect.inference.budget import fastest
from m3connect.inference.precision import Choice
from m3connect.model.tokenize import TokenIds

LONG = TokenIds(np.arange(0, 4001, 10), np.zeros(4000, np.int64), np.zeros(400, np.bool_))


class Slow:
    """A device on which a pass takes so long, and each token so long beyond what is in its cache."""

    name, device, pads, batch_tokens, at_once = "onnx", "cpu", False, 100, 1
    choice = Choice("float32", "as asked for")

    def __init__(self, a_pass, cache):
        self.a_pass, self.cache, self.time = a_pass, cache, 0.0

    def run(self, texts, legs):
        size = len(texts.ids)
        self.time += self.a_pass + size + 3 * max(0, size - self.cache)

    def run_all(self, batches, legs):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("a_pass", "cache", "expected"),
    [(50, 10_000, 400), (0, 25, 25), (2, 200, 100), (60, 200, 200)],
)
def test_the_fastest_budget_is_taken(a_pass, cache, expected):
    """Another than the usual one only where it is clearly faster."""
    device = Slow(a_pass, cache)
    assert fastest(device, LONG, ("dense",), lambda: device.time) == expected


def test_a_long_job_measures_once_and_the_next_process_reads_it(tiny_m3, tmp_path, monkeypatch):
    """A short one does not, nor does one whose budget was given."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(encoders, "WORTH_MEASURING", 0.1)
    measured = []
    monkeypatch.setattr(budget, "fastest", lambda *_: measured.append(1) or 333)
    texts = ["The river rises in the hills."] * 20

    def after(**options):
        encoder = M3Encoder.load(tiny_m3, backend="onnx", dtype="float32", **options)
        first = encoder.encode(texts)
        np.testing.assert_allclose(encoder.encode(texts).dense, first.dense, atol=1e-6)
        return encoder.batch_tokens

    assert after(batch_tokens=77) == 77
    assert measured == []
    assert [after(), after()] == [333, 333]
    assert measured == [1]
    assert list((disk.cache_folder() / "models").glob("tiny-m3-onnx-cpu-budget-*"))
