"""The sink: writes what the pipeline gives to one collection, in the ledger's order, and counts.

The pipeline runs in the caller's thread; a single other thread makes all calls to the database, in
order. So no connector needs to be safe for threads, encoding goes on while the database writes, and
a commit never overtakes what it commits.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from m3connect.connecting import retry
from m3connect.contract import Connector
from m3connect.errors import (
    AuthError,
    CollectionNotFound,
    InputError,
    InvalidFilter,
    PermanentError,
    RequestTooLarge,
    SchemaMismatch,
    Unsupported,
    WritesRefused,
)
from m3connect.ingestion import ledger
from m3connect.ingestion.chunking import chunk_ids
from m3connect.ingestion.ledger import Candidate, Mark, Removal, Stored
from m3connect.ingestion.losses import Loss, LossKind, Lost, ignore
from m3connect.ingestion.report import DeadLetters, Failure, IngestReport, KeptLetters, Part
from m3connect.progress import Progress, silent
from m3connect.types import Leg, Payload, RecordBatch

T = TypeVar("T")

PENDING = 2  # pieces of work that may wait for the database while the next is encoded
TELL_SECONDS = 0.1  # between two calls of ``progress`` while nothing is written

# What no single record is to blame for; all other permanent errors may be one record's fault.
_FATAL = (
    AuthError,
    CollectionNotFound,
    InvalidFilter,
    SchemaMismatch,
    Unsupported,
    WritesRefused,
)
_REFUSED = (InputError, RequestTooLarge, PermanentError)


# ------------------------------------------------------------------------- what the sink is given


@dataclass(slots=True)
class Change:
    """A document on its way into the collection.

    Args:
        id: the document's id.
        mark: what its first two passages will carry.
        same: whether the collection holds this version already, and does not know whose it is.
        kept: whether nothing of it is encoded, since the collection holds its vectors.
        begun: whether any passage of this version has been written.
        failed: whether a passage was refused; the rest is then skipped.
        where, root: where it was read, as a :class:`m3connect.ingestion.Failure` says it.
    """

    id: str
    mark: Mark
    same: bool = False
    kept: bool = False
    begun: bool = False
    failed: bool = False
    where: str | None = None
    root: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """Records to write together.

    Args:
        batch: the records, sorted by step.
        owners: each record's document.
        steps: each record's step, as :func:`m3connect.ingestion.ledger.step` counts.
        tokens: that were encoded to make them.
    """

    batch: RecordBatch
    owners: Sequence[Change]
    steps: Sequence[int]
    tokens: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A document that the collection holds as it is, but for passages that a killed run left.

    Args:
        id: the document's id.
        stale: ids of passages that only other versions had.
        borrowed: whether the collection holds it as that of another source, inside or around this.
    """

    id: str
    stale: Sequence[str]
    borrowed: bool = False


@dataclass(frozen=True, slots=True)
class Empty:
    """A document without text: no passage stands for it, and those of older versions go.

    Args:
        id: the document's id.
        stale: ids of all passages that there may be.
        metadata: of the document.
    """

    id: str
    stale: Removal
    metadata: Payload


Event: TypeAlias = Work | Unchanged | Empty | Failure | Part
"""What the pipeline gives: of each document its records, or why there are none to write."""


# ---------------------------------------------------------------------------------------- the sink


