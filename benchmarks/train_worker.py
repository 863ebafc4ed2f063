"""One way of training, in a process of its own: forward and backward on random tokens.

    python train_worker.py plain|cached|flagembedding CHECKPOINT QUERIES LENGTH STEPS LIMIT

Started by ``train.py``; imports m3connect or FlagEmbedding, never both. Prints one line of JSON: the
seconds of each step, and the largest memory that the process took beyond the loaded model; or null,
if that would have been more than LIMIT bytes.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

QUERY_LENGTH = 32
FIRST_WORD = 10
TEMPERATURE = 0.02
SUB_BATCH_TOKENS = 2048


def ours(
    checkpoint: str, queries: int, length: int, *, cached: bool
) -> tuple[Callable[[], None], int]:
    """A step of m3connect: all three heads, self-distillation."""
    import torch
    from torch import Tensor

    from m3connect.model.checkpoint import open_checkpoint
    from m3connect.model.weights import load_model
    from m3connect.training.collate import Batch, Texts
    from m3connect.training.criterion import Criterion
    from m3connect.training.gradcache import cached_backward, plain_backward
    from m3connect.training.losses import Objective
    from m3connect.types import LEGS

    model = load_model(open_checkpoint(Path(checkpoint))).train()
    words = model.config.body.vocab_size

    def texts(count: int, tokens: int) -> Texts:
        ids = torch.randint(FIRST_WORD, words - 1, (count, tokens))
        every = torch.ones_like(ids, dtype=torch.bool)
        return Texts(ids, every, ids, every, every)

    keys = torch.arange(queries)
    batch = Batch(
        texts(queries, QUERY_LENGTH), texts(queries, length), keys, keys, keys[:, None], None
    )
    weights = {"dense": 1.0, "sparse": 0.3, "multivector": 1.0}
    criterion = Criterion(Objective(TEMPERATURE, weights, weights | {"sparse": 0.1}))
    backward = cached_backward if cached else plain_backward

    def loss_of(reps: list[dict[str, Tensor]]) -> Tensor:
        return criterion(reps[0], reps[1], batch, self_distill=True)[0]

    def step() -> None:
        model.zero_grad()
        backward(model, (batch.queries, batch.passages), loss_of, LEGS, SUB_BATCH_TOKENS)

    return step, batch.tokens


def flagembedding(checkpoint: str, queries: int, length: int) -> tuple[Callable[[], None], int]:
    """The same step of FlagEmbedding's model, as its trainer calls it."""
    import torch
    from FlagEmbedding.finetune.embedder.encoder_only.m3.modeling import EncoderOnlyEmbedderM3Model
    from FlagEmbedding.finetune.embedder.encoder_only.m3.runner import EncoderOnlyEmbedderM3Runner
    from transformers import AutoTokenizer

    parts = EncoderOnlyEmbedderM3Runner.get_model(checkpoint)
    model = EncoderOnlyEmbedderM3Model(
        parts,
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
        temperature=TEMPERATURE,
        sub_batch_size=-1,
        normalize_embeddings=True,
        unified_finetuning=True,
        use_self_distill=True,
        self_distill_start_step=-1,
    ).train()

    def features(count: int, tokens: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(FIRST_WORD, model.vocab_size - 1, (count, tokens))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    asked, answers = features(queries, QUERY_LENGTH), features(queries, length)

    def step() -> None:
        model.zero_grad()
        model(asked, answers).loss.backward()

    return step, queries * (QUERY_LENGTH + length)


def peak() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory(beyond: int) -> None:
    """Let allocations fail that take the process so many bytes beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    ceiling = pages * resource.getpagesize() + beyond
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))


def step_seconds(step: Callable[[], None], steps: int) -> list[float] | None:
    """The seconds of each step; None where memory ran out."""
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        try:
            step()
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            return None
        seconds.append(time.perf_counter() - began)
    return seconds


def main() -> None:
    """Load, step, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["plain", "cached", "flagembedding"])
    parser.add_argument("checkpoint")
    parser.add_argument("queries", type=int)
    parser.add_argument("length", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("limit", type=int)
    options = parser.parse_args()

    answers, sys.stdout = sys.stdout, sys.stderr
    if options.kind == "flagembedding":
        step, tokens = flagembedding(options.checkpoint, options.queries, options.length)
    else:
        cached = options.kind == "cached"
        step, tokens = ours(options.checkpoint, options.queries, options.length, cached=cached)
    loaded = peak()
    limit_memory(options.limit)
    seconds = step_seconds(step, options.steps)
    result = seconds and {"seconds": seconds, "tokens": tokens, "bytes": peak() - loaded}
    print(json.dumps(result), file=answers)


if __name__ == "__main__":
    main()
