"""Names and shapes of a checkpoint's tensors: transformers' names, and the two heads' published ones."""

from __future__ import annotations

from m3connect.model.config import BodyConfig, M3Config

Shape = tuple[int, ...]

WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
HEADS = ("sparse_linear", "colbert_linear")


def tensor_shapes(config: M3Config) -> dict[str, Shape]:
    """Every tensor of a checkpoint with its shape. Matrices are ``[out, in]``."""
    width = config.body.hidden_size
    shapes = _embeddings(config.body)
    for layer in range(config.body.num_hidden_layers):
        shapes |= _layer(config.body, f"encoder.layer.{layer}")
    return (
        shapes
        | _linear("sparse_linear", 1, width)
        | _linear("colbert_linear", config.multivector_width, width)
    )


def _embeddings(body: BodyConfig) -> dict[str, Shape]:
    width = body.hidden_size
    return {
        WORD_EMBEDDINGS: (body.vocab_size, width),
        "embeddings.position_embeddings.weight": (body.max_position_embeddings, width),
        "embeddings.token_type_embeddings.weight": (body.type_vocab_size, width),
    } | _layer_norm("embeddings.LayerNorm", width)


def _layer(body: BodyConfig, name: str) -> dict[str, Shape]:
    width, inner = body.hidden_size, body.intermediate_size
    shapes: dict[str, Shape] = {}
    for part in ("query", "key", "value"):
        shapes |= _linear(f"{name}.attention.self.{part}", width, width)
    shapes |= _linear(f"{name}.attention.output.dense", width, width)
    shapes |= _layer_norm(f"{name}.attention.output.LayerNorm", width)
    shapes |= _linear(f"{name}.intermediate.dense", inner, width)
    shapes |= _linear(f"{name}.output.dense", width, inner)
    return shapes | _layer_norm(f"{name}.output.LayerNorm", width)


def _linear(name: str, outputs: int, inputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _layer_norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
