"""Tokens a second on a GPU, in the shape of BAAI/bge-m3 with random weights, all three outputs.

    python benchmarks/encode_gpu.py                 # a CUDA card; about 2 minutes on a large one
    python benchmarks/encode_gpu.py --device cpu --layers 2 --width 64 --tokens 4000 --dtype float32

Needs torch and this repository (PYTHONPATH), nothing else: no checkpoint, no tokenizer, no download. What is
installed beside them has a row as well: the whole backend of m3connect, transformers on padded batches, and
FlagEmbedding. The share is of the card's own rate at a large matrix product, which is measured first.
"""

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from m3connect.model.m3 import M3Model
from m3connect.model.ragged import RaggedTexts, represent

LEGS = ("dense", "sparse", "multivector")
VOCABULARY, LONGEST = 250_002, 8192
ROUNDS = 3

Lengths = list[int]


def body(layers: int, width: int) -> SimpleNamespace:
    """What ``BodyConfig`` holds, which needs more than torch."""
    return SimpleNamespace(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
        max_position_embeddings=LONGEST + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        first_position=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def random_model(layers: int, width: int, device: str, dtype: torch.dtype) -> M3Model:
    """Made on the device."""
    torch.manual_seed(0)
    config = SimpleNamespace(body=body(layers, width), multivector_width=width, pooling="cls")
    with torch.device(device):
        return M3Model(config).to(dtype).eval()


def workloads(tokens: int) -> dict[str, Lengths]:
    """Texts' lengths, about ``tokens`` of each kind: mixed as web passages are, and uniform."""
    rng = random.Random(0)
    mixed: Lengths = []
    while sum(mixed) < tokens:
        mixed.append(min(512, max(4, round(rng.lognormvariate(4.7, 0.75)))))
    whole = {f"uniform {length}": [length] * max(1, tokens // length) for length in (512, LONGEST)}
    return {"mixed": mixed} | whole


def batches(lengths: Lengths, budget: int, *, pads: bool) -> Iterator[Lengths]:
    """Longest first, at most ``budget`` tokens each; ``pads`` counts padding."""
    batch: Lengths = []
    for length in sorted(lengths, reverse=True):
        filled = batch[0] * (len(batch) + 1) if pads and batch else sum(batch) + length
        if batch and filled > budget:
            yield batch
            batch = []
        batch.append(length)
    yield batch


def products(lengths: Lengths, layers: int, width: int) -> float:
    """Floating-point operations of the matrix products, attention's included."""
    tokens, squares = sum(lengths), sum(length * length for length in lengths)
    return layers * (24 * width**2 * tokens + 4 * width * squares) + 2 * width**2 * tokens


def wait(device: str) -> None:
    """Until the device has done everything."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], device: str) -> float:
    """Median of some rounds, after one that warms up."""
    times = []
    for _ in range(1 + ROUNDS):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def product_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product of random numbers."""
    size = 8192 if device.startswith("cuda") else 1024
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    repeats = 20

    def run() -> None:
        for _ in range(repeats):
            left @ right

    return 2 * size**3 * repeats / seconds(run, device)


def without_padding(model: M3Model, lengths: Lengths, budget: int, device: str) -> None:
    """The forward pass of ``m3connect.model.ragged``; each batch leaves while the next is computed."""
    leaving: list[torch.Tensor] = []
    on_cuda = device.startswith("cuda")
    for batch in batches(lengths, budget, pads=False):
        ids = torch.randint(4, VOCABULARY, (sum(batch),), pin_memory=on_cuda)
        offsets = torch.tensor([0, *batch]).cumsum(0)
        texts = RaggedTexts(
            ids.to(device, non_blocking=True), offsets.to(device, non_blocking=True), batch
        )
        with torch.no_grad():
            found = represent(model, texts, LEGS)
        leaving = [
            torch.empty(one.shape, dtype=one.dtype, pin_memory=on_cuda).copy_(
                one, non_blocking=True
            )
            for one in found.values()
        ]
    wait(device)
    assert leaving[0].shape[0] == len(batch)


def whole_backend(model: M3Model, budget: int, dtype: str) -> Callable[[Lengths], object]:
    """``TorchBackend`` as ``M3Encoder`` runs it, with everything in numpy at the end.

    Raises:
        ImportError: m3connect's dependencies are not installed.
    """
    import numpy as np

    from m3connect.inference.precision import Choice
    from m3connect.inference.torch_backend import TorchBackend
    from m3connect.model.tokenize import TokenIds

    backend = TorchBackend(model, Choice(dtype, "asked for"))
    rng = np.random.default_rng(0)

    def given(lengths: Lengths) -> Iterator[TokenIds]:
        for batch in batches(lengths, budget, pads=False):
            ids = rng.integers(4, VOCABULARY, sum(batch))
            yield TokenIds(np.cumsum([0, *batch]), ids, np.zeros(len(batch), np.bool_))

    return lambda lengths: [len(one.dense) for one in backend.run_all(given(lengths), LEGS)]


def padded(model: M3Model, budget: int, device: str) -> Callable[[Lengths], None]:
    """transformers' body on padded batches, and our heads.

    Raises:
        ImportError: transformers is not installed.
    """
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(**vars(model.config.body))
    with torch.device(device):
        theirs = XLMRobertaModel(config, add_pooling_layer=False).eval()
    theirs.to(next(model.parameters()).dtype)

    @torch.no_grad()
    def run(lengths: Lengths) -> None:
        for batch in batches(lengths, budget, pads=True):
            ids = torch.randint(4, VOCABULARY, (len(batch), batch[0]), device=device)
            mask = torch.arange(batch[0]) < torch.tensor(batch)[:, None]
            mask = mask.to(device)
            states = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            for one in model.heads(states, mask):
                one.cpu()

    return run


def flagembedding(layers: int, width: int, device: str) -> Callable[[Lengths], object]:
    """FlagEmbedding itself, with its default batch size, on texts of about these lengths.

    Raises:
        ImportError: it, or what makes a checkpoint for it, is not installed.
    """
    from checkpoint import make_checkpoint
    from FlagEmbedding import BGEM3FlagModel

    folder = Path(tempfile.mkdtemp()) / "published"
    make_checkpoint(folder, layers=layers, width=width, heads=width // 64, max_length=LONGEST)
    half = device.startswith("cuda")
    model = BGEM3FlagModel(str(folder), use_fp16=half, devices=device)
    return lambda lengths: model.encode(
        ["the " * (length - 2) for length in lengths],
        max_length=LONGEST,
        return_dense=True,
        return_sparse=True,
        return_colbert_vecs=True,
    )


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of each workload")
    parser.add_argument("--budget", type=int, default=16384, help="tokens of a batch")
    options = parser.parse_args()
    device, dtype = options.device, getattr(torch, options.dtype)

    on_cuda = device.startswith("cuda")
    card = torch.cuda.get_device_name(device) if on_cuda else platform.processor() or "CPU"
    rate = product_rate(device, dtype)
    print(
        f"{card}, torch {torch.__version__}, {options.dtype}; {rate / 1e12:.3g} TFLOP/s in a matrix"
    )
    print(
        f"product; {options.layers} layers, {options.width} wide, {options.budget} tokens a batch\n"
    )
    given = workloads(options.tokens)
    model = random_model(options.layers, options.width, device, dtype)
    rows: dict[str, Callable[[], Callable[[Lengths], object]]] = {
        "m3connect, forward pass": lambda: (
            lambda lengths: without_padding(model, lengths, options.budget, device)
        ),
        "m3connect, whole backend": lambda: whole_backend(model, options.budget, options.dtype),
        "transformers, padded": lambda: padded(model, options.budget, device),
        "FlagEmbedding, default batch": lambda: flagembedding(
            options.layers, options.width, device
        ),
    }
    print("| tokens/s (share of the product rate) | " + " | ".join(given) + " |")
    print("|---|" + "---|" * len(given))
    for name, make in rows.items():
        try:
            run = make()
        except ImportError as error:
            print(f"| {name}: not run, {error} |" + " |" * len(given))
            continue
        cells = []
        for lengths in given.values():
            took = seconds(partial(run, lengths), device)
            share = products(lengths, options.layers, options.width) / took / rate
            cells.append(f"{sum(lengths) / took:,.0f} ({share:.0%})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if on_cuda:
        print(f"\nPeak memory {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
