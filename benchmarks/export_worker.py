"""What FlagEmbedding makes of a checkpoint in the published layout: ``export.py``'s other half.

    python export_worker.py CHECKPOINT POOLING TEXTS.json OUTPUT.npz

Started by ``export.py`` in an environment with FlagEmbedding 1.4; imports nothing of m3connect.
"""

import json
import sys
from pathlib import Path

import numpy as np
from encode_worker import flagembedding

checkpoint, pooling, texts, output = sys.argv[1:]
encode = flagembedding(checkpoint, 1, pooling)
found = encode(json.loads(Path(texts).read_text()), 32)
arrays = {"dense": found["dense_vecs"]}
for row, (vectors, weights) in enumerate(
    zip(found["colbert_vecs"], found["lexical_weights"], strict=True)
):
    arrays[f"vectors{row}"] = vectors
    arrays[f"terms{row}"] = np.array([int(term) for term in weights], int)
    arrays[f"weights{row}"] = np.array([float(weight) for weight in weights.values()])
np.savez(output, **arrays)
