"""Which files paths stand for: regular ones of a known format, inside the folder that is named."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from fsspec.core import has_magic

from m3connect.conversion.converter import explain
from m3connect.errors import ConfigError, InputError
from m3connect.ingestion.files import (
    STDIN,
    STDIN_NAME,
    SourceFile,
    address,
    file_system,
    is_local,
    masked,
    root_of,
)
from m3connect.ingestion.folders import within
from m3connect.ingestion.formats import PAGES, RECORDS, suffix_of
from m3connect.ingestion.selection import Path, Remarks, Selection
from m3connect.ingestion.sitemaps import LIST, SITEMAP, is_web, listed, sitemap
from m3connect.ingestion.web import Web


class NothingToRead(ConfigError):
    """The paths are there, and no file that could be read is among them."""


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
        ConfigError: a path does not exist or is of an unknown kind.
        NothingToRead: there are no files.
    """
    selection = selection or Selection()
    remarks = Remarks() if remarks is None else remarks
    files = [file for path in paths for file in _find(os.fspath(path), selection, remarks)]
    if not files:
        raise NothingToRead(
            f"there is nothing to read in {', '.join(map(str, paths)) or 'no paths'}"
            + "".join(f"; {sentence}" for sentence in remarks.sentences())
            + f". Known formats: {known_formats()}"
        )
    return files


def known_formats() -> str:
    """All suffixes, for messages."""
    return f"{' '.join([*RECORDS, *sorted(PAGES)])}, each also .gz .bz2 .xz .zip"


def _find(path: str, selection: Selection, remarks: Remarks) -> list[SourceFile]:
    if path == STDIN:
        return [SourceFile(None, STDIN, STDIN_NAME, root=STDIN_NAME)]
    if not path.strip():
        raise ConfigError("a path is empty; the current folder is '.'")
    filesystem, root = file_system(path, selection.web)
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
        raise ConfigError(f"{masked(path)} cannot be looked at: {explain(error)}") from error


def _found(
    filesystem: Any, root: str, path: str, selection: Selection, remarks: Remarks
) -> list[SourceFile]:
    local = is_local(filesystem)
    if filesystem.isfile(root):
        name = posixpath.basename(root) if local else address(filesystem, root)
        return [_named(SourceFile(filesystem, root, name), path, selection)]
    if filesystem.isdir(root):
        files = within(filesystem, root, None, selection, remarks)
        return _noted(files, root_of(filesystem, root, folder=True), remarks)
    if has_magic(path):
        base = root[: min(root.index(sign) for sign in "*?[" if sign in root)].rpartition("/")[0]
        if filesystem.isdir(base or "/"):
            files = within(filesystem, base or "/", root, selection, remarks)
            if files or filesystem.glob(root):
                return files
    if local and os.path.lexists(root):
        raise ConfigError(f"{path}: no regular file (a pipe, a device, or a link to nothing)")
    raise ConfigError(f"{path}: no such file or folder")


def _noted(files: list[SourceFile], root: str, remarks: Remarks) -> list[SourceFile]:
    """The files of a source; where there are none, no file tells that it was looked at."""
    if not files:
        remarks.barren.append(root)
    return files


def _named(file: SourceFile, path: str, selection: Selection) -> SourceFile:
    if file.suffix not in RECORDS and file.suffix not in PAGES:
        raise ConfigError(f"{path}: unknown format {file.suffix!r}; known: {known_formats()}")
    if is_local(file.filesystem) and selection.is_output(file.path):
        raise ConfigError(f"{path} is both to be read and to be written; name another output")
    whole = root_of(file.filesystem, file.path)
    if file.suffix in PAGES:
        path = whole.partition("?")[0]
        bare = path.count("/") == 2 and "://" in path  # a host, without a path
        folder = f"{path if bare else posixpath.dirname(path)}/"
        return replace(file, root=folder, part=True)
    return replace(file, root=whole)


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
                mapped = sitemap(stream)
        except InputError as error:
            raise ConfigError(f"{address(one.filesystem, one.path)}: {error}") from error
        if mapped is None:
            if one.path == file.path:
                return None
            raise ConfigError(f"{address(one.filesystem, one.path)} is no sitemap")
        pages += mapped[0]
        more = [each for each in mapped[1] if each not in seen]
        _require_few([*pages, *seen, *more], most, file.name)
        for each in (*mapped[0], *more):
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
        raise ConfigError(f"{where} lists more pages than {most:,} (--max-pages)")


def _wanted(
    urls: Sequence[str], root: str, web: Web, selection: Selection, remarks: Remarks
) -> list[SourceFile]:
    """The pages of a list that are wanted, by the paths of their URLs, each once."""
    is_chosen = selection.chooser(remarks)
    part = bool(selection.include)
    files = [
        SourceFile(web, url, address(web, url), root=root, part=part)
        for url in dict.fromkeys(urls)
        if is_chosen(urlsplit(url).path.lstrip("/"))
    ]
    return _noted(files, root, remarks)
