"""Measure retrieval in every mode: offline and exact, or against a live collection.

run.py              the main path: dataset + encoder -> embeddings -> answers -> figures
datasets.py         a corpus, queries and judgements on disk (hub.py: published ones, by name)
modes.py            what a mode searches and how it fuses; the published settings as presets
store.py exact.py offline.py    embeddings on disk, exact search over them, every mode's answers
baselines.py bm25.py            rows to compare with
storage.py          smaller multi-vectors
measure.py metrics.py answers.py significance.py    from answers to figures and how sure they are
live.py             the same through a connector
tune.py             the fusion that serves these data
comparison.py comparison_report.py      what one model gained over another
report.py files.py html.py charts.py published.py   what people and machines read
mining.py mining_report.py teacher.py               training data
synthesize.py endpoint.py       queries by a language model
"""
