"""The connectors of the core, which need no driver.

memory.py    the exact in-memory connector: the oracle every backend is held to
parquet.py   a collection as a Parquet file; the owner of the one Parquet layout
"""
