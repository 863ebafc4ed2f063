"""Opens a collection from options: chooses the engine."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from m3connect.connecting.retry import DEFAULT_POLICY, RetryPolicy
from m3connect.errors import ConfigError
from m3connect_qdrant.connector import QdrantConnector
from m3connect_qdrant.engine.protocol import Engine
from m3connect_qdrant.mapping import MultivectorStorage, Placing, Quantization
from m3connect_qdrant.naming import check_name

DEFAULT_PATH = ".m3connect/qdrant"


def connect(
    *,
    collection: str,
    url: str | None = None,
    path: str | None = None,
    api_key: str | None = None,
    timeout: float = 60.0,
    prefer_grpc: bool = True,
    grpc_port: int = 6334,
    exact: bool = False,
    multivector_storage: MultivectorStorage | None = None,
    shards: int | None = None,
    replicas: int | None = None,
    on_disk: bool = False,
    quantization: Quantization | None = None,
    tenant_field: str | None = None,
    ca_certificate: str | Path | None = None,
    retry: RetryPolicy = DEFAULT_POLICY,
) -> QdrantConnector:
    """A collection in Qdrant; nothing is opened, sent or created yet.

    Args:
        collection: its name.
        url: of a server, such as ``http://localhost:6333``; ``https`` for TLS.
        path: without ``url``, the folder of the embedded collections, or ``:memory:``.
        api_key: the server's key or a token.
        timeout: seconds for one request to a server.
        prefer_grpc: whether a server is spoken to by gRPC rather than REST.
        grpc_port: the server's port for it.
        exact: whether dense vectors are searched without the graph: exact, slower.
        multivector_storage: how a new collection stores token values, if not as its schema says:
            ``turbo4``, ``turbo8`` and ``turbo16`` are compressed. Not every server takes each.
        shards: how many parts a server makes of a new collection; default: its own setting.
        replicas: further copies of each part, likewise.
        on_disk: whether the server reads vectors, sparse indexes and payloads of a new collection from disk when
            they are needed, rather than keep them in memory.
        quantization: what the server's graph over dense vectors walks in a new collection, kept in memory:
            8 bits a value (``int8``) or one (``binary``). Scores are those of the full vectors.
        tenant_field: payload field with a string by which a new collection keeps tenants apart; every
            search and filter then says whose records it is about. A server indexes it as such.
        ca_certificate: PEM file of the authority that signed the server's certificate.
        retry: how transient failures are retried.

    Raises:
        ConfigError: a bad option.
    """
    if url is not None and path is not None:
        raise ConfigError("give url (a server) or path (embedded), not both")
    if multivector_storage not in {None, *get_args(MultivectorStorage)}:
        known = ", ".join(get_args(MultivectorStorage))
        raise ConfigError(f"multivector_storage is one of {known}, not {multivector_storage!r}")
    if quantization not in {None, *get_args(Quantization)}:
        known = ", ".join(get_args(Quantization))
        raise ConfigError(f"quantization is one of {known}, not {quantization!r}")
    placing = Placing(shards, replicas, on_disk, quantization)
    if url is None and placing != Placing():
        raise ConfigError("shards, replicas, on_disk and quantization are a server's: give its url")
    if shards is not None and shards < 1:
        raise ConfigError(f"shards must be at least 1, got {shards}")
    if replicas is not None and replicas < 0:
        raise ConfigError(f"replicas must be at least 0, got {replicas}")
    if ca_certificate is not None and not Path(ca_certificate).is_file():
        raise ConfigError(f"ca_certificate: there is no file {ca_certificate}")
    engine: Engine
    # The client takes half a second to import, of which a search of a folder needs nothing.
    if url is not None:
        from m3connect_qdrant.engine.client import ServerEngine

        check_name(collection, ServerEngine.longest_name)
        engine = ServerEngine(
            collection,
            url,
            api_key=api_key,
            timeout=timeout,
            prefer_grpc=prefer_grpc,
            grpc_port=grpc_port,
            ca_certificate=None if ca_certificate is None else Path(ca_certificate),
        )
    elif path == ":memory:":
        from m3connect_qdrant.engine.client import MemoryEngine

        check_name(collection, MemoryEngine.longest_name)
        engine = MemoryEngine(collection)
    else:
        from m3connect_qdrant.engine.edge import EdgeEngine

        check_name(collection, EdgeEngine.longest_name)
        engine = EdgeEngine(Path(path or DEFAULT_PATH) / collection)
    return QdrantConnector(
        collection,
        engine,
        exact=exact,
        storage=multivector_storage,
        placing=placing,
        tenant_field=tenant_field,
        policy=retry,
    )
