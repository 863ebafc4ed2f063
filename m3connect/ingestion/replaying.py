"""Dead letters again: the documents that earlier runs could not take are read, cut and written anew.

A dead letter holds no text but where its document is: it is read there. Of a file of records those that
have letters are taken, and all of them where a letter has no id (a line that is no JSON): what the
collection holds is skipped. So what changed in a file since is found under its new line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from m3connect import disk
from m3connect.contract import Connector, FieldKind
from m3connect.errors import ConfigError, InputError
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EncodedSource
from m3connect.ingestion.files import SourceFile, located
from m3connect.ingestion.formats import RECORDS, suffix_of, suffix_of_url
from m3connect.ingestion.lines import has_keys
from m3connect.ingestion.losses import Loss
from m3connect.ingestion.opening import require_unswitched
from m3connect.ingestion.pipeline import ingest_part, prepare
from m3connect.ingestion.report import LETTER_FIELDS, TWICE, Failure, IngestReport
from m3connect.ingestion.sitemaps import is_web
from m3connect.ingestion.web import PUBLIC, Web
from m3connect.progress import Progress, silent
from m3connect.types import Document, Leg

Place: TypeAlias = tuple[str, str]  # of a file: its root and its name


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of dead letters.

    Args:
        letters: that were in the file, each once.
        left: those that stay in it, and documents of the same files that failed now, with the reason.
        report: of the documents that were read again.
    """

    letters: int
    left: Sequence[Failure]
    report: IngestReport

    @property
    def reasons(self) -> Counter[str]:
        """Why how many stay."""
        return Counter(each.reason for each in self.left)


def replay(
    path: str | Path,
    open_source: Callable[[Sequence[SourceFile]], DocumentSource | EncodedSource],
    connector: Connector,
    *,
    legs: Sequence[Leg] | None = None,
    index_fields: Mapping[str, FieldKind] | None = None,
    web: Web = PUBLIC,
    patience: float = 0.0,
    progress: Progress = silent,
) -> Replayed:
    """Ingest what dead letters name, and leave those in the file that fail again or cannot be read.

    The file is replaced at the end, at once: a run that is killed before leaves every letter, and what
    other runs add meanwhile stays.

    Args:
        path: dead letters of :func:`m3connect.ingestion.ingest`.
        open_source: of files: :func:`m3connect.ingestion.open_source` with the encoder and the
            options of the run that left the letters bound to it, so that all is cut alike. It is not
            called if no file is left to read.
        connector: the collection.
        web: how pages of the web are fetched.
        legs, index_fields, patience, progress: as in ``ingest``.

    Raises:
        ConfigError: there is no such file, or it holds something else.
        M3ConnectError: as ``ingest``; the file is as it was.
    """
    path = Path(path)
    content, letters, others = _read(path)
    files, left = _findable(letters, web)
    report = IngestReport()
    if files:
        opened = open_source(files)
        if not isinstance(opened, DocumentSource):
            raise ConfigError(f"{path}: these files hold embeddings now; ingest them")
        wanted = _Wanted.of(letters, files)
        chosen, _, written = prepare(opened, connector, legs, index_fields or {})
        losses: list[Loss] = []
        part = ingest_part(
            replace(opened, items=wanted.only(opened.items), pages=()),
            connector,
            chosen,
            losses,
            take_over=False,
            tenant_field=written.schema.tenant_field,
            patience=patience,
            progress=progress,
        )
        require_unswitched(connector, written)
        report = part.report
        left += [*part.failures, *wanted.missed(letters)]
    _put(path, content, [*others, *(json.dumps(asdict(each)).encode() for each in left)])
    return Replayed(len(letters), left, report)


# ------------------------------------------------------------------------------ the file


