"""A copy of a collection comes back: whole, into a collection of its own, or not at all.

Its passages carry the ledger's marks, and arrive in no particular order. A run killed in between
would leave documents that look complete and are not. So the collection itself says, in its notes,
which copy it is being made of and whether that is finished; until then nothing else is ingested.
"""

from __future__ import annotations

from m3connect.contract import Connector
from m3connect.errors import ConfigError
from m3connect.filters import EVERY_TENANT
from m3connect.stores.parquet import Contents

NOTE = "restored"


def holds(connector: Connector, copy: Contents | None) -> bool:
    """Whether the collection holds all of a copy already; it may hold some of it, or nothing.

    Raises:
        ConfigError: it holds something else.
    """
    assert copy is not None, "only what m3connect wrote is a copy"
    note = connector.describe().notes.get(NOTE)
    if note is not None and note["digest"] == copy.digest:
        return bool(note["finished"])
    if note is not None or connector.count(EVERY_TENANT):
        raise ConfigError(
            f"collection {connector.collection!r} holds other records. This file is a copy of a "
            "collection; it goes into a new one (--collection NAME)."
        )
    return False


def begin(connector: Connector, copy: Contents | None) -> bool:
    """Claim the collection for a copy. Returns and raises as :func:`holds`."""
    assert copy is not None, "only what m3connect wrote is a copy"
    held = holds(connector, copy)
    if not held:
        connector.annotate({NOTE: {"digest": copy.digest, "finished": False}})
    return held


def finish(connector: Connector, copy: Contents | None) -> None:
    """All records of a copy are in: its notes follow."""
    assert copy is not None, "only what m3connect wrote is a copy"
    connector.annotate({**copy.notes, NOTE: {"digest": copy.digest, "finished": True}})


def is_whole(connector: Connector) -> bool:
    """Whether the collection is a mere copy so far.

    Raises:
        ConfigError: a copy is in it in part.
    """
    note = connector.describe().notes.get(NOTE)
    if note is not None and not note["finished"]:
        raise ConfigError(
            f"a copy was ingested into collection {connector.collection!r} and not finished; run "
            "that again first"
        )
    return note is not None


def leave(connector: Connector) -> None:
    """Something else is about to be ingested: the collection is no mere copy any more. Raises as :func:`is_whole`."""
    if is_whole(connector):
        connector.annotate({NOTE: None})
