"""What the collection already holds of a document, and in which order to change it.

The state lives in the collection itself, on a document's first two passages: no local file can be
lost or disagree. A document's passages are written in three steps, each acknowledged before the
next begins:

1. passage 1, with a mark that announces how many passages there may be from now on;
2. passages 2 and up;
3. passage 0, with the same mark: the commit. Then passages that only older versions had are deleted.

Why this holds when a run is killed at any point:

- Never lost: a document counts as unchanged only if passage 0 and passage 1 carry its hash. Passage
  0 gets it after all others were acknowledged; a later version that was begun but not finished has
  replaced passage 1's.
- Never stale: passages exist only below the largest ``bound`` of the two marks, because a larger
  one is acknowledged before a passage beyond it is written. So the next run over this document,
  changed or not, knows what to delete. Deleting what is already gone is no error.
- Never doubled: ids are ``<document id>#<position>``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Generic, TypeVar

from m3connect.contract import Connector
from m3connect.ingestion.ownership import may_replace, refused
from m3connect.types import Payload

T = TypeVar("T")

FIELD = "_ingest"
"""The payload field of the mark."""

RecordIds = tuple[str, str | None]
"""The record ids of a document's passages 0 and 1; None where there is never a second."""

COMMIT = 3
"""The step that writes passage 0 and thereby commits a document."""


def step(position: int) -> int:
    """In which of the three steps above a passage is written."""
    return {1: 1, 0: COMMIT}.get(position, 2)


@dataclass(frozen=True, slots=True)
class Candidate(Generic[T]):
    """A version of a document as a source gives it, before the collection is asked about it.

    Args:
        id: the document's id.
        hash: of all that the version's records are made of.
        records: the ids of the records that carry its marks.
        size: how much it takes in memory, in characters of text or bytes of vectors.
        item: the document.
        source: the name of the source that it belongs to.
    """

    id: str
    hash: str
    records: RecordIds
    size: int
    item: T
    source: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A version of a document, as its first two passages carry it.

    Args:
        hash: of all that the version's records are made of.
        chunks: how many passages the version has.
        bound: passages that may exist, of this version and of older ones, have positions below it.
        source: the name of the source it belongs to; None where that was not yet kept.
    """

    hash: str
    chunks: int
    bound: int
    source: str | None = None

    def to_payload(self) -> Payload:
        """As a payload field."""
        return {FIELD: asdict(self)}


@dataclass(frozen=True, slots=True)
class Stored:
    """What the collection tells about a document: the marks of its first two passages."""

    first: Mark | None = None
    second: Mark | None = None

    def is_complete(self, hash_: str) -> bool:
        """Whether exactly this version was written to its end, and none begun since."""
        if self.first is None or self.first.hash != hash_:
            return False
        return self.first.chunks == 1 or (self.second is not None and self.second.hash == hash_)

    @property
    def bound(self) -> int:
        """No passage of the document has this position or a higher one."""
        return max(mark.bound if mark else 0 for mark in (self.first, self.second))

    def foreign_to(self, source: str) -> str | None:
        """The source whose document this is, if a run over ``source`` may not replace it."""
        owners = (mark.source for mark in (self.first, self.second) if mark is not None)
        return next((owner for owner in owners if not may_replace(source, owner)), None)


def look_up(
    connector: Connector, documents: Sequence[Candidate[Any]], *, take_over: bool = False
) -> list[Stored]:
    """What the collection holds of documents, in one request.

    Args:
        connector: the collection; it must exist.
        documents: the versions that a source gives.
        take_over: whether they may replace documents of other sources.

    Raises:
        Refused: they would replace documents of another source, and may not.
    """
    ids = [document.records for document in documents]
    wanted = [id_ for pair in ids for id_ in pair if id_ is not None]
    found = connector.fetch(wanted, vectors=False)
    marks = {id_: _mark(p) for id_, p in zip(found.ids, found.payloads, strict=True)}
    stored = [
        Stored(marks.get(first), None if second is None else marks.get(second))
        for first, second in ids
    ]
    others = [
        (document, owner)
        for document, held in zip(documents, stored, strict=True)
        if (owner := held.foreign_to(document.source)) is not None
    ]
    if others and not take_over:
        source = others[0][0].source
        raise refused(source, [(each.id, owner) for each, owner in others])
    return stored


def _mark(payload: Mapping[str, Any]) -> Mark | None:
    stored = payload.get(FIELD)
    return Mark(**stored) if stored else None


def content_hash(*parts: Any) -> str:
    """A hash of JSON values that is the same in every run and on every machine.

    Raises:
        ValueError or TypeError: a part is not JSON.

    >>> content_hash("text", {"b": 1, "a": 2}) == content_hash("text", {"a": 2, "b": 1})
    True
    >>> content_hash("ab", "c") == content_hash("a", "bc")
    False
    """
    canonical = json.dumps(parts, sort_keys=True, allow_nan=False)
    return sha256(canonical.encode()).hexdigest()[:32]
