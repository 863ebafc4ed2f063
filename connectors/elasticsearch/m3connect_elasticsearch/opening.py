"""From options to a connector, without any I/O."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from elastic_transport.client_utils import DEFAULT
from elasticsearch import Elasticsearch

from m3connect.connecting.retry import DEFAULT_POLICY, RetryPolicy
from m3connect.errors import ConfigError
from m3connect_elasticsearch.connector import ElasticsearchConnector, Options
from m3connect_elasticsearch.index import Index
from m3connect_elasticsearch.naming import check_name
from m3connect_elasticsearch.server import Server

DenseIndex = Literal["int8_hnsw", "hnsw", "bbq_hnsw", "int8_flat", "flat"]


def connect(
    *,
    collection: str,
    url: str = "http://127.0.0.1:9200",
    api_key: str | None = None,
    username: str | None = None,
    password: str | None = None,
    ca_certificate: str | Path | None = None,
    timeout: float = 60.0,
    exact: bool = False,
    dense_index: DenseIndex | None = None,
    candidates: int = 1000,
    shards: int = 1,
    replicas: int | None = None,
    server_fusion: bool = False,
    rank_vectors: bool = False,
    tenant_field: str | None = None,
    retry: RetryPolicy = DEFAULT_POLICY,
) -> ElasticsearchConnector:
    """A connector to one collection. Nothing is sent before its first method is called.

    Args:
        collection: name of the index, or an alias of one index.
        url: scheme, host and port of the server.
        api_key: an encoded API key.
        username, password: instead of an API key.
        ca_certificate: PEM file of the authority that signed the server's certificate.
        timeout: seconds that one request may take.
        exact: whether a new collection's dense vectors are compared one by one: exact, slower. The
            same as ``dense_index="flat"``.
        dense_index: type of the dense field's index. ``int8_hnsw``, the default of a new
            collection, walks 8-bit vectors and scores by the full ones; ``hnsw`` walks the full
            ones, ``bbq_hnsw`` bits; ``flat`` and ``int8_flat`` compare with every record.
        candidates: how many records a dense search considers in each shard, at least. A shard
            with no more records than that is searched exactly. At most 10,000.
        shards: primary shards of a new collection.
        replicas: copies of each; None makes one where there are two nodes or more.
        server_fusion: leave RRF to the server where its licence has the ``rrf`` retriever. It ranks
            lexical hits by rounded weights and settles ties in its own order.
        rank_vectors: make a new collection's multi-vectors searchable by the server. Needs an
            Enterprise licence and stores them a second time.
        tenant_field: payload field with a string by which a new collection keeps tenants apart; every
            search and filter then says whose records it is about, and is routed to their shards.
        retry: how transient failures are retried.

    Raises:
        ConfigError: an option is wrong, or two exclude each other.
    """
    check_name(collection)
    if exact and dense_index not in {None, "flat"}:
        raise ConfigError(f"exact means dense_index='flat', not {dense_index!r}; give one of them")
    if not 1 <= candidates <= 10_000:
        raise ConfigError(f"candidates must be from 1 to 10,000, got {candidates}")
    if shards < 1 or (replicas is not None and replicas < 0):
        raise ConfigError(f"shards must be at least 1 and replicas 0, got {shards}, {replicas}")
    if (username is None) != (password is None):
        raise ConfigError("username and password belong together")
    if ca_certificate is not None and not Path(ca_certificate).is_file():
        raise ConfigError(f"ca_certificate: there is no file {ca_certificate}")
    try:
        client = Elasticsearch(
            url,
            api_key=api_key,
            basic_auth=(username, password) if username and password else None,
            ca_certs=DEFAULT if ca_certificate is None else str(ca_certificate),
            request_timeout=timeout,
            max_retries=0,
            retry_on_timeout=False,
        )
    except ValueError as error:
        raise ConfigError(f"elasticsearch at {url!r}: {error}") from error
    # It warns of every refused connection, which retry does in better words. A level that the
    # application has set stays.
    logger = logging.getLogger("elastic_transport.node_pool")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)
    options = Options(
        "flat" if exact else dense_index,
        candidates,
        shards,
        replicas,
        server_fusion,
        rank_vectors,
        tenant_field,
    )
    return ElasticsearchConnector(Index(Server(client, retry, timeout), collection), options)
