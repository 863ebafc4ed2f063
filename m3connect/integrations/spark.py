"""Spark: a data source that writes into one collection, in batches or from a stream.

    report = write(spark.read.parquet("s3://bucket/docs/"), Sink("qdrant", "handbook", url=...))

    spark.dataSource.register(source(sink))
    stream.writeStream.format("m3connect").option("checkpointLocation", ...).start()

    spark.dataSource.register(M3DataSource)  # for those who write SQL or have no Sink
    frame.write.format("m3connect").mode("append").options(target="qdrant", collection="handbook")

Each task cuts, encodes and writes its rows, with as many threads as it has cores (``spark.task.cpus``).
With :func:`encode` that is a stage of its own, whose passages may be kept in a table and written many
times. Spark repeats tasks that failed: that changes nothing, because ids come from the documents.

Needs ``pip install "m3connect[spark]"``, and Java 17 or newer.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from m3connect.connecting.registry import taking_text, text_options
from m3connect.errors import ConfigError
from m3connect.ingestion.report import IngestReport
from m3connect.integrations.arrow import Sink, worker_died, write_all

try:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException
    from pyspark.sql import DataFrame
    from pyspark.sql.datasource import (
        DataSource,
        DataSourceArrowWriter,
        DataSourceStreamArrowWriter,
        WriterCommitMessage,
    )
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
    from pyspark.sql.types import StructType
except ImportError as error:
    raise ConfigError(f'Spark is missing ({error}): pip install "m3connect[spark]"') from error

log = logging.getLogger(__name__)

NAME = "m3connect"
_LISTS = {"metadata_fields", "context", "legs"}  # with commas


@dataclass(frozen=True)
class Written(WriterCommitMessage):
    """What a task tells the driver."""

    report: IngestReport


class _Writer(DataSourceArrowWriter, DataSourceStreamArrowWriter):
    """Writes the batches of a task; a batch of rows and a micro-batch of a stream alike."""

    def __init__(self, sink: Sink, report: str | None) -> None:
        self.sink = sink
        self.report = report

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Written:
        """Acknowledged by the database when this returns."""
        return Written(write_all(self.sink, iterator))

    def commit(self, messages: Sequence[WriterCommitMessage | None], batchId: int = 0) -> None:  # noqa: N803 - Spark's name
        """On the driver, when all tasks have written."""
        total = IngestReport.total(each.report for each in messages if isinstance(each, Written))
        log.info("batch %s: %s", batchId, total)
        if self.report is not None:
            Path(self.report).write_text(json.dumps(total.to_json()), encoding="utf-8")

    def abort(self, messages: Sequence[WriterCommitMessage | None], batchId: int = 0) -> None:  # noqa: N803 - Spark's name
        """What was written stays: the next run skips it."""
        done = sum(each is not None for each in messages)
        log.warning("batch %s failed; %s tasks had written: run it again", batchId, done)


class M3DataSource(DataSource):
    """Options: ``target``, ``collection``, those of :class:`Sink` and, for all other names, the connector's.

    Lists have commas, and ``none`` is an empty one; ``chunk_tokens``, ``index_fields`` and the like
    are JSON. ``report`` names a file for the counts, in JSON.
    """

    sink: Sink | None = None
    ensured = False

    @classmethod
    def name(cls) -> str:
        """What ``format`` takes."""
        return NAME

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceArrowWriter:
        """For batches.

        Raises:
            ConfigError: a bad option, or a mode that would throw a collection away.
        """
        return self._writer(schema, overwrite=overwrite)

    def streamWriter(self, schema: StructType, overwrite: bool) -> DataSourceStreamArrowWriter:  # noqa: N802 - Spark's name
        """For streams.

        Raises:
            ConfigError: a bad option, or a mode that would throw a collection away.
        """
        return self._writer(schema, overwrite=overwrite)

    def _writer(self, schema: StructType, *, overwrite: bool) -> _Writer:
        if overwrite:
            raise ConfigError(
                'use mode "append": documents are replaced by their ids, and a collection is never '
                "thrown away"
            )
        options = dict(self.options)
        report = options.pop("report", None)
        sink = self.sink or sink_of(options)
        if not self.ensured:
            with sink:
                sink.ensure(to_arrow_schema(schema))
        return _Writer(sink, report)


def source(sink: Sink, *, ensured: bool = False) -> type[M3DataSource]:
    """The data source of one sink, to be registered: ``spark.dataSource.register(source(sink))``.

    Args:
        sink: the collection.
        ensured: whether it exists and fits already.
    """
    return type("M3SinkSource", (M3DataSource,), {"sink": sink, "ensured": ensured})


def sink_of(options: Mapping[str, str]) -> Sink:
    """A sink from options that are all text.

    Raises:
        ConfigError: one is missing, or is no JSON where that is asked for.
    """
    rest: dict[str, Any] = dict(options)
    try:
        target, collection = rest.pop("target"), rest.pop("collection")
    except KeyError as error:
        raise ConfigError(f"the option {error} is missing") from error
    for name in _LISTS & rest.keys():
        given = rest[name]
        rest[name] = [] if given == "none" else [part.strip() for part in given.split(",")]
    for name in rest.keys() - _LISTS - taking_text(Sink) - text_options(target):
        try:
            rest[name] = json.loads(rest[name])
        except ValueError as error:
            raise ConfigError(f"the option {name!r} is no JSON: {error}") from error
    return Sink(target, collection, **rest)


def write(frame: DataFrame, sink: Sink) -> IngestReport:
    """Write a frame and wait for it.

    Args:
        frame: documents, a row each, or passages of :func:`encode`.
        sink: the collection.

    Raises:
        FingerprintMismatch, SchemaMismatch: the collection is another model's or another kind.
        PermanentError: a worker died at the same rows each time.
        PySparkException, Py4JJavaError: all else; what a worker raised is in the message.
    """
    started = time.perf_counter()
    with sink:
        sink.ensure(to_arrow_schema(frame.schema))
    frame.sparkSession.dataSource.register(source(sink, ensured=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.json")
        writing = frame.write.format(NAME).mode("append").option("report", str(path))
        try:
            writing.save()
        except (PySparkException, Py4JJavaError) as error:
            if "Python worker exited unexpectedly" not in str(error):
                raise
            raise worker_died(sink, "as often as spark.task.maxFailures allows") from error
        written = IngestReport(**json.loads(path.read_text(encoding="utf-8")))
    return IngestReport.total([written], time.perf_counter() - started)


def encode(frame: DataFrame, sink: Sink) -> DataFrame:
    """Passages of documents, in types that Spark has; to be kept, or written by :func:`write`.

    Args:
        frame: documents, a row each.
        sink: whose encoder and options are used; it needs the encoder again when it writes.

    Raises:
        ConfigError: a column or an encoder is missing, or a bad option.
    """
    none = to_arrow_schema(frame.schema).empty_table()
    schema = from_arrow_schema(sink.encode(none, portable=True).schema)

    def passages(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from sink.encode(batch, portable=True).replace_schema_metadata(None).to_batches()

    return frame.mapInArrow(passages, schema)
