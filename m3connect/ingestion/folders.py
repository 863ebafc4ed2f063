"""The files below a folder: regular ones, neither hidden nor ignored, and not behind links that leave it."""

from __future__ import annotations

import logging
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from fsspec.utils import glob_translate
from pathspec import GitIgnoreSpec

from m3connect.ingestion.files import SourceFile, address, is_local, root_of
from m3connect.ingestion.formats import PAGES, RECORDS
from m3connect.ingestion.patterns import usable
from m3connect.ingestion.selection import Remarks, Selection

log = logging.getLogger(__name__)

SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})


def within(
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
    is_chosen = selection.chooser(remarks)
    not_excluded = replace(selection, include=()).chooser(remarks)
    files = []
    whole = root_of(filesystem, root, folder=True)
    part = pattern is not None or bool(selection.include)
    for each in sorted(listed, key=lambda file: file.name):
        file = SourceFile(filesystem, each.path, each.name, each.fault, whole, part)
        if file.fault is not None:  # what of it is wanted nobody knows; never left out in silence
            if (glob is None or _leads_to(glob, file.path)) and not_excluded(f"{file.name}/"):
                files.append(file)
            continue
        if pattern is not None and not pattern.match(file.path):
            continue
        if file.suffix not in RECORDS and file.suffix not in PAGES:
            remarks.leave(file.name, file.suffix or "without a suffix")
        elif is_chosen(file.name):
            name = file.name if local else address(filesystem, file.path)
            files.append(replace(file, name=name))
    return files


def _leads_to(glob: str, path: str) -> bool:
    """Whether a glob may match something in a folder, or the file itself.

    >>> _leads_to("/d/a*/*.md", "/d/ab"), _leads_to("/d/a*/*.md", "/d/b"), _leads_to("/d/**/x.md", "/d/b")
    (True, False, True)
    """
    fixed, parts = glob.partition("**")[0].split("/"), path.rstrip("/").split("/")
    if "**" in glob:
        del fixed[-1]
    depth = min(len(fixed), len(parts))
    return bool(re.match(glob_translate("/".join(fixed[:depth])), "/".join(parts[:depth])))


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
            path = posixpath.join(root, folder)
            yield SourceFile(None, path, folder or ".", f"the folder cannot be read: {error}")
            continue
        for entry in entries:
            name = posixpath.join(folder, entry.name)
            fault = None
            try:
                kind = _kind(entry, real)
            # A failure, as above.
            except OSError as error:
                kind, fault = "file", f"cannot be looked at: {error}"
            folder_like = kind == "folder"
            if entry.name.startswith("."):
                remarks.left_out["hidden"] += 1
            elif _ignored(name, ignoring, folder=folder_like or fault is not None):
                remarks.left_out["in .gitignore"] += 1
            elif selection.is_output(entry.path) or (folder_like and _is_report(entry)):
                remarks.left_out["own output"] += 1
            elif folder_like and _is_tooling(entry):
                remarks.left_out[f"folder {entry.name}"] += 1
            elif folder_like:
                if depth is None or name.count("/") < depth:
                    waiting.append((name, ignoring))
            elif kind == "file":
                yield SourceFile(None, entry.path, name, fault)
            else:
                remarks.leave(name, kind)


def _kind(entry: os.DirEntry[str], real: str) -> str:
    """``file``, ``folder``, or why it is neither.

    Raises:
        OSError: it cannot be looked at.
    """
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if os.path.commonpath([real, target]) != real:
            return "link that leaves the folder" if _exists(target) else "link to nothing"
        if not FilePath(target).exists():
            return "link to nothing"
        if entry.is_dir():
            return "linked folder"  # read under its own name, and links could run in circles
    mode = entry.stat().st_mode
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


def _is_report(folder: os.DirEntry[str]) -> bool:
    """Whether ``m3connect eval --output`` has written it."""
    names = ("results.json", "summary.json", "results.md", "report.html")
    return all(_exists(posixpath.join(folder.path, name)) for name in names)


def _is_tooling(entry: os.DirEntry[str]) -> bool:
    """Packages and virtual environments: others' files, and many."""
    return entry.name in SKIPPED_FOLDERS or _exists(posixpath.join(entry.path, "pyvenv.cfg"))


def _exists(path: str) -> bool:
    """As far as one may look; pathlib raises beyond."""
    return os.access(path, os.F_OK)
