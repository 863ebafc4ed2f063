"""How far a long piece of work has come: one protocol for all that takes time."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Is told how far a stage of the work has come, in the caller's thread."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Take note.

        Args:
            stage: what goes on, such as ``encoding passage texts``.
            done: units that are through; within a stage it never falls.
            total: units that there are, None where nobody knows yet.
        """


def silent(stage: str, done: int, total: int | None) -> None:
    """Tell nobody."""
