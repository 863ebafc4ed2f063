"""Daft: a sink for ``DataFrame.write_sink``.

    counts = frame.write_sink(M3DataSink(Sink("qdrant", "handbook", url="http://qdrant:6333")))

Needs ``pip install "m3connect[daft]"``.
"""

from __future__ import annotations

from collections.abc import Iterator

from m3connect.errors import ConfigError
from m3connect.ingestion.report import IngestReport
from m3connect.integrations.arrow import Sink

try:
    from daft import DataType, Schema
    from daft.io import DataSink
    from daft.io.sink import WriteResult
    from daft.recordbatch import MicroPartition
except ImportError as error:
    raise ConfigError(f'Daft is missing ({error}): pip install "m3connect[daft]"') from error


class M3DataSink(DataSink[IngestReport]):
    """Writes documents, a row each, or passages of :meth:`Sink.encode`; gives one row of counts.

    Daft's own runner hands over each partition by itself, so all passages of a document have to be in
    one: ``frame.into_batches(rows)`` makes larger ones.

    Args:
        sink: the collection.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def schema(self) -> Schema:
        """The counts of an :class:`IngestReport`."""
        kinds = {int: DataType.int64(), float: DataType.float64()}
        return Schema.from_pydict(
            {name: kinds[type(n)] for name, n in _row(IngestReport()).items()}
        )

    def write(
        self, micropartitions: Iterator[MicroPartition]
    ) -> Iterator[WriteResult[IngestReport]]:
        """Each partition is acknowledged by the database before the next is taken.

        The passages of a document may be in several of them.
        """
        with self.sink as sink:
            for part in micropartitions:
                table = part.to_arrow()
                yield WriteResult(
                    sink.write(table), bytes_written=table.nbytes, rows_written=len(table)
                )

    def finalize(self, write_results: list[WriteResult[IngestReport]]) -> MicroPartition:
        """The sum; ``seconds`` are those of all workers together."""
        total = IngestReport.total(each.result for each in write_results)
        return MicroPartition.from_pydict({name: [n] for name, n in _row(total).items()})


def _row(report: IngestReport) -> dict[str, int | float]:
    return {name: count for name, count in report.to_json().items() if count is not None}
