"""Embeddings of many texts on disk: written once, resumed after a stop, read without loading.

A store is a folder of Arrow files with ``SHARD_ROWS`` texts each. Files are written under another
name and renamed, so what is there is whole, and a run that was stopped encodes only what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from m3connect.contract import Encoder, Kind
from m3connect.disk import aside
from m3connect.errors import InputError
from m3connect.progress import Progress, silent
from m3connect.types import LEGS, Embeddings, Leg, TokenArray

SHARD_ROWS = 2048
PART_ROWS = 256
"""Texts that are encoded before progress is told: a shard of long ones takes minutes."""


@dataclass(frozen=True, slots=True)
class EmbeddingStore:
    """The shards of one store, mapped into memory.

    Args:
        shards: the texts' embeddings in order, every shard but the last with as many rows.
        starts: ``int64 [shards + 1]``, the row each shard begins with, then the number of rows.
    """

    shards: tuple[Embeddings, ...]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.starts[-1])

    @classmethod
    def of(cls, shards: Sequence[Embeddings]) -> EmbeddingStore:
        """A store over embeddings that are already there."""
        return cls(tuple(shards), np.cumsum([0, *(len(shard) for shard in shards)], dtype=np.int64))

    def blocks(self) -> Iterator[tuple[int, Embeddings]]:
        """Every shard with the row it begins with."""
        return zip(self.starts[:-1].tolist(), self.shards, strict=True)

    def tokens(self, row: int) -> TokenArray:
        """One text's token vectors, as they are stored."""
        owner = int(np.searchsorted(self.starts, row, side="right")) - 1
        multivectors = self.shards[owner].multivector
        assert multivectors is not None
        return multivectors[row - int(self.starts[owner])]

    def take(self, rows: NDArray[np.int64], legs: Sequence[Leg]) -> Embeddings:
        """The given rows in the given order (copied), in these representations."""
        order = np.argsort(rows, kind="stable")
        owners = np.searchsorted(self.starts, rows[order], side="right") - 1
        parts = [
            self.shards[owner].only(legs).take(rows[order[owners == owner]] - self.starts[owner])
            for owner in np.unique(owners)
        ]
        if not parts:
            return self.shards[0].only(legs)[:0]
        joined = parts[0] if len(parts) == 1 else Embeddings.concat(parts)
        if (order[:-1] < order[1:]).all():  # they were asked for in order: no second copy
            return joined
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return joined.take(back)


def encode(
    folder: Path,
    encoder: Encoder,
    texts: Iterable[str],
    total: int,
    *,
    kind: Kind,
    legs: Sequence[Leg],
    progress: Progress = silent,
) -> EmbeddingStore:
    """Encode texts into a folder, or take up what an earlier run left there.

    Args:
        folder: of this store alone; :func:`key` names one that fits no other texts or model.
        encoder: makes the embeddings.
        texts: read in order, a shard at a time.
        total: how many there are.
        kind: whether they ask or answer.
        legs: the representations to keep.
        progress: told of every :data:`PART_ROWS` texts.

    Raises:
        InputError: there are not ``total`` texts, or the encoder gave NaN or infinity.
        M3ConnectError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remaining = iter(texts)
    shards: list[Embeddings] = []
    done = 0
    while batch := list(islice(remaining, SHARD_ROWS)):
        path = folder / f"{done:09d}.arrow"
        if not path.exists():
            parts = []
            for start in range(0, len(batch), PART_ROWS):
                part = batch[start : start + PART_ROWS]
                parts.append(_checked(encoder.encode(part, kind=kind, legs=legs), done + start))
                progress(f"encoding {kind} texts", done + start + len(part), total)
            write(path, Embeddings.concat(parts))
        shards.append(read(path))
        if len(shards[-1]) != len(batch):
            raise InputError(f"{path} holds {len(shards[-1])} texts, expected {len(batch)}")
        done += len(batch)
        progress(f"encoding {kind} texts", done, total)
    if done != total or not shards:
        raise InputError(f"{done} texts came, {total} were announced")
    return EmbeddingStore.of(shards)


def place(
    cache: Path, encoder: Encoder, content: str, *, kind: Kind, legs: Sequence[Leg]
) -> tuple[Path, tuple[Leg, ...]]:
    """The folder for some texts in a cache, and the representations to keep there.

    A folder that an earlier run began with more representations serves as well.

    Args:
        cache: folder of all stores.
        encoder: the model.
        content: hash of the texts.
        kind: whether they ask or answer.
        legs: the representations that are needed.
    """
    enough = [
        wider
        for size in range(len(legs), len(LEGS) + 1)
        for wider in combinations(LEGS, size)
        if set(legs) <= set(wider)
    ]
    folders = {wider: cache / key(encoder, content, kind=kind, legs=wider) for wider in enough}
    chosen = next((wider for wider, folder in folders.items() if folder.is_dir()), enough[0])
    return folders[chosen], chosen


def key(encoder: Encoder, content: str, *, kind: Kind, legs: Sequence[Leg]) -> str:
    """A folder name that changes with the model, the texts, their role and the representations."""
    info = encoder.info
    model = [info.fingerprint.to_json(), info.preparation]
    parts = [model, content, kind, sorted(legs), SHARD_ROWS]
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12)
    return f"{kind}-{digest.hexdigest()}"


def _checked(embeddings: Embeddings, start: int) -> Embeddings:
    multi, sparse = embeddings.multivector, embeddings.sparse
    parts = {
        "dense": embeddings.dense,
        "sparse": None if sparse is None else sparse.values,
        "multivector": None if multi is None else multi.vectors,
    }
    for leg, values in parts.items():
        if values is not None and not np.isfinite(values).all():
            raise InputError(f"the {leg} vectors from text {start} on hold NaN or infinity")
    return embeddings


def write(path: Path, embeddings: Embeddings) -> None:
    """Put embeddings into an Arrow file, which appears when it is whole.

    Raises:
        M3ConnectError: there is no room for it.
    """
    table = embeddings.to_arrow()
    with (
        aside(path, "Make room or name another folder; what is there is used again.") as unfinished,
        pa.OSFile(str(unfinished), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def read(path: Path) -> Embeddings:
    """The embeddings of an Arrow file, mapped into memory."""
    return Embeddings.from_arrow(pa.ipc.open_file(pa.memory_map(str(path))).read_all())
