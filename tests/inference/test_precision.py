"""Precision is chosen by the CPU and by what was measured, and a lower one stays close."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from m3connect.errors import ConfigError
from m3connect.inference import M3Encoder, precision
from m3connect.model import int8

TEXTS = ["The river rises in the hills.", "Der Fluss mündet ins Meer.", "x", "many words " * 30]
AMX = frozenset({"avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16"})


def on_onnx(dtype, flags, *, device="cpu", has_int8=True, measured=("int8", "int8-7bit")):
    """The choice on ONNX Runtime."""
    return precision.on_onnx(
        dtype, device=device, has_int8=has_int8, measured=measured, flags=flags
    ).precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (AMX, "int8"),
        ({"avx2", "avx_vnni"}, "int8"),
        ({"asimd", "asimddp"}, "int8"),
        ({"avx2", "fma"}, "int8-7bit"),
        ({"sse4_2"}, "float32"),
        (frozenset(), "float32"),
    ],
)
def test_auto_takes_what_the_cpu_has_instructions_for(flags, expected):
    """8 bits need sums in 32 bits; AVX2 alone takes 7 bits; an unknown CPU stays in float32."""
    assert on_onnx("auto", flags) == expected


@pytest.mark.parametrize(
    "changes",
    [{"measured": ()}, {"measured": ("bfloat16",)}, {"has_int8": False}, {"device": "cuda"}],
)
def test_auto_stays_in_float32_where_the_cost_is_unknown(changes):
    """Neither an unmeasured checkpoint nor one without the graph is rounded unasked."""
    assert on_onnx("auto", AMX, **changes) == "float32"


def test_what_is_asked_for_is_taken_or_refused():
    """``int8`` needs no measurement, but a graph and a CPU."""
    assert on_onnx("int8", AMX, measured=()) == "int8"
    assert on_onnx("int8", {"avx2"}, measured=()) == "int8-7bit"
    assert on_onnx("int8-7bit", AMX, measured=()) == "int8-7bit"
    assert on_onnx("float32", AMX) == "float32"
    with pytest.raises(ConfigError, match=r"no graph\.int8\.onnx.*m3connect export"):
        on_onnx("int8", AMX, has_int8=False)
    with pytest.raises(ConfigError, match="not on cuda"):
        on_onnx("int8", AMX, device="cuda")


@pytest.mark.parametrize(
    ("dtype", "device", "flags", "measured", "expected"),
    [
        ("auto", "cuda", (), (), "float16"),
        ("auto", "cpu", AMX, ("bfloat16",), "bfloat16"),
        ("auto", "cpu", {"bf16", "i8mm"}, ("bfloat16",), "bfloat16"),
        ("auto", "cpu", AMX, (), "float32"),
        ("auto", "cpu", {"avx2"}, ("bfloat16",), "float32"),
        ("bfloat16", "cpu", {"avx2"}, (), "bfloat16"),
    ],
)
def test_torch_chooses_by_device_flags_and_measurement(dtype, device, flags, measured, expected):
    """bfloat16 on CPUs that multiply it, float16 on a GPU, else float32."""
    choice = precision.on_torch(dtype, device=device, measured=measured, flags=flags)
    assert choice.precision == expected


@pytest.mark.parametrize("dtype", ["int8", "int8-7bit"])
def test_int8_stays_close_to_float32(tiny_m3, dtype):
    """Rounded matrices give dense and token vectors that point the same way, with all that counts."""
    low = M3Encoder.load(tiny_m3, dtype=dtype, multivector_dtype="float32").encode(TEXTS)
    full = M3Encoder.load(tiny_m3, backend="onnx", multivector_dtype="float32").encode(TEXTS)
    assert not np.array_equal(low.dense, full.dense)
    assert (np.einsum("nd,nd->n", low.dense, full.dense) > 0.99).all()
    vectors = np.einsum("td,td->t", low.multivector.vectors, full.multivector.vectors)
    assert (vectors > 0.99).all()
    np.testing.assert_array_equal(low.n_tokens, full.n_tokens)


@pytest.mark.parametrize("dtype", ["int8", "int8-7bit"])
def test_neighbours_change_nothing_in_int8(tiny_m3, dtype):
    """Each token has a scale of its own, so a text alone is as it is in any batch."""
    encoder = M3Encoder.load(tiny_m3, dtype=dtype, multivector_dtype="float32")
    together = encoder.encode(TEXTS)
    alone = [encoder.encode([text]) for text in TEXTS]
    for row, one in enumerate(alone):
        np.testing.assert_allclose(together.dense[row], one.dense[0], atol=1e-5)
        np.testing.assert_allclose(together.multivector[row], one.multivector[0], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_int8_of_a_packed_checkpoint_stays_close():
    """The bundled model is rounded from its 4-bit blocks when it is loaded."""
    low, full = (
        M3Encoder.load("m3-mini", dtype=dtype).encode(TEXTS) for dtype in ("int8", "float32")
    )
    assert (np.einsum("nd,nd->n", low.dense, full.dense) > 0.99).all()


def test_auto_follows_the_checkpoint(vary, monkeypatch):
    """``precisions`` in ``m3.json`` is what lets ``auto`` leave float32."""
    monkeypatch.setattr("m3connect.inference.onnx_backend.cpu_flags", lambda: AMX)
    assert M3Encoder.load(vary()).backend.choice.precision == "float32"
    measured = M3Encoder.load(vary(precisions=["int8"]))
    assert (measured.backend.name, measured.backend.choice.precision) == ("onnx", "int8")
    assert measured.info.fingerprint.precision == "int8"


def test_other_weights_are_not_measured(vary):
    """What was measured of a model does not hold for one that was trained from it."""
    config = M3Encoder.load(vary(precisions=["int8"])).config.retrained("other")
    assert (config.weights_hash, config.precisions) == ("other", ())


def test_another_precision_is_a_warning(tiny_m3, caplog):
    """A collection takes queries in another precision; the log says so once each check."""
    stored = M3Encoder.load(tiny_m3).info.fingerprint
    with caplog.at_level(logging.WARNING):
        stored.require(stored, collection="c", writing=True)
        assert not caplog.records
        low = replace(stored, precision="int8")
        low.require(stored, collection="c", writing=False)
    assert "in float32, the encoder computes in int8" in caplog.text


def test_rounding_is_within_half_a_step():
    """Each weight is within half a scale of its integer; the largest is the largest integer."""
    matrix = np.random.default_rng(0).normal(size=(7, 96)).astype(np.float32)
    for largest in (127, 63):
        integers, scales = int8.rounded(matrix, largest)
        assert (np.abs(integers).max(axis=0) == largest).all()
        assert (np.abs(integers.T * scales[:, None] - matrix) <= scales[:, None] * 0.5001).all()


def test_the_cpu_is_named(tmp_path, monkeypatch):
    """Reports name the CPU and its flags; a system without ``/proc`` has none and that is fine."""
    precision.cpu_flags.cache_clear()
    assert "(" in precision.cpu_name()
    monkeypatch.setattr(precision, "Path", lambda _: tmp_path / "missing")
    precision.cpu_flags.cache_clear()
    assert precision.cpu_flags() == frozenset()
    assert "no flags known" in precision.cpu_name()
    precision.cpu_flags.cache_clear()


def test_the_bundled_graph_is_the_builders():
    """``graph.int8.onnx`` in the package is what the code makes today."""
    onnx = pytest.importorskip("onnx")
    from m3connect.model import onnx_graph
    from m3connect.model.checkpoint import open_checkpoint
    from m3connect.model.hub import resolve

    checkpoint = open_checkpoint(resolve("m3-mini"))
    built = onnx_graph.build(checkpoint.config, "rows", int8=True)
    assert onnx.load(checkpoint.path / "graph.int8.onnx", load_external_data=False) == built
