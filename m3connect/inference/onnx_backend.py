"""The network on ONNX Runtime: light, made for CPUs, no torch; in float32 or in 8 bits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from m3connect.errors import CheckpointError, ConfigError
from m3connect.inference import prepared
from m3connect.inference.backend import Outputs
from m3connect.inference.precision import cpu_count, cpu_flags, on_onnx
from m3connect.model import int8
from m3connect.model.checkpoint import GRAPH, GRAPH_INT8, Checkpoint, read_packed, read_smoothing
from m3connect.model.mapped import read_safetensors
from m3connect.model.packed import PackedTensors
from m3connect.model.tensors import WORD_EMBEDDINGS
from m3connect.model.tokenize import TokenIds
from m3connect.types import LEGS, Leg

_UNPADDED = ("rows", "places", "lengths")
"""What a packed checkpoint's graph takes, see ``onnx_graph.py``."""
_LONG = 4096
"""A batch of more tokens takes so much memory that it goes alone."""
_SMALL = 10**8
"""Weights of the layers, at most, that are held twice: once for each kind of session."""
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxBackend:
    """Runs a checkpoint's graph.

    Many batches of a small network go side by side, each on a thread of its own, for threads that share a
    batch wait for each other; a batch that comes alone, such as a query, has all threads.

    Args:
        checkpoint: one that has a graph.
        device: ``cpu`` or ``cuda``.
        dtype: ``auto``, ``float32``, ``int8`` or ``int8-7bit``, see ``precision.py``.
        threads: at most so many; None is one for each core.

    Raises:
        ConfigError: there is no graph, or the device or the precision is not supported.
        CheckpointError: the graph and the weights do not fit together.
    """

    name = "onnx"

    def __init__(
        self, checkpoint: Checkpoint, device: str, dtype: str, threads: int | None
    ) -> None:
        if not checkpoint.has_graph:
            raise ConfigError(
                f"{checkpoint.path} has no {GRAPH}: make one with `m3connect export "
                f"{checkpoint.config.name} --format onnx --output DIR`, or use --backend torch"
            )
        self.device = device
        self.choice = on_onnx(
            dtype,
            device=device,
            has_int8=checkpoint.has_int8_graph,
            measured=checkpoint.config.precisions,
            flags=cpu_flags(),
        )
        self.batch_tokens = 512 if device == "cpu" else 16384
        body = checkpoint.config.body
        small = 12 * body.num_hidden_layers * body.hidden_size**2 <= _SMALL
        self.at_once = (threads or cpu_count()) if device == "cpu" and small else 1
        self._checkpoint = checkpoint
        self._padding = body.pad_token_id
        self._packed = read_packed(checkpoint) if checkpoint.layout == "packed" else None
        self.pads = self._packed is None
        self._session = self._open(threads)
        if not self.pads and {each.name for each in self._session.get_inputs()} != set(_UNPADDED):
            raise CheckpointError(
                f"{checkpoint.path} has a graph of another version of m3connect: install the same "
                "version of the model (pip install -U m3connect-m3-mini), or use --backend torch"
            )

    @cached_property
    def _single(self) -> Any:
        """The session whose batches have one thread each."""
        return self._open(1)

    def _open(self, threads: int | None) -> Any:
        """A session; a packed checkpoint's is prepared once."""
        checkpoint = self._checkpoint
        precision = self.choice.precision
        graph = GRAPH if precision == "float32" else GRAPH_INT8

        def given() -> Mapping[str, NDArray[Any]]:
            if precision == "float32":
                return _whole(self._packed) if self._packed else {}
            return _rounded(checkpoint, self._packed, 127 if precision == "int8" else 63)

        def make(file: Path, options: Any) -> Any:
            return _session(file, given(), self.device, threads, options)

        if self._packed is None or self.device != "cpu":
            return make(checkpoint.path / graph, onnxruntime.SessionOptions())

        def reopen(file: Path, options: Any) -> Any:
            return _session(file, {}, self.device, threads, options)

        return prepared.session(checkpoint, graph, precision, make, reopen)

    def run(self, texts: TokenIds, legs: Sequence[Leg]) -> Outputs:
        """See :class:`m3connect.inference.backend.Backend`."""
        return self._run(self._session, texts, legs)

    def run_all(self, batches: Iterable[TokenIds], legs: Sequence[Leg]) -> Iterator[Outputs]:
        """See :class:`m3connect.inference.backend.Backend`."""
        batches = iter(batches)
        begun = list(islice(batches, 2))
        if len(begun) < 2 or self.at_once == 1:
            yield from (self.run(texts, legs) for texts in chain(begun, batches))
            return
        session = self._single
        running: deque[Future[Outputs]] = deque()
        with ThreadPoolExecutor(self.at_once, "forward") as threads:
            try:
                for texts in chain(begun, batches):
                    if len(texts.ids) > _LONG:
                        while running:
                            yield running.popleft().result()
                        yield self.run(texts, legs)
                        continue
                    running.append(threads.submit(self._run, session, texts, legs))
                    if len(running) > self.at_once:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()

    def _run(self, session: Any, texts: TokenIds, legs: Sequence[Leg]) -> Outputs:
        outputs = [leg for leg in LEGS if leg in legs]
        if self._packed is not None:
            rows = self._packed.rows(WORD_EMBEDDINGS, texts.ids)
            inputs = dict(zip(_UNPADDED, (rows, texts.places, texts.lengths), strict=True))
            arrays = dict(zip(outputs, session.run(outputs, inputs), strict=True))
        else:
            ids = texts.padded(np.arange(len(texts)), self._padding)
            present = np.arange(ids.shape[1]) < texts.lengths[:, None]
            inputs = {"input_ids": ids, "attention_mask": present.astype(np.int64)}
            arrays = dict(zip(outputs, session.run(outputs, inputs), strict=True))
            for leg in set(outputs) - {"dense"}:
                arrays[leg] = arrays[leg][present]
        return Outputs(arrays.get("dense"), arrays.get("sparse"), arrays.get("multivector"))


