"""What a connector is built of, and how one is opened by name.

registry.py   connect("qdrant", ...): connectors by name, from entry points
checks.py     what every connector refuses before its backend sees it
retry.py      the one retry policy
"""
