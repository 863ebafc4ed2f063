"""What the collection already holds of a document, and in which order to change it.

The state lives in the collection itself, in the payload of a document's passages: no local file can
be lost or disagree. Each carries the hash of its version, the first two a whole mark. A document's
passages are written in three steps, each acknowledged before the next begins:

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

A document that goes, because it is empty or pruned, goes in steps, too (:func:`removal`): while only
some of its passages are gone, its version must not count as there, for it may come again.

All that is said of one run at a time, as embedded engines see to it. Into a server's collection two
runs may write at once, each over what it looked up before the other wrote; what remains may be a
mixture of two versions, with passages beyond the bounds of both marks. No order of writes and no mark
can tell, as the last one to write anything may be killed then. So of a server's documents all passages
are looked up, by a filter, and a document counts as unchanged only if each is there and of its version:
whatever runs left behind, the next one repairs.

In an embedded engine the marks tell which passages there should be and may be. They are looked up by
their ids before a document counts as unchanged: somebody may have deleted some, or a deletion was torn.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, Generic, TypeVar

from m3connect.connecting.tenants import check_unmoved, tenant_of
from m3connect.contract import Connector, FieldKind
from m3connect.errors import InputError
from m3connect.filters import EVERY_TENANT, Eq, In
from m3connect.ingestion.chunking import chunk_id
from m3connect.ingestion.ownership import may_replace, refused
from m3connect.types import Payload

T = TypeVar("T")

FIELD = "_ingest"
"""The payload field of the mark."""

RecordIds = tuple[str, str | None]
"""The record ids of a document's passages 0 and 1; None where there is never a second."""

FIRST = EVERY_TENANT & (Eq("position", 0) | Eq(f"{FIELD}.chunks", 1))
"""One record of each document: passage 0, and records that came with vectors, whose ``position`` is anybody's."""

AT_ONCE = 1000
"""Passages read at a time."""

INDEXED: Mapping[str, FieldKind] = {
    "document_id": "keyword",
    "position": "integer",
    f"{FIELD}.chunks": "integer",
    f"{FIELD}.source": "keyword",
}
"""What a server's collection is asked for by filter, in each run and for the passages around a hit. A server may
answer nothing else."""

COMMIT = 3
"""The step that writes passage 0 and thereby commits a document."""


def step(position: int) -> int:
    """In which of the three steps above a passage is written."""
    return {1: 1, 0: COMMIT}.get(position, 2)