class Sink:
    """Writes and counts.

    Args:
        connector: the collection.
        letters: where failures go.
        progress: told how many documents are through.
        exists: whether the collection exists; if not, it holds nothing to look up.
        take_over: whether documents of other sources may be replaced.
        patience: seconds to wait for a database that is away.
        tenant_field: the payload field by which the collection keeps tenants apart, if it does.
        lost: told of each document that lost something.
    """

    def __init__(
        self,
        connector: Connector,
        letters: DeadLetters | KeptLetters,
        progress: Progress = silent,
        *,
        exists: bool = True,
        take_over: bool = False,
        patience: float = 0.0,
        tenant_field: str | None = None,
        lost: Lost = ignore,
    ) -> None:
        self.connector = connector
        self.unchanged = self.chunks = self.written = self.deleted = self.pruned = 0
        self.empty = self.failed = self.tokens = self.truncated = 0
        self.metadata_only = self.no_lexical = self.borrowed = self.taken_over = 0
        self.left_over: int | None = None
        self.first_failure: Failure | None = None
        self._exists = exists
        self._take_over = take_over
        self._patience = patience
        self._tenant_field = tenant_field
        self._given_up = threading.Event()
        self._lost = lost
        # Of documents of which not all passages have come.
        self._losing: dict[str, Counter[LossKind]] = {}
        self._letters = letters
        self._progress = progress
        self._started = self._told = time.perf_counter()
        self._writer = _Writer(connector, self.persist)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="m3connect-writer")
        self._pending: deque[Future[_Outcome]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        """Wait for what is queued: on Ctrl-C too, what was encoded is not thrown away.

        But for a database that is away nobody waits then.
        """
        if kind is not None:
            self._given_up.set()
        self._thread.shutdown()

    @property
    def read(self) -> int:
        """Documents whose fate is known."""
        return self.unchanged + self.written + self.empty + self.failed

    def report(self) -> IngestReport:
        """The counts so far."""
        return IngestReport(
            read=self.read,
            unchanged=self.unchanged,
            taken_over=self.taken_over,
            chunks=self.chunks,
            written=self.written,
            metadata_only=self.metadata_only,
            deleted=self.deleted,
            pruned=self.pruned,
            left_over=self.left_over,
            empty=self.empty,
            failed=self.failed,
            tokens=self.tokens,
            truncated=self.truncated,
            no_lexical=self.no_lexical,
            seconds=time.perf_counter() - self._started,
        )

    def look_up(self, documents: Sequence[Candidate[Any]]) -> Future[list[Stored]]:
        """What the collection holds of documents, asked after all writes that are queued.

        The answer is :class:`Refused` if they would replace documents of another source.
        """
        return self._thread.submit(self._stored, documents)

    def recall(self, ids: Sequence[str], legs: Sequence[Leg]) -> Future[RecordBatch]:
        """Those of these records that the collection holds, with their vectors."""
        return self._thread.submit(
            lambda: self.persist(lambda: self.connector.fetch(ids, vectors=legs))
        )

    def persist(self, operation: Callable[[], T]) -> T:
        """Ask the database, and wait for it with the patience that this run has.

        While this waits, no more than :data:`PENDING` pieces of work are encoded, and nothing is read.
        """
        return retry.persist(operation, self._patience, self._given_up)

    def write(self, events: Iterable[Event]) -> None:
        """Take all that the pipeline gives, and wait until it is acknowledged.

        Raises:
            ConnectorError: the database failed for a reason that is no document's.
        """
        for event in events:
            self.take(event)
        self.finish()

    def take(self, event: Event) -> None:
        """Count one event and queue what it asks for; waits while too much is queued already."""
        while self._pending and self._pending[0].done():  # so that counts do not lag behind
            self._settle()
        self.count(event)
        match event:
            case Work():
                self._submit(lambda: self._writer.write(event))
            case Unchanged(stale=stale) if stale:
                self._submit(lambda: self._writer.delete(stale))
            case Empty(stale=groups):
                for ids in filter(None, groups):
                    self._submit(partial(self._writer.delete, ids))

    def count(self, event: Event) -> None:
        """Count one event and write nothing; a failure is recorded."""
        match event:
            case Work():
                self.chunks += sum(not owner.same for owner in event.owners)
                self.tokens += event.tokens
                self._count_losses(event)
            case Unchanged(borrowed=borrowed):
                self.unchanged += 1
                self.borrowed += borrowed
            case Empty():
                self.empty += 1
                self._lost(Loss(event.id, "empty"))
            case Failure():
                self.failed += 1
                self.first_failure = self.first_failure or event
                self._letters.add(event)
            case Part(report=done, failures=failures, losses=losses):
                for loss in losses:
                    self._lost(loss)
                for failure in failures:
                    self.count(failure)
                self.borrowed += event.borrowed
                self.unchanged += done.unchanged
                self.taken_over += done.taken_over
                self.chunks += done.chunks
                self.written += done.written
                self.metadata_only += done.metadata_only
                self.deleted += done.deleted
                self.empty += done.empty
                self.tokens += done.tokens
                self.truncated += done.truncated
                self.no_lexical += done.no_lexical
        if time.perf_counter() - self._told > TELL_SECONDS:
            self._tell()

    def _count_losses(self, work: Work) -> None:
        """Per passage; a document's are told when its last passage has come."""
        embeddings = work.batch.embeddings
        lost: dict[LossKind, NDArray[np.bool_]] = {"truncated": embeddings.truncated}
        if embeddings.sparse is not None:
            lost["no_lexical"] = np.diff(embeddings.sparse.indptr) == 0
        self.truncated += int(embeddings.truncated.sum())
        self.no_lexical += int(lost["no_lexical"].sum()) if "no_lexical" in lost else 0
        for kind, rows in lost.items():
            for row in np.flatnonzero(rows).tolist():
                self._losing.setdefault(work.owners[row].id, Counter())[kind] += 1
        if not self._losing:
            return
        for owner, step in zip(work.owners, work.steps, strict=True):
            if step == ledger.COMMIT:
                for kind, count in self._losing.pop(owner.id, Counter()).items():
                    self._lost(Loss(owner.id, kind, count))

    def finish(self) -> None:
        """Wait until all that was queued is acknowledged."""
        while self._pending:
            self._settle()
        self._tell()

    def _submit(self, operation: Callable[[], _Outcome]) -> None:
        while len(self._pending) > PENDING:
            self._settle()
        self._pending.append(self._thread.submit(operation))

    def _settle(self) -> None:
        outcome = self._pending.popleft().result()
        self.unchanged += outcome.same
        self.taken_over += outcome.same
        self.written += outcome.written
        self.metadata_only += outcome.metadata_only
        self.deleted += outcome.deleted
        self.chunks -= outcome.refused
        for failure in outcome.failures:
            self.count(failure)
        self._tell()

    def _stored(self, documents: Sequence[Candidate[Any]]) -> list[Stored]:
        if not self._exists:
            return [Stored()] * len(documents)
        return self.persist(
            lambda: ledger.look_up(
                self.connector,
                documents,
                take_over=self._take_over,
                tenant_field=self._tenant_field,
            )
        )

    def _tell(self) -> None:
        self._told = time.perf_counter()
        self._progress("documents", self.read, None)
        if self.tokens:
            self._progress("tokens", self.tokens, None)


# ------------------------------------------------------------------------- in the writing thread


@dataclass(slots=True)
class _Outcome:
    """What became of one piece of work: documents committed, stale passages deleted, failures.

    Args:
        refused: passages of the documents that failed, also those that are still to come.
    """

    same: int = 0
    written: int = 0
    metadata_only: int = 0
    deleted: int = 0
    refused: int = 0
    failures: list[Failure] = field(default_factory=list)


class _Writer:
    """Writes work in the order given; after an error that ends the run it refuses all further work.

    That guard is what lets work queue up behind a write: a commit can never overtake a failure.

    Args:
        connector: the collection, which exists.
        persist: runs what asks it.
    """

    def __init__(self, connector: Connector, persist: Callable[[Callable[[], Any]], Any]) -> None:
        self.connector = connector
        self._persist = persist
        self._broken: BaseException | None = None

    def write(self, work: Work) -> _Outcome:
        """Write records step by step; each step is acknowledged before the next.

        Raises:
            ConnectorError: the database failed for a reason that is no document's.
        """
        if self._broken is not None:
            raise self._broken
        try:
            return self._write(work)
        except BaseException as error:
            self._broken = error
            raise

    def delete(self, ids: Sequence[str]) -> _Outcome:
        """Delete passages that only other versions had."""
        return _Outcome(deleted=self._persist(lambda: self.connector.delete(ids)) if ids else 0)

    def _write(self, work: Work) -> _Outcome:
        outcome = _Outcome()
        start = 0
        for _, same in groupby(work.steps):
            stop = start + len(list(same))
            self._upsert(work.batch[start:stop], work.owners[start:stop], outcome)
            start = stop
        committed = [
            owner
            for owner, step in zip(work.owners, work.steps, strict=True)
            if step == ledger.COMMIT and not owner.failed
        ]
        outcome.same = sum(owner.same for owner in committed)
        outcome.written = len(committed) - outcome.same
        outcome.metadata_only = sum(owner.kept and not owner.same for owner in committed)
        stale = [
            id_
            for owner in committed
            for id_ in chunk_ids(owner.id, owner.mark.chunks, owner.mark.bound)
        ]
        outcome.deleted = self.delete(stale).deleted
        return outcome

    def _upsert(self, batch: RecordBatch, owners: Sequence[Change], outcome: _Outcome) -> None:
        """Write what is accepted; halve what is refused until the culprits stand alone."""
        sound = [row for row, owner in enumerate(owners) if not owner.failed]
        if not sound:
            return
        if len(sound) < len(owners):
            batch, owners = batch.take(np.array(sound)), [owners[row] for row in sound]
        try:
            self._persist(lambda: self.connector.upsert(batch))
        except _FATAL:
            raise
        except _REFUSED as error:
            if len(batch) == 1:
                (owner,) = owners
                outcome.failures.append(Failure(str(error), owner.where, owner.id, owner.root))
                outcome.refused += 0 if owner.same else owner.mark.chunks
                self._set_aside(owner)
                return
            half = len(batch) // 2
            self._upsert(batch[:half], owners[:half], outcome)
            self._upsert(batch[half:], owners[half:], outcome)
        else:
            for owner in owners:
                owner.begun = True

    def _set_aside(self, change: Change) -> None:
        """Remove what was already written of a document, so that it is not half there.

        A document refused before anything of it was written keeps its older version.
        """
        change.failed = True
        if change.begun:
            # The passages that carry the marks go last, for a run killed in between.
            self.delete(chunk_ids(change.id, 2, change.mark.bound))
            self.delete(chunk_ids(change.id, 0, 2))
