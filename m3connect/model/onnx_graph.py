"""The M3 encoder as an ONNX graph, without its weights.

Every initializer is external and bears the name that the tensor has in the checkpoint, so the graph
is small and ONNX Runtime reads the same weights as torch: from memory, or from their place in
``model.safetensors``.

Inputs (B texts, L tokens, H hidden width):
    ``input_ids`` int64 [B, L], or ``rows`` float32 [B, L, H], the ids' word embeddings;
    ``attention_mask`` int64 [B, L], 1 for tokens and 0 for padding on the right.

Outputs:
    ``dense`` float32 [B, H]: pooled and normalised;
    ``sparse`` float32 [B, L]: the lexical weight of every token, ReLU'd;
    ``multivector`` float32 [B, L, C]: the normalised vector of every token.
    Special tokens and padding are still in: dropping them is the caller's business.

In 8 bits (``int8.py``) the rounded matrices and their scales are always given from memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from m3connect.errors import ConfigError
from m3connect.model import mapped
from m3connect.model.config import M3Config
from m3connect.model.int8 import is_rounded, scale_name
from m3connect.model.tensors import WORD_EMBEDDINGS, Shape, tensor_shapes

if TYPE_CHECKING:
    import onnx

OPSET = 20
IR_VERSION = 10
"""What ONNX Runtime 1.20 reads."""

Inputs = Literal["input_ids", "rows"]
Place = Mapping[str, str]
"""File, offset and length, as ONNX writes them."""
_FROM_MEMORY: Place = {"location": "memory"}
_RUNTIME = "com.microsoft"
"""ONNX Runtime's own operators."""


