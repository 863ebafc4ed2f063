"""Which files of a folder are read, and what reading came across beside documents."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pathspec import GitIgnoreSpec

from m3connect.errors import ConfigError
from m3connect.ingestion.losses import Loss, Lost, ignore
from m3connect.ingestion.patterns import MOST_DEEP, usable
from m3connect.ingestion.web import PUBLIC, Web

Path = str | os.PathLike[str]


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

    def chooser(self, remarks: Remarks) -> Callable[[str], bool]:
        """What tells whether a file of this name is read, and counts those that are not.

        Raises:
            ConfigError: a pattern is none.
        """
        include = _spec("--include", self.include) if self.include else None
        exclude = _spec("--exclude", self.exclude)

        def is_chosen(name: str) -> bool:
            if include is not None and not include.match_file(name):
                remarks.left_out["not included"] += 1
                return False
            if exclude.match_file(name):
                remarks.left_out["excluded"] += 1
                return False
            return True

        return is_chosen

    def is_output(self, path: str) -> bool:
        """Whether the program itself writes this file."""
        return any(os.path.realpath(path) == os.path.realpath(each) for each in self.outputs)


@dataclass(slots=True)
class Remarks:
    """What reading came across beside documents, counted.

    Args:
        left_out: files and folders that were not read, by suffix or reason.
        guessed: files whose encoding had to be guessed, by encoding.
        images: images inside of texts (``data:`` URLs) that were dropped.
        unread: of ``left_out``, what nobody asked to leave out: of an unknown format, links that are
            not followed, no regular files.
        barren: the names of sources (folders, lists of pages) in which there is no file to read.
        lost: told of each image and file that is lost.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    guessed: Counter[str] = field(default_factory=Counter)
    images: int = 0
    unread: int = 0
    barren: list[str] = field(default_factory=list)
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


def _spec(option: str, patterns: Sequence[str]) -> GitIgnoreSpec:
    spec, bad = usable(patterns)
    if bad:
        raise ConfigError(
            f"{option} {bad[0]!r} is no pattern of .gitignore, or has more than {MOST_DEEP} parts **"
        )
    return spec
