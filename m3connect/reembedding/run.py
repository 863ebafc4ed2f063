"""The steps of encoding a collection anew beside the old one, and of going back.

The text of every passage is in the collection, with the title and headings that were encoded before it, so
that no source is needed. In order:

1. claim      a new collection beside the old one; a note in it says of which it is made
2. catch up   passages that the new one lacks or holds otherwise are encoded; what the old one lost goes
3. verify     once a pass finds nothing to do: ids, payloads, marks, schema, and a sample of the vectors
4. switch     the name stands for the new collection from now on, in one step
5. catch up   what came into the old one while 3 and 4 went on, once more

Passages are compared by their payload, in which the ledger's marks tell versions apart: so whatever
ingested into the old collection meanwhile, and wherever it ran, is caught up without knowing of this.
(Writing into both at once would make each run of ingestion load two models.) Nothing else is remembered:
a run that was killed is run again, and encodes what is not there yet. A run of ingestion that still writes
into the old collection after the switch is told so at its end.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from m3connect.contract import CollectionInfo, CollectionSchema, Connector, Encoder
from m3connect.errors import (
    CollectionGone,
    CollectionNotFound,
    ConfigError,
    FingerprintMismatch,
    Refused,
)
from m3connect.filters import EVERY_TENANT
from m3connect.ingestion import restoring
from m3connect.progress import Progress, silent
from m3connect.reembedding.passages import digest_of, digests
from m3connect.reembedding.twins import Twins, verify
from m3connect.searching.modes import note_of
from m3connect.searching.names import TUNED
from m3connect.types import LEGS, Leg

log = logging.getLogger(__name__)

NOTE = "reembedded"
"""The note of a collection that says of which other it was made, and whether that is finished."""
PASSES = 8
"""So often the old collection is gone through for what was written meanwhile, before this is given up."""


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """What was done.

    Args:
        name: the name that searches use.
        old, new: the collection that it stood for, and the new one.
        passages: in the new collection.
        encoded: of them, in this run; the others were there from an earlier one.
        deleted: passages removed from the new collection, because the old one lacks them.
        late: of both, those that came after the last pass before the switch.
        tokens: tokens encoded, special ones included.
        truncated: passages encoded in this run that are longer than the model takes.
        switched: whether the name stands for the new collection.
        seconds: wall time.
    """

    name: str
    old: str
    new: str
    passages: int
    encoded: int
    deleted: int
    late: int
    tokens: int
    truncated: int
    switched: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RollbackReport:
    """What was done.

    Args:
        name: the name that searches use.
        left, back: the collection that it stood for, and the one that it stands for again.
        differing: passages that only one of the two holds, or that they hold differently: what came
            since the switch is not in the old one.
    """

    name: str
    left: str
    back: str
    differing: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def reembed(
    connector: Connector,
    encoder: Encoder,
    *,
    into: str | None = None,
    legs: Sequence[Leg] | None = None,
    switch: bool = True,
    discard: bool = False,
    progress: Progress = silent,
) -> ReembedReport:
    """Encode all passages of a collection anew, into a collection beside it, and switch the name to that.

    Searches by the name see the old collection until the switch and the new one from then on, each with
    its own model; nothing of the old one is changed but, where the name is not an alias, its note of what
    the name stands for. A run that was killed is completed by running it again. Memory does not grow with
    the collection, but for the ids.

    Args:
        connector: the collection, by the name that searches use.
        encoder: the new model, or the same one in another precision.
        into: the new collection's name. Default: the old one's with the next number, as ``handbook_2``.
        legs: representations to store; default those of the old collection.
        switch: whether to switch when all is verified; without it, the next run does.
        discard: whether what was ingested into the new collection, while the name stood for it earlier,
            gives way to what the old one holds.
        progress: told of every group of passages.

    Raises:
        ConfigError: the model or the database lacks a representation, or the new collection's name is
            taken.
        InputError: a record has no text, or one is refused by the database; names it.
        FingerprintMismatch: the new collection was begun with another model.
        Refused: documents are ingested faster than they are caught up, what was written does not
            verify, or something would have to be discarded; the name was not switched.
        ConnectorError: a database failed; run again to continue.
    """
    start = time.monotonic()
    info = connector.describe()
    schema = _schema(info.schema, encoder, legs, connector)
    if _is_made(info, schema) and into in {None, info.stands_for}:
        return _made_already(connector, encoder, info, schema.legs, progress, start)
    name = into or next_name(info.stands_for)
    with connector.beside(name) as fresh:
        note = _claim(fresh, schema, info)
        twins = Twins(connector, fresh, encoder, schema.legs, progress)
        twins.read_held()
        if not discard:
            _require_nothing_lost(twins, note, info)
        fresh.annotate({NOTE: _note(info.stands_for, finished=False)})
        for _ in range(PASSES):
            if not twins.catch_up():
                break
        else:
            raise Refused(
                f"documents are ingested into {info.stands_for!r} as fast as they are caught up: after "
                f"{PASSES} passes there is still something new. Pause ingestion and run this again; it "
                f"goes on from here. {info.name!r} was not switched."
            )
        fresh.annotate(_carried(info, encoder))
        fresh.flush()
        verify(twins, schema)
        late = 0
        if switch:
            fresh.annotate({NOTE: _note(info.stands_for, finished=False, held=twins.held)})
            connector.switch(name)
            # Until it is described again, the connector reads the old collection.
            late = twins.catch_up(only_unchanged=True)
            fresh.annotate({NOTE: _note(info.stands_for, finished=True, held=twins.held)})
            fresh.flush()
    if switch:
        connector.describe()  # from here on the caller's connector reads the new one, too
    return ReembedReport(
        info.name,
        info.stands_for,
        name,
        len(twins.held),
        twins.encoded,
        twins.deleted,
        late,
        twins.tokens,
        twins.truncated,
        switch,
        time.monotonic() - start,
    )


def rollback(connector: Connector) -> RollbackReport:
    """Let the name stand again for the collection that the present one was made of.

    Nothing is removed. :func:`reembed` with the same model goes forward again: it brings the new
    collection to what the old one holds then, and switches; what was ingested into the new one alone is
    not discarded unasked.

    Args:
        connector: the collection, by the name that searches use.

    Raises:
        ConfigError: the collection was not made by :func:`reembed`.
        CollectionNotFound: the old collection is gone.
    """
    try:
        info = connector.describe()
    except CollectionGone:
        connector.switch(connector.collection)
        held = connector.describe()
        return RollbackReport(held.name, "", held.stands_for, 0)
    note = info.notes.get(NOTE)
    if note is None:
        raise ConfigError(
            f"{info.name!r} stands for the collection {info.stands_for!r}, which reembed did not make: "
            "there is nothing to go back to"
        )
    connector.switch(note["of"])
    held = connector.describe()
    ours = digests(connector)
    with connector.beside(info.stands_for) as left:
        theirs = digests(left)
    differing = sum(theirs.get(id_) != digest for id_, digest in ours.items())
    return RollbackReport(
        held.name, info.stands_for, held.stands_for, differing + len(theirs.keys() - ours.keys())
    )


def next_name(collection: str) -> str:
    """The name of the collection that is made of another one by default.

    >>> next_name("handbook"), next_name("handbook_1"), next_name("notes_2026")
    ('handbook_2', 'handbook_2', 'notes_2026_2')
    """
    numbered = re.fullmatch(r"(.+)_([1-9]\d?)", collection)
    stem, number = (collection, 1) if numbered is None else (numbered[1], int(numbered[2]))
    return f"{stem}_{number + 1}"


# -------------------------------------------------------------------------------- the new collection


def _schema(
    old: CollectionSchema, encoder: Encoder, legs: Sequence[Leg] | None, connector: Connector
) -> CollectionSchema:
    """As the old one, but for what the model decides.

    Raises:
        ConfigError: the model or the database lacks a representation.
    """
    made_by = encoder.info.fingerprint
    chosen = old.legs if legs is None else tuple(leg for leg in LEGS if leg in legs)
    for leg in chosen:
        if leg not in made_by.legs:
            raise ConfigError(f"{made_by.model!r} makes no {leg} vectors: name others (--legs)")
        if leg not in connector.capabilities.stores:
            raise ConfigError(f"{connector.name} cannot store {leg} vectors here")
    if not chosen:
        raise ConfigError(f"name at least one of {', '.join(LEGS)}")
    chunker = "" if old.fingerprint is None else old.fingerprint.chunker
    return CollectionSchema.of(
        made_by,
        chosen,
        payload_fields=old.payload_fields,
        chunker=chunker,
        tenant_field=old.tenant_field,
    )


def _is_made(info: CollectionInfo, schema: CollectionSchema) -> bool:
    """Whether the collection was made so already."""
    same = info.schema.fingerprint == schema.fingerprint
    return same and not schema.differences(info.schema)


def _note(of: str, *, finished: bool, held: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What a collection says of its making.

    Args:
        of: the collection that it is made of.
        finished: whether nothing is left to do.
        held: what it holds before the switch, so that a last look can be repeated while nobody has
            written into it since; afterwards, what of that is to be found in the other one, too.
    """
    note = {"of": of, "finished": finished}
    return note if held is None else {**note, "holds": digest_of(held)}


