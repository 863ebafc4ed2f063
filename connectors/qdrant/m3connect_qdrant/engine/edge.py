"""The embedded engine: a collection in a folder, in this process.

<folder>/shard/            the engine's files
<folder>/collection.json   the collection's metadata
<folder>/holder.lock       locked while open
<folder>/holder.json       who opened it last
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from array import array
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge

from m3connect.connecting.collection import Place, Stored
from m3connect.connecting.holding import Hold, check_space, folder_bytes
from m3connect.errors import CollectionNotFound, ConnectorError, WritesRefused
from m3connect.types import Leg, SparseVector
from m3connect_qdrant.engine import edge_requests
from m3connect_qdrant.engine.strict import Allowance
from m3connect_qdrant.errors import NAME, CollectionExists, of_embedded
from m3connect_qdrant.filters import Json
from m3connect_qdrant.mapping import Point

log = logging.getLogger(__name__)

LOG_FILES = 2
"""Files of 32 MiB of the engine's log that may be full; what they hold is then brought to its segments, and
all but the last are removed. Nothing else would: the log would hold all that was ever written."""
SPACE_A_REQUEST = 4
"""A write goes to a log and to segments, which are allocated ahead."""


class EdgeEngine:
    """See :class:`m3connect_qdrant.engine.Engine`.

    Args:
        folder: where the collection lies, or will.
    """

    embedded = True
    request_bytes = 4 * 1024 * 1024
    exact = False
    aliases = False
    longest_name = 215  # a folder is made aside under a longer name
    allowance = Allowance()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metadata = folder / "collection.json"
        self._shard: qdrant_edge.EdgeShard | None = None
        self._hold = Hold(folder, folder / "holder.lock", NAME)
        self._held = False
        self._about: str | None = None  # the metadata: who holds the folder alone writes it

    def translate(self, error: Exception, operation: str) -> ConnectorError:
        return of_embedded(error, operation, self.folder)

    def version(self) -> str:
        return f"qdrant-edge {version('qdrant-edge-py')}"

    def beside(self, collection: str) -> EdgeEngine:
        return EdgeEngine(self.folder.with_name(collection))

    def alias(self) -> None:
        """Folders have none."""

    def set_alias(self, collection: str) -> None:
        raise NotImplementedError(collection)

    def create(
        self,
        vectors: Mapping[str, Json],
        sparse: Mapping[str, Json],
        metadata: str,
        settings: Mapping[str, Any],
    ) -> None:
        del settings  # a folder has none
        # Made aside and moved into place, so that a crash leaves no half of a collection.
        fresh = self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}.new")
        (fresh / "shard").mkdir(parents=True)
        try:
            check_space(fresh, 0, NAME, "create")
            config = edge_requests.config(vectors, sparse)
            qdrant_edge.EdgeShard.create(str(fresh / "shard"), config).close()
            _write(fresh / "collection.json", metadata)
            self._move_into_place(fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def collections(self) -> list[str]:
        return sorted(about.parent.name for about in self.folder.parent.glob("*/collection.json"))

    def size(self) -> int:
        return folder_bytes(self.folder)

    def drop(self) -> None:
        self._acquire()
        # Moved aside first, so that a crash leaves no half of a collection under its name.
        gone = self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}.gone")
        self.folder.rename(gone)
        self.close()
        (gone / "collection.json").unlink()
        shutil.rmtree(gone)

    def metadata(self) -> tuple[str, Mapping[str, str]]:
        self._acquire()
        if self._about is None:
            self._about = self._metadata.read_text()
        return self._about, {}

    def set_metadata(self, metadata: str) -> None:
        self._acquire()
        _write(self._metadata, metadata)
        self._about = metadata

    def note(self, notes: Mapping[str, str]) -> None:
        # The folder has one user, so that nobody writes between the reading and the writing.
        text, _ = self.metadata()
        stored = Stored.from_text(text, Place(NAME, self.folder.name), "annotate")
        changed = stored.annotated({key: json.loads(note) for key, note in notes.items()})
        self.set_metadata(changed.to_text())

    def indexes(self) -> set[str]:
        return set(self._open().info().payload_schema)

    def add_index(self, key: str, schema: str, *, tenant: bool = False) -> None:
        del tenant  # a folder has no such index
        kind = edge_requests.INDEXES[schema]
        self._update(qdrant_edge.UpdateOperation.create_field_index(key, kind))

    def upsert(self, points: Sequence[Point]) -> None:
        # The engine maps its files: where the disk is full it crashes rather than fails.
        check_space(self.folder, SPACE_A_REQUEST * self.request_bytes, NAME, "upsert")
        self._update(
            qdrant_edge.UpdateOperation.upsert_points(
                [
                    qdrant_edge.Point(point.id, _vectors(point.vectors), point.payload)
                    for point in points
                ]
            )
        )

    def delete(self, where: Sequence[str] | Json) -> None:
        operation = qdrant_edge.UpdateOperation
        if isinstance(where, dict):
            condition = edge_requests.condition(where)
            self._update(operation.delete_points_by_filter(condition))
        else:
            self._update(operation.delete_points(list(where)))

    def retrieve(self, ids: Sequence[str], payload: Json, legs: Sequence[Leg]) -> list[Point]:
        fields = edge_requests.payload(payload)
        return [
            _point(record)
            for record in self._open().retrieve(list(ids), fields, list(legs) or False)
        ]

    def scroll(
        self,
        condition: Json | None,
        limit: int,
        offset: Any,
        payload: Json,
        legs: Sequence[Leg],
    ) -> tuple[list[Point], Any]:
        page, following = self._open().scroll(
            qdrant_edge.ScrollRequest(
                offset=offset,
                limit=limit,
                filter=edge_requests.condition(condition),
                with_payload=edge_requests.payload(payload),
                with_vector=list(legs) or False,
            )
        )
        return [_point(record) for record in page], following

    def count(self, condition: Json | None) -> int:
        filter_ = edge_requests.condition(condition)
        return int(self._open().count(qdrant_edge.CountRequest(exact=True, filter=filter_)))

    def query(self, requests: Sequence[Json]) -> list[list[tuple[float, Mapping[str, Any]]]]:
        batch = qdrant_edge.QueryBatchRequest(
            [edge_requests.query(request) for request in requests]
        )
        answers = self._open().query_batch(batch)
        return [[(point.score, point.payload or {}) for point in answer] for answer in answers]

    def optimize(self) -> None:
        shard = self._open()
        shard.flush()
        try:
            # Optimizing may write it all once more.
            check_space(self.folder, folder_bytes(self.folder / "shard"), NAME, "flush")
        except WritesRefused as error:
            log.warning("%s; it answers without new indexes, more slowly", error)
        else:
            shard.optimize()

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None
        if self._held:
            self._hold.release()
            self._held, self._about = False, None

    def _update(self, operation: qdrant_edge.UpdateOperation) -> None:
        shard = self._open()
        shard.update(operation)
        full = [each for each in os.listdir(self.folder / "shard" / "wal") if "closed" in each]  # noqa: PTH208
        if len(full) >= LOG_FILES:
            shard.flush()

    def _open(self) -> qdrant_edge.EdgeShard:
        if self._shard is None:
            self._acquire()
            self._shard = qdrant_edge.EdgeShard.load(str(self.folder / "shard"))
        return self._shard

    def _acquire(self) -> None:
        """Hold the folder until :meth:`close`."""
        if not self._metadata.exists():
            raise CollectionNotFound(
                f"no collection in {self.folder}; m3connect ingest makes it",
                connector=NAME,
                operation="open",
            )
        if not self._held:
            self._hold.acquire()
            self._held = True

    def _move_into_place(self, fresh: Path) -> None:
        try:
            if self.folder.exists():
                self.folder.rmdir()
            fresh.rename(self.folder)
        except OSError as error:
            if self._metadata.exists():
                message = f"{self.folder} holds a collection"
                raise CollectionExists(message, connector=NAME, operation="create") from error
            raise


def _write(path: Path, text: str) -> None:
    """Replace a small file at once and for good.

    Not with the core's ``disk``, which a connector may not import: the folder is held, so there is
    one writer, and the bytes are on the disk before the name moves.
    """
    aside = path.with_suffix(".new")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _vectors(vectors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _vector(vector) for name, vector in vectors.items()}


def _vector(vector: Any) -> Any:
    if isinstance(vector, SparseVector):
        return qdrant_edge.SparseVector(vector.indices.tolist(), vector.values.tolist())
    if vector.ndim == 1:
        return vector.tolist()
    # The engine takes arrays, too, and makes a Python float of one value at a time: half the work.
    return [array("f", row.tobytes()) for row in vector.astype(np.float32)]


def _point(record: qdrant_edge.Record) -> Point:
    vectors = record.vector  # converted on each access
    vectors = vectors if isinstance(vectors, dict) else {}
    return Point(str(record.id), vectors, record.payload or {})
