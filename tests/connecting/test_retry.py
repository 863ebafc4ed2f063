"""Retries look at the class of an error; delivery splits what is too large and loses nothing."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.connecting import retry
from m3connect.connecting.retry import RetryPolicy, _RetryAfter, call, deliver, requests
from m3connect.contract import Limits
from m3connect.errors import AuthError, RequestTooLarge, TransientError
from m3connect.types import Embeddings, RecordBatch

FAST = RetryPolicy(attempts=3, initial=0.0, maximum=0.0)


def batch(sizes):
    """Records whose payloads have about these sizes in bytes."""
    n = len(sizes)
    embeddings = Embeddings(None, None, None, np.ones(n, np.int32), np.zeros(n, np.bool_))
    return RecordBatch(
        [f"r{i}" for i in range(n)], [{"text": "x" * size} for size in sizes], embeddings
    )


def failing(*errors):
    """An operation that raises these errors, then succeeds, and counts its calls."""
    left = list(errors)
    calls = []

    def operation():
        calls.append(1)
        if left:
            raise left.pop(0)
        return len(calls)

    return operation


def transient(retry_after=None):
    """A transient error."""
    return TransientError("busy", connector="x", operation="y", retry_after=retry_after)


def test_a_transient_error_is_retried():
    """The third attempt succeeds."""
    assert call(failing(transient(), transient()), FAST) == 3


def test_attempts_are_bounded_and_the_last_error_arrives():
    """After three attempts the error itself is raised."""
    with pytest.raises(TransientError):
        call(failing(*(transient() for _ in range(3))), FAST)


def test_a_permanent_error_is_not_retried():
    """A wrong key stays wrong."""
    operation = failing(AuthError("no", connector="x", operation="y"))
    with pytest.raises(AuthError):
        call(operation, FAST)
    assert operation() == 2


@pytest.mark.parametrize(("asked", "expected"), [(5.0, 5.0), (500.0, 60.0), (None, 0.0)])
def test_the_wait_honours_retry_after_up_to_the_maximum(asked, expected):
    """A server's wish is a lower bound, the policy's maximum an upper one."""
    import tenacity

    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.set_exception((TransientError, transient(asked), None))
    wait = _RetryAfter(RetryPolicy(initial=0.0, maximum=60.0))
    assert expected <= wait(state) <= 60.0


@pytest.mark.parametrize(("luck", "seconds"), [(0, 15.75), (1, 31.5)])
def test_a_restart_is_waited_for_on_the_worst_day(monkeypatch, luck, seconds):
    """However the dice fall, the waits together outlast a server's restart, and they do end."""
    import random

    monkeypatch.setattr(random, "uniform", lambda low, high: (low, high)[luck])
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(TransientError):
        call(failing(*(transient() for _ in range(99))))
    assert sum(waits) == seconds
    assert waits == sorted(waits)


def test_retries_are_told_in_one_line_and_at_once(caplog):
    """The first failure says what is tried again and for how long; the rest is for --verbose."""
    call(failing(transient(), transient()), RetryPolicy(attempts=3, initial=0.001, maximum=0.001))
    assert caplog.messages == ["x y: busy; trying again, for up to 0 s"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


@given(st.lists(st.integers(0, 400), max_size=12), st.integers(1, 5))
def test_requests_keep_every_record_in_order_within_the_limits(sizes, most):
    """Parts are within both limits unless a part is a single record."""
    whole = batch(sizes)
    with mock.patch.object(retry, "RECORDS", most):
        parts = list(requests(whole, Limits(request_bytes=600)))
    assert [id_ for part in parts for id_ in part.ids] == list(whole.ids)
    for part in parts:
        assert len(part) <= most
        total = sum(len(payload["text"]) for payload in part.payloads)
        assert len(part) == 1 or total <= 600


def test_a_request_has_no_more_records_than_a_server_takes():
    """The limit in records counts beside that in bytes."""
    assert [len(part) for part in requests(batch([1] * 7), Limits(records=3))] == [3, 3, 1]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=10))
def test_a_batch_that_is_too_large_is_halved_until_it_fits(sizes):
    """A server that takes 120 bytes gets everything, each record once and in order."""
    arrived = []

    def send(part):
        if sum(len(payload["text"]) for payload in part.payloads) > 120:
            raise RequestTooLarge("413", connector="x", operation="upsert")
        arrived.extend(part.ids)

    deliver(batch(sizes), send, Limits(), FAST)
    assert arrived == [f"r{i}" for i in range(len(sizes))]


def test_a_single_record_that_is_too_large_is_named():
    """The error says which record cannot be sent."""

    def send(part):
        if "r1" in part.ids:
            raise RequestTooLarge("413", connector="x", operation="upsert")

    with pytest.raises(RequestTooLarge, match="record 'r1' alone"):
        deliver(batch([1, 2, 3]), send, Limits(), FAST)
