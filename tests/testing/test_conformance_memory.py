"""The in-memory connector passes the suite: as it is, and with everything left to the planner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from m3connect.errors import Unsupported
from m3connect.searching import planner
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.conformance import ConnectorConformance
from m3connect.testing.conformance.capability import CapabilityTests
from m3connect.testing.conformance.searching import SearchTests
from m3connect.testing.conformance.tenancy import TenantTests
from m3connect.types import Hit, Query


class Restricted(MemoryConnector):
    """An engine that does no more than ``capabilities`` says, as a database would."""

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        answers = super().search(queries)  # refuses bad queries first
        for query in queries:
            chosen = planner.plan(query, self.capabilities)
            if not chosen.native:
                raise Unsupported(chosen.reason, connector=self.name, operation="search")
        return answers


class LegsOnly(Restricted):
    """Dense and sparse search, no fusion, no MaxSim: Elasticsearch on its free licence."""

    capabilities = replace(
        MemoryConnector.capabilities,
        legs=frozenset({"dense", "sparse"}),
        scores_within=frozenset(),
        fusions=frozenset(),
        maxsim=False,
    )


class SomeFusion(Restricted):
    """Two fusions of two legs: something like Milvus."""

    capabilities = replace(
        MemoryConnector.capabilities,
        legs=frozenset({"dense", "sparse"}),
        scores_within=frozenset({"dense", "sparse"}),
        fusions=frozenset({"rrf", "weighted"}),
        maxsim=False,
    )


class StoresOnly(Restricted):
    """An engine that searches nothing: every query is a scan on the client."""

    capabilities = replace(
        MemoryConnector.capabilities,
        legs=frozenset(),
        scores_within=frozenset(),
        fusions=frozenset(),
        maxsim=False,
    )


class TestMemory(ConnectorConformance):
    """All native."""

    @pytest.fixture
    def connector(self):
        with MemoryConnector(collection="conformance") as connector:
            yield connector


class Searches(SearchTests, TenantTests, CapabilityTests):
    """What an engine's capabilities decide; the rest of the suite would do the same again."""


@pytest.mark.slow
class TestLegsOnly(Searches):
    """All fusions and all MaxSim composed by the planner."""

    @pytest.fixture
    def connector(self):
        with LegsOnly(collection="conformance") as connector:
            yield connector


@pytest.mark.slow
class TestSomeFusion(Searches):
    """Some native, some composed, some scanned because of a filter."""

    @pytest.fixture
    def connector(self):
        with SomeFusion(collection="conformance") as connector:
            yield connector


@pytest.mark.slow
class TestStoresOnly(Searches):
    """Every query scanned and scored by the planner."""

    @pytest.fixture
    def connector(self):
        with StoresOnly(collection="conformance") as connector:
            yield connector