Removal = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""Ids of records that are deleted one group after the other."""


def removal(first: Sequence[str], second: Sequence[str], others: Sequence[str]) -> Removal:
    """In which order a document's records are deleted; each group is acknowledged before the next.

    Without passage 0 no version is complete. Passage 1, if there is one, tells until the end how many
    others there may be; if there is none, no version needs more than passage 0, which then tells it.

    Args:
        first, second: passages 0 and 1, if they are there.
        others: all further ones.
    """
    return (first, others, second) if second else ((), others, first)


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
        where, root: where it was read, as a :class:`m3connect.ingestion.Failure` says it.
        payload: what its records say of it, by which they are a tenant's; None where that is not known.
    """

    id: str
    hash: str
    records: RecordIds
    size: int
    item: T
    source: str
    where: str | None = None
    root: str | None = None
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A version of a document, as its first two passages carry it.

    Args:
        hash: of all that the version's records are made of.
        chunks: how many passages the version has.
        bound: passages that may exist, of this version and of older ones, have positions below it.
        source: the name of the source it belongs to; None where that was not yet kept.
        encoded: a hash of what its vectors were made of; None where that is not known.
    """

    hash: str
    chunks: int
    bound: int
    source: str | None = None
    encoded: str | None = None

    def at(self, position: int) -> Payload:
        """As the payload field of the passage at a position."""
        return {FIELD: asdict(self) if position < 2 else {"hash": self.hash}}


@dataclass(frozen=True, slots=True)
class Stored:
    """What the collection tells about a document.

    Args:
        first, second: the marks of its first two passages.
        others: the hashes of the further ones that there are, by position; None of those that an
            older version wrote. None if they were not looked up.
        misplaced: why the version that was looked up cannot take its place: it is another tenant's.
    """

    first: Mark | None = None
    second: Mark | None = None
    others: Mapping[int, str | None] | None = None
    misplaced: str | None = None

    def is_complete(self, hash_: str) -> bool:
        """Whether exactly this version was written to its end, and none begun since."""
        if self.first is None or self.first.hash != hash_:
            return False
        if self.first.chunks > 1 and (self.second is None or self.second.hash != hash_):
            return False
        return self.others is None or all(
            self.others.get(position, "missing") in {hash_, None}
            for position in range(2, self.first.chunks)
        )

    def has_vectors_of(self, hash_: str, encoded: str) -> bool:
        """Whether the vectors of a version are there: its own, or of equal texts with other metadata."""
        held = self.first
        if held is None or not self.is_complete(held.hash):
            return False
        return held.hash == hash_ or held.encoded == encoded

    def is_owned(self, source: str) -> bool:
        """Whether it is known whose this is, and a run over ``source`` need not change that."""
        known = self.first is not None and self.first.source is not None
        return known and self.foreign_to(source) is None

    def beyond(self, chunks: int) -> Sequence[int]:
        """Positions of passages that there are, or may be where they were not looked up, from ``chunks`` on."""
        if self.others is None:
            return range(chunks, self.bound)
        second = [1] if self.second is not None else []
        return [position for position in (*second, *self.others) if position >= chunks]

    @property
    def bound(self) -> int:
        """No passage of the document has this position or a higher one."""
        marked = (mark.bound if mark else 0 for mark in (self.first, self.second))
        return max(*marked, max(self.others or (), default=-1) + 1)

    def foreign_to(self, source: str) -> str | None:
        """The source whose document this is, if a run over ``source`` may not replace it."""
        owners = (mark.source for mark in (self.first, self.second) if mark is not None)
        return next((owner for owner in owners if not may_replace(source, owner)), None)


def sources(connector: Connector) -> Counter[str | None]:
    """How many documents a collection holds of each source, by reading what it holds of every one.

    None stands for those of which it was not kept, and of records that ingestion did not write.
    """
    counts = Counter[str | None]()
    for batch in connector.scan(FIRST, batch_size=AT_ONCE):
        marks = map(_mark, batch.payloads)
        counts.update(None if mark is None else mark.source for mark in marks)
    return counts


def look_up(
    connector: Connector,
    documents: Sequence[Candidate[Any]],
    *,
    take_over: bool = False,
    tenant_field: str | None = None,
) -> list[Stored]:
    """What the collection holds of documents.

    Args:
        connector: the collection; it must exist.
        documents: the versions that a source gives.
        take_over: whether they may replace documents of other sources.
        tenant_field: the payload field by which the collection keeps tenants apart, if it does.

    Raises:
        Refused: they would replace documents of another source, and may not.
    """
    of_one_record = all(second is None for _, second in (each.records for each in documents))
    if connector.capabilities.embedded or of_one_record:
        stored = _marks(connector, documents, tenant_field)
    else:
        stored = _passages(connector, documents, tenant_field)
    others = [
        (document, owner)
        for document, held in zip(documents, stored, strict=True)
        if (owner := held.foreign_to(document.source)) is not None
    ]
    if others and not take_over:
        source = others[0][0].source
        raise refused(source, [(each.id, owner) for each, owner in others])
    return stored


def _marks(
    connector: Connector, documents: Sequence[Candidate[Any]], tenant_field: str | None
) -> list[Stored]:
    """By ids: the marks, which tell all where no two runs can write at once; then the passages that there
    may be of versions that are complete by them, for records can also be deleted by hand, or a deletion torn."""
    ids = [document.records for document in documents]
    wanted = [id_ for pair in ids for id_ in pair if id_ is not None]
    batch = connector.fetch(wanted, vectors=False)
    payloads = dict(zip(batch.ids, batch.payloads, strict=True))
    stored = []
    for document in documents:
        passages = [{} if id_ is None else payloads.get(id_, {}) for id_ in document.records]
        why = _misplaced(document, passages, tenant_field)
        of_first, of_second = map(_mark, passages)
        stored.append(Stored(of_first, of_second, misplaced=why))
    further: dict[str, tuple[int, int]] = {}  # which document's, and at which position
    found: dict[int, dict[int, str | None]] = {}
    for row, held in enumerate(stored):
        if ids[row][1] is not None and held.first and held.is_complete(held.first.hash):
            own, found[row] = documents[row].id, {}
            for position in range(2, max(held.first.chunks, held.bound)):
                further[chunk_id(own, position)] = row, position
    named = list(further)
    for start in range(0, len(named), AT_ONCE):
        batch = connector.fetch(named[start : start + AT_ONCE], vectors=False)
        for id_, payload in zip(batch.ids, batch.payloads, strict=True):
            row, position = further[id_]
            found[row][position] = _hash(payload)
    for row, others in found.items():
        stored[row] = replace(stored[row], others=others)
    return stored


def _passages(
    connector: Connector, documents: Sequence[Candidate[Any]], tenant_field: str | None
) -> list[Stored]:
    """By a filter: every passage that the collection holds of them."""
    held: dict[str, dict[int, Payload]] = {document.id: {} for document in documents}
    wanted = EVERY_TENANT & In("document_id", tuple(held))
    for batch in connector.scan(wanted, batch_size=AT_ONCE):
        for id_, payload in zip(batch.ids, batch.payloads, strict=True):
            document, position = payload["document_id"], payload.get("position")
            if isinstance(position, int) and id_ == chunk_id(document, position):
                held[document][position] = payload
    return [_stored(document, held[document.id], tenant_field) for document in documents]


def _stored(
    document: Candidate[Any], passages: Mapping[int, Payload], tenant_field: str | None
) -> Stored:
    others = {position: _hash(payload) for position, payload in passages.items() if position > 1}
    why = _misplaced(document, passages.values(), tenant_field)
    return Stored(_mark(passages.get(0, {})), _mark(passages.get(1, {})), others, why)


def _misplaced(
    document: Candidate[Any], passages: Iterable[Payload], tenant_field: str | None
) -> str | None:
    """Why a version cannot take the place of passages that are there.

    Told before anything is written: the database refuses each passage only where another tenant has its
    very id, and no deletion, be it of a document that is empty now or that was refused half written.
    """
    if tenant_field is None or document.payload is None:
        return None
    id_ = document.id
    try:
        for payload in filter(None, passages):
            own = {id_: tenant_of(id_, document.payload, tenant_field)}
            check_unmoved(own, {id_: tenant_of(id_, payload, tenant_field)})
    except InputError as error:
        return str(error)
    return None


def _hash(payload: Mapping[str, Any]) -> str | None:
    return (payload.get(FIELD) or {}).get("hash")


def _mark(payload: Mapping[str, Any]) -> Mark | None:
    stored = payload.get(FIELD)
    return Mark(**stored) if stored else None


def encoded_hash(weights: str, texts: Sequence[str]) -> str:
    """A hash of what a document's vectors were made of, for :attr:`Mark.encoded`.

    Args:
        weights: of the model.
        texts: what was encoded, passage by passage.
    """
    return content_hash(weights, *texts)


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
