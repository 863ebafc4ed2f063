"""``m3connect copy`` and ``m3connect verify``: move a collection, and prove that it arrived."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli.console import visible
from m3connect.cli.options import CollectionChoice, Mark, Output, open_connector
from m3connect.cli.progress import progress_bar

if TYPE_CHECKING:
    from m3connect.contract import Connector


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends(CollectionChoice):
    """A collection and the one that it is copied to."""

    source: Annotated[
        str,
        typer.Option("--from", help="Source: qdrant, milvus, elasticsearch or parquet."),
        Mark.TARGET,
    ]
    target: Annotated[str, typer.Option("--to", help="Target, likewise."), Mark.TARGET]
    to_collection: Annotated[
        str | None, typer.Option(help="Collection in the target. Default: the same name.")
    ] = None
    from_url: Annotated[
        str | None, typer.Option(help="Server address of the source."), Mark.ADDRESS
    ] = None
    to_url: Annotated[
        str | None, typer.Option(help="Server address of the target."), Mark.ADDRESS
    ] = None
    from_path: Annotated[
        str | None, typer.Option(help="Folder or file of the source."), Mark.TARGET
    ] = None
    to_path: Annotated[
        str | None, typer.Option(help="Folder or file of the target."), Mark.TARGET, Mark.WRITES
    ] = None
    from_api_key: Annotated[
        str | None, typer.Option(help="API key of the source.", show_default=False), Mark.SECRET
    ] = None
    to_api_key: Annotated[
        str | None, typer.Option(help="API key of the target.", show_default=False), Mark.SECRET
    ] = None
    from_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For the source; repeatable."),
        Mark.ADDRESS,
        Mark.SECRET,
    ] = None
    to_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For the target; repeatable."),
        Mark.ADDRESS,
        Mark.SECRET,
    ] = None

    def open_source(self) -> Connector:
        """The connector that is read."""
        return open_connector(
            self.source,
            self.collection,
            url=self.from_url,
            path=self.from_path,
            api_key=self.from_api_key,
            further=self.from_option or (),
        )

    def open_target(self) -> Connector:
        """The connector that is written, or compared."""
        return open_connector(
            self.target,
            self.to_collection or self.collection,
            url=self.to_url,
            path=self.to_path,
            api_key=self.to_api_key,
            further=self.to_option or (),
        )


def copy(
    *,
    ends: Ends,
    batch_size: Annotated[int, typer.Option(help="Records read at a time.", min=1)] = 256,
    printed: Output,
) -> None:
    """Copy a collection: ids, payloads, all representations, fingerprint and notes.

    Run it again after an interruption: what the target holds already is skipped.

    - `m3connect copy --from qdrant --to elasticsearch --to-url http://localhost:9200`
    - `m3connect copy --from milvus --to parquet --to-path backup.parquet`
    """
    from m3connect import transfer

    with ends.open_source() as source, ends.open_target() as target, progress_bar() as progress:
        report = transfer.copy(source, target, batch_size=batch_size, progress=progress)
    if printed.as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    typer.echo(
        f"read {report.read}, written {report.written}, skipped {report.skipped} "
        f"in {report.seconds:.1f} s"
    )


def verify(
    *,
    ends: Ends,
    samples: Annotated[int, typer.Option(help="Stored records used as queries.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    printed: Output,
) -> None:
    """Compare two collections: counts, payloads, vectors, and the top ten of sampled queries.

    Exits with 1 when a record is missing, superfluous or different.

    - `m3connect verify --from qdrant --to elasticsearch --to-url http://localhost:9200`
    """
    from m3connect import transfer

    with ends.open_source() as source, ends.open_target() as target, progress_bar() as progress:
        report = transfer.verify(source, target, samples=samples, seed=seed, progress=progress)
    if printed.as_json:
        typer.echo(json.dumps(asdict(report) | {"equal": report.equal}, ensure_ascii=False))
    else:
        typer.echo(f"records: {report.source_count} and {report.target_count}")
        for name in ("missing", "superfluous", "payloads_differ", "vectors_differ"):
            ids = getattr(report, name)
            examples = (
                f": {visible(', '.join(ids[:5]))}{' ...' if len(ids) > 5 else ''}" if ids else ""
            )
            typer.echo(f"{name.replace('_', ' ')}: {len(ids)}{examples}")
        shares = ", ".join(f"{mode} {share:.3f}" for mode, share in report.overlap.items())
        typer.echo(f"overlap of the top 10 over {report.queries} queries: {shares or '-'}")
        typer.echo("equal" if report.equal else "DIFFERENT")
    if not report.equal:
        raise typer.Exit(1)
