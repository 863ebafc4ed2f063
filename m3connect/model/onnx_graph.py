"""The M3 encoder as an ONNX graph, without its weights.

Every initializer is external and bears the name that the tensor has in the checkpoint, so the graph
is small and ONNX Runtime reads the same weights as torch: from memory, or from their place in
``model.safetensors``.

Nothing is computed for padding: the tokens of all texts stand end to end, ``[T, H]``, and attention
takes the texts of one length that stand together at once, by ONNX Runtime's own kernel (the operators
of its domain are in every ONNX Runtime).

Inputs and outputs (B texts, T tokens of all of them, H hidden width, C multi-vector width), in one of
two forms. ``input_ids`` is how other programs call a model, L tokens with padding:
    ``input_ids`` int64 [B, L], ``attention_mask`` int64 [B, L], 1 for tokens and 0 for padding on the right;
    ``dense`` float32 [B, H], ``sparse`` [B, L], ``multivector`` [B, L, C], which are 0 at padding.
``rows`` has no padding, and looks up no word embeddings:
    ``rows`` float32 [T, H], the tokens' word embeddings; ``places`` int64 [T], how many tokens of its own
    text precede each; ``lengths`` int64 [B], of each text;
    ``dense`` float32 [B, H], ``sparse`` [T], ``multivector`` [T, C].

``dense`` is pooled and normalised, ``sparse`` the lexical weight of every token, ReLU'd, and
``multivector`` the normalised vector of every token. Special tokens are still in: dropping them is the
caller's business.

In 8 bits (``int8.py``) the rounded matrices, their scales and what smooths their inputs are always given
from memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from m3connect.errors import ConfigError
from m3connect.model import mapped
from m3connect.model.config import M3Config
from m3connect.model.int8 import is_rounded, scale_name, smoothing_name
from m3connect.model.tensors import WORD_EMBEDDINGS, Shape, tensor_shapes

if TYPE_CHECKING:
    import onnx

OPSET = 20
IR_VERSION = 10
"""What ONNX Runtime 1.20 reads."""

Inputs = Literal["input_ids", "rows"]
_PADDED = ("input_ids", "attention_mask")
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
    return _Builder(config, inputs, places, int8=int8).model()


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
    """Collects nodes. Activations are ``[T, width]``: all tokens, text after text, without padding."""

    def __init__(
        self, config: M3Config, inputs: Inputs, places: Mapping[str, Place], *, int8: bool
    ) -> None:
        from onnx import helper

        self.helper = helper
        self.config = config
        self.inputs = inputs
        self.body = config.body
        self.places = places
        self.int8 = int8
        self.nodes: list[Any] = []
        self.within = ""  # begins the names of nodes of a graph within this one
        self.constants: dict[str, Any] = {}
        self.roundings: dict[str, tuple[str, str]] = {}

    def model(self) -> onnx.ModelProto:
        """All nodes in order, and what surrounds them."""
        states = self.embed(*(self.unpadded() if self.inputs == "input_ids" else self.given()))
        self.ends = self.node("CumSum", self.lengths, self.ints(0))
        self.starts = self.node("Sub", self.ends, self.lengths)
        self.runs = self.equal_lengths()
        self.alike = self.node("Equal", self.node("Shape", self.runs[0]), self.ints([1]))
        for layer in range(self.body.num_hidden_layers):
            states = self.layer(states, f"encoder.layer.{layer}")
        self.pool(states)
        self.heads(states)
        graph = self.helper.make_graph(
            self.nodes, "m3", *self.surface(), [*self.constants.values(), *self.weights()]
        )
        opsets = [self.helper.make_opsetid("", OPSET), self.helper.make_opsetid(_RUNTIME, 1)]
        return self.helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="m3connect"
        )

    def surface(self) -> tuple[list[Any], list[Any]]:
        """Inputs and outputs, with their shapes."""
        from onnx import TensorProto

        info = self.helper.make_tensor_value_info
        hidden, width = self.body.hidden_size, self.config.multivector_width
        if self.inputs == "input_ids":
            tokens = ["B", "L"]
            given = [info(name, TensorProto.INT64, tokens) for name in _PADDED]
        else:
            tokens = ["T"]
            given = [
                info("rows", TensorProto.FLOAT, ["T", hidden]),
                info("places", TensorProto.INT64, tokens),
                info("lengths", TensorProto.INT64, ["B"]),
            ]
        return given, [
            info("dense", TensorProto.FLOAT, ["B", hidden]),
            info("sparse", TensorProto.FLOAT, tokens),
            info("multivector", TensorProto.FLOAT, [*tokens, width]),
        ]

    # ------------------------------------------------------------------------------- the network

    def unpadded(self) -> tuple[str, str]:
        """Word embeddings and places of the tokens, of what is padded."""
        present = self.node("Cast", "attention_mask", to=9)  # BOOL
        self.tokens = self.node("NonZero", present)  # [2, T]: the text of each, its place in it
        self.lengths = self.node("ReduceSum", "attention_mask", self.ints([1]), keepdims=0)
        ids = self.node(
            "Compress",
            self.node("Reshape", "input_ids", self.ints([-1])),
            self.node("Reshape", present, self.ints([-1])),
            axis=0,
        )
        places = self.node("Gather", self.tokens, self.ints(1), axis=0)
        return self.node("Gather", WORD_EMBEDDINGS, ids), places

    def given(self) -> tuple[str, str]:
        """The same, as they come."""
        self.lengths = "lengths"
        return "rows", "places"

    def embed(self, rows: str, places: str) -> str:
        """Word, position and type embeddings, normalised."""
        positions = self.node(
            "Gather",
            "embeddings.position_embeddings.weight",
            self.node("Add", places, self.ints(self.body.first_position)),
        )
        types = self.node("Gather", "embeddings.token_type_embeddings.weight", self.ints(0), axis=0)
        summed = self.node("Add", self.node("Add", rows, positions), types)
        return self.layer_norm(summed, "embeddings.LayerNorm")

    def equal_lengths(self) -> tuple[str, str, str]:
        """The runs of texts of equal length: where each starts and ends, and its texts' length."""
        following = self.node("Slice", self.lengths, *self.range(1, 2**62))
        preceding = self.node("Slice", self.lengths, *self.range(0, -1))
        changes = self.node("NonZero", self.node("Not", self.node("Equal", following, preceding)))
        last = self.node(  # text of each run
            "Concat",
            self.node("Reshape", changes, self.ints([-1])),
            self.node("Sub", self.node("Shape", self.lengths), self.ints([1])),
            axis=0,
        )
        ends = self.node("Gather", self.ends, last)
        before = self.node("Slice", ends, *self.range(0, -1))
        starts = self.node("Concat", self.ints([0]), before, axis=0)
        return starts, ends, self.node("Gather", self.lengths, last)

    def layer(self, states: str, name: str) -> str:
        """One transformer layer."""
        attended = self.linear(self.attention(states, name), f"{name}.attention.output.dense")
        states = self.layer_norm(
            self.node("Add", attended, states), f"{name}.attention.output.LayerNorm"
        )
        inner = self.node("Gelu", self.linear(states, f"{name}.intermediate.dense"))
        outer = self.linear(inner, f"{name}.output.dense")
        return self.layer_norm(self.node("Add", outer, states), f"{name}.output.LayerNorm")

    def attention(self, states: str, name: str) -> str:
        """Multi-head attention within each text, before its output projection."""
        parts = [
            self.linear(states, f"{name}.attention.self.{part}")
            for part in ("query", "key", "value")
        ]
        return self.node(
            "If",
            self.alike,
            then_branch=self.all_at_once(parts, f"{name}.alike"),
            else_branch=self.run_by_run(parts, f"{name}.runs"),
        )

    def all_at_once(self, parts: list[str], name: str) -> onnx.GraphProto:
        """Attention where all texts have one length; it has no other cost than its own."""
        with self.inside(name) as nodes:
            mixed = self.attend(parts, self.node("Slice", self.lengths, *self.range(0, 1)))
        return self.helper.make_graph(nodes, name, [], [self.floating(mixed)])

    def run_by_run(self, parts: list[str], name: str) -> onnx.GraphProto:
        """Attention of one run after the other: a loop that takes their rows and appends what it finds."""
        from onnx import TensorProto

        info = self.helper.make_tensor_value_info
        floats = self.helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        sequence = self.helper.make_sequence_type_proto(floats)
        number, more, before = (f"{name}.{each}" for each in ("number", "more", "before"))
        with self.inside(f"{name}.run") as nodes:
            run = self.node("Unsqueeze", number, self.ints([0]))
            start, end, length = (self.node("Gather", each, run) for each in self.runs)
            rows = [self.node("Slice", part, start, end, self.ints([0])) for part in parts]
            after = self.node("SequenceInsert", before, self.attend(rows, length))
            still = self.node("Identity", more)
        body = self.helper.make_graph(
            nodes,
            f"{name}.run",
            [
                info(number, TensorProto.INT64, []),
                info(more, TensorProto.BOOL, []),
                self.helper.make_value_info(before, sequence),
            ],
            [info(still, TensorProto.BOOL, []), self.helper.make_value_info(after, sequence)],
        )
        with self.inside(name) as nodes:
            runs = self.node("Squeeze", self.node("Shape", self.runs[0]))
            all_found = self.node("Loop", runs, "", self.node("SequenceEmpty"), body=body)
            mixed = self.node("ConcatFromSequence", all_found, axis=0)
        return self.helper.make_graph(nodes, name, [], [self.floating(mixed)])

    def floating(self, name: str) -> Any:
        """The output of a graph within this one: floats, of any shape."""
        from onnx import TensorProto

        return self.helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    def attend(self, parts: list[str], length: str) -> str:
        """Attention within texts of one length (``[1]``) that stand together."""
        shape = self.node(
            "Concat", self.ints([-1]), length, self.ints([self.body.hidden_size]), axis=0
        )
        mixed = self.node(
            "MultiHeadAttention",
            *(self.node("Reshape", part, shape) for part in parts),
            num_heads=self.body.num_attention_heads,
            domain=_RUNTIME,
        )
        return self.node("Reshape", mixed, self.ints([-1, self.body.hidden_size]))

    def pool(self, states: str) -> None:
        """The output ``dense``."""
        if self.config.pooling == "cls":
            pooled = self.node("Gather", states, self.starts)
        else:
            places = self.node("Squeeze", self.node("Shape", states, start=0, end=1))
            places = self.node("Range", self.ints(0), places, self.ints(1))
            starts, ends, counts = (
                self.node("Unsqueeze", each, self.ints([1]))
                for each in (self.starts, self.ends, self.lengths)
            )
            within = self.node(  # [B, T]
                "And", self.node("Less", places, ends), self.node("GreaterOrEqual", places, starts)
            )
            total = self.node("MatMul", self.node("Cast", within, to=1), states)  # FLOAT
            pooled = self.node("Div", total, self.node("Cast", counts, to=1))
        self.normalize(pooled, output="dense")

    def heads(self, states: str) -> None:
        """The outputs ``sparse`` and ``multivector``."""
        weights = self.node("Relu", self.linear(states, "sparse_linear"))
        self.returned(self.node("Squeeze", weights, self.ints([1])), "sparse")
        vectors = self.normalize(self.linear(states, "colbert_linear"))
        self.returned(vectors, "multivector", self.config.multivector_width)

    def returned(self, values: str, name: str, *width: int) -> None:
        """``[T, *width]`` as an output, which is ``[B, L, *width]`` where texts came padded."""
        if self.inputs == "rows":
            self.node("Identity", values, output=name)
            return
        shape = self.node("Shape", "attention_mask")
        if width:
            shape = self.node("Concat", shape, self.ints(list(width)), axis=0)
        places = self.node("Transpose", self.tokens, perm=[1, 0])
        self.node("ScatterND", self.node("ConstantOfShape", shape), places, values, output=name)

    # --------------------------------------------------------------------------------- operators

    def linear(self, states: str, name: str) -> str:
        """``states [rows, in]`` to ``[rows, out]``."""
        weight = f"{name}.weight"
        if self.int8 and is_rounded(weight, 2):
            integers, scales = self.rounded(states, smoothing_name(weight))
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

    def rounded(self, states: str, smoothing: str | None) -> tuple[str, str]:
        """States in 8 bits, smoothed, each row by its own scale, and the scales ``[rows, 1]``.

        A row is a token: what becomes of a text does not depend on the texts beside it.
        """
        if states not in self.roundings:
            smooth = states if smoothing is None else self.node("Div", states, smoothing)
            high = self.node("ReduceMax", smooth, self.ints([-1]), keepdims=0)
            low = self.node("ReduceMin", smooth, self.ints([-1]), keepdims=0)
            largest = self.node("Max", high, self.node("Neg", low), self.floats(1e-12))
            scales = self.node("Mul", largest, self.floats(1 / 127))
            zeros = self.node("Expand", self.zero(), self.node("Shape", scales))
            integers = self.node("QuantizeLinear", smooth, scales, zeros, axis=0)
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

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns its output's name."""
        output = output or f"{self.within}{kind}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    @contextmanager
    def inside(self, name: str) -> Iterator[list[Any]]:
        """Nodes of a graph within this one."""
        outer = self.nodes, self.within
        self.nodes, self.within = [], f"{name}."
        yield self.nodes
        self.nodes, self.within = outer

    def range(self, start: int, end: int) -> tuple[str, str, str]:
        """What ``Slice`` takes to cut the first axis."""
        return self.ints([start]), self.ints([end]), self.ints([0])

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

    def weights(self) -> list[Any]:
        """The checkpoint's tensors as external initializers."""
        from onnx import TensorProto

        arrays = []
        smoothings: dict[str, Shape] = {}
        for name, shape in tensor_shapes(self.config).items():
            if name == WORD_EMBEDDINGS and self.inputs == "rows":
                continue
            if self.int8 and is_rounded(name, len(shape)):
                arrays.append(self.external(name, shape[::-1], TensorProto.INT8, _FROM_MEMORY))
                scales = scale_name(name), shape[:1]
                arrays.append(self.external(*scales, TensorProto.FLOAT, _FROM_MEMORY))
                if smoothing := smoothing_name(name):
                    smoothings[smoothing] = shape[1:]
            else:
                place = self.places.get(name, _FROM_MEMORY)
                arrays.append(self.external(name, shape, TensorProto.FLOAT, place))
        for name, shape in smoothings.items():
            arrays.append(self.external(name, shape, TensorProto.FLOAT, _FROM_MEMORY))
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
