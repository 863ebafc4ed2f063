"""Memory and time of long texts on a CPU, in the shape of BAAI/bge-m3 with random weights.

    python benchmarks/long_texts.py                            # 24 layers, 1024 wide, 4 texts of 8192 tokens
    python benchmarks/long_texts.py --layers 2 --texts 1       # a look first

All three outputs. The peak is the process' largest resident memory: interpreter, torch, weights,
activations and results.
"""

import argparse
import resource
import time

import torch
from checkpoint import shape

from m3connect.inference import M3Encoder
from m3connect.inference.precision import Choice, cpu_name
from m3connect.inference.torch_backend import TorchBackend
from m3connect.model.checkpoint import read_tokenizer
from m3connect.model.hub import resolve
from m3connect.model.m3 import M3Model


def random_model(layers: int, width: int, length: int, dtype: torch.dtype) -> M3Model:
    """Made in its precision, so that nothing is in memory twice."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = M3Model(shape(layers, width, width // 64, length))
    tensors = {
        name: torch.ones(tensor.shape, dtype=dtype)
        if "LayerNorm.weight" in name
        else torch.empty(tensor.shape, dtype=dtype).normal_(std=0.02)
        for name, tensor in model.tensors().items()
    }
    model.load_tensors(tensors)
    return model.eval()


def peak() -> float:
    """GiB of this process, at most until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print one row of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--texts", type=int, default=4)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    model = random_model(
        options.layers, options.width, options.length, getattr(torch, options.dtype)
    )
    tokenizer, identity = read_tokenizer(resolve("m3-mini"))
    backend = TorchBackend(model, Choice(options.dtype, "as asked for"))
    encoder = M3Encoder(model.config, tokenizer, identity, backend)
    loaded = peak()
    texts = [f"{number} " + "river " * options.length for number in range(options.texts)]
    wall, cpu = time.perf_counter(), time.process_time()
    found = encoder.encode(texts)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert found.n_tokens.tolist() == [options.length] * options.texts
    print(f"{cpu_name()}, {options.threads} thread(s)\n")
    print(
        "| layers | width | precision | texts | tokens each | loaded, GiB | peak, GiB | CPU s | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {options.layers} | {options.width} | {options.dtype} | {options.texts} "
        f"| {options.length} | {loaded:.2f} | {peak():.2f} | {cpu:.0f} | {wall:.0f} |"
    )


if __name__ == "__main__":
    main()
