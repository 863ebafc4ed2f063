"""Files spread over the workers of a Ray cluster: what ``m3connect ingest --engine ray`` runs.

Each task reads, cuts, encodes and writes some of the files, as one process does with all of them; the
process that started the run makes the collection, counts, and prunes at the end. A task whose worker
died is repeated: what it had written is then unchanged.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

try:
    import ray
    from ray.exceptions import RayTaskError, WorkerCrashedError
except ImportError as error:
    from m3connect.errors import ConfigError

    raise ConfigError(f'Ray is missing ({error}): pip install "m3connect[ray]"') from error

from m3connect.contract import Connector
from m3connect.errors import ConfigError, M3ConnectError, PermanentError
from m3connect.ingestion.documents import DocumentSource
from m3connect.ingestion.encoded import EncodedSource
from m3connect.ingestion.files import STDIN, SourceFile
from m3connect.ingestion.formats import RECORDS
from m3connect.ingestion.losses import Loss, ignore
from m3connect.ingestion.pipeline import ingest_part
from m3connect.ingestion.report import Part
from m3connect.ingestion.selection import Remarks
from m3connect.integrations.arrow import load_encoder
from m3connect.model.hub import bundled
from m3connect.types import Leg

log = logging.getLogger(__name__)

ATTEMPTS = 3
STARTS = 3  # of a cluster here: Ray gives its processes 30 s, and a busy machine takes longer
ANSWER_SECONDS = 5.0
LAST_SECONDS = 30.0  # that tasks have to end when the run is over
PAGES = 32  # files of a document each that make one task; a file of records is one by itself


@dataclass(frozen=True)
class Work:
    """What every worker is told; it has to be picklable.

    Args:
        open_source: of files, an encoder and ``remarks``: as
            :func:`m3connect.ingestion.open_source`, which other options are bound to.
        connect: opens the collection.
        model: its name.
        model_options: of :meth:`m3connect.M3Encoder.load`.
        legs: the representations to store.
        take_over, patience: as in :func:`m3connect.ingest`.
    """

    open_source: Callable[..., DocumentSource | EncodedSource]
    connect: Callable[[], Connector]
    model: str
    model_options: Mapping[str, Any]
    legs: Sequence[Leg]
    take_over: bool = False
    patience: float = 0.0

    def __call__(self, files: Sequence[SourceFile]) -> tuple[Part, Remarks]:
        """One task: some of the files."""
        losses: list[Loss] = []
        remarks = Remarks(lost=losses.append)
        encoder = load_encoder(self.model, self.model_options)
        source = self.open_source(files, encoder, remarks=remarks)
        if not isinstance(source, DocumentSource):
            names = ", ".join(file.name for file in files)
            raise ConfigError(f"{names}: replaced by embeddings during the run; ingest them apart")
        with self.connect() as connector:
            part = ingest_part(
                source,
                connector,
                self.legs,
                losses,
                take_over=self.take_over,
                tenant_field=connector.describe().schema.tenant_field,
                patience=self.patience,
            )
        return part, replace(remarks, lost=ignore)


def spread(
    opened: DocumentSource | EncodedSource,
    files: Sequence[SourceFile],
    work: Work,
    remarks: Remarks,
    *,
    address: str | None = None,
) -> DocumentSource:
    """A source whose documents workers write; for :func:`m3connect.ingest`.

    Args:
        opened: the source as one process would read it.
        files: of the source; every worker must reach them under these paths.
        work: what is done with them.
        remarks: counts what reading leaves out or guesses.
        address: of the cluster; None for one on this machine, or that RAY_ADDRESS names.

    Raises:
        ConfigError: the database or the source is of this process alone, or no cluster answers.
        PermanentError: a worker died at the same files each time; names them.
        M3ConnectError: what a worker raised.
    """
    if not isinstance(opened, DocumentSource):
        raise ConfigError("these are embeddings, which one process stores as fast: no --engine ray")
    if any(file.path == STDIN for file in files):
        raise ConfigError("standard input cannot be read by workers; give files")
    with work.connect() as connector:
        if connector.capabilities.embedded:
            raise ConfigError(
                f"{connector.name} is embedded here, which one process uses at a time; workers need a "
                "server (--url)"
            )
        name = connector.name
    if not ray.is_initialized():
        _require_answer(address)
    work = replace(work, model=_everywhere(work.model))
    return replace(opened, parts=_parts(files, work, remarks, address, name))


def _everywhere(model: str) -> str:
    """A folder's whole path: a cluster's workers were started in another one."""
    folder = Path(model).expanduser()
    return str(folder.absolute()) if model not in bundled() and folder.is_dir() else model


def _parts(
    files: Sequence[SourceFile], work: Work, remarks: Remarks, address: str | None, connector: str
) -> Iterator[Part]:
    """What the tasks did, as they end."""
    # What workers and Ray say would come out on stdout, which is for the command's result.
    with redirect_stdout(sys.stderr), _cluster(address):
        run = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_run)
        told = ray.put(work)
        waiting = {run.remote(told, group): group for group in groups(files)}
        try:
            while waiting:
                (done, *_), _ = ray.wait(list(waiting))
                part, others = _result(done, waiting.pop(done), connector)
                remarks.add(others)
                yield part
        finally:  # after Ctrl-C or an error: those that run write what they have encoded
            for task in waiting:
                ray.cancel(task)
            ray.wait(list(waiting), num_returns=len(waiting) or 1, timeout=LAST_SECONDS)


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """The one that is connected, or one for the time of the run."""
    if ray.is_initialized():
        yield
        return
    joined = partial(ray.init, address, include_dashboard=False, logging_level="WARNING")
    try:
        start(joined) if address in {None, "local"} else joined()
    except Exception as error:  # Ray's have no base, and some are no more than this
        # Such as another version of Ray or of Python there, or a missing token: the cause says it.
        why = str(error.__cause__ or error).strip().rpartition("\n")[2]
        raise ConfigError(f"{_called(address)} cannot be joined: {why}") from error
    try:
        yield
    finally:
        ray.shutdown()


def start(begin: Callable[[], object]) -> None:
    """Start Ray on this machine, again where its processes were not there in time.

    Those of a failed start end with this process. What fails for another reason is not repeated.

    Args:
        begin: such as ``ray.init``.

    Raises:
        Exception: what Ray raised, of a timeout the last one's.
    """
    for left in reversed(range(STARTS)):
        try:
            begin()
        except Exception as error:  # Ray's are no more than this: only their words say what it was
            if "timed out" not in str(error).lower() or not left:
                raise
            log.warning("Ray did not start in time; trying again: %s", error)
        else:
            return


def _require_answer(address: str | None) -> None:
    """Something listens there: where nothing does, Ray waits for minutes, or ends the process."""
    if address in {None, "auto"}:
        address = os.environ.get("RAY_ADDRESS", "")
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        if place.hostname is None or place.port is None:  # auto, local
            return
        socket.create_connection((place.hostname, place.port), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{_called(address)} does not answer: {error}. ray start --head prints the address of a "
            "cluster (host:6379); from outside of it, it is ray://host:10001"
        ) from error


def _called(address: str | None) -> str:
    return f"the Ray cluster at {address}" if address else "Ray"


def groups(files: Sequence[SourceFile]) -> list[list[SourceFile]]:
    """Files of a task each: one of records, or some of a document."""
    pages = [file for file in files if file.suffix not in RECORDS]
    alone = [[file] for file in files if file.suffix in RECORDS]
    return [*alone, *(pages[start : start + PAGES] for start in range(0, len(pages), PAGES))]


def _run(work: Work, files: Sequence[SourceFile]) -> tuple[Part, Remarks]:
    return work(files)


def _result(task: Any, files: Sequence[SourceFile], connector: str) -> tuple[Part, Remarks]:
    try:
        done: tuple[Part, Remarks] = ray.get(task)
    except WorkerCrashedError as error:
        names = ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")
        raise PermanentError(
            f"a worker died {ATTEMPTS} times at {names}; Ray's log says how (most often: out of "
            "memory). What others wrote is in: run again without these files, or with less at once "
            "(--batch-tokens)",
            connector=connector,
            operation="ingest",
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, M3ConnectError):  # as it was raised, without Ray's traceback
            raise error.cause from error
        raise
    return done