def _read(path: Path) -> tuple[bytes, list[Failure], list[bytes]]:
    """The whole file, the letters in it, each once, and lines that a killed process left unfinished."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    lines = [line for line in content.splitlines() if line.strip()]
    if lines and not has_keys(lines[0], LETTER_FIELDS):
        raise ConfigError(f"{path} is no list of dead letters, such as `m3connect ingest` writes")
    letters: dict[tuple[str | None, ...], Failure] = {}
    others = []
    for line in lines:
        if not has_keys(line, LETTER_FIELDS):
            others.append(line)
            continue
        letter = Failure(**json.loads(line))
        letters[letter.root, letter.where, letter.id] = letter
    return content, list(letters.values()), others


def _put(path: Path, before: bytes, lines: Iterable[bytes]) -> None:
    """Lines in place of those that were read; what was added since stays below.

    Whoever adds a line looks afterwards whether the file was replaced, and then adds it to the new one, too.
    """
    with path.open("rb") as old:
        with disk.aside(path) as new, new.open("wb") as file:
            file.writelines(line + b"\n" for line in lines)
            if old.read(len(before)) != before:
                old.seek(0)  # another replay replaced it meanwhile
            file.write(old.read())
        if late := old.read():  # between that and the new name
            with path.open("ab", buffering=0) as file:
                file.write(late)


# ---------------------------------------------------------------------------- what is read


def _findable(letters: Sequence[Failure], web: Web) -> tuple[list[SourceFile], list[Failure]]:
    """The files to read, and the letters that stay as they are or whose files are gone.

    One that came from Python names no file. One of two documents with the same id would take the
    other's place if it were read alone.
    """
    files: dict[Place, SourceFile] = {}
    gone: dict[Place, str] = {}
    left = []
    for letter in letters:
        place = _place(letter.root, letter.where)
        if place is None or letter.reason == TWICE:
            left.append(letter)
            continue
        if place not in files and place not in gone:
            try:
                files[place] = located(*place, web)
            except (ConfigError, InputError) as error:
                gone[place] = str(error)
        if place in gone:
            left.append(replace(letter, reason=gone[place]))
    return list(files.values()), left


def _place(root: str | None, where: str | None) -> Place | None:
    """The file that a document is in.

    Only records have a number; what follows a colon otherwise is of the name, such as the port of a host.

    >>> _place("/docs/", "a/b.jsonl:12"), _place("/docs/", "a:1.md"), _place(None, "record 3")
    (('/docs/', 'a/b.jsonl'), ('/docs/', 'a:1.md'), None)
    >>> _place("http://host:8000/", "http://host:8000"), _place("x", "https://x/p?at=12:30")[1]
    (('http://host:8000/', 'http://host:8000'), 'https://x/p?at=12:30')
    """
    if root is None or where is None:
        return None
    name, _, line = where.rpartition(":")
    suffix = suffix_of_url(name) if is_web(name) else suffix_of(name)
    return root, name if suffix in RECORDS and line.isdecimal() else where


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which documents are taken.

    Args:
        ids: of each file of records those that are; None is all of it.
        twice: ids of a file that another document has.
        found: of ``ids``, what was read.
        broken: files that could not be read to their end.
    """

    ids: Mapping[Place, set[str] | None]
    twice: set[tuple[Place, str | None]] = field(default_factory=set)
    found: set[tuple[Place, str | None]] = field(default_factory=set)
    broken: set[Place] = field(default_factory=set)

    @classmethod
    def of(cls, letters: Iterable[Failure], files: Iterable[SourceFile]) -> _Wanted:
        """What letters ask for."""
        ids: dict[Place, set[str] | None] = {
            (file.root, file.name): set() if file.suffix in RECORDS else None for file in files
        }
        wanted = cls(ids)
        for letter in letters:
            place = _place(letter.root, letter.where)
            if place is None:
                continue
            if letter.reason == TWICE:
                wanted.twice.add((place, letter.id))
            elif letter.id is None or letter.where == place[1]:
                ids[place] = None
            elif (chosen := ids.get(place)) is not None:
                chosen.add(letter.id)
        return wanted

    def only(self, items: Iterable[Document | Failure]) -> Iterator[Document | Failure]:
        """Those documents, and all that fails."""
        for item in items:
            root = item.root if isinstance(item, Failure) else item.source
            place = _place(root, item.where)
            assert place is not None, "they come from files"
            ids = self.ids[place]
            if isinstance(item, Failure) and item.where == place[1]:
                self.broken.add(place)
            if ids is not None and item.id in ids:
                self.found.add((place, item.id))
            elif ids is not None and isinstance(item, Document):
                continue
            if isinstance(item, Failure) or (place, item.id) not in self.twice:
                yield item

    def missed(self, letters: Iterable[Failure]) -> list[Failure]:
        """Letters whose documents are in their files no more; one of the file stands for a broken one's."""
        return [
            replace(letter, reason="it is in its file no more: ingest tells what is")
            for letter in letters
            if (place := _place(letter.root, letter.where)) is not None
            and self.ids.get(place) is not None
            and place not in self.broken
            and letter.reason != TWICE
            and (place, letter.id) not in self.found
        ]
