"""Qdrant for m3connect: :func:`connect` opens a collection, embedded, in memory or on a server."""

from m3connect_qdrant.connector import QdrantConnector
from m3connect_qdrant.factory import connect

__all__ = ["QdrantConnector", "connect"]
