"""Documents that go: those that a source no longer has, counted or found and deleted, and those named.

Of the former only documents of the sources that the run read are looked at
(:mod:`m3connect.ingestion.ownership`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING

from m3connect.contract import Connector
from m3connect.errors import Refused
from m3connect.filters import EVERY_TENANT, Eq, In
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.ledger import FIELD, FIRST, Removal, removal
from m3connect.ingestion.listing import NothingToRead
from m3connect.ingestion.ownership import covers
from m3connect.ingestion.seen import Seen
from m3connect.types import Payload

if TYPE_CHECKING:
    from m3connect.ingestion.encoded import EncodedSource
    from m3connect.ingestion.report import IngestReport
    from m3connect.ingestion.sink import Sink

MAX_DELETE_RATIO = 0.1
"""More of a source's documents are not deleted unasked: most such runs read the wrong folder."""
AT_ONCE = 1000  # deletions a request


class NotPruned(Refused):
    """Documents were written, and none was deleted.

    Args:
        message: why.
        report: what the run did.
    """

    def __init__(self, message: str, report: IngestReport) -> None:
        super().__init__(message)
        self.report = report


def prune(
    source: DocumentSource | EncodedSource,
    seen: Seen,
    sink: Sink,
    *,
    most: float = MAX_DELETE_RATIO,
) -> None:
    """Delete what the source did not give in this run, and count it.

    Args:
        source: says whose a record is.
        seen: the ids of the documents that it gave, with the names of their sources.
        sink: the run, which is finished.
        most: the largest part of the source's documents that may be deleted.

    Raises:
        NotPruned: the source was not read as a whole (it, or one of several, gave nothing, or documents
            failed), or more would be deleted.
    """
    try:
        gone = sink.persist(
            lambda: vanished(
                sink.connector, source, seen, read=sink.read, failed=sink.failed, most=most
            )
        )
    except Refused as refusal:
        raise NotPruned(f"nothing was deleted: {refusal}", sink.report()) from refusal
    sink.pruned = len(gone)
    for group in _groups(gone.values()):
        sink.deleted += sink.persist(partial(sink.connector.delete, group))


def delete_documents(connector: Connector, ids: Sequence[str]) -> int:
    """Delete all passages of documents, whoever's they are.

    Killed amid it, no document counts as there, so that it can be deleted or ingested again; one
    request by filter would leave that to the engine.

    Args:
        connector: the collection.
        ids: of the documents, or one; those that are not there are no error.

    Returns:
        How many passages went.

    Raises:
        ConnectorError: the database failed.

    >>> from m3connect import Document, connect, ingest
    >>> from m3connect.testing.fakes import HashEncoder
    >>> notes = connect("memory", collection="notes")
    >>> ingest([Document("a", "one"), Document("b", "two")], HashEncoder(), notes).written
    2
    >>> delete_documents(notes, ["a", "c"]), notes.count()
    (1, 1)
    """
    named = (ids,) if isinstance(ids, str) else tuple(ids)
    found: defaultdict[str, _Records] = defaultdict(_Records)
    for batch in connector.scan(EVERY_TENANT & In("document_id", named)):
        for id_, payload in zip(batch.ids, batch.payloads, strict=True):
            found[str(payload["document_id"])].add(id_, payload)
    removals = [records.removal() for records in found.values()]
    return sum(connector.delete(group) for group in _groups(removals))


@contextmanager
def reading(*, to_prune: bool) -> Iterator[None]:
    """What finds no files in here is refused where the collection is to be pruned by them.

    Raises:
        Refused: that is so; most such folders are where a disk is not mounted.
    """
    try:
        yield
    except NothingToRead as error:
        if not to_prune:
            raise
        raise Refused(f"nothing is deleted: {error}") from error


def require_whole(source: DocumentSource | EncodedSource) -> None:
    """Files chosen of a folder do not tell what it no longer has.

    Raises:
        Refused: the source is some files of a folder.
    """
    if isinstance(source, DocumentSource) and source.piece_of is not None:
        raise Refused(
            f"nothing was read: only some files of {source.piece_of!r} are chosen (by their names, a glob or "
            "--include), and --prune would delete what the collection holds of all others in it. Give "
            "the folder, or make these files a source of their own: --source NAME"
        )


def vanished(
    connector: Connector,
    source: DocumentSource | EncodedSource,
    seen: Seen,
    *,
    read: int,
    failed: int,
    most: float,
) -> dict[str, Removal]:
    """The documents that the source did not give, each with its record ids.

    Records that ingestion did not write have no document and stay.

    Raises:
        Refused: see :func:`prune`; says why alone.
    """
    if not read:
        raise Refused("the source gave no documents. If all of its are to go: m3connect delete")
    if failed:
        raise Refused(
            f"of {read} documents read {failed} failed, so what the source holds is not known. Mend or "
            "leave out what failed and run again."
        )
    names = seen.sources()
    silent = {*source.roots} - names
    barren: set[str] = set()
    others: defaultdict[str, _Records] = defaultdict(_Records)
    with Seen() as owned:
        for batch in connector.scan(EVERY_TENANT):
            for id_, payload in zip(batch.ids, batch.payloads, strict=True):
                document = source.owner(id_, payload)
                if document is None:
                    continue
                mark = payload.get(FIELD) or {}
                owner = mark.get("source")
                if any(covers(name, owner) for name in names):
                    owned.add(document)
                if document not in seen:
                    others[document].add(id_, payload)
                    barren.update(root for root in silent if covers(root, owner))
        gone = {document: held.removal() for document, held in others.items() if document in owned}
        of = len(owned)
    if barren:
        raise Refused(
            f"{_list(barren)} gave no documents, and the collection holds some of it. If all of its are to "
            "go: m3connect delete; otherwise leave it out of the run"
        )
    if len(gone) > most * of:
        raise Refused(
            f"this run did not find {len(gone)} of the {of} documents that the collection holds of "
            f"{_list(names)}, which is more than {most:.0%}. If they are to go, allow it: "
            f"--max-delete-ratio {len(gone) / of + 0.005:.2f}"
        )
    return gone


def left_over(connector: Connector, names: Collection[str], present: int) -> int:
    """How many documents the collection holds of sources that no longer have them.

    Args:
        connector: the collection.
        names: of the sources.
        present: how many documents of theirs, and marked so, the run read and the collection holds.
    """
    held = sum(connector.count(FIRST & Eq(f"{FIELD}.source", name)) for name in names)
    return max(held - present, 0)


class _Records:
    """A document's records: those with its marks, and all others."""

    def __init__(self) -> None:
        self._at: tuple[list[str], list[str], list[str]] = ([], [], [])

    def add(self, id_: str, payload: Payload) -> None:
        at, position = 2, payload.get("position")
        if (
            isinstance(position, int)
            and 0 <= position < 2
            and "source" in (payload.get(FIELD) or {})
        ):
            at = position
        self._at[at].append(id_)

    def removal(self) -> Removal:
        return removal(*self._at)


def _groups(removals: Collection[Removal]) -> Iterator[list[str]]:
    """What is deleted one request after the other: a step of all documents before the next one."""
    for step in zip(*removals, strict=True):
        ids = chain.from_iterable(step)
        while group := list(islice(ids, AT_ONCE)):
            yield group


def _list(names: Collection[str]) -> str:
    return ", ".join(map(repr, sorted(names)))
