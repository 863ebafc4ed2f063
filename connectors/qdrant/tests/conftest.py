"""Stand-ins for a Qdrant server: REST and gRPC on loopback, answered by the client's memory mode.

They show what goes over the wire and back; queued faults are answered first, with the bodies and
codes that a real server 1.19.0 was seen to send.
"""

# ruff: noqa: N802, N815 - the methods have the names of HTTP verbs and of the protocol

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any

import grpc as wire
import pytest
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.local import payload_value_extractor
from qdrant_client.local.json_path_parser import parse_json_path

from connectors.qdrant.tests.strict_mode import Guard, Refusal
from m3connect.connecting.retry import RetryPolicy
from m3connect_qdrant import QdrantConnector
from m3connect_qdrant.engine.client import ServerEngine

VERSION = "1.19.0"
REST_LIMIT = 32 * 1024 * 1024


def pytest_report_header() -> str:
    engines = ", ".join(f"{name} {version(name)}" for name in ("qdrant-edge-py", "qdrant-client"))
    return f"qdrant: {engines}; a stand-in for server {VERSION}"


class Store:
    """The collections behind a fake server, and what it was asked.

    Attributes:
        faults: to be answered before anything else, in turn.
        write_faults: the same to requests that write points.
        asked: the requests that came, by name.
    """

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.faults: deque[Callable[[Any], None]] = deque()
        self.write_faults: deque[Callable[[Any], None]] = deque()
        self.asked: list[str] = []
        self.version = VERSION
        self.status = models.CollectionStatus.GREEN
        self.guard: Guard | None = None
        self._indexes: dict[str, dict[str, models.PayloadSchemaType]] = {}
        self.of_tenants: set[str] = set()
        self.made: models.CreateCollection | None = None  # by REST, last
        self._lock = threading.Lock()

    def fault(self, request: str) -> Callable[[Any], None] | None:
        """What is answered to a request instead of the truth, if anything."""
        if self.faults:
            return self.faults.popleft()
        writes = request == "Upsert" or (request.startswith("PUT") and request.endswith("/points"))
        return self.write_faults.popleft() if writes and self.write_faults else None

    def info(self, name: str) -> models.CollectionInfo:
        with self._lock:
            info = self.client.get_collection(name)
        info.payload_schema = {
            key: models.PayloadIndexInfo(data_type=kind, points=0)
            for key, kind in self._indexes.get(name, {}).items()
        }
        info.status = self.status
        if self.guard is not None:
            settings = self.guard.settings.model_dump()
            info.config.strict_mode_config = models.StrictModeConfigOutput(**settings)
        return info

    def restrict(self, **settings: Any) -> None:
        """Switch strict mode on."""
        self.guard = Guard(models.StrictModeConfig(enabled=True, **settings))

    def query_batch_points(self, name: str, requests: Any) -> Any:
        if self.guard is not None:
            self.guard.queries(requests, self._indexes.get(name, {}))
        return self._ask("query_batch_points", name, requests)

    def scroll(self, name: str, **options: Any) -> Any:
        if self.guard is not None:
            condition = options["scroll_filter"]
            self.guard.page(options["limit"], condition, self._indexes.get(name, {}))
        return self._ask("scroll", name, **options)

    def count(self, name: str, condition: Any, exact: bool) -> Any:
        if self.guard is not None:
            self.guard.count(exact, condition, self._indexes.get(name, {}))
        return self._ask("count", name, condition)

    def retrieve(self, name: str, ids: Any, *selectors: Any) -> Any:
        if self.guard is not None:
            self.guard.ids(len(ids))
        return self._ask("retrieve", name, ids, *selectors)

    def upsert(self, name: str, points: Any) -> Any:
        if self.guard is not None:
            self.guard.written(len(points))
        return self._ask("upsert", name, points)

    def delete(self, name: str, selector: Any) -> Any:
        if self.guard is not None and isinstance(selector, models.FilterSelector):
            self.guard.removed(selector.filter, self._indexes.get(name, {}))
        return self._ask("delete", name, selector)

    def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        with self._lock:
            return getattr(self.client, method)(*args, **options)

    def remove(self, name: str) -> bool:
        self._indexes.pop(name, None)
        with self._lock:
            return bool(self.client.delete_collection(name))

    def index(
        self, name: str, key: str, kind: models.PayloadSchemaType, *, tenants: bool = False
    ) -> None:
        self._indexes.setdefault(name, {})[key] = kind
        self.of_tenants |= {key} if tenants else set()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return partial(self._ask, method)


