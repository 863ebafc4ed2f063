"""m3connect inside other libraries: thin, each file behind an extra of its own.

arrow.py       the core of every pipeline: Arrow in, a collection out
ray.py ray_files.py spark.py daft.py dlt.py      engines of pipelines
langchain.py haystack.py llama_index.py          frameworks of applications
remembering.py                                   what they ask an encoder for twice
flagembedding.py                                 BGEM3FlagModel, for code that has it
telemetry.py                                     OpenTelemetry's spans, Prometheus' counters
mteb.py                                          the Massive Text Embedding Benchmark
"""
