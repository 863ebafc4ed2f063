"""Elasticsearch for m3connect: :func:`connect` opens a collection on a server.

opening.py     connect: options, checked, become a connector
connector.py   the contract on top of Elasticsearch
mapping.py     records as documents and back
filters.py     filters as term queries
queries.py     queries as bodies of searches
naming.py      what Elasticsearch takes as a name
errors.py      what the driver raises and the server answers, as ours
index.py       one index, as the few requests that a collection needs
server.py      the server behind it: version, licence, requests
"""

from m3connect_elasticsearch.connector import ElasticsearchConnector
from m3connect_elasticsearch.opening import connect

__all__ = ["ElasticsearchConnector", "connect"]
