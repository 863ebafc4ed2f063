"""One engine of ``encode.py`` in a process of its own: it encodes a workload each time it is told to.

    python encode_worker.py flagembedding|onnx|torch CHECKPOINT TEXTS.json THREADS

Started by ``encode.py``; imports m3connect or FlagEmbedding, never both. Each line on standard input
is a task, each line on standard output its answer in seconds.
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


def m3connect(backend: str, checkpoint: str, threads: int) -> Callable[[list[str], int], object]:
    """m3connect on one of its backends; it needs no batch size."""
    from m3connect import M3Encoder

    encoder = M3Encoder.load(checkpoint, backend=backend, device="cpu", threads=threads)
    return lambda texts, _: encoder.encode(texts)


def main() -> None:
    """Load, say so, and answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=["flagembedding", "onnx", "torch"])
    parser.add_argument("checkpoint")
    parser.add_argument("texts", type=Path)
    parser.add_argument("threads", type=int)
    options = parser.parse_args()
    workloads = json.loads(options.texts.read_text())

    # What the libraries print must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    started = time.perf_counter()
    if options.engine == "flagembedding":
        encode = flagembedding(options.checkpoint, options.threads)
    else:
        encode = m3connect(options.engine, options.checkpoint, options.threads)
    loaded = time.perf_counter() - started
    encode(workloads["mixed"][:4], 4)  # warm
    print(json.dumps(loaded), file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        started = time.perf_counter()
        encode(workloads[task["workload"]], task["batch"])
        print(json.dumps(time.perf_counter() - started), file=answers, flush=True)


if __name__ == "__main__":
    main()
