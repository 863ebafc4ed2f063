"""Documents that a source no longer has: found and deleted, so that a collection follows its source."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Set as AbstractSet
from itertools import chain, islice
from typing import TYPE_CHECKING

from m3connect.contract import Connector
from m3connect.errors import InputError
from m3connect.ingestion.ledger import FIELD

if TYPE_CHECKING:
    from m3connect.ingestion.documents import DocumentSource
    from m3connect.ingestion.encoded import EncodedSource
    from m3connect.ingestion.sink import Sink

AT_ONCE = 1000  # deletions a request


def prune(source: DocumentSource | EncodedSource, seen: AbstractSet[str], sink: Sink) -> None:
    """Delete what the source did not give in this run, and count it.

    Args:
        source: says whose a record is.
        seen: the ids of the documents that it gave.
        sink: the run, which is finished.

    Raises:
        InputError: the source was not read as a whole: it gave nothing, or documents failed.
    """
    gone = vanished(sink.connector, source, seen, read=sink.read, failed=sink.failed)
    sink.pruned = len(gone)
    ids = chain.from_iterable(gone.values())
    while part := list(islice(ids, AT_ONCE)):
        sink.deleted += sink.connector.delete(part)


def vanished(
    connector: Connector,
    source: DocumentSource | EncodedSource,
    seen: AbstractSet[str],
    *,
    read: int,
    failed: int,
) -> dict[str, deque[str]]:
    """The documents that the source did not give, each with its record ids.

    Records that ingestion did not write have no document and stay. Those that carry marks come
    last, for a run killed in between.

    Raises:
        InputError: see :func:`prune`.
    """
    if failed or not read:
        raise InputError(
            f"nothing was pruned: of {read} documents read {failed} failed, so what the source "
            "holds is not known. Mend or leave out what failed and run again."
        )
    gone: defaultdict[str, deque[str]] = defaultdict(deque)
    for batch in connector.scan():
        for id_, payload in zip(batch.ids, batch.payloads, strict=True):
            owner = source.owner(id_, payload)
            if owner is not None and owner not in seen:
                ids = gone[owner]
                (ids.append if FIELD in payload else ids.appendleft)(id_)
    return gone
