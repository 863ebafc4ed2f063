"""dlt: a destination for any source that dlt reads.

    pipeline = dlt.pipeline("handbook", destination=destination(Sink("qdrant", "handbook", url=...)))
    pipeline.run(sql_table(table="articles").add_map(...))

Needs ``pip install "m3connect[dlt]"``.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from m3connect.errors import ConfigError
from m3connect.integrations.arrow import Sink

try:
    import dlt
    from dlt.common.destination import Destination
except ImportError as error:
    raise ConfigError(f'dlt is missing ({error}): pip install "m3connect[dlt]"') from error


def destination(sink: Sink, *, rows: int = 1000, name: str = "m3connect") -> Destination[Any, Any]:
    """A destination that writes rows as documents; nested values stay in their document.

    Args:
        sink: the collection. All tables of a source go into it: give it one, or choose with
            ``source.with_resources``.
        rows: of one call, which dlt repeats as a whole after a failure.
        name: under which dlt keeps what it knows of this destination.
    """

    @dlt.destination(
        name=name, batch_size=rows, loader_file_format="parquet", max_parallel_load_jobs=1
    )
    def m3connect(items: pa.RecordBatch, table: dict[str, Any]) -> None:
        del table
        with sink:
            sink.write(items)

    return m3connect()
