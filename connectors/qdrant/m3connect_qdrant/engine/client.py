"""The engines behind ``QdrantClient``: the client's own memory, for tests, and a server by URL."""

from __future__ import annotations

import logging
import math
import ssl
import time
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, cast

from qdrant_client import QdrantClient, models

from m3connect.connecting import deadline
from m3connect.errors import PermanentError, TransientError, Unsupported
from m3connect.types import Leg, SparseVector
from m3connect_qdrant.engine.client_errors import translate
from m3connect_qdrant.engine.strict import Allowance
from m3connect_qdrant.errors import NAME
from m3connect_qdrant.filters import Json
from m3connect_qdrant.mapping import Point

log = logging.getLogger(__name__)

OLDEST_SERVER = (1, 16)
"""The first server that keeps metadata with a collection."""
_METADATA = "m3connect"
_NOTE = "m3connect.note."


class MemoryEngine:
    """The client's in-memory mode; see :class:`m3connect_qdrant.engine.Engine`.

    Args:
        collection: the collection's name.
        client: what to ask, if not a client of its own.
    """

    embedded = True
    request_bytes = 4 * 1024 * 1024
    exact = True
    aliases = True
    longest_name = 255
    translate = staticmethod(translate)

    def __init__(self, collection: str, client: QdrantClient | None = None) -> None:
        self.collection = collection
        self.client = client or QdrantClient(":memory:")
        self.allowance = Allowance()
        self.borrowed = False

    def version(self) -> str:
        return f"qdrant-client in memory {version('qdrant-client')}"

    def beside(self, collection: str) -> Self:
        other = copy(self)
        other.collection, other.allowance, other.borrowed = collection, Allowance(), True
        return other

    def alias(self) -> str | None:
        return self._aliases().get(self.collection)

    def set_alias(self, collection: str) -> None:
        alias = models.CreateAlias(collection_name=collection, alias_name=self.collection)
        operations: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=alias)]
        if self.collection in self._aliases():
            gone = models.DeleteAlias(alias_name=self.collection)
            operations.insert(0, models.DeleteAliasOperation(delete_alias=gone))
        self.client.update_collection_aliases(operations)

    def create(
        self,
        vectors: Mapping[str, Json],
        sparse: Mapping[str, Json],
        metadata: str,
        settings: Mapping[str, Any],
    ) -> None:
        self.client.create_collection(
            self.collection,
            vectors_config={
                name: models.VectorParams(**params) for name, params in vectors.items()
            },
            sparse_vectors_config={
                name: models.SparseVectorParams(**params) for name, params in sparse.items()
            },
            metadata={_METADATA: metadata},
            **settings,
        )

    def collections(self) -> list[str]:
        names = sorted(collection.name for collection in self.client.get_collections().collections)
        return [
            name
            for name in names
            if _METADATA in (self.client.get_collection(name).config.metadata or {})
        ]

    def size(self) -> None:
        """Neither this mode nor a server's interface tells."""

    def drop(self) -> None:
        self.client.delete_collection(self.collection)

    def metadata(self) -> tuple[str, Mapping[str, str]] | None:
        config = self._info().config
        self.allowance = Allowance.of(config.strict_mode_config)
        kept = config.metadata or {}
        if _METADATA not in kept:
            return None
        notes = {
            key.removeprefix(_NOTE): text
            for key, text in kept.items()
            if key.startswith(_NOTE) and text is not None
        }
        return kept[_METADATA], notes

    def set_metadata(self, metadata: str) -> None:
        self.client.update_collection(self.collection, metadata={_METADATA: metadata})

    def note(self, notes: Mapping[str, str]) -> None:
        apart = {f"{_NOTE}{key}": text for key, text in notes.items()}
        self.client.update_collection(self.collection, metadata=apart)

    def indexes(self) -> set[str]:
        return set()

    def add_index(self, key: str, schema: str, *, tenant: bool = False) -> None:
        """Nothing: this mode reads every payload anyway."""

    def upsert(self, points: Sequence[Point]) -> None:
        written = [
            models.PointStruct(
                id=point.id,
                vector={name: _vector(vector) for name, vector in point.vectors.items()},
                payload=point.payload,
            )
            for point in points
        ]
        _completed(self.client.upsert(self.collection, written, wait=True), "upsert")

    def delete(self, where: Sequence[str] | Json) -> None:
        selector = (
            models.FilterSelector(filter=models.Filter(**where))
            if isinstance(where, dict)
            else models.PointIdsList(points=list(where))
        )
        _completed(self.client.delete(self.collection, selector, wait=True), "delete")

    def retrieve(self, ids: Sequence[str], payload: Json, legs: Sequence[Leg]) -> list[Point]:
        records = self.client.retrieve(
            self.collection, ids, with_payload=_selector(payload), with_vectors=list(legs) or False
        )
        return [_point(record) for record in records]

    def scroll(
        self,
        condition: Json | None,
        limit: int,
        offset: Any,
        payload: Json,
        legs: Sequence[Leg],
    ) -> tuple[list[Point], Any]:
        page, following = self.client.scroll(
            self.collection,
            scroll_filter=_filter(condition),
            limit=limit,
            offset=offset,
            with_payload=_selector(payload),
            with_vectors=list(legs) or False,
        )
        return [_point(record) for record in page], following

    def count(self, condition: Json | None) -> int:
        return self.client.count(self.collection, count_filter=_filter(condition), exact=True).count

    def query(self, requests: Sequence[Json]) -> list[list[tuple[float, Mapping[str, Any]]]]:
        searches = [models.QueryRequest.model_validate(request) for request in requests]
        answers = self.client.query_batch_points(self.collection, searches)
        return [
            [(point.score, point.payload or {}) for point in answer.points] for answer in answers
        ]

    def optimize(self) -> None:
        """Nothing: this mode has no index."""

    def close(self) -> None:
        if not self.borrowed:
            self.client.close()

    def _aliases(self) -> dict[str, str]:
        return {
            alias.alias_name: alias.collection_name for alias in self.client.get_aliases().aliases
        }

    def _info(self) -> models.CollectionInfo:
        return self.client.get_collection(self.collection)


