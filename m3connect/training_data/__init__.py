"""Where training data come from.

miner.py       hard negatives from a dataset to a file: mining.py (rules), report.py (what came of it)
teacher.py     scores of a cross-encoder
synthesize.py  queries by a language model (endpoint.py)
"""
