"""The parts of the suite put together and sealed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import getattr_static
from typing import ClassVar

import pytest

from m3connect.contract import Connector
from m3connect.testing.conformance.capability import CapabilityTests
from m3connect.testing.conformance.filtering import FilterTests
from m3connect.testing.conformance.lifecycle import LifecycleTests
from m3connect.testing.conformance.reading import ReadingTests
from m3connect.testing.conformance.refusals import RefusalTests
from m3connect.testing.conformance.searching import SearchTests
from m3connect.testing.conformance.storage import StorageTests
from m3connect.testing.conformance.switching import SwitchTests
from m3connect.testing.conformance.tenancy import TenantTests

_OPEN = {"connector", "reopen", "XFAIL", "pytestmark"}
"""What a subclass may define."""


class ConnectorConformance(
    LifecycleTests,
    StorageTests,
    ReadingTests,
    RefusalTests,
    FilterTests,
    SearchTests,
    SwitchTests,
    TenantTests,
    CapabilityTests,
):
    """All tests of the suite; subclass it in a connector's tests.

    Nothing of the suite can be redefined. What an engine cannot do is named in ``XFAIL``: a test's
    name (with its ``[parameters]`` where only some fail) and the reason with its source. A test
    that is listed and passes fails the run.
    """

    XFAIL: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        sealed = {name for name in dir(ConnectorConformance) if not name.startswith("__")} - _OPEN
        redefined = sorted(
            name
            for name in sealed
            if getattr_static(cls, name) is not getattr_static(ConnectorConformance, name)
        )
        if redefined:
            raise TypeError(f"{cls.__name__} may not redefine {redefined}; use XFAIL with a reason")
        for name, reason in cls.XFAIL.items():
            test = name.partition("[")[0]
            if not (test.startswith("test_") and test in sealed and reason.strip()):
                raise TypeError(f"{cls.__name__}.XFAIL: {name!r} is no test, or has no reason")

    @pytest.fixture(autouse=True)
    def _declared_failures(self, request: pytest.FixtureRequest) -> None:
        """Mark what ``XFAIL`` lists, strictly."""
        name = request.node.name
        reason = self.XFAIL.get(name) or self.XFAIL.get(name.partition("[")[0])
        if reason:
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture
    def connector(self) -> Connector:
        """A fresh connector: no collection yet; its data is removed after the test."""
        raise NotImplementedError("define the fixture 'connector' in the subclass")

    @pytest.fixture
    def reopen(self) -> Callable[[], Connector] | None:
        """Opens the collection of the (closed) connector anew; None where memory holds it."""
        return None
