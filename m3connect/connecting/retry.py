"""The one retry policy, and how a batch is delivered in requests that a backend takes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

import tenacity
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_base

from m3connect.connecting.portions import portions
from m3connect.contract import Limits
from m3connect.errors import RequestTooLarge, TransientError
from m3connect.types import RecordBatch

log = logging.getLogger(__name__)

RECORDS = 1000
"""Records of one write request, at most."""
PAUSE, PAUSES = 1.0, 10.0
"""Seconds between two looks at a database that is away: at first, and at most."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a transient failure is retried.

    Args:
        attempts: tries altogether; 1 means no retry.
        initial: seconds before the first retry, doubled each time; a random part of up to half of
            it is left out, so that clients do not come back together.
        maximum: longest wait in seconds, a server's ``Retry-After`` included.

    By default the six waits last 16 to 32 seconds together: a server that is restarted in less than
    16 is always waited for.
    """

    attempts: int = 7
    initial: float = 0.5
    maximum: float = 60.0

    @property
    def longest(self) -> float:
        """Seconds of all waits together, at most, where no server asks for more.

        >>> RetryPolicy().longest
        31.5
        """
        waits = (self.initial * 2.0**retry for retry in range(self.attempts - 1))
        return sum(min(wait, self.maximum) for wait in waits)


DEFAULT_POLICY = RetryPolicy()


class _RetryAfter(wait_base):
    """Exponential back-off with jitter, but never less than the server asked for."""

    def __init__(self, policy: RetryPolicy) -> None:
        half, most = policy.initial / 2, policy.maximum / 2
        floor = tenacity.wait_exponential(half, most)
        self.backoff = floor + tenacity.wait_random_exponential(half, most)
        self.maximum = policy.maximum

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        seconds = error.retry_after if isinstance(error, TransientError) else None
        return max(self.backoff(retry_state), min(seconds or 0.0, self.maximum))


def call(operation: Callable[[], T], policy: RetryPolicy = DEFAULT_POLICY) -> T:
    """Run an idempotent operation, retrying while it raises TransientError.

    Raises:
        whatever ``operation`` raised last.
    """
    try:
        return operation()  # as nearly always: what retries it is made where it failed
    except TransientError as error:
        failed: list[TransientError] = [error]

    def attempt() -> T:
        if failed:
            raise failed.pop()
        return operation()

    def report(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1:  # one line at once, and the error itself if none succeeds
            log.warning("%s; trying again, for up to %.0f s", error, policy.longest)
        else:
            log.info("%s; retry %d in %.1f s", error, state.attempt_number, state.upcoming_sleep)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=_RetryAfter(policy),
        before_sleep=report,
        reraise=True,
    )
    return retrying(attempt)


def persist(operation: Callable[[], T], patience: float, given_up: Event) -> T:
    """Run an idempotent operation of a long work, waiting for a database that is away.

    Longer than :func:`call`, of which ``operation`` may consist: that bridges a restart, this a repair.

    Args:
        operation: raises TransientError while the database is away.
        patience: seconds after which its error is raised; 0 raises it at once.
        given_up: set by another thread, it ends the waiting.

    Raises:
        whatever ``operation`` raised last.
    """
    if patience <= 0:
        return operation()
    started = time.monotonic()

    def report(state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:
            error = state.outcome.exception() if state.outcome else None
            log.warning("paused, for up to %.0f s, until the database is back: %s", patience, error)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_before_delay(patience) | tenacity.stop_when_event_set(given_up),
        wait=tenacity.wait_exponential(min=PAUSE, max=PAUSES),
        sleep=sleep_using_event(given_up),
        before_sleep=report,
        reraise=True,
    )
    done = retrying(operation)
    if retrying.statistics["attempt_number"] > 1:
        log.warning("the database is back after %.0f s: going on", time.monotonic() - started)
    return done


def deliver(
    batch: RecordBatch,
    send: Callable[[RecordBatch], None],
    limits: Limits,
    policy: RetryPolicy = DEFAULT_POLICY,
) -> None:
    """Send a batch in requests within ``limits``, retried, and halved where still too large.

    ``send`` must be idempotent: with deterministic ids a repeated upsert changes nothing.

    Raises:
        RequestTooLarge: a single record is too large for the backend; names it.
        ConnectorError: whatever ``send`` raised last.
    """
    for part in requests(batch, limits):
        _send(part, send, policy)


def _send(part: RecordBatch, send: Callable[[RecordBatch], None], policy: RetryPolicy) -> None:
    try:
        call(lambda: send(part), policy)
    except RequestTooLarge as error:
        if len(part) == 1:
            raise RequestTooLarge(
                f"record {part.ids[0]!r} alone is too large ({error})",
                connector=error.connector,
                operation=error.operation,
            ) from error
        half = len(part) // 2
        _send(part[:half], send, policy)
        _send(part[half:], send, policy)


def requests(batch: RecordBatch, limits: Limits) -> Iterator[RecordBatch]:
    """Cut a batch into parts of at most 1,000 records, or ``records``, and ``request_bytes`` bytes.

    A record larger than the limit makes a part of its own.
    """
    most = RECORDS if limits.records is None else min(RECORDS, limits.records)
    weights = (record_bytes(batch, row) for row in range(len(batch)))
    for part in portions(weights, count=most, weight=limits.request_bytes):
        yield batch[part]


def record_bytes(batch: RecordBatch, row: int) -> int:
    """About how many bytes a record takes on the wire in binary form."""
    payload = json.dumps(batch.payloads[row], ensure_ascii=False)
    return len(payload.encode(errors="replace")) + batch.embeddings[row].nbytes