# ------------------------------------------------------------------------------------------ REST


class _Handler(BaseHTTPRequestHandler):
    store: Store
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.route = f"{self.command} {self.path.partition('?')[0]}"
        self.store.asked.append(self.route)
        if (fault := self.store.fault(self.route)) is not None:
            fault(self)
        else:
            self.obey()

    def obey(self) -> None:
        if len(self.body) > REST_LIMIT:
            told = f"JSON payload ({len(self.body)} bytes) is larger than allowed"
            self.refuse(400, f"{told} (limit: {REST_LIMIT} bytes).")
        elif self.route == "GET /":
            self.reply(200, {"title": "qdrant", "version": self.store.version})
        else:
            try:
                result = _rest(self.store, self.route, json.loads(self.body or b"null"))
            except ValueError as error:
                wait = getattr(error, "retry_after", None)
                headers = {} if wait is None else {"Retry-After": str(wait)}
                self.refuse(_status(error), str(error), headers)
            else:
                self.reply(200, {"result": result, "status": "ok", "time": 0.0})

    def hang_up(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer

    def refuse(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        self.reply(status, {"status": {"error": text}, "time": 0.0}, headers)

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.raw(status, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})

    def raw(self, status: int, text: str, headers: dict[str, str]) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


def _rest(store: Store, route: str, body: Any) -> Any:
    if route == "GET /collections":
        return store.get_collections().model_dump(mode="json")
    if route == "GET /aliases":
        return store.get_aliases().model_dump(mode="json")
    if route == "POST /collections/aliases":
        actions = models.ChangeAliasesOperation.model_validate(body).actions
        return store.update_collection_aliases(actions)
    method, name, *rest = route.replace(" /collections/", " ").replace("/", " ", 1).split(" ")
    match method, *rest:
        case ["DELETE"]:
            return store.remove(name)
        case ["GET"]:
            return store.info(name).model_dump(mode="json", exclude_none=True)
        case ["PUT"]:
            made = store.made = models.CreateCollection.model_validate(body)
            return store.create_collection(
                name,
                vectors_config=made.vectors,
                sparse_vectors_config=made.sparse_vectors,
                metadata=made.metadata,
            )
        case ["PATCH"]:
            return store.update_collection(name, metadata=body["metadata"])
        case ["PUT", "index"]:
            wanted = body["field_schema"]
            params = wanted if isinstance(wanted, dict) else {"type": wanted}
            of = models.PayloadSchemaType(params["type"])
            store.index(name, body["field_name"], of, tenants=params.get("is_tenant", False))
            return {"operation_id": 1, "status": "completed"}
        case ["PUT", "points"]:
            store.upsert(name, models.PointsList.model_validate(body).points)
            return {"operation_id": 1, "status": "completed"}
        case ["POST", "points/delete"]:
            kind = models.PointIdsList if "points" in body else models.FilterSelector
            store.delete(name, kind.model_validate(body))
            return {"operation_id": 1, "status": "completed"}
        case ["POST", "points"]:
            asked = models.PointRequest.model_validate(body)
            found = store.retrieve(name, asked.ids, asked.with_payload, asked.with_vector)
            return [record.model_dump(mode="json") for record in found]
        case ["POST", "points/scroll"]:
            page = models.ScrollRequest.model_validate(body)
            found, following = store.scroll(
                name,
                scroll_filter=page.filter,
                limit=page.limit,
                offset=page.offset,
                with_payload=page.with_payload,
                with_vectors=page.with_vector,
            )
            points = [record.model_dump(mode="json") for record in found]
            return {"points": points, "next_page_offset": following}
        case ["POST", "points/count"]:
            counted = models.CountRequest.model_validate(body)
            return {"count": store.count(name, counted.filter, bool(counted.exact)).count}
        case ["POST", "points/query/batch"]:
            searches = models.QueryRequestBatch.model_validate(body).searches
            answers = store.query_batch_points(name, searches)
            return [answer.model_dump(mode="json") for answer in answers]
    raise ValueError(f"no route {route}")


def _status(error: ValueError) -> int:
    text = str(error)
    if isinstance(error, Refusal):
        return error.status
    return 404 if "not found" in text else 409 if "already exists" in text else 400


# ------------------------------------------------------------------------------------------ gRPC


class _Root(grpc.QdrantServicer):
    def __init__(self, store: Store) -> None:
        self.store = store

    def HealthCheck(self, request: Any, context: Any) -> Any:
        return grpc.HealthCheckReply(title="qdrant", version=self.store.version)


class _Collections(grpc.CollectionsServicer):
    def __init__(self, store: Store) -> None:
        self.store = store

    def Get(self, request: Any, context: Any) -> Any:
        info = RestToGrpc.convert_collection_info(self.store.info(request.collection_name))
        return grpc.GetCollectionInfoResponse(result=info)

    def List(self, request: Any, context: Any) -> Any:
        names = [one.name for one in self.store.get_collections().collections]
        described = [grpc.CollectionDescription(name=name) for name in names]
        return grpc.ListCollectionsResponse(collections=described)

    def ListAliases(self, request: Any, context: Any) -> Any:
        aliases = self.store.get_aliases().aliases
        told = [RestToGrpc.convert_alias_description(alias) for alias in aliases]
        return grpc.ListAliasesResponse(aliases=told)

    def UpdateAliases(self, request: Any, context: Any) -> Any:
        self.store.update_collection_aliases(
            [GrpcToRest.convert_alias_operations(action) for action in request.actions]
        )
        return grpc.CollectionOperationResponse(result=True)

    def Delete(self, request: Any, context: Any) -> Any:
        removed = self.store.remove(request.collection_name)
        return grpc.CollectionOperationResponse(result=removed)

    def Create(self, request: Any, context: Any) -> Any:
        self.store.create_collection(
            request.collection_name,
            vectors_config=GrpcToRest.convert_vectors_config(request.vectors_config),
            sparse_vectors_config=GrpcToRest.convert_sparse_vector_config(
                request.sparse_vectors_config
            ),
            metadata=GrpcToRest.convert_payload(request.metadata),
        )
        return grpc.CollectionOperationResponse(result=True)

    def Update(self, request: Any, context: Any) -> Any:
        metadata = GrpcToRest.convert_payload(request.metadata)
        self.store.update_collection(request.collection_name, metadata=metadata)
        return grpc.CollectionOperationResponse(result=True)


class _Points(grpc.PointsServicer):
    def __init__(self, store: Store) -> None:
        self.store = store

    def Upsert(self, request: Any, context: Any) -> Any:
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        self.store.upsert(request.collection_name, points)
        return _DONE

    def Delete(self, request: Any, context: Any) -> Any:
        selector = GrpcToRest.convert_points_selector(request.points)
        self.store.delete(request.collection_name, selector)
        return _DONE

    def Get(self, request: Any, context: Any) -> Any:
        found = self.store.retrieve(
            request.collection_name,
            [GrpcToRest.convert_point_id(one) for one in request.ids],
            GrpcToRest.convert_with_payload_selector(request.with_payload),
            GrpcToRest.convert_with_vectors_selector(request.with_vectors),
        )
        return grpc.GetResponse(result=[RestToGrpc.convert_record(record) for record in found])

    def Scroll(self, request: Any, context: Any) -> Any:
        offset = request.offset if request.HasField("offset") else None
        found, following = self.store.scroll(
            request.collection_name,
            scroll_filter=GrpcToRest.convert_filter(request.filter),
            limit=request.limit,
            offset=offset and GrpcToRest.convert_point_id(offset),
            with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
            with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
        )
        return grpc.ScrollResponse(
            result=[RestToGrpc.convert_record(record) for record in found],
            next_page_offset=following and RestToGrpc.convert_extended_point_id(following),
        )

    def Count(self, request: Any, context: Any) -> Any:
        condition = GrpcToRest.convert_filter(request.filter)
        counted = self.store.count(request.collection_name, condition, request.exact)
        return grpc.CountResponse(result=grpc.CountResult(count=counted.count))

    def QueryBatch(self, request: Any, context: Any) -> Any:
        queries = [GrpcToRest.convert_query_points(one) for one in request.query_points]
        answers = self.store.query_batch_points(request.collection_name, queries)
        results = [
            grpc.BatchResult(result=[RestToGrpc.convert_scored_point(hit) for hit in answer.points])
            for answer in answers
        ]
        return grpc.QueryBatchResponse(result=results)

    def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        kinds = {
            grpc.FieldType.FieldTypeKeyword: models.PayloadSchemaType.KEYWORD,
            grpc.FieldType.FieldTypeFloat: models.PayloadSchemaType.FLOAT,
            grpc.FieldType.FieldTypeDatetime: models.PayloadSchemaType.DATETIME,
        }
        keyword = request.field_index_params.keyword_index_params
        kind = kinds[request.field_type]
        self.store.index(
            request.collection_name, request.field_name, kind, tenants=keyword.is_tenant
        )
        return _DONE


_DONE = grpc.PointsOperationResponse(
    result=grpc.UpdateResult(operation_id=1, status=grpc.UpdateStatus.Completed)
)
_CODES = {
    404: wire.StatusCode.NOT_FOUND,
    409: wire.StatusCode.ALREADY_EXISTS,
    400: wire.StatusCode.INVALID_ARGUMENT,
    429: wire.StatusCode.RESOURCE_EXHAUSTED,
}


class _Faults(wire.ServerInterceptor):
    """Answers queued faults, and tells the store's complaints by code."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)

        def answer(request: Any, context: Any) -> Any:
            method = details.method.rpartition("/")[2]
            self.store.asked.append(method)
            if (fault := self.store.fault(method)) is not None:
                fault(context)
            try:
                return handler.unary_unary(request, context)
            except ValueError as error:
                if (wait := getattr(error, "retry_after", None)) is not None:
                    context.set_trailing_metadata((("retry-after", str(wait)),))
                context.abort(_CODES[_status(error)], str(error))

        return wire.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


# -------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session", autouse=True)
def parsed_paths() -> Iterator[None]:
    """A field's path is parsed once: memory mode does it for every condition and point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payload_value_extractor, "parse_json_path", cache(parse_json_path))
        yield


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.client.close()


@pytest.fixture
def rest_url(store: Store) -> Iterator[str]:
    handler = type("Handler", (_Handler,), {"store": store})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def grpc_port(store: Store) -> Iterator[int]:
    server = wire.server(
        ThreadPoolExecutor(2),
        interceptors=[_Faults(store)],
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    grpc.add_QdrantServicer_to_server(_Root(store), server)
    grpc.add_CollectionsServicer_to_server(_Collections(store), server)
    grpc.add_PointsServicer_to_server(_Points(store), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


PATIENCE = RetryPolicy(attempts=4, initial=0.001, maximum=0.01)


@pytest.fixture
def rest(rest_url: str) -> Iterator[QdrantConnector]:
    """A connector to the fake server by REST."""
    engine = ServerEngine(
        "docs", rest_url, api_key=None, timeout=30, prefer_grpc=False, grpc_port=1
    )
    with QdrantConnector("docs", engine, policy=PATIENCE) as connector:
        yield connector


@pytest.fixture
def by_grpc(grpc_port: int) -> Iterator[QdrantConnector]:
    """A connector to the fake server by gRPC."""
    engine = ServerEngine(
        "docs",
        "http://127.0.0.1:1",
        api_key=None,
        timeout=30,
        prefer_grpc=True,
        grpc_port=grpc_port,
    )
    with QdrantConnector("docs", engine, policy=PATIENCE) as connector:
        yield connector