class ServerEngine(MemoryEngine):
    """A server by URL; see :class:`m3connect_qdrant.engine.Engine`.

    Args:
        collection: the collection's name.
        url: of its REST interface; ``https`` for TLS.
        api_key: the server's key or a token.
        timeout: seconds for one request.
        prefer_grpc: gRPC for all data, which takes a fifth of the bytes that JSON does.
        grpc_port: its port.
        ca_certificate: PEM file of the server's authority, if not one of the system's.
    """

    embedded = False
    exact = False

    def __init__(
        self,
        collection: str,
        url: str,
        *,
        api_key: str | None,
        timeout: float,
        prefer_grpc: bool,
        grpc_port: int,
        ca_certificate: Path | None = None,
    ) -> None:
        with warnings.catch_warnings():
            # Of a key over http, with a line of source: on one's own machine there is no other way.
            warnings.simplefilter("ignore", UserWarning)
            client = QdrantClient(
                url=url,
                api_key=api_key,
                timeout=math.ceil(timeout),
                prefer_grpc=prefer_grpc,
                grpc_port=grpc_port,
                check_compatibility=False,  # it would ask in a thread and warn; `version` asks itself
                **_trust(ca_certificate),
            )
        # gRPC has deadlines of its own.
        timed = client if prefer_grpc else cast("QdrantClient", _Timed(client, timeout))
        super().__init__(collection, timed)
        self.timeout = timeout
        # A half-precision value of 2 bytes takes about 20 as JSON, and 32 MiB are taken.
        self.request_bytes = 4 * 1024 * 1024 if prefer_grpc else 1024 * 1024
        self._protocol = "gRPC" if prefer_grpc else "REST"

    def version(self) -> str:
        return f"qdrant {self.client.info().version} ({self._protocol})"

    def create(
        self,
        vectors: Mapping[str, Json],
        sparse: Mapping[str, Json],
        metadata: str,
        settings: Mapping[str, Any],
    ) -> None:
        version = self.client.info().version
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            raise Unsupported(
                f"the server is Qdrant {version}, at least {oldest} is needed",
                connector=NAME,
                operation="create",
            )
        super().create(vectors, sparse, metadata, settings)

    def indexes(self) -> set[str]:
        return set(self._info().payload_schema)

    def add_index(self, key: str, schema: str, *, tenant: bool = False) -> None:
        kind = models.PayloadSchemaType(schema)
        of_tenants = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        result = self.client.create_payload_index(
            self.collection, field_name=key, field_schema=of_tenants if tenant else kind, wait=True
        )
        _completed(result, "ensure")

    def optimize(self) -> None:
        """Wait for the server to index what was written, as long as a request may take."""
        deadline = time.monotonic() + self.timeout
        while (info := self._info()).status == models.CollectionStatus.YELLOW:
            if time.monotonic() > deadline:
                log.info("%s is still being indexed; it answers all the same", self.collection)
                return
            time.sleep(0.2)
        if info.status == models.CollectionStatus.RED:
            raise PermanentError(
                f"the server cannot index {self.collection!r}: {info.optimizer_status}",
                connector=NAME,
                operation="flush",
            )


class _Timed:
    """A client whose every request ends after so many seconds.

    Args:
        client: the client.
        seconds: what it was told, too.
    """

    def __init__(self, client: QdrantClient, seconds: float) -> None:
        self._client = client
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return method if name == "close" else partial(deadline.within, self._seconds, method)


def _trust(ca_certificate: Path | None) -> dict[str, Any]:
    """The client's options for a private authority, over REST and over gRPC."""
    if ca_certificate is None:
        return {}
    return {
        "verify": ssl.create_default_context(cafile=ca_certificate),
        "grpc_options": {"root_certificates": ca_certificate.read_bytes()},
    }


def _filter(condition: Json | None) -> models.Filter | None:
    return None if condition is None else models.Filter.model_validate(condition)


def _selector(payload: Json) -> models.PayloadSelector:
    if "include" in payload:
        return models.PayloadSelectorInclude(**payload)
    return models.PayloadSelectorExclude(**payload)


def _completed(result: models.UpdateResult, operation: str) -> None:
    """Refuse to call done what the server has only put in its queue."""
    if result.status != models.UpdateStatus.COMPLETED:
        raise TransientError(
            f"the server has not finished in time ({result.status})",
            connector=NAME,
            operation=operation,
        )


def _vector(vector: Any) -> Any:
    if isinstance(vector, SparseVector):
        return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
    return vector


def _point(record: models.Record) -> Point:
    vectors = record.vector if isinstance(record.vector, Mapping) else {}
    return Point(str(record.id), vectors, record.payload or {})
