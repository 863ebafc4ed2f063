"""FlagEmbedding behind FastAPI, as a page of its documentation would have it: the peer of ``serve.py``.

    python serve_peer.py CHECKPOINT POOLING PORT

Started by ``serve.py`` in an environment with FlagEmbedding 1.4, fastapi and uvicorn; imports nothing of
m3connect. One request is one pass, and they take turns.
"""

import sys
import threading
from typing import Any

import torch
import uvicorn
from encode_worker import MAX_LENGTH
from fastapi import FastAPI
from FlagEmbedding import BGEM3FlagModel
from pydantic import BaseModel

checkpoint, pooling, port = sys.argv[1:]
torch.set_num_threads(1)
model = BGEM3FlagModel(checkpoint, pooling_method=pooling, use_fp16=False, devices="cpu")
turn = threading.Lock()
app = FastAPI()


class Body(BaseModel):
    """A request of one text."""

    input: str


@app.get("/health")
def health() -> None:
    """That it runs."""


@app.post("/v1/embeddings")
def embeddings(body: Body) -> dict[str, Any]:
    """The dense vector."""
    with turn:
        made = model.encode([body.input], max_length=MAX_LENGTH, return_dense=True)
    return {"data": [{"index": 0, "embedding": made["dense_vecs"][0].tolist()}]}


uvicorn.run(app, port=int(port), log_level="warning", access_log=False)
