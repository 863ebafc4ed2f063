"""Parquet row group by row group, so that a damaged one costs its own rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from m3connect.conversion.converter import explain


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Rows that a file has and that cannot be read.

    Args:
        rows: how many.
        reason: why not.
    """

    rows: int
    reason: str


def read_batches(
    stream: IO[bytes], size: int, metadata: pq.FileMetaData | None = None
) -> Iterator[pa.RecordBatch | Unreadable]:
    """The rows of a file in order; page checksums are verified where the file has them.

    Args:
        stream: the file.
        size: rows at a time.
        metadata: its footer, if that was read before.

    Raises:
        OSError or pyarrow.ArrowException: the footer cannot be read.
    """
    file = pq.ParquetFile(stream, metadata=metadata, page_checksum_verification=True)
    for group in range(file.num_row_groups):
        left = file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(size, row_groups=[group]):
                left -= len(batch)
                yield batch
        except (OSError, pa.ArrowException) as error:
            yield Unreadable(left, f"{left} rows cannot be read: {explain(error)}")