def _made_already(
    connector: Connector,
    encoder: Encoder,
    info: CollectionInfo,
    legs: Sequence[Leg],
    progress: Progress,
    start: float,
) -> ReembedReport:
    """The name stands for such a collection; a run that was killed after the switch is completed."""
    note = info.notes.get(NOTE)
    of = info.stands_for if note is None else note["of"]
    twins = Twins(connector, connector, encoder, legs, progress)
    late = None
    if note is not None and not note["finished"]:
        try:
            late = _look_again(twins, info, note)
        except CollectionNotFound:
            log.warning("the last look into %r was not made, and it is gone", of)
        held = None if late is None else twins.held
        connector.annotate({NOTE: _note(of, finished=True, held=held)})
        connector.flush()
    return ReembedReport(
        info.name,
        of,
        info.stands_for,
        connector.count(EVERY_TENANT),
        twins.encoded,
        twins.deleted,
        late or 0,
        twins.tokens,
        twins.truncated,
        True,
        time.monotonic() - start,
    )


def _look_again(twins: Twins, info: CollectionInfo, note: Mapping[str, Any]) -> int | None:
    """The last look of a run that was killed after the switch, where it can be told what that run left.

    Returns:
        as :meth:`Twins.catch_up`; None where that cannot be told.

    Raises:
        CollectionNotFound: the old collection is gone.
    """
    connector, of = twins.new, note["of"]
    twins.read_held()
    if note.get("holds") != digest_of(twins.held):
        log.warning(
            "the run that switched %r to %r ended before its last look was over, and %r was written to "
            "since: if documents were ingested into %r just then, ingest them again with this model",
            info.name,
            info.stands_for,
            info.stands_for,
            of,
        )
        return None
    if of != info.name:
        with connector.beside(of) as old:
            twins.old = old
            return twins.catch_up(only_unchanged=True)
    # The name is the old collection's own: it is read by what has described it, as before the switch.
    connector.switch(of)
    connector.describe()
    connector.switch(info.stands_for)
    try:
        with connector.beside(info.stands_for) as fresh:
            twins.new = fresh
            return twins.catch_up(only_unchanged=True)
    finally:
        connector.describe()


