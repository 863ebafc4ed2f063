"""Ray Data: encode on a pool of actors and write from many workers, into one collection.

    sink = Sink("qdrant", "handbook", url="http://qdrant:6333")
    report = write(ray.data.read_parquet("s3://bucket/docs/"), sink)

cuts, encodes and writes in each task. With GPUs encoding is a stage of its own, so that a model is
loaded once an actor and the database never waits for it::

    passages = encode(dataset, sink, workers=4, num_gpus=1)
    report = write(passages, sink)

Needs ``pip install "m3connect[ray]"``. Ray repeats what a lost worker was doing: that changes
nothing, because ids come from the documents. It does so for ever, unless told otherwise; so these
functions set the number of attempts.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

try:
    from ray.data import ActorPoolStrategy, Dataset, Datasink
    from ray.data.block import BlockAccessor
    from ray.data.datasource import WriteResult
    from ray.exceptions import RayActorError, WorkerCrashedError
except ImportError as error:
    from m3connect.errors import ConfigError

    raise ConfigError(f'Ray is missing ({error}): pip install "m3connect[ray]"') from error

from m3connect.ingestion.report import IngestReport
from m3connect.integrations.arrow import Sink, in_groups, worker_died, write_all

ATTEMPTS = 3
MIN_BYTES = 256 * 1024  # of one write: some 60,000 tokens of text


class M3Datasink(Datasink[IngestReport]):
    """Where :meth:`ray.data.Dataset.write_datasink` writes; :func:`write` sets what Ray wants besides.

    Args:
        sink: the collection; takes documents, and passages of :func:`encode`.
        min_bytes: what a task gets at least; fewer make more tasks.
    """

    def __init__(self, sink: Sink, *, min_bytes: int = MIN_BYTES) -> None:
        self.sink = sink
        self.report: IngestReport | None = None
        self._min_bytes = min_bytes

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        """Make the collection before the workers start, or see that it fits."""
        if isinstance(schema, pa.Schema):
            with self.sink as sink:
                sink.ensure(schema)

    def write(self, blocks: Iterable[Any], ctx: object) -> IngestReport:
        """One task's blocks, acknowledged by the database when this returns."""
        del ctx
        tables = (BlockAccessor.for_block(block).to_arrow() for block in blocks)
        return write_all(self.sink, tables)

    def on_write_complete(self, write_result: WriteResult[IngestReport]) -> None:
        """Sum up what the tasks did; ``seconds`` are theirs together."""
        self.report = IngestReport.total(write_result.write_returns)

    @property
    def min_bytes_per_write(self) -> int:
        """What a task gets at least."""
        return self._min_bytes


class Encode:
    """A stage of :meth:`ray.data.Dataset.map_batches`: documents in, passages out.

    Args:
        sink: whose encoder and options are used; nothing is written.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def __call__(self, documents: pa.Table) -> Iterator[pa.Table]:
        """Passages, of whole documents and little enough at a time that Ray parts none of them."""
        for group in in_groups(documents, self.sink.fields.text):
            yield self.sink.encode(group)


def encode(
    dataset: Dataset,
    sink: Sink,
    *,
    workers: int = 1,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    batch_size: int = 256,
    attempts: int = ATTEMPTS,
) -> Dataset:
    """Passages of documents, encoded by a pool of actors that load the model once each.

    Args:
        dataset: documents, a row each.
        sink: whose encoder and options are used.
        workers: actors.
        num_cpus, num_gpus: of each; a model on a GPU needs ``num_gpus``.
        batch_size: documents that an actor gets at once.
        attempts: at one batch, before a worker that dies again and again ends the run.
    """
    with warnings.catch_warnings():
        # Deprecated from 2.60 on, with no other way to say how often an actor may die.
        warnings.filterwarnings("ignore", ".*ray_remote_args.*")
        return dataset.map_batches(
            Encode,
            fn_constructor_args=(sink,),
            batch_format="pyarrow",
            batch_size=batch_size,
            compute=ActorPoolStrategy(size=workers),
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            max_restarts=attempts - 1,
            max_task_retries=attempts - 1,
        )


def write(
    dataset: Dataset,
    sink: Sink,
    *,
    num_cpus: float = 1,
    num_gpus: float | None = None,
    concurrency: int | None = None,
    min_bytes: int = MIN_BYTES,
    attempts: int = ATTEMPTS,
) -> IngestReport:
    """Write a dataset and wait for it.

    Args:
        dataset: documents, a row each, or passages of :func:`encode`.
        sink: the collection.
        num_cpus, num_gpus: of each task.
        concurrency: most tasks at once; default what the cluster has room for.
        min_bytes: what a task gets at least.
        attempts: at one block, before a worker that dies again and again ends the run.

    Raises:
        PermanentError: a worker died at the same block each time.
        M3ConnectError: what a worker raised, as :meth:`Sink.write` does.
    """
    started = time.perf_counter()
    datasink = M3Datasink(sink, min_bytes=min_bytes)
    try:
        dataset.write_datasink(
            datasink,
            ray_remote_args={
                "num_cpus": num_cpus,
                "num_gpus": num_gpus,
                "max_retries": attempts - 1,
            },
            concurrency=concurrency,
        )
    except (WorkerCrashedError, RayActorError) as error:
        raise worker_died(sink, f"{attempts} times") from error
    report = datasink.report
    assert report is not None
    return IngestReport.total([report], time.perf_counter() - started)
