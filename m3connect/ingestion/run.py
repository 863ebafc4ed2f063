"""One run: this thread reads and encodes, a single other one speaks to the database."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeVar

from m3connect.contract import Connector
from m3connect.ingestion import ledger
from m3connect.ingestion.ledger import Stored
from m3connect.ingestion.report import DeadLetters, Failure, IngestReport
from m3connect.ingestion.writer import Outcome, Work, Writer

T = TypeVar("T")

Progress = Callable[[IngestReport], None]
RecordIds = tuple[str, str | None]
"""The record ids of a document's passages 0 and 1; None where there is never a second."""

PENDING = 2  # pieces of work that may wait for the database while the next is encoded


class Run:
    """Counts, failures and the thread that writes.

    All calls to the connector are made by one thread, in order, so no connector needs to be safe
    for threads and a commit never overtakes what it commits.

    Args:
        connector: the collection.
        letters: where failures go.
        progress: called with the counts so far, in this thread.
        exists: whether the collection exists; if not, it holds nothing to look up.
        dry: whether nothing is to be written or deleted.
    """

    def __init__(
        self,
        connector: Connector,
        letters: DeadLetters,
        progress: Progress | None = None,
        *,
        exists: bool = True,
        dry: bool = False,
    ) -> None:
        self.connector = connector
        self.counts: Counter[str] = Counter()
        self.seen: set[str] = set()  # ids of the documents that the source gave
        self._exists = exists
        self._dry = dry
        self._letters = letters
        self._progress = progress
        self._started = time.perf_counter()
        self._writer = Writer(connector)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="m3connect-writer")
        self._pending: deque[Future[Outcome]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait for what is queued: on Ctrl-C too, what was encoded is not thrown away."""
        self._thread.shutdown()

    def report(self) -> IngestReport:
        """The counts so far."""
        return IngestReport(**self.counts, seconds=time.perf_counter() - self._started)

    def fail(self, failure: Failure) -> None:
        """Count a document that cannot be taken, and say why."""
        self.counts["failed"] += 1
        self._letters.add(failure)

    def look_up(
        self, windows: Iterable[Sequence[T]], ids: Callable[[T], RecordIds]
    ) -> Iterator[tuple[T, Stored]]:
        """Each item with what the collection holds of it; asks one window ahead."""
        asked: deque[tuple[Sequence[T], Future[list[Stored]]]] = deque()
        for window in windows:
            asked.append(
                (window, self._thread.submit(self._stored, [ids(item) for item in window]))
            )
            if len(asked) > 1:
                yield from self._answered(*asked.popleft())
        while asked:
            yield from self._answered(*asked.popleft())

    def write(self, work: Work) -> None:
        """Queue work; waits while too much is queued already."""
        self._submit(lambda: self._writer.write(work))

    def delete(self, ids: Sequence[str]) -> None:
        """Queue the deletion of passages."""
        if ids and not self._dry:
            self._submit(lambda: self._writer.delete(ids))

    def finish(self) -> None:
        """Wait until all that was queued is acknowledged."""
        while self._pending:
            self._settle()

    def _submit(self, operation: Callable[[], Outcome]) -> None:
        while len(self._pending) > PENDING:
            self._settle()
        self._pending.append(self._thread.submit(operation))

    def _settle(self) -> None:
        outcome = self._pending.popleft().result()
        self.counts.update(written=outcome.written, deleted=outcome.deleted)
        for failure in outcome.failures:
            self.fail(failure)
        self._tell()

    def _stored(self, ids: Sequence[RecordIds]) -> list[Stored]:
        if not self._exists:
            return [Stored()] * len(ids)
        return ledger.look_up(self.connector, ids)

    def _answered(
        self, window: Sequence[T], answer: Future[list[Stored]]
    ) -> Iterator[tuple[T, Stored]]:
        yield from zip(window, answer.result(), strict=True)
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.report())
