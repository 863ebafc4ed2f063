"""The network on ONNX Runtime: light, made for CPUs, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from m3connect.errors import CheckpointError, ConfigError
from m3connect.inference.backend import Outputs
from m3connect.model.checkpoint import GRAPH, Checkpoint, read_packed
from m3connect.model.packed import PackedTensors
from m3connect.model.tensors import WORD_EMBEDDINGS
from m3connect.types import LEGS, Leg

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxBackend:
    """Runs a checkpoint's graph in float32.

    Args:
        checkpoint: one that has a graph.
        device: ``cpu`` or ``cuda``.
        threads: threads of one operator; None leaves it to ONNX Runtime.

    Raises:
        ConfigError: there is no graph, or the device is not supported.
        CheckpointError: the graph and the weights do not fit together.
    """

    name = "onnx"

    def __init__(self, checkpoint: Checkpoint, device: str, threads: int | None) -> None:
        if not checkpoint.has_graph:
            raise ConfigError(
                f"{checkpoint.path} has no {GRAPH}: make one with `m3connect export "
                f"{checkpoint.config.name} --format onnx --output DIR`, or use --backend torch"
            )
        self.device = device
        self.batch_tokens = 1024 if device == "cpu" else 16384
        self._packed = read_packed(checkpoint) if checkpoint.layout == "packed" else None
        self._session = _session(checkpoint, self._packed, device, threads)

    def run(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], legs: Sequence[Leg]
    ) -> Outputs:
        """See :class:`m3connect.inference.backend.Backend`."""
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        if self._packed is None:
            inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        else:
            inputs = {"rows": self._packed.rows(WORD_EMBEDDINGS, ids), "attention_mask": mask}
        wanted = [leg for leg in LEGS if leg in legs]
        found = dict(zip(wanted, self._session.run(wanted, inputs), strict=True))
        return Outputs(found.get("dense"), found.get("sparse"), found.get("multivector"))


def _session(
    checkpoint: Checkpoint, packed: PackedTensors | None, device: str, threads: int | None
) -> Any:
    """Open the graph; a packed checkpoint's weights are given from memory."""
    provider = _PROVIDERS.get(device)
    if provider not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"this ONNX Runtime cannot use the device {device!r}; it has "
            f"{onnxruntime.get_available_providers()}. Use --device cpu or --backend torch"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they arrive as exceptions as well
    options.intra_op_num_threads = threads or 0
    # Waiting threads that spin take the cores from those that work, as soon as a machine does
    # anything else: one query can then take twenty times as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if packed is not None:  # ONNX Runtime copies what it is given here
        names = [name for name in packed if name != WORD_EMBEDDINGS]
        values = [
            onnxruntime.OrtValue.ortvalue_from_numpy(packed[name].astype(np.float32, copy=False))
            for name in names
        ]
        options.add_external_initializers(names, values)
    try:
        return onnxruntime.InferenceSession(checkpoint.path / GRAPH, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's own classes share no other base
        raise CheckpointError(f"{checkpoint.path / GRAPH} cannot be opened: {error}") from error
