"""The encoder and its collections over HTTP and the Model Context Protocol.

app.py        the ASGI application: who may call, how errors look, which routes there are
service.py    what the routes work on: the encoder, the open collections, their locks
operations.py what a caller may do, whatever protocol they speak: search, read, write
batching.py   many callers, few forward passes
waiting.py    between the event loop and the threads that work
metrics.py    figures for Prometheus
access.py     keys, and the filter that each key is bound to
schemas.py    requests and answers of our own routes; docs/service.md explains them
native.py     /v1/m3/embeddings, /v1/search, /v1/explain, /v1/collections, /v1/ingest
openai.py     /v1/embeddings as OpenAI's clients speak it
tei.py        the routes of text-embeddings-inference, and /v1/rerank as Cohere's clients speak it
page/         the search page
mcp.py        the same as tools of an agent
"""
