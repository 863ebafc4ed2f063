"""The Elasticsearch connector of m3connect: ``connect(collection="handbook")``."""

from m3connect_elasticsearch.connect import connect
from m3connect_elasticsearch.connector import ElasticsearchConnector

__all__ = ["ElasticsearchConnector", "connect"]
