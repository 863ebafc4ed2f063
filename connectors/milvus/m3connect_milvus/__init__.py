"""Milvus for m3connect: :func:`connect` opens a collection, in Milvus Lite or on a server.

opening.py     connect: options, checked, become a connector
connector.py   the contract on top of Milvus
mapping.py     records as rows and back
filters.py     filters as expressions
queries.py     queries as searches
errors.py      what the driver raises, as ours
storing/       how a collection lies in Milvus
engine/        a server, or Milvus Lite
"""

from m3connect_milvus.opening import connect

__all__ = ["connect"]
