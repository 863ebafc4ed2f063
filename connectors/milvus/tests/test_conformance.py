"""The conformance suite on Milvus Lite, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m3connect.testing.conformance import ConnectorConformance
from m3connect_milvus import connect
from m3connect_milvus.connector import MilvusConnector


class TestLite(ConnectorConformance):
    @pytest.fixture
    def connector(self, tmp_path: Path) -> Iterator[MilvusConnector]:
        with connect(collection="conformance", path=tmp_path / "milvus.db") as connector:
            yield connector

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], MilvusConnector]:
        return lambda: connect(collection="conformance", path=tmp_path / "milvus.db")