def _claim(fresh: Connector, schema: CollectionSchema, old: CollectionInfo) -> Mapping[str, Any]:
    """Make the new collection, or take up one that was begun.

    Returns:
        its note, as an earlier run left it.

    Raises:
        ConfigError: it holds something else.
        FingerprintMismatch: it was begun with another model.
        SchemaMismatch: it was begun with other representations.
    """
    unfinished = old.notes.get(restoring.NOTE)
    if unfinished is not None and not unfinished["finished"]:
        raise ConfigError(f"a copy was ingested into {old.name!r} and not finished; do that first")
    try:
        info = fresh.describe()
    except CollectionNotFound:
        fresh.ensure(schema)
        return {}
    note = info.notes.get(NOTE)
    mine = note["of"] == old.stands_for if note is not None else not fresh.count(EVERY_TENANT)
    if info.stands_for != fresh.collection or not mine:
        raise ConfigError(
            f"the collection {fresh.collection!r} exists, and was not made of {old.stands_for!r}: "
            "name another (--into NAME)"
        )
    if info.schema.fingerprint != schema.fingerprint:
        model = info.schema.fingerprint.model if info.schema.fingerprint else "another model"
        raise FingerprintMismatch(
            f"the collection {fresh.collection!r} was begun with {model!r}, or other options. Finish it "
            f"with these, remove it (m3connect drop --collection {fresh.collection}), or name another "
            "(--into NAME)."
        )
    fresh.ensure(schema)
    return note or {}


def _require_nothing_lost(twins: Twins, note: Mapping[str, Any], old: CollectionInfo) -> None:
    """What came into the new collection while the name stood for it is in no other, and is not removed unasked.

    Args:
        twins: the two, and what the new one holds.
        note: of the new one, from an earlier run.
        old: the other one.

    Raises:
        Refused: it holds something of that kind.
    """
    was_switched_to = note.get("finished") or "holds" in note
    if not was_switched_to or note.get("holds") == digest_of(twins.held):
        return
    kept = digests(twins.old, marks=False)
    new = digests(twins.new, marks=False)
    lost = sorted(id_ for id_, digest in new.items() if kept.get(id_) != digest)
    if lost:
        collection = twins.new.collection
        raise Refused(
            f"{collection!r}, which {old.name!r} stood for earlier, was written to since. "
            f"{old.stands_for!r} lacks, or holds otherwise, {len(lost)} of its passages, such as {lost[0]!r}: "
            f"they would be gone. Ingest their documents into {old.stands_for!r} first; or keep "
            f"{collection!r} as it is, and name another (--into NAME); or let them go (--discard). "
            "The name was not switched."
        )


def _carried(old: CollectionInfo, encoder: Encoder) -> dict[str, Any]:
    """The notes that the new collection takes over: what was tuned for another model is not among them."""
    left = {NOTE, restoring.NOTE}
    made_by = old.schema.fingerprint
    if made_by is None or made_by.weights != encoder.info.fingerprint.weights:
        left |= {"fusion", "depth", *map(note_of, TUNED)}
    return {key: note for key, note in old.notes.items() if key not in left}
