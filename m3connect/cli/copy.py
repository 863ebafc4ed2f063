"""``m3connect copy`` and ``m3connect verify``: move a collection, and prove that it arrived."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from m3connect.cli import options
from m3connect.cli.options import Collection, Json
from m3connect.cli.progress import progress_bar

From = Annotated[
    str, typer.Option("--from", help="Source: qdrant, milvus, elasticsearch or parquet.")
]
To = Annotated[str, typer.Option("--to", help="Target, likewise.")]
FromUrl = Annotated[str | None, typer.Option(help="Server address of the source.")]
ToUrl = Annotated[str | None, typer.Option(help="Server address of the target.")]
FromPath = Annotated[str | None, typer.Option(help="Folder or file of the source.")]
ToPath = Annotated[str | None, typer.Option(help="Folder or file of the target.")]
FromKey = Annotated[str | None, typer.Option(help="API key of the source.", show_default=False)]
ToKey = Annotated[str | None, typer.Option(help="API key of the target.", show_default=False)]
FromOption = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE for the source; repeatable.")
]
ToOption = Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the target; repeatable.")]
ToCollection = Annotated[
    str | None, typer.Option(help="Collection in the target. Default: the same name.")
]


def copy(
    *,
    source: From,
    target: To,
    collection: Collection = options.DEFAULT_COLLECTION,
    to_collection: ToCollection = None,
    from_url: FromUrl = None,
    to_url: ToUrl = None,
    from_path: FromPath = None,
    to_path: ToPath = None,
    from_api_key: FromKey = None,
    to_api_key: ToKey = None,
    from_option: FromOption = None,
    to_option: ToOption = None,
    batch_size: Annotated[int, typer.Option(help="Records read at a time.")] = 256,
    as_json: Json = False,
) -> None:
    """Copy a collection: ids, payloads, all representations, fingerprint and notes.

    Run it again after an interruption: what the target holds already is skipped.

    - `m3connect copy --from qdrant --to elasticsearch --to-url http://localhost:9200`
    - `m3connect copy --from milvus --to parquet --to-path backup.parquet`
    """
    from m3connect import transfer

    into = to_collection or collection
    with (
        options.open_connector(
            source, collection, from_url, from_path, from_api_key, from_option
        ) as one,
        options.open_connector(target, into, to_url, to_path, to_api_key, to_option) as two,
    ):
        total = one.count()
        with progress_bar() as progress:
            report = transfer.copy(
                one,
                two,
                batch_size=batch_size,
                progress=lambda done: progress("copying", done, total),
            )
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    typer.echo(
        f"read {report.read}, written {report.written}, skipped {report.skipped} "
        f"in {report.seconds:.1f} s"
    )


def verify(
    *,
    source: From,
    target: To,
    collection: Collection = options.DEFAULT_COLLECTION,
    to_collection: ToCollection = None,
    from_url: FromUrl = None,
    to_url: ToUrl = None,
    from_path: FromPath = None,
    to_path: ToPath = None,
    from_api_key: FromKey = None,
    to_api_key: ToKey = None,
    from_option: FromOption = None,
    to_option: ToOption = None,
    samples: Annotated[int, typer.Option(help="Stored records used as queries.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare two collections: counts, payloads, vectors, and the top ten of sampled queries.

    Exits with 1 when a record is missing, superfluous or different.

    - `m3connect verify --from qdrant --to elasticsearch --to-url http://localhost:9200`
    """
    from m3connect import transfer

    into = to_collection or collection
    with (
        options.open_connector(
            source, collection, from_url, from_path, from_api_key, from_option
        ) as one,
        options.open_connector(target, into, to_url, to_path, to_api_key, to_option) as two,
    ):
        report = transfer.verify(one, two, samples=samples, seed=seed)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"equal": report.equal}, ensure_ascii=False))
    else:
        typer.echo(f"records: {report.source_count} and {report.target_count}")
        for name in ("missing", "superfluous", "payloads_differ", "vectors_differ"):
            ids = getattr(report, name)
            some = f": {', '.join(ids[:5])}{' ...' if len(ids) > 5 else ''}" if ids else ""
            typer.echo(f"{name.replace('_', ' ')}: {len(ids)}{some}")
        shares = ", ".join(f"{mode} {share:.3f}" for mode, share in report.overlap.items())
        typer.echo(f"overlap of the top 10 over {report.queries} queries: {shares or '-'}")
        typer.echo("equal" if report.equal else "DIFFERENT")
    if not report.equal:
        raise typer.Exit(1)
