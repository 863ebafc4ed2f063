"""A folder of documents and the collection that holds them."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from m3connect import Document, F, InputError, M3ConnectError, ingest
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
        problems: what could not be read, or is held only in part, and why.
    """

    file: str
    documents: int = 0
    problems: list[str] = field(default_factory=list)


class Library:
    """The files of a folder, and what the collection holds of them.

    Args:
        folder: the documents.
        service: its first collection is theirs. Both are made if need be.
    """

    def __init__(self, folder: Path, service: Service) -> None:
        self.folder = folder
        self.service = service
        folder.mkdir(parents=True, exist_ok=True)
        with service.collection(None) as collection:
            ingest([], service.encoder, collection)

    def sync(self, told: Callable[[Added], None]) -> None:
        """Bring the collection in line with the folder: new, changed and vanished files."""
        there = self._files()
        held = {payload["file"]: payload["modified"] for _, payload in self.passages()}
        with self.service.collection(None) as collection:
            collection.delete(F("file").isin(sorted(held.keys() - there.keys())))
        for name, path in there.items():
            if held.get(name) != _modified(path):
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
        with self.service.collection(None) as collection:
            collection.delete(F("file") == name)
        path.unlink()

    def summary(self) -> dict[str, Any]:
        """The files with the number of passages of each, and the fields that filters may name."""
        files = dict.fromkeys(self._files(), 0)
        choices: dict[str, dict[Any, None]] = {}
        for _, payload in self.passages():
            files[payload["file"]] = files.get(payload["file"], 0) + 1
            for key, value in payload.items():
                if key not in _NO_CHOICE and isinstance(value, str | bool | int):
                    choices.setdefault(key, {})[value] = None
        fields = {key: list(v) for key, v in choices.items() if len(v) <= _MOST_VALUES}
        return {"files": dict(sorted(files.items())), "fields": fields}

    def passages(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Ids and payloads of all passages."""
        with self.service.collection(None) as collection:
            for batch in collection.scan():
                yield from zip(batch.ids, map(dict, batch.payloads), strict=True)

    def _files(self) -> dict[str, Path]:
        """All but hidden ones, by their names within the folder."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        names = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {name: path for name, path in names.items() if "/." not in f"/{name}"}

    def _take(self, path: Path, name: str, progress: Progress) -> Added:
        """Read a file and hold its documents, named after it; its name and time are fields to filter by."""
        added, documents = Added(name), list[Document]()
        facts = {"file": name, "modified": _modified(path)}

        def lost(loss: Loss) -> None:
            added.problems.append(f"{loss.id}: {loss.loss.replace('_', ' ')} ({loss.count})")

        try:
            for each in read([str(path)], remarks=Remarks(lost=lost)):
                if isinstance(each, Failure):
                    added.problems.append(f"{each.where or name}: {each.reason}")
                else:
                    id_ = name if each.id == path.name else f"{name}/{each.id}"
                    documents.append(replace(each, id=id_, metadata={**each.metadata, **facts}))
        except M3ConnectError as error:  # such as a format that nobody reads
            added.problems.append(str(error).replace(str(path), name))
        if documents:
            to_collection = partial(ingest, source_name="rag_app", lost=lost, progress=progress)
            with self.service.collection(None) as collection:
                report = to_collection(documents, self.service.encoder, collection)
                kept = F("document_id").isin([document.id for document in documents])
                collection.delete((F("file") == name) & ~kept)  # of an older version
            added.documents = report.unchanged + report.written
        return added


def _modified(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
