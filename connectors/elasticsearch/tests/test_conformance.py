"""The suite of all connectors, on a real node with its basic licence."""

import pytest

from m3connect.testing.conformance import ConnectorConformance

pytestmark = pytest.mark.live


class TestConformance(ConnectorConformance):
    @pytest.fixture
    def connector(self, opened):
        return opened()

    @pytest.fixture
    def reopen(self, opened):
        return opened
