"""Writing to one collection: documents change in the ledger's order, and bad ones are set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

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
)
from m3connect.ingestion.chunking import chunk_ids
from m3connect.ingestion.ledger import Mark
from m3connect.ingestion.report import Failure
from m3connect.types import RecordBatch

# What no single record is to blame for; all other permanent errors may be one record's fault.
_FATAL = (AuthError, CollectionNotFound, InvalidFilter, SchemaMismatch, Unsupported)
_REFUSED = (InputError, RequestTooLarge, PermanentError)


@dataclass(slots=True)
class Change:
    """A document on its way into the collection.

    Args:
        id: the document's id.
        mark: what its first two passages will carry.
        begun: whether any passage of this version has been written.
        failed: whether a passage was refused; the rest is then skipped.
    """

    id: str
    mark: Mark
    begun: bool = False
    failed: bool = False


def step(position: int) -> int:
    """When a passage is written, as the ledger's docstring counts; 3 commits the document."""
    return {1: 1, 0: 3}.get(position, 2)


@dataclass(frozen=True, slots=True)
class Work:
    """Records to write together.

    Args:
        batch: the records, sorted by step.
        owners: each record's document.
        steps: each record's step.
    """

    batch: RecordBatch
    owners: Sequence[Change]
    steps: Sequence[int]


@dataclass(slots=True)
class Outcome:
    """What became of one piece of work: documents committed, stale passages deleted, failures."""

    written: int = 0
    deleted: int = 0
    failures: list[Failure] = field(default_factory=list)


class Writer:
    """Writes work in the order given; after an error that ends the run it refuses all further work.

    That guard is what lets work queue up behind a write: a commit can never overtake a failure.

    Args:
        connector: the collection, which exists.
    """

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self._broken: BaseException | None = None

    def write(self, work: Work) -> Outcome:
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

    def delete(self, ids: Sequence[str]) -> Outcome:
        """Delete passages that only older versions had."""
        return Outcome(deleted=self.connector.delete(ids) if ids else 0)

    def _write(self, work: Work) -> Outcome:
        outcome = Outcome()
        start = 0
        for _, same in groupby(work.steps):
            stop = start + len(list(same))
            self._upsert(work.batch[start:stop], work.owners[start:stop], outcome)
            start = stop
        committed = [
            owner
            for owner, at in zip(work.owners, work.steps, strict=True)
            if at == step(0) and not owner.failed
        ]
        outcome.written = len(committed)
        stale = [
            id_
            for owner in committed
            for id_ in chunk_ids(owner.id, owner.mark.chunks, owner.mark.bound)
        ]
        outcome.deleted = self.delete(stale).deleted
        return outcome

    def _upsert(self, batch: RecordBatch, owners: Sequence[Change], outcome: Outcome) -> None:
        """Write what is accepted; halve what is refused until the culprits stand alone."""
        sound = [row for row, owner in enumerate(owners) if not owner.failed]
        if not sound:
            return
        if len(sound) < len(owners):
            batch, owners = batch.take(np.array(sound)), [owners[row] for row in sound]
        try:
            self.connector.upsert(batch)
        except _FATAL:
            raise
        except _REFUSED as error:
            if len(batch) == 1:
                outcome.failures.append(Failure(str(error), id=owners[0].id))
                self._set_aside(owners[0])
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
            self.connector.delete(chunk_ids(change.id, 2, change.mark.bound))
            self.connector.delete(chunk_ids(change.id, 0, 2))
