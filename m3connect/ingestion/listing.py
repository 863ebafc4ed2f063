"""Which files paths stand for: regular ones of a known format, inside the folder that is named."""

from __future__ import annotations

import logging
import os
import posixpath
import re
import stat
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import IO, Any
from urllib.parse import urlsplit

from fsspec.compression import compr
from fsspec.core import has_magic, url_to_fs
from fsspec.utils import glob_translate, infer_compression
from pathspec import GitIgnoreSpec

from m3connect.conversion.converter import explain
from m3connect.errors import ConfigError, InputError
from m3connect.ingestion.formats import PAGES, RECORDS, suffix_of, suffix_of_url
from m3connect.ingestion.losses import Loss, Lost, ignore
from m3connect.ingestion.patterns import MOST_DEEP, usable
from m3connect.ingestion.sitemaps import LIST, SITEMAP, is_web, listed, sitemap
from m3connect.ingestion.web import PUBLIC, Web

log = logging.getLogger(__name__)

Path = str | os.PathLike[str]

STDIN = "-"
_STDIN_NAME = "stdin"
PROTOCOLS = ("file", "local", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "hf")
"""File systems that are read; fsspec knows many more, some of which run commands or other URLs."""
_LOCAL = {"file", "local"}
SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})
_LFS = b"version https://git-lfs.github.com/spec/"
_SECRETS = re.compile(r"sig|token|key|secret|password|credential|x-amz-|x-goog-", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of a folder are read. Patterns are those of ``.gitignore``.

    Args:
        include: a file must match one of these, if there are any.
        exclude: it must match none of these.
        gitignore: whether ``.gitignore`` files in the folder are honoured.
        outputs: files and folders that the program itself writes: never read.
        web: how pages of the web are fetched.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    gitignore: bool = True
    outputs: Sequence[Path] = ()
    web: Web = PUBLIC


@dataclass(slots=True)
class Remarks:
    """What reading came across beside documents, counted.

    Args:
        left_out: files and folders that were not read, by suffix or reason.
        guessed: files whose encoding had to be guessed, by encoding.
        images: images inside of texts (``data:`` URLs) that were dropped.
        unread: of ``left_out``, what nobody asked to leave out: of an unknown format, links that are
            not followed, no regular files.
        lost: told of each image and file that is lost.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    guessed: Counter[str] = field(default_factory=Counter)
    images: int = 0
    unread: int = 0
    lost: Lost = ignore

    def leave(self, name: str, reason: str) -> None:
        """Count a file that is not read though nobody asked for that."""
        self.left_out[reason] += 1
        self.unread += 1
        self.lost(Loss(name, "left_out"))

    def drop_images(self, id_: str, number: int) -> None:
        """Count what was dropped from a document's text."""
        if number:
            self.images += number
            self.lost(Loss(id_, "images", number))

    def add(self, others: Remarks) -> None:
        """Count what another process came across, too."""
        self.left_out += others.left_out
        self.guessed += others.guessed
        self.images += others.images
        self.unread += others.unread

    def sentences(self) -> list[str]:
        """For people; nothing if there is nothing to say.

        >>> Remarks(Counter({".png": 2, "hidden": 1})).sentences()
        ['left out: 2 .png, 1 hidden']
        """
        said = []
        if self.left_out:
            said.append(f"left out: {_counted(self.left_out)}")
        if self.guessed:
            said.append(f"encoding guessed: {_counted(self.guessed)} (--encoding sets it)")
        if self.images:
            said.append(f"images dropped from texts: {self.images}")
        return said


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read.

    Args:
        filesystem: the fsspec file system it lies in; None is standard input.
        path: within the file system.
        name: relative to the path the user gave, the same on every machine; a URL for others than
            local files.
        fault: why it cannot be read, if that is known already.
        root: the name of the source that it belongs to: see :func:`root_of`.
        part: whether it was chosen, and others of that source may not be: by its name, a glob or
            ``include``. (What is excluded or ignored is none of the source's.)
    """

    filesystem: Any
    path: str
    name: str
    fault: str | None = None
    root: str = ""
    part: bool = False

    @property
    def suffix(self) -> str:
        """The format, such as ``.jsonl``, whether or not the file is compressed."""
        if self.filesystem is None:
            return ".jsonl"
        web = isinstance(self.filesystem, Web)
        return suffix_of_url(self.path) if web else suffix_of(self.path)

    @property
    def compression(self) -> str | None:
        """What fsspec calls its compression."""
        path = self.path
        if isinstance(self.filesystem, Web):
            path = urlsplit(path).path
        kind: str | None = infer_compression(path)
        return kind

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Its bytes, decompressed.

        Raises:
            InputError: it is not what its name says.
        """
        if self.fault is not None:
            raise InputError(self.fault)
        if self.filesystem is None:
            yield sys.stdin.buffer
            return
        with self._raw() as raw:
            if raw.read(len(_LFS)) == _LFS:
                raise InputError("a Git LFS pointer, not the file itself: run 'git lfs pull'")
            raw.seek(0)
            if self.compression is None:
                yield raw
            elif self.compression == "zip":
                with _only_member(raw) as member:
                    yield member
            else:
                with compr[self.compression](raw, mode="r") as unpacked:
                    yield unpacked

    def _raw(self) -> Any:
        if is_local(self.filesystem):
            return open(self.path, "rb")  # noqa: PTH123 - fsspec's own is slow by line
        return self.filesystem.open(self.path, "rb")


@contextmanager
def _only_member(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(raw) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise InputError(f"the archive holds {len(members)} files; unpack it, or pack one")
        with archive.open(members[0]) as member:
            yield member


def find(
    paths: Sequence[Path], selection: Selection | None = None, remarks: Remarks | None = None
) -> list[SourceFile]:
    """The files that paths stand for, each path's sorted by name.

    Folders and globs leave out what is hidden, of an unknown format, no regular file, ignored, or
    in a folder that a link leads to. A file that is named is read wherever it lies.

    Args:
        paths: files, folders, globs, URLs, or ``-`` for JSON lines on standard input.
        selection: what to read of folders.
        remarks: counts what is left out.

    Raises:
        ConfigError: a path does not exist or is of an unknown kind, or there is nothing to read.
    """
    selection = selection or Selection()
    remarks = Remarks() if remarks is None else remarks
    files = [file for path in paths for file in _find(os.fspath(path), selection, remarks)]
    if not files:
        raise ConfigError(
            f"there is nothing to read in {', '.join(map(str, paths)) or 'no paths'}"
            + "".join(f"; {sentence}" for sentence in remarks.sentences())
            + f". Known formats: {known_formats()}"
        )
    return files


def known_formats() -> str:
    """All suffixes, for messages."""
    return f"{' '.join([*RECORDS, *sorted(PAGES)])}, each also .gz .bz2 .xz .zip"


def is_local(filesystem: Any) -> bool:
    """Whether the file system is this machine's."""
    return bool(_LOCAL & set(_protocols(filesystem)))


def _protocols(filesystem: Any) -> tuple[str, ...]:
    known = filesystem.protocol
    return (known,) if isinstance(known, str) else tuple(known)


def _find(path: str, selection: Selection, remarks: Remarks) -> list[SourceFile]:
    if path == STDIN:
        return [SourceFile(None, STDIN, _STDIN_NAME, root=_STDIN_NAME)]
    if not path.strip():
        raise ConfigError("a path is empty; the current folder is '.'")
    filesystem, root = _file_system(path, selection.web)
    if suffix_of(urlsplit(root).path if isinstance(filesystem, Web) else root) == LIST:
        return _listed(SourceFile(filesystem, root, path), selection, remarks)
    if isinstance(filesystem, Web):
        return _web_pages(path, filesystem, selection, remarks)
    if is_local(filesystem):
        return _found(filesystem, root, path, selection, remarks)
    try:
        return _found(filesystem, root, path, selection, remarks)
    except ConfigError:
        raise
    except Exception as error:  # a network's, or of whatever library speaks to it
        raise ConfigError(f"{_masked(path)} cannot be looked at: {explain(error)}") from error


def _found(
    filesystem: Any, root: str, path: str, selection: Selection, remarks: Remarks
) -> list[SourceFile]:
    local = is_local(filesystem)
    if filesystem.isfile(root):
        name = posixpath.basename(root) if local else address(filesystem, root)
        return [_named(SourceFile(filesystem, root, name), path, selection)]
    if filesystem.isdir(root):
        return _within(filesystem, root, None, selection, remarks)
    if has_magic(path):
        base = root[: min(root.index(sign) for sign in "*?[" if sign in root)].rpartition("/")[0]
        if filesystem.isdir(base or "/"):
            files = _within(filesystem, base or "/", root, selection, remarks)
            if files or remarks.left_out:
                return files
    if local and os.path.lexists(root):
        raise ConfigError(f"{path}: no regular file (a pipe, a device, or a link to nothing)")
    raise ConfigError(f"{path}: no such file or folder")


def _named(file: SourceFile, path: str, selection: Selection) -> SourceFile:
    if file.suffix not in RECORDS and file.suffix not in PAGES:
        raise ConfigError(f"{path}: unknown format {file.suffix!r}; known: {known_formats()}")
    if is_local(file.filesystem) and _is_output(file.path, selection):
        raise ConfigError(f"{path} is both to be read and to be written; name another output")
    whole = root_of(file.filesystem, file.path)
    if file.suffix in PAGES:
        folder = f"{posixpath.dirname(whole.partition('?')[0])}/"
        return replace(file, root=folder, part=True)
    return replace(file, root=whole)


def root_of(filesystem: Any, path: str, *, folder: bool = False) -> str:
    """The name of a source: the absolute path or the URL of a file, or of a folder and then a slash.

    The same from wherever it is called, so that a collection knows whose a document is.
    """
    name = posixpath.abspath(path) if is_local(filesystem) else address(filesystem, path)
    return f"{name.rstrip('/')}/" if folder else name


def located(root: str, name: str, web: Web) -> SourceFile:
    """A file of which only its root and its name are known, as one document or some of its source.

    Args:
        root, name: of the file.
        web: how it is fetched, if it is a page of the web.

    Raises:
        ConfigError: it is standard input, or of a protocol that is not read.
        InputError: it is not there any more.
    """
    if root == _STDIN_NAME:
        raise ConfigError("what came on standard input cannot be read again")
    filesystem, path = _file_system(name if "://" in name else root, web)
    if is_local(filesystem) and root.endswith("/"):
        path = posixpath.join(path, name)
    if is_local(filesystem) and not filesystem.isfile(path):
        raise InputError(f"{path} is not there any more")
    return SourceFile(filesystem, path, name, root=root, part=True)


def _file_system(path: str, web: Web) -> tuple[Any, str]:
    if is_web(path) and "::" not in path:
        return web, path
    protocol = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)(?:://|::|:(?=,))|data:", path)
    if "::" in path or (protocol and (protocol[1] or "data").lower() not in PROTOCOLS):
        raise ConfigError(
            f"{_masked(path)}: only these protocols are read, and not in chains: "
            f"{', '.join(PROTOCOLS)}"
        )
    try:
        filesystem, root = url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{_masked(path)}: {error}") from error
    return filesystem, root


def address(filesystem: Any, path: str) -> str:
    """A remote file's URL, which is its id, without passwords and signatures."""
    return _masked(path if "://" in path else filesystem.unstrip_protocol(path))


def _masked(url: str) -> str:
    """Without what lets in, and without a fragment.

    >>> _masked("https://me:secret@host/a.html?page=2&token=x")
    'https://host/a.html?page=2'
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    rest, _, query = rest.partition("#")[0].partition("?")
    host, slash, path = rest.partition("/")
    given = [each for each in query.split("&") if not _SECRETS.search(each.partition("=")[0])]
    kept = "&".join(filter(None, given))
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{'?' if kept else ''}{kept}"


# ------------------------------------------------------------------------------------- the web


def _web_pages(url: str, web: Web, selection: Selection, remarks: Remarks) -> list[SourceFile]:
    """What a URL stands for: itself, or the pages that it lists if it is a sitemap."""
    name = address(web, url)
    file = SourceFile(web, url, name, root=name)
    if suffix_of(urlsplit(url).path) != SITEMAP:
        return [_named(file, name, selection)]
    urls = _mapped(file, web.pages)
    if urls is None:
        return [_named(file, name, selection)]
    host = urlsplit(url).hostname
    own = [each for each in urls if urlsplit(each).hostname == host]
    for each in urls:
        if urlsplit(each).hostname != host:
            remarks.leave(address(web, each), "on another host")
    return _wanted(own, name, web, selection, remarks)


def _mapped(file: SourceFile, most: int) -> list[str] | None:
    """The pages of a sitemap and of those that it lists; None if it is another kind of file."""
    pages: list[str] = []
    waiting, seen = [file.path], {file.path}
    while waiting:
        one = replace(file, path=waiting.pop())
        try:
            with one.open() as stream:
                found = sitemap(stream)
        except InputError as error:
            raise ConfigError(f"{address(one.filesystem, one.path)}: {error}") from error
        if found is None:
            if one.path == file.path:
                return None
            raise ConfigError(f"{address(one.filesystem, one.path)} is no sitemap")
        pages += found[0]
        more = [each for each in found[1] if each not in seen]
        _require_few([*pages, *seen, *more], most, file.name)
        for each in (*found[0], *more):
            if not is_web(each):
                raise ConfigError(f"{file.name} lists what is no address of a web page: {each!r}")
        seen.update(more)
        waiting += more
    return pages


def _listed(file: SourceFile, selection: Selection, remarks: Remarks) -> list[SourceFile]:
    """The pages of a file of URLs; it is read only where it is named."""
    where = root_of(file.filesystem, file.path)
    try:
        with file.open() as stream:
            urls = listed(stream)
    except (ConfigError, InputError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    _require_few(urls, selection.web.pages, where)
    return _wanted(urls, where, selection.web, selection, remarks)


def _require_few(urls: Sequence[str], most: int, where: str) -> None:
    """A list is read whole or not at all: what is left out would count as gone."""
    if len(urls) > most:
        raise ConfigError(f"{where} lists more than {most:,} pages (--max-pages)")


def _wanted(
    urls: Sequence[str], root: str, web: Web, selection: Selection, remarks: Remarks
) -> list[SourceFile]:
    """The pages of a list that are wanted, by the paths of their URLs, each once."""
    include = _chosen("--include", selection.include) if selection.include else None
    exclude = _chosen("--exclude", selection.exclude)
    files = []
    for url in dict.fromkeys(urls):
        path = urlsplit(url).path.lstrip("/")
        if include is not None and not include.match_file(path):
            remarks.left_out["not included"] += 1
        elif exclude.match_file(path):
            remarks.left_out["excluded"] += 1
        else:
            part = include is not None
            files.append(SourceFile(web, url, address(web, url), root=root, part=part))
    return files


# ---------------------------------------------------------------------------------- folders


def _within(
    filesystem: Any, root: str, glob: str | None, selection: Selection, remarks: Remarks
) -> list[SourceFile]:
    """The files below a root that are to be read, sorted by name."""
    local = is_local(filesystem)
    if local:
        depth = None if glob is None or "**" in glob else glob[len(root) :].strip("/").count("/")
        listed = list(_walk(root, depth, selection, remarks))
    else:
        listed = [
            SourceFile(filesystem, path, posixpath.relpath(path, root))
            for path in filesystem.find(root)
        ]
        listed = [file for file in listed if not _skipped(file.name.split("/"), remarks)]
    pattern = re.compile(glob_translate(glob)) if glob is not None else None
    include = _chosen("--include", selection.include) if selection.include else None
    exclude = _chosen("--exclude", selection.exclude)
    files = []
    whole = root_of(filesystem, root, folder=True)
    part = pattern is not None or include is not None
    for each in sorted(listed, key=lambda file: file.name):
        file = SourceFile(filesystem, each.path, each.name, each.fault, whole, part)
        if pattern is not None and not pattern.match(file.path):
            continue
        if file.fault is None and file.suffix not in RECORDS and file.suffix not in PAGES:
            remarks.leave(file.name, file.suffix or "without a suffix")
        elif include is not None and not include.match_file(file.name):
            remarks.left_out["not included"] += 1
        elif exclude.match_file(file.name):
            remarks.left_out["excluded"] += 1
        else:
            name = file.name if local else address(filesystem, file.path)
            files.append(replace(file, name=name))
    return files


def _chosen(option: str, patterns: Sequence[str]) -> GitIgnoreSpec:
    spec, bad = usable(patterns)
    if bad:
        raise ConfigError(
            f"{option} {bad[0]!r} is no pattern of .gitignore, or has more than {MOST_DEEP} parts **"
        )
    return spec


def _skipped(parts: Sequence[str], remarks: Remarks) -> bool:
    if any(name.startswith(".") for name in parts):
        remarks.left_out["hidden"] += 1
    elif skipped := SKIPPED_FOLDERS.intersection(parts[:-1]):
        remarks.left_out[f"in {min(skipped)}"] += 1
    else:
        return False
    return True


def _walk(
    root: str, depth: int | None, selection: Selection, remarks: Remarks
) -> Iterator[SourceFile]:
    """Regular files below a local folder; links that leave it are not followed."""
    real = os.path.realpath(root)
    waiting: list[tuple[str, tuple[tuple[str, GitIgnoreSpec], ...]]] = [("", ())]
    while waiting:
        folder, ignoring = waiting.pop()
        try:
            with os.scandir(posixpath.join(root, folder)) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
            if selection.gitignore:
                rules = (each for each in entries if each.name == ".gitignore" and each.is_file())
                ignoring += tuple((folder, _gitignore(each.path)) for each in rules)
        except OSError as error:
            # A failure, not a remark: what lies there would otherwise count as gone.
            yield SourceFile(None, root, folder or ".", f"the folder cannot be read: {error}")
            continue
        for entry in entries:
            name = posixpath.join(folder, entry.name)
            kind = _kind(entry, real)
            folder_like = kind == "folder"
            if entry.name.startswith("."):
                remarks.left_out["hidden"] += 1
            elif _ignored(name, ignoring, folder=folder_like):
                remarks.left_out["in .gitignore"] += 1
            elif _is_output(entry.path, selection):
                remarks.left_out["own output"] += 1
            elif folder_like and _is_tooling(entry):
                remarks.left_out[f"folder {entry.name}"] += 1
            elif folder_like:
                if depth is None or name.count("/") < depth:
                    waiting.append((name, ignoring))
            elif kind == "file":
                yield SourceFile(None, entry.path, name)
            else:
                remarks.leave(name, kind)


def _kind(entry: os.DirEntry[str], real: str) -> str:
    """``file``, ``folder``, or why it is neither."""
    try:
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if not FilePath(target).exists():
                return "link to nothing"
            if os.path.commonpath([real, target]) != real:
                return "link that leaves the folder"
            if entry.is_dir():
                return "linked folder"  # read under its own name, and links could run in circles
        mode = entry.stat().st_mode
    except OSError:
        return "cannot be looked at"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "no regular file"


def _gitignore(path: str) -> GitIgnoreSpec:
    with open(path, encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
        spec, bad = usable(lines)
    for line in bad:
        log.warning(
            "%s: %r leaves nothing out: it is no pattern that can be used", path, line.strip()
        )
    return spec


def _ignored(name: str, ignoring: Sequence[tuple[str, GitIgnoreSpec]], *, folder: bool) -> bool:
    """The deepest ``.gitignore`` that says something of a file decides."""
    for above, spec in reversed(ignoring):
        relative = posixpath.relpath(name, above) if above else name
        said = spec.check_file(f"{relative}/" if folder else relative).include
        if said is not None:
            return said
    return False


def _is_tooling(entry: os.DirEntry[str]) -> bool:
    """Packages and virtual environments: others' files, and many."""
    return entry.name in SKIPPED_FOLDERS or FilePath(entry.path, "pyvenv.cfg").exists()


def _is_output(path: str, selection: Selection) -> bool:
    return any(os.path.realpath(path) == os.path.realpath(output) for output in selection.outputs)
