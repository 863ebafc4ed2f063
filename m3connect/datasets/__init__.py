"""Test collections and training files: on disk, from the hub, line by line.

beir.py    a corpus, queries and judgements (qrels) in a folder
hub.py     published ones, by name
write.py   a folder in the same layout
lines.py   JSON lines: in order, by row, written
"""