def build(
    config: M3Config, inputs: Inputs, weights: Path | None = None, *, int8: bool = False
) -> onnx.ModelProto:
    """The graph of a checkpoint.

    Args:
        config: body and heads.
        inputs: whether word embeddings are looked up inside (``input_ids``) or outside (``rows``).
        weights: a safetensors file in float32 that will lie beside the graph; without one the
            weights must be given from memory.
        int8: whether the matrices that ``int8.is_rounded`` names are in 8 bits.

    Raises:
        ConfigError: the ``onnx`` package is missing.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            'writing an ONNX graph needs onnx: pip install "m3connect[onnx]"'
        ) from error
    places = {} if weights is None else _places(weights)
    return _Builder(config, places, int8=int8).model(inputs)


def _places(file: Path) -> dict[str, Place]:
    """Where a safetensors file holds its tensors, as ONNX writes it."""
    return {
        name: {
            "location": file.name,
            "offset": str(place.offset),
            "length": str(place.length),
        }
        for name, place in mapped.places(file).items()
    }


class _Builder:
    """Collects nodes. Activations are flat, ``[B * L, width]``, except inside attention."""

    def __init__(self, config: M3Config, places: Mapping[str, Place], *, int8: bool) -> None:
        from onnx import helper

        self.helper = helper
        self.config = config
        self.body = config.body
        self.places = places
        self.int8 = int8
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.roundings: dict[str, tuple[str, str]] = {}

    def model(self, inputs: Inputs) -> onnx.ModelProto:
        """All nodes in order, and what surrounds them."""
        from onnx import TensorProto

        states = self.embed(inputs)
        bias = self.attention_bias()
        for layer in range(self.body.num_hidden_layers):
            states = self.layer(states, bias, f"encoder.layer.{layer}")
        self.pool(states)
        self.heads(states)

        info = self.helper.make_tensor_value_info
        hidden, width = self.body.hidden_size, self.config.multivector_width
        ids = info("input_ids", TensorProto.INT64, ["B", "L"])
        rows = info("rows", TensorProto.FLOAT, ["B", "L", hidden])
        graph = self.helper.make_graph(
            self.nodes,
            "m3",
            [
                ids if inputs == "input_ids" else rows,
                info("attention_mask", TensorProto.INT64, ["B", "L"]),
            ],
            [
                info("dense", TensorProto.FLOAT, ["B", hidden]),
                info("sparse", TensorProto.FLOAT, ["B", "L"]),
                info("multivector", TensorProto.FLOAT, ["B", "L", width]),
            ],
            [*self.constants.values(), *self.weights(inputs)],
        )
        opsets = [self.helper.make_opsetid("", OPSET)]
        if self.int8:
            opsets.append(self.helper.make_opsetid(_RUNTIME, 1))
        return self.helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="m3connect"
        )

    # ------------------------------------------------------------------------------- the network

    def embed(self, inputs: Inputs) -> str:
        """Word, position and type embeddings, normalised."""
        looked_up = inputs == "input_ids"
        rows = self.node("Gather", WORD_EMBEDDINGS, "input_ids") if looked_up else "rows"
        length = self.node("Shape", "attention_mask", start=1, end=2)
        first = self.ints([self.body.first_position])
        end = self.node("Add", length, first)
        positions = self.node(
            "Slice", "embeddings.position_embeddings.weight", first, end, self.ints([0])
        )
        types = self.node("Gather", "embeddings.token_type_embeddings.weight", self.ints(0), axis=0)
        summed = self.node("Add", self.node("Add", rows, positions), types)
        return self.layer_norm(self.flat(summed, self.body.hidden_size), "embeddings.LayerNorm")

    def attention_bias(self) -> str:
        """``[B, 1, 1, L]``: 0 for tokens, minus infinity for padding."""
        present = self.node("Cast", "attention_mask", to=9)  # BOOL
        bias = self.node("Where", present, self.floats(0), self.floats(-math.inf))
        return self.node("Unsqueeze", bias, self.ints([1, 2]))

    def layer(self, states: str, bias: str, name: str) -> str:
        """One transformer layer."""
        attended = self.linear(self.attention(states, bias, name), f"{name}.attention.output.dense")
        states = self.layer_norm(
            self.node("Add", attended, states), f"{name}.attention.output.LayerNorm"
        )
        inner = self.node("Gelu", self.linear(states, f"{name}.intermediate.dense"))
        outer = self.linear(inner, f"{name}.output.dense")
        return self.layer_norm(self.node("Add", outer, states), f"{name}.output.LayerNorm")

    def attention(self, states: str, bias: str, name: str) -> str:
        """Multi-head attention before its output projection."""
        size = self.body.hidden_size // self.body.num_attention_heads
        query, key, value = (
            self.split_heads(self.linear(states, f"{name}.attention.self.{part}"), order)
            for part, order in (
                ("query", [0, 2, 1, 3]),
                ("key", [0, 2, 3, 1]),
                ("value", [0, 2, 1, 3]),
            )
        )
        scaled = self.node("Mul", query, self.floats(size**-0.5))
        scores = self.node("Add", self.node("MatMul", scaled, key), bias)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        return self.flat(self.node("Transpose", mixed, perm=[0, 2, 1, 3]), self.body.hidden_size)

    def split_heads(self, states: str, order: list[int]) -> str:
        """``[B * L, H]`` to ``[B, L, heads, size]``, transposed."""
        shape = self.node(
            "Concat",
            self.node("Shape", "attention_mask"),
            self.ints([self.body.num_attention_heads, -1]),
            axis=0,
        )
        return self.node("Transpose", self.node("Reshape", states, shape), perm=order)

    def pool(self, states: str) -> None:
        """The output ``dense``."""
        states = self.by_text(states, self.body.hidden_size)
        if self.config.pooling == "cls":
            pooled = self.node("Gather", states, self.ints(0), axis=1)
        else:
            mask = self.node("Cast", "attention_mask", to=1)  # FLOAT
            total = self.node(
                "Squeeze",
                self.node("MatMul", self.node("Unsqueeze", mask, self.ints([1])), states),
                self.ints([1]),
            )
            count = self.node("ReduceSum", mask, self.ints([1]), keepdims=1)
            pooled = self.node("Div", total, count)
        self.normalize(pooled, output="dense")

    def heads(self, states: str) -> None:
        """The outputs ``sparse`` and ``multivector``."""
        weights = self.node("Relu", self.linear(states, "sparse_linear"))
        self.node("Reshape", weights, self.node("Shape", "attention_mask"), output="sparse")
        vectors = self.normalize(self.linear(states, "colbert_linear"))
        self.by_text(vectors, self.config.multivector_width, output="multivector")

    # --------------------------------------------------------------------------------- operators

    def linear(self, states: str, name: str) -> str:
        """``states [rows, in]`` to ``[rows, out]``."""
        weight = f"{name}.weight"
        if self.int8 and is_rounded(weight, 2):
            integers, scales = self.rounded(states)
            product = self.node(
                "MatMulIntegerToFloat",
                integers,
                weight,
                self.floats(1.0),
                scale_name(weight),
                self.zero(),
                domain=_RUNTIME,
            )
            return self.node("Add", self.node("Mul", product, scales), f"{name}.bias")
        return self.node("Gemm", states, f"{name}.weight", f"{name}.bias", transB=1)

    def rounded(self, states: str) -> tuple[str, str]:
        """States in 8 bits, each row by its own scale, and the scales ``[rows, 1]``.

        A row is a token: what becomes of a text does not depend on the texts beside it.
        """
        if states not in self.roundings:
            high = self.node("ReduceMax", states, self.ints([-1]), keepdims=0)
            low = self.node("ReduceMin", states, self.ints([-1]), keepdims=0)
            largest = self.node("Max", high, self.node("Neg", low), self.floats(1e-12))
            scales = self.node("Mul", largest, self.floats(1 / 127))
            zeros = self.node("Expand", self.zero(), self.node("Shape", scales))
            integers = self.node("QuantizeLinear", states, scales, zeros, axis=0)
            self.roundings[states] = integers, self.node("Unsqueeze", scales, self.ints([1]))
        return self.roundings[states]

    def zero(self) -> str:
        """What 0 becomes: products are of unsigned with signed integers, which every CPU has."""
        return self.constant(np.asarray(128, np.uint8))

    def layer_norm(self, states: str, name: str) -> str:
        """LayerNorm over the last axis."""
        return self.node(
            "LayerNormalization",
            states,
            f"{name}.weight",
            f"{name}.bias",
            epsilon=self.body.layer_norm_eps,
        )

    def normalize(self, vectors: str, output: str | None = None) -> str:
        """To unit length; as torch does, a norm below 1e-12 counts as 1e-12."""
        norm = self.node("ReduceL2", vectors, self.ints([-1]), keepdims=1)
        return self.node("Div", vectors, self.node("Max", norm, self.floats(1e-12)), output=output)

    def flat(self, states: str, width: int) -> str:
        """``[B, L, ...]`` to ``[B * L, width]``."""
        return self.node("Reshape", states, self.ints([-1, width]))

    def by_text(self, states: str, width: int, output: str | None = None) -> str:
        """``[B * L, width]`` to ``[B, L, width]``."""
        shape = self.node(
            "Concat", self.node("Shape", "attention_mask"), self.ints([width]), axis=0
        )
        return self.node("Reshape", states, shape, output=output)

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns its output's name."""
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def ints(self, values: int | list[int]) -> str:
        """An int64 constant."""
        return self.constant(np.asarray(values, np.int64))

    def floats(self, value: float) -> str:
        """A float32 constant."""
        return self.constant(np.asarray(value, np.float32))

    def constant(self, array: Any) -> str:
        """A constant inside the graph, stored once."""
        from onnx import numpy_helper

        name = f"constant_{array.dtype}_{array.tolist()}"
        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def weights(self, inputs: Inputs) -> list[Any]:
        """The checkpoint's tensors as external initializers."""
        from onnx import TensorProto

        arrays = []
        for name, shape in tensor_shapes(self.config).items():
            if name == WORD_EMBEDDINGS and inputs == "rows":
                continue
            if self.int8 and is_rounded(name, len(shape)):
                arrays.append(self.external(name, shape[::-1], TensorProto.INT8, _FROM_MEMORY))
                scales = scale_name(name), shape[:1]
                arrays.append(self.external(*scales, TensorProto.FLOAT, _FROM_MEMORY))
            else:
                place = self.places.get(name, _FROM_MEMORY)
                arrays.append(self.external(name, shape, TensorProto.FLOAT, place))
        return arrays

    def external(self, name: str, shape: Shape, kind: int, place: Place) -> Any:
        """An initializer that lies elsewhere."""
        from onnx import TensorProto

        return TensorProto(
            name=name,
            dims=shape,
            data_type=kind,
            data_location=TensorProto.EXTERNAL,
            external_data=[{"key": key, "value": value} for key, value in place.items()],
        )
