"""What connector authors and applications test with.

conformance/  the suite that every connector passes
corpus.py     seeded records, queries, payloads and filters that tell right from almost right
fakes.py      an encoder without a model
"""
