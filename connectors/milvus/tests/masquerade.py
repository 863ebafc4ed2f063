# ruff: noqa: N802 - gRPC names the methods
"""Milvus Lite behind a socket, calling itself a server of some version.

So the connector writes and asks as it does with such a server, and Lite evaluates it. What Lite
lacks (indexes on arrays, struct arrays) is accepted and kept for the tests to look at.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

STRUCT = "multivector"
STRUCT_VECTOR = f"{STRUCT}[vector]"
_ONLY_ON_SERVERS = {"facts", "ordered", STRUCT_VECTOR}


@dataclass
class Sent:
    """The requests of one connector, by kind; ``refusals`` meet the next ones, a status each."""

    indexes: list = field(default_factory=list)
    upserts: list = field(default_factory=list)
    searches: list = field(default_factory=list)
    fusions: list = field(default_factory=list)
    refusals: deque = field(default_factory=deque)
    schemas: dict = field(default_factory=dict)


class Masquerade(MilvusServicer):
    """Milvus Lite under another name and with a memory."""

    def __init__(self, database, version):
        super().__init__(database)
        self.version = version
        self.sent = Sent()

    def GetVersion(self, request, context):
        return milvus_pb2.GetVersionResponse(status=common_pb2.Status(), version=self.version)

    def CreateCollection(self, request, context):
        schema = schema_pb2.CollectionSchema.FromString(request.schema)
        self.sent.schemas[request.collection_name] = schema
        return super().CreateCollection(request, context)

    def DescribeCollection(self, request, context):
        response = super().DescribeCollection(request, context)
        if known := self.sent.schemas.get(request.collection_name):
            response.schema.CopyFrom(known)
        return response

    def CreateIndex(self, request, context):
        self.sent.indexes.append(request)
        if request.field_name in _ONLY_ON_SERVERS:
            return common_pb2.Status()
        return super().CreateIndex(request, context)

    def Upsert(self, request, context):
        self.sent.upserts.append(request)
        known = milvus_pb2.UpsertRequest.FromString(request.SerializeToString())
        del known.fields_data[:]
        known.fields_data.extend(one for one in request.fields_data if one.field_name != STRUCT)
        return super().Upsert(known, context)

    def Search(self, request, context):
        self.sent.searches.append(request)
        if any(pair.value == STRUCT_VECTOR for pair in request.search_params):
            empty = schema_pb2.SearchResultData(num_queries=request.nq, topks=[0] * request.nq)
            return milvus_pb2.SearchResults(status=common_pb2.Status(), results=empty)
        return super().Search(request, context)

    def HybridSearch(self, request, context):
        self.sent.fusions.append(request)
        return super().HybridSearch(request, context)


class Refusals(grpc.ServerInterceptor):
    """Answers requests with a status, while there is one waiting."""

    def __init__(self, waiting):
        self.waiting = waiting

    def intercept_service(self, continuation, details):
        if not self.waiting:
            return continuation(details)
        status = self.waiting.popleft()
        return grpc.unary_unary_rpc_method_handler(lambda _, context: context.abort(status, "no"))


@contextmanager
def masquerade(folder, version="v2.6.4"):
    """The URL of a running one, and what is sent to it."""
    database = MilvusLite(str(folder))
    servicer = Masquerade(database, version)
    limits = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]  # a server's, not Lite's
    refusals = Refusals(servicer.sent.refusals)
    server = grpc.server(ThreadPoolExecutor(4), options=limits, interceptors=[refusals])
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", servicer.sent
    finally:
        server.stop(grace=1).wait()
        database.close()