def _whole(packed: PackedTensors) -> dict[str, NDArray[Any]]:
    """What a packed checkpoint's graph takes from memory: all but the word embeddings."""
    return {
        name: packed[name].astype(np.float32, copy=False)
        for name in packed
        if name != WORD_EMBEDDINGS
    }


def _rounded(
    checkpoint: Checkpoint, packed: PackedTensors | None, largest: int
) -> dict[str, NDArray[Any]]:
    """What the graph in 8 bits takes from memory.

    Of an unpacked checkpoint these are the rounded matrices and what smooths their inputs: everything else
    is read from the place in ``model.safetensors`` that the graph names.
    """
    file = checkpoint.path / "model.safetensors"
    tensors: Mapping[str, NDArray[Any]] = packed or read_safetensors(file)
    smoothings = read_smoothing(checkpoint)
    weights = dict(smoothings)
    for name in tensors:
        if name == WORD_EMBEDDINGS:
            continue
        tensor = tensors[name]
        if int8.is_rounded(name, tensor.ndim):
            matrix = tensor.astype(np.float32, copy=False)
            smoothing = smoothings.get(int8.smoothing_name(name) or "")
            if smoothing is not None:
                matrix = matrix * smoothing
            integers, scales = int8.rounded(matrix, largest)
            weights[name] = integers
            weights[int8.scale_name(name)] = scales
        elif packed is not None:
            weights[name] = tensor.astype(np.float32, copy=False)
    return weights


def _session(
    graph: Path,
    weights: Mapping[str, NDArray[Any]],
    device: str,
    threads: int | None,
    options: Any,
) -> Any:
    """Open a graph; ``weights`` are those that it takes from memory."""
    provider = _PROVIDERS.get(device)
    if provider not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"this ONNX Runtime cannot use the device {device!r}; it has "
            f"{onnxruntime.get_available_providers()}. Use --device cpu or --backend torch"
        )
    options.log_severity_level = 3  # errors; they arrive as exceptions as well
    options.intra_op_num_threads = threads or 0
    # Waiting threads that spin take the cores from those that work, as soon as a machine does
    # anything else: one query can then take twenty times as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if weights:  # ONNX Runtime copies what it is given here
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
        options.add_external_initializers(list(weights), values)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's own classes share no other base
        raise CheckpointError(
            f"{graph} cannot be opened: {error}; if another version of m3connect exported it, `m3connect "
            "export MODEL --format onnx --output DIR` makes a new one"
        ) from error
