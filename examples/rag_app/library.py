"""A folder of documents and the collection that holds them."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from m3connect import CollectionNotFound, Document, F, InputError, M3ConnectError, ingest
from m3connect.ingestion import Failure, Loss, Remarks, read
from m3connect.progress import Progress, silent
from m3connect.serving.service import Service
from m3connect.types import PASSAGE_FIELDS

_NO_CHOICE = {*PASSAGE_FIELDS, "file", "modified", "source", "title", "headings", "page"}
_MOST_VALUES = 8
"""A field with more values than this is no choice to click on."""


@dataclass(slots=True)
class Added:
    """What became of a file.

    Args:
        file: its name in the folder.
        documents: that are held now; a file of records has many.
        failures: what could not be read, and why.
        losses: what is held only in part.
    """

    file: str
    documents: int = 0
    failures: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    def lost(self, loss: Loss) -> None:
        """Note a loss in words."""
        self.losses.append(f"{loss.id}: {loss.loss.replace('_', ' ')} ({loss.count})")


class Library:
    """The files of a folder, and what the collection holds of them.

    Args:
        folder: the documents; made if need be.
        service: its first collection is theirs.
    """

    def __init__(self, folder: Path, service: Service) -> None:
        self.folder = folder
        self._service = service
        folder.mkdir(parents=True, exist_ok=True)

    def sync(self, told: Callable[[Added], None]) -> None:
        """Bring the collection in line with the folder: new, changed and vanished files."""
        there, held = self._files(), self._held()
        for name in held.keys() - there.keys():
            self._forget(name)
        for name, path in there.items():
            if name not in held or held[name][0].get("modified") != _modified(path):
                told(self._take(path, name, silent))

    def add(self, name: str, content: bytes, progress: Progress = silent) -> Added:
        """Take a file, or its new version; one of which nothing can be read is not kept."""
        if not name or name != Path(name).name or "\\" in name or name.startswith("."):
            raise InputError(f"{name!r} is no name of a file: no folders, no dot in front")
        with TemporaryDirectory() as waiting:
            path = Path(waiting) / name
            path.write_bytes(content)
            added = self._take(path, name, progress)
            if added.documents:
                shutil.move(path, self.folder / name)
        return added

    def remove(self, name: str) -> None:
        """Delete a file and all passages of it."""
        path = self._files().get(name)
        if path is None:
            raise InputError(f"there is no file {name!r}")
        self._forget(name)
        path.unlink()

    def summary(self) -> dict[str, Any]:
        """The files with the number of passages of each, and the fields that filters may name."""
        held = self._held()
        choices: dict[str, dict[Any, None]] = {}
        for payload in (each for payloads in held.values() for each in payloads):
            for key, value in payload.items():
                if key not in _NO_CHOICE and isinstance(value, str | bool | int):
                    choices.setdefault(key, {})[value] = None
        return {
            "files": {name: len(held.get(name, ())) for name in sorted({*self._files(), *held})},
            "fields": {key: list(v) for key, v in choices.items() if len(v) <= _MOST_VALUES},
        }

    def passages(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Ids and payloads of all passages."""
        try:
            with self._service.collection(None) as collection:
                for batch in collection.scan():
                    yield from zip(batch.ids, map(dict, batch.payloads), strict=True)
        except CollectionNotFound:  # nothing was ever added
            return

    def _files(self) -> dict[str, Path]:
        """All but hidden ones, by their names within the folder."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        names = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {name: path for name, path in names.items() if "/." not in f"/{name}"}

    def _held(self) -> dict[str, list[dict[str, Any]]]:
        held: dict[str, list[dict[str, Any]]] = {}
        for _, payload in self.passages():
            held.setdefault(str(payload.get("file")), []).append(payload)
        return held

    def _take(self, path: Path, name: str, progress: Progress) -> Added:
        added = Added(name)
        documents = list(_documents(path, name, added))
        if documents:
            with self._service.collection(None) as collection:
                report = ingest(
                    documents,
                    self._service.encoder,
                    collection,
                    source_name="rag_app",
                    lost=added.lost,
                    progress=progress,
                )
            added.documents = report.unchanged + report.written
            self._forget(name, [document.id for document in documents])  # rows of an older version
        return added

    def _forget(self, name: str, but: list[str] | None = None) -> None:
        gone = F("file") == name
        with self._service.collection(None) as collection:
            collection.delete(gone & ~F("document_id").isin(but) if but else gone)


def _documents(path: Path, name: str, added: Added) -> Iterator[Document]:
    """The documents of a file, named after it, with its name and time as fields to filter by."""
    facts = {"file": name, "modified": _modified(path)}
    try:
        for each in read([str(path)], remarks=Remarks(lost=added.lost)):
            if isinstance(each, Failure):
                added.failures.append(f"{each.where or name}: {each.reason}")
            else:
                id_ = name if each.id == path.name else f"{name}/{each.id}"
                yield replace(each, id=id_, metadata={**each.metadata, **facts})
    except M3ConnectError as error:  # such as a format that nobody reads
        added.failures.append(str(error).replace(str(path), name))


def _modified(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
