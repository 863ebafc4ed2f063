"""From a text to hits, and why.

search.py    the main path: encode, plan, search, refine
names.py     the names of the modes
modes.py     what a mode is: its legs, candidates, fusion and depths
planner.py   one native request, or one that the client composes; composing.py: how it does
payload_sizes.py   whether payloads come along with the candidates of a composed one
fusion.py scoring.py   the fusions and the paper's scores, in numpy
refining.py  what becomes of the hits: minimum, reranker, documents, unlike ones, contexts, sentences
contexts.py  what an answer is written from: documents, neighbours, unlike hits, sentences
citing.py    a language model's prompt over hits, and the citations in its answer
explain.py   why a hit is where it is; absence.py: why there is none
"""
