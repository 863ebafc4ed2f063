"""``m3connect plan``: what ``ingest`` would do."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli.console import counted
from m3connect.cli.options import ModelChoice, Output, Target
from m3connect.cli.progress import duration, progress_bar
from m3connect.cli.reading import (
    Cutting,
    Documents,
    Fetching,
    Reading,
    Replacing,
    Selecting,
    Storing,
    opener,
    say,
)

if TYPE_CHECKING:
    from m3connect.contract import Capabilities
    from m3connect.ingestion import IngestPlan

SHOWN = 5  # reasons
_LIMITS = {
    "id_bytes": "bytes of an id",
    "payload_bytes": "bytes of a payload",
    "multivector_floats": "numbers of a multi-vector (--chunk-tokens)",
}


def plan(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Files, folders, globs or URLs, as for ingest."),
    ],
    *,
    selected: Selecting,
    fetched: Fetching,
    documents: Documents,
    files: Reading,
    passages: Cutting,
    stored: Storing,
    replacing: Replacing,
    where: Target,
    model: ModelChoice,
    printed: Output,
) -> None:
    """Tell what `m3connect ingest` would do with the same options, and write nothing.

    Everything is read, cut and looked up in the collection; a sample of the passages is encoded to
    tell time and bytes.

    - `m3connect plan docs/`
    - `m3connect plan "s3://bucket/docs/**/*.md" --target milvus --model BAAI/bge-m3`
    - `m3connect plan docs/ --prune --json`
    """
    from m3connect import ingestion

    remarks = ingestion.Remarks()
    outputs = [FilePath(where.path)] if where.path else []
    sources = selected.find(paths, outputs, fetched.web(files), remarks, to_prune=replacing.prune)
    opened = opener(documents, files, passages)(sources, model.load, remarks=remarks)
    totals = {"documents": ingestion.count(sources)}
    with where.open() as connector, progress_bar(totals) as progress:
        planned = ingestion.plan(
            opened,
            connector,
            legs=stored.chosen(),
            take_over=replacing.take_over,
            prune=replacing.prune,
            max_delete_ratio=replacing.max_delete_ratio,
            progress=progress,
        )
        backend = connector.capabilities
    say(remarks)
    facts = {
        "engine": backend.engine,
        "searched_by_engine": sorted(backend.legs),
        "fused_by_engine": sorted(backend.fusions),
        "licence": backend.licence,
        "limits": {name: value for name in _LIMITS if (value := getattr(backend.limits, name))},
    }
    text = "\n".join([*_documents(planned), *_work(planned), *_engine(planned, backend)])
    printed.show(planned.to_json() | facts, f"{text}\nNothing was written.")


def _documents(planned: IngestPlan) -> list[str]:
    pruned = f", {planned.pruned:,} in the collection to prune" if planned.pruned else ""
    alone = f" ({planned.metadata_only:,} in their metadata alone)" if planned.metadata_only else ""
    taken = f" ({planned.taken_over:,} to take over)" if planned.taken_over else ""
    counts = (
        f"{counted(planned.read, 'document')}: {planned.written:,} to write{alone}, "
        f"{planned.unchanged:,} unchanged{taken}, {planned.empty:,} empty, {planned.failed:,} would fail{pruned}"
    )
    reasons = sorted(planned.reasons.items(), key=lambda each: -each[1])
    lines = [counts, *(f"  {count:,} would fail: {reason}" for reason, count in reasons[:SHOWN])]
    if len(reasons) > SHOWN:
        lines.append(f"  and for {counted(len(reasons) - SHOWN, 'more reason')}")
    return lines


def _work(planned: IngestPlan) -> list[str]:
    lines = [f"{counted(planned.chunks, 'passage')} to write, {planned.deleted:,} to delete"]
    if planned.encoded:
        brief = planned.seconds < 1
        needed = "less than a second" if brief else f"about {duration(planned.seconds)}"
        lines[0] += (
            f"; {planned.encoded:,} to encode: {counted(planned.tokens, 'token')}, "
            f"{needed} here, by a sample of {planned.sample}"
        )
    if planned.truncated:
        lines.append(f"  {counted(planned.truncated, 'passage')} longer than the model takes")
    if planned.bytes:
        sizes = ", ".join(f"{name} {_size(size)}" for name, size in planned.bytes.items())
        total = sum(planned.bytes.values())
        lines.append(
            f"about {_size(total)} more in the collection: {sizes}; indexes, what filters ask for and the "
            "engine's log come on top"
        )
    return lines


def _size(size: float) -> str:
    """For people.

    >>> _size(5400), _size(1_230_000)
    ('5.4 kB', '1.2 MB')
    """
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _engine(planned: IngestPlan, backend: Capabilities) -> list[str]:
    """What the database does of it, by its version and licence, and what it would refuse."""
    licence = f" (licence: {backend.licence})" if backend.licence else ""
    ours = [f"the search by {leg}" for leg in planned.legs if leg not in backend.legs]
    ours += ["the fusion of legs"] if len(planned.legs) > 1 and not backend.fusions else []
    lines = [
        f"{backend.engine}{licence} stores {', '.join(planned.legs)}"
        + (f" and leaves {' and '.join(ours)} to m3connect" if ours else "")
    ]
    limits = {name: getattr(backend.limits, name) for name in _LIMITS}
    takes = [f"{value:,} {_LIMITS[name]}" for name, value in limits.items() if value]
    if takes:
        lines.append(f"  it takes at most {', '.join(takes)}")
    for name, count in planned.beyond.items():
        limit = f"{limits[name]:,} {_LIMITS[name]}"
        lines.append(f"  {counted(count, 'passage')} would be refused: more than {limit}")
    return lines
