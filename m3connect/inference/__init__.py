"""Encoding: text in, dense, sparse and multi-vector representations out.

encoder.py     M3Encoder, start here: tokens -> batches -> a backend -> embeddings
opening.py     which backend runs a checkpoint, where; precision.py: in which precision
batching.py    which texts go through together; budget.py: how many tokens a batch has
assembly.py    their outputs in order; lexical.py: weights per term
backend.py     what runs the network: the protocol
  onnx_backend.py   ONNX Runtime; prepared.py: its session, made once and mapped from the disk
  torch_backend.py  torch
  workers.py        a process a device; worker.py is such a process
checks.py      what may be asked of an encoder
remote.py      an encoder at a URL; wire.py: requests to it
  m3_service.py  where `m3connect serve` is there
  tei.py         where text-embeddings-inference is there
pairs.py       scores of query-passage pairs; reranking.py: cross-encoders
"""

from m3connect.inference.encoder import M3Encoder

__all__ = ["M3Encoder"]
