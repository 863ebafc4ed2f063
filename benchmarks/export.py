"""Does FlagEmbedding make of an exported checkpoint what m3connect makes of the original?

    python benchmarks/export.py --peer-python ENV/bin/python [--model m3-mini]

The model is exported by ``m3connect export --format bge-m3`` and encoded in the peer's environment
(FlagEmbedding 1.4, transformers 4); the largest differences are printed, and more than 1e-4 is a
failure. FlagEmbedding is told the pooling, and the texts carry the model's prefixes, for the published
layout has no place for either; terms and vectors of the prefixes, which m3connect leaves out, are not
compared. The texts are in lower case, for a model may fold case and FlagEmbedding does not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from m3connect import M3Encoder
from m3connect.contract import Kind

WORKER = Path(__file__).with_name("export_worker.py")
TEXTS = [
    "what is bge m3?",
    "lexical matching ranks passages by the terms that they share with a query, and nothing else.",
    "der hund läuft im park, und der andere hund schläft.",
    "今天天气很好,我们去公园散步。",
    "где находится ближайшая станция метро?",
    "ما هي عاصمة كازاخستان؟",
    "เมืองหลวงของประเทศไทยคืออะไร",
    "def add(a, b): return a + b  # error e-4711",
    " ".join(["word"] * 200),
]


def differences(
    encoder: M3Encoder, kind: Kind, found: Mapping[str, np.ndarray], first: int
) -> list[float]:
    """The largest difference of each representation; the peer's rows of a kind begin at ``first``."""
    ours = encoder.encode(TEXTS, kind=kind)
    dense = np.abs(found["dense"][first : first + len(TEXTS)] - ours.dense).max()
    lexical, vectors = [0.0], [0.0]
    for row in range(len(TEXTS)):
        at = first + row
        theirs = dict(zip(found[f"terms{at}"], found[f"weights{at}"], strict=True))
        terms = ours.sparse[row]
        lexical += [
            abs(theirs.get(term, 0.0) - weight)
            for term, weight in zip(terms.indices, terms.values, strict=True)
        ]
        mine = ours.multivector[row]
        vectors.append(float(np.abs(found[f"vectors{at}"][-len(mine) :] - mine).max()))
    return [float(dense), float(max(lexical)), max(vectors)]


def main() -> None:
    """Export, encode twice, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="Python with FlagEmbedding 1.4")
    parser.add_argument("--model", default="m3-mini")
    options = parser.parse_args()
    encoder = M3Encoder.load(options.model, multivector_dtype="float32")
    config = encoder.config
    kinds: dict[Kind, str] = {"query": config.query_prefix, "passage": config.passage_prefix}
    with tempfile.TemporaryDirectory() as name:
        published, texts, arrays = (Path(name) / part for part in ("model", "texts", "found.npz"))
        command = ["-m", "m3connect", "export", options.model, "--format", "bge-m3"]
        subprocess.run([sys.executable, *command, "--output", published], check=True)
        texts.write_text(json.dumps([kinds[kind] + text for kind in kinds for text in TEXTS]))
        peer = [options.peer_python, WORKER, published, config.pooling, texts, arrays]
        subprocess.run(peer, check=True, stderr=subprocess.DEVNULL)
        with np.load(arrays) as loaded:
            found = dict(loaded)
    print("\n| texts | dense | sparse | multivector |\n|---|---|---|---|")
    worst = 0.0
    for number, kind in enumerate(kinds):
        largest = differences(encoder, kind, found, number * len(TEXTS))
        worst = max(worst, *largest)
        print(f"| {kind} | " + " | ".join(f"{value:.1e}" for value in largest) + " |")
    if worst > 1e-4:
        sys.exit(f"FlagEmbedding differs by {worst:.1e}")


if __name__ == "__main__":
    main()
