"""What a run of ingestion did, and which documents it could not take."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from m3connect.ingestion.lines import JsonLines
from m3connect.ingestion.losses import Loss

log = logging.getLogger(__name__)

LETTER_FIELDS = frozenset({"reason", "where", "id", "root"})


TWICE = "another document of this run has the same id"
"""The reason of a failure that reading one document again cannot mend."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be ingested.

    Args:
        reason: what is wrong and what to do.
        where: file and line it was read from, or which of those that came from Python.
        id: the document's id, None when it could not be told.
        root: what ``where`` is relative to: the absolute path or URL that names the source of files
            (:mod:`m3connect.ingestion.ownership`); None when it came from Python.
    """

    reason: str
    where: str | None = None
    id: str | None = None
    root: str | None = None


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Counts of one run; ``read == unchanged + written + empty + failed``.

    Args:
        read: documents that the source gave, bad ones included.
        unchanged: documents that the collection already held as they are.
        taken_over: of these, documents of another source, or of one that was not kept, that are this
            one's now.
        chunks: passages of the documents that were written.
        written: documents that were written and acknowledged.
        metadata_only: of these, documents of which the metadata alone changed: none of their passages
            was encoded.
        deleted: passages that were removed, of older versions or pruned.
        pruned: documents removed because the source no longer has them.
        left_over: documents that the collection holds of this source though it no longer has them;
            None where that was not counted: after pruning, where documents failed, and where the
            source may not have been given whole (one page of a folder, documents from Python).
        empty: documents without text; passages that they had are removed.
        failed: documents that could not be taken; each is a dead letter.
        tokens: tokens encoded, special ones included.
        truncated: passages longer than the encoder's limit.
        no_lexical: passages without any lexical weight, where lexical weights are stored.
        seconds: wall time.
    """

    read: int = 0
    unchanged: int = 0
    taken_over: int = 0
    chunks: int = 0
    written: int = 0
    metadata_only: int = 0
    deleted: int = 0
    pruned: int = 0
    left_over: int | None = None
    empty: int = 0
    failed: int = 0
    tokens: int = 0
    truncated: int = 0
    no_lexical: int = 0
    seconds: float = 0.0

    @classmethod
    def total(cls, reports: Iterable[IngestReport], seconds: float | None = None) -> IngestReport:
        """The sum of what workers did; ``left_over`` is not theirs.

        Args:
            reports: of the workers.
            seconds: of wall time that it took; default theirs together.

        >>> both = IngestReport.total([IngestReport(read=2, written=2), IngestReport(read=1)], 0.5)
        >>> both.read, both.written, both.seconds
        (3, 2, 0.5)
        >>> IngestReport.total([IngestReport(seconds=1.0), IngestReport(seconds=2.0)]).seconds
        3.0
        """
        listed = list(reports)
        sums = Counter[str]()
        for report in listed:
            sums.update({name: getattr(report, name) for name in _COUNTS})
        together = sum(report.seconds for report in listed) if seconds is None else seconds
        return cls(**sums, seconds=together)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


_COUNTS = [f.name for f in fields(IngestReport) if f.name not in {"left_over", "seconds"}]


@dataclass(frozen=True, slots=True)
class Part:
    """What another process did with some of the documents: nothing is left but to count it.

    Args:
        report: its counts, the failures among them.
        seen: the ids of the documents, with the names of their sources.
        failures: documents that it could not take.
        losses: what others of them lost.
        borrowed: how many of the unchanged ones the collection holds as those of another source.
    """

    report: IngestReport
    seen: Mapping[str, str]
    failures: Sequence[Failure]
    losses: Sequence[Loss] = ()
    borrowed: int = 0


class DeadLetters:
    """Failures as JSON lines in a file that is made by the first of them; else in the log.

    Args:
        path: the file; what earlier runs listed stays above. None logs a warning a failure instead.

    Raises:
        ConfigError: the file cannot be made, or is something else than dead letters.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._lines = (
            None
            if path is None
            else JsonLines(path, "--dead-letters", "list of dead letters", LETTER_FIELDS)
        )

    def add(self, failure: Failure) -> None:
        """Record one failure.

        Raises:
            ConfigError: the file cannot be made.
        """
        if self._lines is None:
            line = f"{failure.id or failure.where}: {failure.reason}"
            # A file's name may be no text, which no stream of text takes.
            log.warning("%s", line.encode(errors="backslashreplace").decode())
        else:
            self._lines.write(asdict(failure))

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._lines is not None:
            self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class KeptLetters:
    """Failures in memory, for whoever reports them elsewhere."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def add(self, failure: Failure) -> None:
        """Record one failure."""
        self.failures.append(failure)
