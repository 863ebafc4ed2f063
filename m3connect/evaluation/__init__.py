"""Measure retrieval in every mode: offline and exact, or against a live collection.

datasets.py     a corpus, queries and judgements on disk (hub.py fetches published ones)
store.py        embeddings on disk, resumable
modes.py        what a mode searches and how it fuses; the published settings as presets
exact.py        exact search in blocks
bm25.py         the lexical baseline
metrics.py      trec_eval's figures (answers.py: answer-string recall)
significance.py intervals and tests
run.py          the main path: dataset + encoder -> rankings -> figures
live.py         the same through a connector
"""
