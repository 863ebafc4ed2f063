"""One engine of ``encode.py`` in a process of its own: it encodes a workload each time it is told to.

    python encode_worker.py KIND CHECKPOINT TEXTS.json THREADS wall|cpu

Started by ``encode.py``; imports m3connect or a peer, never both. Each line on standard input is a task, each
line on standard output its answer in seconds.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_LENGTH = 512


def flagembedding(
    checkpoint: str, threads: int, pooling: str = "cls"
) -> Callable[[list[str], int], dict[str, Any]]:
    """FlagEmbedding in float32, all three outputs; ``export_worker.py`` uses it, too."""
    import torch
    from FlagEmbedding import BGEM3FlagModel

    torch.set_num_threads(threads)
    model = BGEM3FlagModel(checkpoint, pooling_method=pooling, use_fp16=False, devices="cpu")
    return lambda texts, batch: model.encode(
        texts,
        batch_size=batch,
        max_length=MAX_LENGTH,
        return_dense=True,
        return_sparse=True,
        return_colbert_vecs=True,
    )


def sentence_transformers(
    backend: str, checkpoint: str, threads: int
) -> Callable[[list[str], int], object]:
    """sentence-transformers: the dense vector alone, in float32."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    given = {"ov_config": options} if backend == "openvino" else {}
    model = SentenceTransformer(checkpoint, backend=backend, device="cpu", model_kwargs=given)
    model.max_seq_length = MAX_LENGTH
    return lambda texts, batch: model.encode(texts, batch_size=batch)


def m3connect(
    backend: str, dtype: str, checkpoint: str, threads: int
) -> Callable[[list[str], int], object]:
    """m3connect on one of its backends; it needs no batch size."""
    from m3connect import M3Encoder

    encoder = M3Encoder.load(
        checkpoint, backend=backend, device="cpu", dtype=dtype, threads=threads
    )
    return lambda texts, _: encoder.encode(texts)


def plain(checkpoint: str, threads: int, *, alone: bool) -> Callable[[list[str], int], object]:
    """Our network in float32 on padded batches of like length; or its linear layers' products alone.

    Neither makes embeddings of what comes out.
    """
    import numpy as np
    import torch

    from m3connect.inference.batching import plan
    from m3connect.model.checkpoint import open_checkpoint, read_tokenizer
    from m3connect.model.tokenize import TextTokenizer
    from m3connect.model.weights import load_model

    torch.set_num_threads(threads)
    found = open_checkpoint(Path(checkpoint))
    model, config = load_model(found), found.config
    tokenizer = TextTokenizer(read_tokenizer(found.path)[0], config, MAX_LENGTH)
    linear = [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
    inputs = {part.in_features: torch.randn(1024, part.in_features) for part in linear}

    @torch.inference_mode()
    def products(texts: list[str], _: int) -> None:
        rows = int(tokenizer(texts, "passage").lengths.sum())
        while rows > 0:
            for part in linear:
                part(inputs[part.in_features][: min(rows, 1024)])
            rows -= 1024

    @torch.inference_mode()
    def padded(texts: list[str], _: int) -> None:
        tokens = tokenizer(texts, "passage")
        for rows in plan(tokens.lengths, 512, pads=True):  # at most 1024 with padding
            ids = tokens.padded(rows, config.body.pad_token_id)
            mask = np.arange(ids.shape[1]) < tokens.lengths[rows, None]
            model(torch.from_numpy(ids), None if mask.all() else torch.from_numpy(mask))

    return products if alone else padded


def load(kind: str, checkpoint: str, threads: int) -> Callable[[list[str], int], object]:
    """An engine by its name in ``encode.py``."""
    first, _, second = kind.partition(" ")
    if first == "flagembedding":
        return flagembedding(checkpoint, threads)
    if first == "st":
        return sentence_transformers(second, checkpoint, threads)
    if first in ("padded", "products"):
        return plain(checkpoint, threads, alone=first == "products")
    return m3connect(first, second, checkpoint, threads)


def main() -> None:
    """Load, say so, and answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("checkpoint")
    parser.add_argument("texts", type=Path)
    parser.add_argument("threads", type=int)
    parser.add_argument("clock", choices=["wall", "cpu"])
    options = parser.parse_args()
    workloads = json.loads(options.texts.read_text())

    # What the libraries print must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    started = time.perf_counter()
    encode = load(options.engine, options.checkpoint, options.threads)
    loaded = time.perf_counter() - started
    # Warm: a tokenizer's first batch of many texts takes most of a second, once a process.
    encode(workloads["uniform 32"][:32], 8)
    print(json.dumps(loaded), file=answers, flush=True)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    for line in sys.stdin:
        task = json.loads(line)
        started = clock()
        encode(workloads[task["workload"]], task["batch"])
        print(json.dumps(clock() - started), file=answers, flush=True)


if __name__ == "__main__":
    main()
