"""``m3connect retry``: dead letters again."""

from __future__ import annotations

from functools import partial
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli.options import CompressedModel, Output, Target
from m3connect.cli.reading import (
    Cutting,
    Documents,
    Fetching,
    Reading,
    Storing,
    Waiting,
    opener,
    say,
)
from m3connect.cli.running import interruptible

if TYPE_CHECKING:
    from m3connect.ingestion import Replayed

PARTIAL_FAILURE = 4  # exit code
SHOWN = 5  # reasons


def retry(
    file: Annotated[
        FilePath,
        typer.Argument(
            metavar="FILE",
            help="Dead letters of `m3connect ingest`, such as "
            ".m3connect/dead-letters/qdrant-documents.jsonl.",
            show_default=False,
        ),
    ],
    *,
    fetched: Fetching,
    documents: Documents,
    files: Reading,
    passages: Cutting,
    stored: Storing,
    waiting: Waiting,
    where: Target,
    model: CompressedModel,
    printed: Output,
) -> None:
    """Ingest the documents again that are listed in FILE, once what made them fail is mended.

    They are read where they lie, with the options of the run that failed: give the same ones, but for
    those that were the fault. What succeeds leaves FILE; what fails again, or is not where it was,
    stays in it with the reason. A run that is killed leaves FILE as it was.

    - `m3connect retry .m3connect/dead-letters/qdrant-documents.jsonl`
    - `m3connect retry bad.jsonl --max-file-bytes 500000000`

    Exit code 4: some stay.
    """
    from m3connect import ingestion
    from m3connect.cli.progress import progress_bar

    open_source = opener(documents, files, passages)
    remarks = ingestion.Remarks()
    with interruptible(), where.open() as connector, progress_bar() as progress:
        done = ingestion.replay(
            file,
            partial(open_source, encoder=model.load, remarks=remarks),
            connector,
            web=fetched.web(files),
            legs=stored.chosen(),
            patience=waiting.patience,
            progress=progress,
        )
    say(remarks)
    counts = {"letters": done.letters, "left": len(done.left), **done.report.to_json()}
    printed.show(counts, _text(file, where.collection, done))
    if done.left:
        raise typer.Exit(PARTIAL_FAILURE)


def _text(file: FilePath, collection: str, done: Replayed) -> str:
    """For people."""
    if not done.letters and not done.left:
        return f"{file} holds no dead letters: nothing to do"
    report = done.report
    counts = (
        f"{file} held {done.letters}: {report.written} written to {collection!r}, "
        f"{report.unchanged} unchanged, {report.empty} empty; {len(done.left)} left in it "
        f"({report.seconds:.1f} s)"
    )
    reasons = done.reasons.most_common()
    lines = [counts, *(f"  {count}: {reason}" for reason, count in reasons[:SHOWN])]
    if len(reasons) > SHOWN:
        lines.append(f"  and {len(reasons) - SHOWN} more reasons in {file}")
    if done.left:
        lines.append("A document that is not wanted any more: delete its line from the file")
    return "\n".join(lines)
