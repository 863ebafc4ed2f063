"""The old and the new collection side by side: what the new one lacks is written, then all is verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from m3connect.contract import CollectionSchema, Connector, Encoder
from m3connect.errors import Refused
from m3connect.filters import EVERY_TENANT
from m3connect.progress import Progress
from m3connect.reembedding.passages import (
    digest,
    digests,
    groups,
    marked_anew,
    pages,
    payloads,
    portions_of,
    text_of,
)
from m3connect.types import Embeddings, FloatArray, Leg, Payload, RecordBatch
from m3connect.types.tokens import rounded

SAMPLE = 32
"""Passages whose vectors are encoded once more to verify them."""
TOLERANCE = 0.25
"""Part of a vector's length by which it may differ: rounding and quantising stay below, another text does not."""


@dataclass(slots=True)
class Twins:
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
        self.held = digests(self.new)

    def catch_up(self, *, only_unchanged: bool = False) -> int:
        """Go through the old collection once, and bring the new one to what it holds.

        Args:
            only_unchanged: leave alone what somebody else has written into the new one since.

        Returns:
            how many passages were written or removed.
        """
        seen: set[str] = set()
        changes = 0
        total = self.old.count(EVERY_TENANT)
        for page in pages(self.old):
            seen.update(page)
            news = {
                id_: payload
                for id_, payload in page.items()
                if self.held.get(id_) != digest(payload)
            }
            if news and only_unchanged:
                news = {id_: news[id_] for id_ in self._untouched([*news])}
            for group in groups(news):
                self._write(group)
                self.progress("passages", len(self.held), max(total, len(self.held)))
            changes += len(news)
        gone = [id_ for id_ in self.held if id_ not in seen]
        if only_unchanged:
            gone = self._untouched(gone)
        for part in portions_of(gone):
            self.deleted += self.new.delete(part)
        for id_ in gone:
            del self.held[id_]
        return changes + len(gone)

    def _untouched(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that the new collection holds, or lacks, as this run left them."""
        present = {id_: digest(payload) for id_, payload in payloads(self.new, ids)}
        return [id_ for id_ in ids if present.get(id_) == self.held.get(id_)]

    def _write(self, news: Mapping[str, Payload]) -> None:
        """Encode a group of passages and write them."""
        embeddings = self._encode([text_of(id_, payload) for id_, payload in news.items()])
        marked = marked_anew(news, self.old, self.encoder.info.fingerprint.weights)
        self.new.upsert(RecordBatch([*news], [marked[id_] for id_ in news], embeddings))
        self.held |= {id_: digest(payload) for id_, payload in news.items()}
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
        anew = self._encode(
            [text_of(*each) for each in zip(batch.ids, batch.payloads, strict=True)]
        )
        for row, id_ in enumerate(batch.ids):
            yield id_, batch.embeddings[row], anew[row]


def verify(twins: Twins, schema: CollectionSchema) -> None:
    """Hold the new collection against what was found in the old one.

    Raises:
        Refused: it differs; says in what.
    """
    info = twins.new.describe()
    there = digests(twins.new)
    wrong = [
        *(id_ for id_, held in twins.held.items() if there.get(id_) != held),
        *(there.keys() - twins.held.keys()),
    ]
    faults = info.schema.differences(schema)
    if info.schema.fingerprint != schema.fingerprint:
        faults.append(f"fingerprint: {info.schema.fingerprint}")
    if wrong or (count := twins.new.count(EVERY_TENANT)) != len(twins.held):
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
