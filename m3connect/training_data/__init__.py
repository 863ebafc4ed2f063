"""Where training data come from.

mining.py      hard negatives from searches
teacher.py     scores of a cross-encoder
synthesize.py  queries by a language model (endpoint.py)
"""
