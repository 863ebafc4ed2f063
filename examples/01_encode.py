"""Encode texts: three representations from one forward pass.

Run: python examples/01_encode.py
"""

from m3connect import M3Encoder
from m3connect.searching.scoring import (
    dense_scores,
    maxsim_scores,
    sparse_contributions,
    sparse_scores,
)

encoder = M3Encoder.load("m3-mini")

passages = encoder.encode(
    [
        "Rotate the signing key every ninety days.",
        "Die Signaturschlüssel werden alle neunzig Tage erneuert.",
        "The cafeteria opens at eight.",
    ]
)
query = encoder.encode(["how often are signing keys replaced?"], kind="query")

print("dense vectors:", passages.dense.shape, passages.dense.dtype)
print("lexical terms per passage:", [len(passages.sparse[row]) for row in range(3)])
print("token vectors per passage:", [len(passages.multivector[row]) for row in range(3)])

# Dense and token vectors cross languages; lexical weights find shared words.
print("dense       ", dense_scores(query.dense[0], passages.dense).round(3))
print("sparse      ", sparse_scores(query.sparse[0], passages.sparse).round(3))
print("multivector ", maxsim_scores(query.multivector[0], passages.multivector).round(3))

shared = sparse_contributions(query.sparse[0], passages.sparse[0])
print("shared terms", {encoder.term(term): round(part, 3) for term, part in shared.items()})

# Arrow, for Parquet, Ray, Spark, Polars or DuckDB; the large buffers are shared.
print(passages.to_arrow().schema)
