"""Measure retrieval in every mode: offline and exact, or against a live collection.

run.py              the main path: dataset + encoder -> embeddings -> answers -> figures
shards.py exact.py offline.py   embeddings on disk, exact search over them, every mode's answers
passages.py         a corpus cut as ingestion cuts it, when documents are to count by passages
known_items.py      queries out of the documents, where nobody wrote any
live.py             the same through a connector
measure.py metrics.py answers.py significance.py    from answers to figures and how sure they are
threshold.py        the score below which a query has no answer
baselines.py bm25.py            rows to compare with
compression.py      smaller representations
tune.py             the fusion that serves these data
sweep.py            the cut, mode and depth that serve these data, with what each costs
requires.py         the packages that it needs beyond the core
reports/            what people and machines read
"""
