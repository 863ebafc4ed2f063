"""One function an engine: all rows of a table into a sink. Also a program, to be killed."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from m3connect.ingestion.report import IngestReport
from m3connect.integrations.arrow import Sink

ROOT = Path(__file__).parents[2]
ROWS = 10  # of one task


def parts(table: pa.Table) -> list[pa.Table]:
    """The table in pieces, each of which is a task."""
    return [table.slice(start, ROWS) for start in range(0, len(table), ROWS)]


def ray(table: pa.Table, sink: Sink, folder: Path) -> IngestReport:
    """Documents to the sink in each task."""
    from ray.data import from_arrow

    from m3connect.integrations.ray import write

    return write(from_arrow(parts(table)), sink, min_bytes=1)


def ray_stages(table: pa.Table, sink: Sink, folder: Path) -> IngestReport:
    """A pool of actors encodes, other tasks write."""
    from ray.data import from_arrow

    from m3connect.integrations.ray import encode, write

    passages = encode(from_arrow(parts(table)), sink, num_cpus=0.5)
    return write(passages, sink, num_cpus=0.5, min_bytes=1)


def _frame(table: pa.Table):
    from pyspark.sql import SparkSession

    spark = SparkSession.active()
    return spark.createDataFrame(table).repartition(3, "id")


def spark(table: pa.Table, sink: Sink, folder: Path) -> IngestReport:
    """Documents to the sink in each task."""
    from m3connect.integrations.spark import write

    return write(_frame(table), sink)


def spark_stages(table: pa.Table, sink: Sink, folder: Path) -> IngestReport:
    """Passages in a table of Spark's, then into the sink."""
    from pyspark.sql.functions import regexp_replace

    from m3connect.integrations.spark import encode, write

    path = str(folder / "passages.parquet")
    encode(_frame(table), sink).write.mode("overwrite").parquet(path)
    passages = _frame(table).sparkSession.read.parquet(path)
    return write(passages.repartition(3, regexp_replace("id", r"#\d+$", "")), sink)


def spark_stream(table: pa.Table, sink: Sink, folder: Path) -> IngestReport:
    """Files as a stream, in micro-batches."""
    from pyspark.sql import SparkSession

    from m3connect.integrations.spark import source

    spark = SparkSession.active()
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for number, part in enumerate(parts(table)):
        pq.write_table(part, files / f"{number}.parquet")
    schema = spark.read.parquet(str(files)).schema
    stream = spark.readStream.schema(schema).option("maxFilesPerTrigger", 4).parquet(str(files))
    spark.dataSource.register(source(sink))
    writing = stream.writeStream.format("m3connect").trigger(availableNow=True)
    writing.option("checkpointLocation", str(folder / "checkpoint")).start().awaitTermination()
    return IngestReport(read=len(table), written=len(table))


def daft(table: pa.Table, sink: Sink, folder: Path) -> IngestReport:
    """Documents to the sink, in partitions."""
    import daft

    from m3connect.integrations.daft import M3DataSink

    frame = daft.from_arrow(table).into_batches(ROWS)
    return IngestReport(**frame.write_sink(M3DataSink(sink)).to_pylist()[0])


def dlt(table: pa.Table, sink: Sink, folder: Path) -> IngestReport:
    """A resource to the destination; a pipeline that was killed goes on where it was."""
    import dlt

    from m3connect.integrations.dlt import destination

    resource = dlt.resource(table.to_pylist(), name="articles")
    pipeline = dlt.pipeline(
        "m3connect_test",
        pipelines_dir=str(folder / "dlt"),
        destination=destination(sink, rows=ROWS),
    )
    pipeline.run(resource)
    return IngestReport(read=len(table), written=len(table))


@contextmanager
def running(engine: str) -> Iterator[None]:
    """What an engine needs around it, with two cores."""
    if engine.startswith("ray"):
        import ray

        from m3connect.integrations import ray_files

        ray_files.start(
            partial(
                ray.init,
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=200_000_000,
                log_to_driver=False,
            )
        )
        yield
        ray.shutdown()
    elif engine.startswith("spark"):
        from pyspark.sql import SparkSession

        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else it is the PATH's python3
        builder = SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false")
        session = builder.config("spark.sql.shuffle.partitions", "3").getOrCreate()
        yield
        session.stop()
    else:
        yield


if __name__ == "__main__":
    name, where = sys.argv[1], Path(sys.argv[2])
    given = pickle.loads((where / "sink").read_bytes())
    with running(name):
        globals()[name](pq.read_table(where / "table.parquet"), given, where)
