"""A collection anew, with another model, precision or set of representations: beside the old, then switched.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from m3connect.connecting.portions import portions
from m3connect.contract import CollectionInfo, CollectionSchema, Connector, Encoder
from m3connect.errors import (
    CollectionGone,
    CollectionNotFound,
    ConfigError,
    FingerprintMismatch,
    InputError,
    Refused,
)
from m3connect.ingestion import restoring
from m3connect.ingestion.chunking import chunk_id, chunk_ids
from m3connect.ingestion.ledger import FIELD, content_hash, encoded_hash
from m3connect.progress import Progress, silent
from m3connect.searching.modes import note_of
from m3connect.searching.names import TUNED
from m3connect.types import (
    LEGS,
    Embeddings,
    FloatArray,
    Leg,
    Payload,
    RecordBatch,
    encoded_text,
)
from m3connect.types.tokens import rounded

log = logging.getLogger(__name__)

NOTE = "reembedded"
"""The note of a collection that says of which other it was made, and whether that is finished."""
PASSES = 8
"""So often the old collection is gone through for what was written meanwhile, before this is given up."""
SAMPLE = 32
"""Passages whose vectors are encoded once more to verify them."""
TOLERANCE = 0.25
"""Part of a vector's length by which it may differ: rounding and quantising stay below, another text does not."""
# A page is short, for a server keeps a scan open no longer than some minutes from page to page.
READ, GROUP_PASSAGES, GROUP_CHARACTERS = 128, 128, 1 << 16


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """What was done.

    Args:
        name: the name that searches use.
        old, new: the collection that it stood for, and the new one.
        passages: in the new collection.
        encoded: of them, in this run; the others were there from an earlier one.
        deleted: passages removed from the new collection, because the old one lost them meanwhile.
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
        progress: told of every group of passages.

    Raises:
        ConfigError: the model or the database lacks a representation, or the new collection's name is
            taken.
        InputError: a record has no text, or one is refused by the database; names it.
        FingerprintMismatch: the new collection was begun with another model.
        Refused: documents are ingested faster than they are caught up, or what was written does not
            verify; the name was not switched.
        ConnectorError: a database failed; run again to continue.
    """
    start = time.monotonic()
    info = connector.describe()
    schema = _schema(info.schema, encoder, legs, connector)
    if _is_made(info, schema) and into in {None, info.stands_for}:
        return _nothing_to_do(connector, info, start)
    name = into or next_name(info.stands_for)
    with connector.beside(name) as fresh:
        _claim(fresh, schema, info)
        twins = _Twins(connector, fresh, encoder, schema.legs, progress)
        twins.read_held()
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
        _verify(twins, schema)
        late = 0
        if switch:
            connector.switch(name)
            # Until it is described again, the connector reads the old collection.
            late = twins.catch_up(only_unchanged=True)
            fresh.annotate({NOTE: {"of": info.stands_for, "finished": True}})
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
    collection to what the old one holds then, and switches.

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
    ours = _digests(connector)
    with connector.beside(info.stands_for) as left:
        theirs = _digests(left)
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
    return CollectionSchema.of(made_by, chosen, payload_fields=old.payload_fields, chunker=chunker)


def _is_made(info: CollectionInfo, schema: CollectionSchema) -> bool:
    """Whether the collection was made so already."""
    same = info.schema.fingerprint == schema.fingerprint
    return same and not schema.differences(info.schema)


def _nothing_to_do(connector: Connector, info: CollectionInfo, start: float) -> ReembedReport:
    """The name stands for such a collection already; a run that was killed after the switch is closed."""
    note = info.notes.get(NOTE)
    if note is not None and not note["finished"]:
        log.warning(
            "the run that switched %r to %r ended before its last look: if documents were ingested into %r "
            "just then, ingest them again with this model",
            info.name,
            info.stands_for,
            note["of"],
        )
        connector.annotate({NOTE: {**note, "finished": True}})
    of = info.stands_for if note is None else note["of"]
    count = connector.count()
    took = time.monotonic() - start
    return ReembedReport(info.name, of, info.stands_for, count, 0, 0, 0, 0, 0, True, took)


def _claim(fresh: Connector, schema: CollectionSchema, old: CollectionInfo) -> None:
    """Make the new collection, or take up one that was begun.

    Raises:
        ConfigError: it holds something else.
        FingerprintMismatch: it was begun with another model.
        SchemaMismatch: it was begun with other representations.
    """
    begun = {NOTE: {"of": old.stands_for, "finished": False}}
    unfinished = old.notes.get(restoring.NOTE)
    if unfinished is not None and not unfinished["finished"]:
        raise ConfigError(f"a copy was ingested into {old.name!r} and not finished; do that first")
    try:
        info = fresh.describe()
    except CollectionNotFound:
        fresh.ensure(schema)
        fresh.annotate(begun)
        return
    note = info.notes.get(NOTE)
    mine = note["of"] == old.stands_for if note is not None else not fresh.count()
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
    fresh.annotate(begun)


