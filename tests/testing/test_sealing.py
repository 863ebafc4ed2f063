"""The conformance suite cannot be bent by what subclasses it."""

from __future__ import annotations

import pytest

from m3connect.testing.conformance import ConnectorConformance

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    "name",
    ["test_ties_are_ordered_by_id", "test_records_come_back_exactly", "_declared_failures"],
)
def test_nothing_of_the_suite_can_be_redefined(name: str) -> None:
    """A subclass that redefines or removes a part of the suite is no class."""
    with pytest.raises(TypeError, match=f"may not redefine .*{name}"):
        type("Bent", (ConnectorConformance,), {name: lambda self: None})
    with pytest.raises(TypeError, match=name):
        type("Bent", (ConnectorConformance,), {name: None})


def test_nothing_can_be_redefined_by_a_mixin() -> None:
    """A class that comes before the suite may not redefine its tests either."""
    mixin = type("Mixin", (), {"test_ties_are_ordered_by_id": lambda self: None})
    with pytest.raises(TypeError, match="may not redefine"):
        type("Bent", (mixin, ConnectorConformance), {})


@pytest.mark.parametrize(
    "excuses",
    [{"test_no_such_thing": "a reason"}, {"test_ties_are_ordered_by_id": " "}, {"filled": "x"}],
)
def test_excuses_name_a_test_and_a_reason(excuses: dict[str, str]) -> None:
    """An XFAIL entry without a test of that name, or without a reason, is refused."""
    with pytest.raises(TypeError, match="is no test, or has no reason"):
        type("Bent", (ConnectorConformance,), {"XFAIL": excuses})


def test_excuses_are_strict(pytester: pytest.Pytester) -> None:
    """What XFAIL lists may fail, and must: a listed test that passes fails the run."""
    pytester.makepyfile(
        """
        import pytest
        from m3connect.stores.memory import MemoryConnector
        from m3connect.testing.conformance import ConnectorConformance

        class Recreates(MemoryConnector):
            def ensure(self, schema):
                super().ensure(schema)
                self._records.clear()

        class TestExcused(ConnectorConformance):
            XFAIL = {
                "test_ensure_keeps_what_is_there": "this engine forgets (its manual, page 1)",
                "test_closing_twice_is_fine": "it is not so",
                "test_token_vectors_keep_their_precision[float16-float32]": "only this one",
            }

            @pytest.fixture
            def connector(self):
                return Recreates(collection="excused")
        """
    )
    chosen = "ensure_keeps or closing_twice or keep_their_precision"
    result = pytester.runpytest_inprocess("-k", chosen, "-p", "no:cacheprovider")
    result.assert_outcomes(passed=7, failed=2, xfailed=1)
    result.stdout.fnmatch_lines(["*[[]XPASS(strict)[]] it is not so*"])


def test_a_connector_must_be_given(pytester: pytest.Pytester) -> None:
    """A subclass without the connector fixture fails with the reason."""
    pytester.makepyfile(
        """
        from m3connect.testing.conformance import ConnectorConformance

        class TestNothing(ConnectorConformance):
            pass
        """
    )
    result = pytester.runpytest_inprocess("-k", "closing_twice", "-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*define the fixture 'connector' in the subclass*"])
