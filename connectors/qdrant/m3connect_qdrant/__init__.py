"""Qdrant for m3connect: :func:`connect` opens a collection, embedded, in memory or on a server.

opening.py     connect: options, checked, become a connector
connector.py   the contract on top of Qdrant
points.py      the points of one collection, read and asked in portions
mapping.py     records as points and back
filters.py     filters as conditions on facts
queries.py     queries as requests
naming.py      what Qdrant takes as a name
errors.py      what the drivers raise, as ours
engine/        embedded, in the client's memory, or a server
"""

from m3connect_qdrant.connector import QdrantConnector
from m3connect_qdrant.opening import connect

__all__ = ["QdrantConnector", "connect"]