def _carried(old: CollectionInfo, encoder: Encoder) -> dict[str, Any]:
    """The notes that the new collection takes over: what was tuned for another model is not among them."""
    left = {NOTE, restoring.NOTE}
    made_by = old.schema.fingerprint
    if made_by is None or made_by.weights != encoder.info.fingerprint.weights:
        left |= {"fusion", "depth", *map(note_of, TUNED)}
    return {key: note for key, note in old.notes.items() if key not in left}


# ------------------------------------------------------------------------------- old and new, compared


@dataclass(slots=True)
class _Twins:
    """The old and the new collection, and what is known of the new one.

    Args:
        old, new: the two.
        encoder: of the new one.
        legs: representations to store.
        progress: told of every group.
        held: digests of the new one's payloads, by id.
        encoded, deleted, tokens, truncated: counts of this run.
    """

    old: Connector
    new: Connector
    encoder: Encoder
    legs: Sequence[Leg]
    progress: Progress
    held: dict[str, int] = field(default_factory=dict)
    encoded: int = 0
    deleted: int = 0
    tokens: int = 0
    truncated: int = 0

    def read_held(self) -> None:
        """What an earlier run has brought into the new collection."""
        self.held = _digests(self.new)

    def catch_up(self, *, only_unchanged: bool = False) -> int:
        """Go through the old collection once, and bring the new one to what it holds.

        Args:
            only_unchanged: leave alone what somebody else has written into the new one since.

        Returns:
            how many passages were written or removed.
        """
        seen: set[str] = set()
        changes = 0
        total = self.old.count()
        for batch in self.old.scan(batch_size=READ):
            seen.update(batch.ids)
            news = {
                id_: payload
                for id_, payload in zip(batch.ids, batch.payloads, strict=True)
                if self.held.get(id_) != _digest(payload)
            }
            if news and only_unchanged:
                news = {id_: news[id_] for id_ in self._untouched([*news])}
            for part in _groups(news):
                self._write(part)
                self.progress("passages", len(self.held), max(total, len(self.held)))
            changes += len(news)
        gone = [id_ for id_ in self.held if id_ not in seen]
        if only_unchanged:
            gone = self._untouched(gone)
        for start in range(0, len(gone), READ):
            self.deleted += self.new.delete(gone[start : start + READ])
        for id_ in gone:
            del self.held[id_]
        return changes + len(gone)

    def _untouched(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that the new collection holds, or lacks, as this run left them."""
        found = {id_: _digest(payload) for id_, payload in _payloads(self.new, ids)}
        return [id_ for id_ in ids if found.get(id_) == self.held.get(id_)]

    def _write(self, news: Mapping[str, Payload]) -> None:
        """Encode a group of passages and write them."""
        embeddings = self._encode([_text(id_, payload) for id_, payload in news.items()])
        marked = _marked(news, self.old, self.encoder.info.fingerprint.weights)
        self.new.upsert(RecordBatch([*news], [marked[id_] for id_ in news], embeddings))
        self.held |= {id_: _digest(payload) for id_, payload in news.items()}
        self.encoded += len(news)
        self.tokens += int(embeddings.n_tokens.sum())
        self.truncated += int(embeddings.truncated.sum())

    def _encode(self, texts: Sequence[str]) -> Embeddings:
        return self.encoder.encode(texts, legs=self.legs)

    def sample(self, seed: int = 0) -> Iterator[tuple[str, Embeddings, Embeddings]]:
        """Some passages of the new collection: vectors as it holds them, and encoded once more."""
        ids = sorted(self.held)
        chosen = np.random.default_rng(seed).permutation(len(ids))[:SAMPLE]
        batch = self.new.fetch([ids[row] for row in chosen], vectors=self.legs)
        if not len(batch):
            return
        anew = self._encode([_text(*each) for each in zip(batch.ids, batch.payloads, strict=True)])
        for row, id_ in enumerate(batch.ids):
            yield id_, batch.embeddings[row], anew[row]


def _verify(twins: _Twins, schema: CollectionSchema) -> None:
    """Hold the new collection against what was found in the old one.

    Raises:
        Refused: it differs; says in what.
    """
    info = twins.new.describe()
    there = _digests(twins.new)
    wrong = [
        *(id_ for id_, digest in twins.held.items() if there.get(id_) != digest),
        *(there.keys() - twins.held.keys()),
    ]
    faults = info.schema.differences(schema)
    if info.schema.fingerprint != schema.fingerprint:
        faults.append(f"fingerprint: {info.schema.fingerprint}")
    if wrong or (count := twins.new.count()) != len(twins.held):
        listed = ", ".join(map(repr, wrong[:3])) or f"{count} are counted"
        faults.append(f"{len(wrong)} of {len(twins.held)} passages are not as in the old: {listed}")
    faults += [
        f"{id_!r}: its {leg} vectors are not those of its text"
        for id_, stored, anew in twins.sample()
        for leg in schema.legs
        if not _alike(leg, stored, anew, schema)
    ]
    if faults:
        raise Refused(
            f"the collection {info.name!r} does not verify, and the name was not switched: "
            f"{'; '.join(faults[:5])}. Does something else write into it? Run this again, or remove it "
            f"(m3connect drop --collection {info.name})."
        )


def _alike(leg: Leg, stored: Embeddings, anew: Embeddings, schema: CollectionSchema) -> bool:
    """Whether the vectors of one passage agree but for rounding and quantising."""
    left, right = _flat(leg, stored, schema), _flat(leg, anew, schema)
    if left.shape != right.shape:
        return False
    return bool(np.linalg.norm(left - right) <= TOLERANCE * np.linalg.norm(right))


def _flat(leg: Leg, embeddings: Embeddings, schema: CollectionSchema) -> FloatArray:
    """The numbers of one passage's vectors in a row, as the collection rounds them."""
    if leg == "dense":
        assert embeddings.dense is not None
        dense: FloatArray = embeddings.dense[0]
        return dense
    if leg == "multivector":
        assert embeddings.multivector is not None
        vectors = rounded(embeddings.multivector.vectors, schema.multivector_dtype)
        return vectors.astype(np.float32).ravel()
    assert embeddings.sparse is not None
    terms = embeddings.sparse[0]
    values: FloatArray = terms.values[np.argsort(terms.indices)]
    return values


# ------------------------------------------------------------------------------------------ passages


def _digests(connector: Connector) -> dict[str, int]:
    """Digests of all payloads, by id."""
    return {
        id_: _digest(payload)
        for batch in connector.scan(batch_size=READ)
        for id_, payload in zip(batch.ids, batch.payloads, strict=True)
    }


def _payloads(connector: Connector, ids: Sequence[str]) -> Iterator[tuple[str, Payload]]:
    """The payloads of those records that are there, by id."""
    for start in range(0, len(ids), READ):
        batch = connector.fetch(ids[start : start + READ], vectors=False)
        yield from zip(batch.ids, batch.payloads, strict=True)


def _digest(payload: Payload) -> int:
    """A number for a payload, the same for the old and the new record of a passage.

    What its mark says of the vectors is left out.

    >>> old = {"text": "a", "_ingest": {"hash": "1", "encoded": "x"}}
    >>> new = {"text": "a", "_ingest": {"hash": "1", "encoded": "y"}}
    >>> _digest(old) == _digest(new) != _digest({**new, "text": "b"})
    True
    """
    mark = payload.get(FIELD)
    if isinstance(mark, Mapping):
        payload = {**payload, FIELD: {**mark, "encoded": None}}
    return int(content_hash(payload)[:16], 16)


def _text(id_: str, payload: Payload) -> str:
    """What is encoded of a passage: its context and its text, as ingestion joins them.

    Raises:
        InputError: there is no text.
    """
    text, context = payload.get("text"), payload.get("_context", "")
    if not isinstance(text, str):
        raise InputError(
            f"record {id_!r} has no text in its payload to encode again: ingest its source with the new "
            "model into a new collection (--collection NAME)"
        )
    return encoded_text(text, context)


def _groups(news: Mapping[str, Payload]) -> Iterator[dict[str, Payload]]:
    """Passages that are encoded together."""
    ids = [*news]
    sizes = (len(_text(id_, payload)) for id_, payload in news.items())
    for part in portions(sizes, count=GROUP_PASSAGES, weight=GROUP_CHARACTERS):
        yield {id_: news[id_] for id_ in ids[part]}


def _marked(news: Mapping[str, Payload], collection: Connector, weights: str) -> dict[str, Payload]:
    """The payloads with marks that say what the new vectors were made of.

    So the next run of ingestion finds that it need not encode these texts. It is left open where the
    collection does not hold the document's passages whole, of one version.

    Args:
        news: payloads by id.
        collection: where the other passages of their documents are.
        weights: of the model.
    """
    siblings = {
        id_: chunk_ids(payload["document_id"], 0, payload[FIELD]["chunks"])
        for id_, payload in news.items()
        if _carries_mark(id_, payload)
    }
    further = sorted({one for ids in siblings.values() for one in ids} - news.keys())
    known = {**news, **dict(_payloads(collection, further))}
    return {
        id_: _remarked(payload, [known.get(one) for one in siblings[id_]], weights)
        if id_ in siblings
        else payload
        for id_, payload in news.items()
    }


def _carries_mark(id_: str, payload: Payload) -> bool:
    """Whether it is one of the first two passages of a document that ingestion cut."""
    document, position = payload.get("document_id"), payload.get("position")
    if not isinstance(document, str) or position not in {0, 1}:
        return False
    return id_ == chunk_id(document, position) and "chunks" in (payload.get(FIELD) or ())


def _remarked(payload: Payload, passages: Sequence[Payload | None], weights: str) -> Payload:
    mark = payload[FIELD]
    marks = [(each or {}).get(FIELD) or {} for each in passages]
    whole = [
        each
        for each, other in zip(passages, marks, strict=True)
        if each is not None and other.get("hash") == mark["hash"]
    ]
    texts = [_text("", each) for each in whole]
    encoded = encoded_hash(weights, texts) if len(whole) == len(passages) else None
    return {**payload, FIELD: {**mark, "encoded": encoded}}
