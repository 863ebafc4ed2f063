"""The conformance suite: engines in this process, and the wire to a stand-in for a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m3connect.testing.conformance import ConnectorConformance
from m3connect_qdrant import QdrantConnector, connect


@pytest.mark.slow
class TestMemory(ConnectorConformance):
    @pytest.fixture
    def connector(self) -> Iterator[QdrantConnector]:
        with connect(collection="conformance", path=":memory:") as connector:
            yield connector


class TestEmbedded(ConnectorConformance):
    @pytest.fixture
    def connector(self, tmp_path: Path) -> Iterator[QdrantConnector]:
        with connect(collection="conformance", path=str(tmp_path)) as connector:
            yield connector

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], QdrantConnector]:
        return lambda: connect(collection="conformance", path=str(tmp_path))


@pytest.mark.slow
class TestGrpc(ConnectorConformance):
    @pytest.fixture
    def connector(self, by_grpc: QdrantConnector) -> QdrantConnector:
        return by_grpc


@pytest.mark.slow
class TestRest(ConnectorConformance):
    @pytest.fixture
    def connector(self, rest: QdrantConnector) -> QdrantConnector:
        return rest
