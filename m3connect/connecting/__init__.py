"""What a connector is built of, and how one is opened by name.

registry.py   connect("qdrant", ...): connectors by name, from entry points
checks.py     what every connector refuses before its backend sees it
reading.py    stored rows as embeddings, with the legs that were asked for
retry.py      the one retry policy
"""
