"""From options to a connector, without any I/O: Milvus Lite in this process, or a server.

>>> from m3connect_milvus import connect
>>> connect(collection="handbook").name  # opens .m3connect/milvus/handbook.db when first used
'milvus'
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from m3connect.connecting.retry import DEFAULT_POLICY, RetryPolicy
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect_milvus.connector import MilvusConnector

ConsistencyLevel = Literal["Strong", "Session", "Bounded", "Eventually"]
DenseIndex = Literal["FLAT", "HNSW", "AUTOINDEX"]
DenseType = Literal["float32", "float16"]
_SHELF = Path(".m3connect", "milvus")


def connect(
    *,
    collection: str,
    url: str | None = None,
    path: str | Path | None = None,
    token: str | None = None,
    api_key: str | None = None,
    database: str | None = None,
    timeout: float = 60.0,
    consistency_level: ConsistencyLevel = "Strong",
    partition_key: str | None = None,
    tenant_field: str | None = None,
    exact: bool = False,
    dense_index: DenseIndex | None = None,
    dense_dtype: DenseType = "float32",
    struct_array: bool | None = None,
    ca_certificate: str | Path | None = None,
    client_certificate: str | Path | None = None,
    client_key: str | Path | None = None,
    server_name: str | None = None,
    retry: RetryPolicy = DEFAULT_POLICY,
) -> MilvusConnector:
    """One collection in Milvus. Nothing is opened, sent or created yet.

    Args:
        collection: its name: ASCII letters, digits and underscores.
        url: a server's, such as ``http://localhost:19530``; ``https`` means TLS. Without it, Milvus
            Lite runs in this process.
        path: Milvus Lite's folder; ``.m3connect/milvus/<collection>.db`` in the current folder.
        token: ``user:password``, or an API key.
        api_key: the same by the name that the command line has for it.
        database: the server's database, if not its default.
        timeout: seconds that one request may take.
        consistency_level: ``Strong`` reads see every earlier write; the others are faster and may
            miss the latest.
        partition_key: payload field with a string by which a new collection is partitioned, such
            as a language; a filter on it searches that partition only.
        tenant_field: payload field with a string by which a new collection keeps tenants apart; it is the
            partition key, and every search and filter says whose records it is about.
        exact: whether a new collection's dense vectors are compared one by one: exact, slower. The
            same as ``dense_index="FLAT"``.
        dense_index: index of the dense vectors of a new collection; FLAT is exact. By default FLAT
            in Milvus Lite and HNSW on a server.
        dense_dtype: how the dense vectors of a new collection are stored; Milvus Lite has no float16.
        struct_array: whether a new collection also keeps its multi-vectors in a form that the
            server searches (Milvus 2.6.4 or later); by default where the server can.
        ca_certificate, client_certificate, client_key: PEM files for TLS.
        server_name: the name in the server's certificate, if it is not the URL's.
        retry: how transient failures are retried.

    Raises:
        ConfigError: an option is bad.
    """
    from m3connect_milvus.connector import MilvusConnector, Options
    from m3connect_milvus.engine.database import Database

    _check_choice("consistency_level", consistency_level, ConsistencyLevel)
    _check_choice("dense_dtype", dense_dtype, DenseType)
    if dense_index is not None:
        _check_choice("dense_index", dense_index, DenseIndex)
    if exact and dense_index not in {None, "FLAT"}:
        raise ConfigError(f"exact means dense_index='FLAT', not {dense_index!r}; give one of them")
    if url is not None and path is not None:
        raise ConfigError("give a url for a server or a path for Milvus Lite, not both")
    if tenant_field is not None and partition_key not in {None, tenant_field}:
        raise ConfigError("the tenant_field is the partition_key; give one of them")
    if ca_certificate is not None and not Path(ca_certificate).is_file():
        raise ConfigError(f"ca_certificate: there is no file {ca_certificate}")
    if token is not None and api_key is not None:
        raise ConfigError("token and api_key are the same option; give one")
    return MilvusConnector(
        collection=collection,
        database=Database(
            url=url,
            path=Path(path or _SHELF / f"{collection}.db"),
            shelf=None if path or url else _SHELF,
            token=token or api_key,
            name=database,
            timeout=timeout,
            policy=retry,
            tls=_tls(ca_certificate, client_certificate, client_key, server_name),
        ),
        consistency=consistency_level,
        options=Options(
            "FLAT" if exact else dense_index,
            dense_dtype,
            tenant_field or partition_key,
            struct_array,
            tenant_field,
        ),
    )


def _check_choice(option: str, value: str, choices: object) -> None:
    if value not in get_args(choices):
        raise ConfigError(f"{option} is one of {', '.join(get_args(choices))}, not {value!r}")


def _tls(
    ca: str | Path | None, certificate: str | Path | None, key: str | Path | None, name: str | None
) -> dict[str, str]:
    """The options of pymilvus, which names the CA's file differently where the client has one."""
    if (certificate is None) != (key is None) or (certificate is not None and ca is None):
        raise ConfigError("a client_certificate needs its client_key and a ca_certificate")
    files = {
        "server_pem_path" if certificate is None else "ca_pem_path": ca,
        "client_pem_path": certificate,
        "client_key_path": key,
        "server_name": name,
    }
    return {option: str(value) for option, value in files.items() if value is not None}
