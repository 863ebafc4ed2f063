"""The suite that every connector passes, and that no connector can bend.

A connector's tests subclass :class:`ConnectorConformance` and provide one or two fixtures::

    class TestConformance(ConnectorConformance):
        @pytest.fixture
        def connector(self, tmp_path):
            with connect(collection="conformance", path=str(tmp_path / "data")) as connector:
                yield connector

        @pytest.fixture
        def reopen(self, tmp_path):
            return lambda: connect(collection="conformance", path=str(tmp_path / "data"))

The suite holds the connector to the contract (``m3connect/contract.py``), to the meaning of
filters (:func:`m3connect.filters.matches`) and, for searches, to the in-memory connector: the
same ids, order and scores, whether the engine fuses or the client. On its collections of a few
hundred records an approximate index is exact, so nothing is excused there; at 10,000 records a
connector that declares ``exact=False`` must find 95 % of the exact top 10.

suite.py       the parts put together and sealed; compare.py: what it means to be right
lifecycle.py storage.py reading.py refusals.py   a collection, and what is written and read
filtering.py searching.py capability.py          what filters, searches and declarations mean
switching.py tenancy.py                          names that stand for others; tenants kept apart
"""

from __future__ import annotations

from pkgutil import iter_modules

from m3connect.errors import ConfigError

try:
    import pytest
except ModuleNotFoundError as error:
    raise ConfigError(
        'the conformance suite runs under pytest: pip install "pytest>=8.3"'
    ) from error

# A failed assertion shows its values, as in a test module.
pytest.register_assert_rewrite(*(f"{__name__}.{part.name}" for part in iter_modules(__path__)))

from m3connect.testing.conformance.suite import ConnectorConformance  # noqa: E402 - rewritten

__all__ = ["ConnectorConformance"]
