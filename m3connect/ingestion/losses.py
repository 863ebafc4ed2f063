"""What documents lose on their way into a collection though they do not fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self, TypeAlias, get_args

from m3connect.ingestion.lines import JsonLines

LossKind: TypeAlias = Literal["truncated", "empty", "no_lexical", "images", "left_out"]
LOSSES: tuple[LossKind, ...] = get_args(LossKind)

LOSS_KEYS = frozenset({"id", "loss", "count"})


@dataclass(frozen=True, slots=True)
class Loss:
    """What one document lost.

    Args:
        id: the document's id; of a file that was left out, its name.
        loss: ``truncated`` (passages longer than the encoder's limit, of which the end is not encoded),
            ``empty`` (no text), ``no_lexical`` (passages without any lexical weight), ``images``
            (``data:`` URLs dropped from the text), ``left_out`` (a file that is not read: of an unknown
            format, a link that is not followed, no regular file).
        count: of passages, images, or 1.
    """

    id: str
    loss: LossKind
    count: int = 1


Lost: TypeAlias = Callable[[Loss], None]
"""Is told of each loss."""


def ignore(loss: Loss) -> None:
    """Losses are counted all the same."""


class LossReport:
    """A file with one JSON line for each document and kind of loss; empty if nothing was lost.

    Args:
        path: the file; the report of an earlier run is replaced. With None nothing is written.

    Raises:
        ConfigError: the file cannot be made, or is something else than such a report.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._lines = (
            None
            if path is None
            else JsonLines(path, "--report", "report of losses", LOSS_KEYS, replace=True)
        )

    def add(self, loss: Loss) -> None:
        """Record one loss."""
        if self._lines is not None:
            self._lines.write(asdict(loss))

    def __enter__(self) -> Self:
        if self._lines is not None:
            self._lines.open()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lines is not None:
            self._lines.close()
