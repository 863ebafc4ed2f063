"""The conformance suite, on the engines that run in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m3connect.testing.conformance import ConnectorConformance
from m3connect_qdrant import QdrantConnector, connect


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
