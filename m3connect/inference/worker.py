"""A process that runs the network on one device for ``workers.py``.

It takes batches as they come and answers each. It ends when the connection does, in the middle of a
batch if need be: whoever asked is gone, by whatever end.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue

from m3connect.errors import M3ConnectError
from m3connect.inference.backend import Backend, Outputs
from m3connect.inference.opening import open_backend
from m3connect.inference.precision import Choice
from m3connect.model.checkpoint import Checkpoint
from m3connect.model.tokenize import TokenIds
from m3connect.types import Leg


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker loads: arguments of :func:`open_backend`, and the cores that it keeps to.

    Args:
        cores: numbers of the CPU's; none leaves that to the system.
    """

    checkpoint: Checkpoint
    backend: str
    device: str
    dtype: str
    threads: int | None
    cores: frozenset[int]


@dataclass(frozen=True, slots=True)
class Ready:
    """The network is loaded.

    Args:
        name, choice, batch_tokens, pads: see :class:`m3connect.inference.backend.Backend`.
    """

    name: str
    choice: Choice
    batch_tokens: int
    pads: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Arguments of ``Backend.run``, and the number of the batch."""

    number: int
    texts: TokenIds
    legs: Sequence[Leg]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a batch."""

    number: int
    outputs: Outputs


@dataclass(frozen=True, slots=True)
class Failed:
    """It raised.

    Args:
        number: of the batch; None as it started.
        error: if it is one of ours.
        trace: where it was raised.
    """

    number: int | None
    error: M3ConnectError | None
    trace: str


def serve(descriptor: int) -> None:
    """Answer batches until the connection ends.

    Args:
        descriptor: of an open socket; the first thing that comes is a :class:`Job`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    connection = Connection(descriptor)
    try:
        backend = _load(connection)
        batches: SimpleQueue[Batch] = SimpleQueue()
        threading.Thread(target=_receive, args=(connection, batches), daemon=True).start()
        while backend is not None:
            connection.send(_answer(backend, batches.get()))
    except (EOFError, ConnectionError):
        return


def _load(connection: Connection) -> Backend | None:
    """Load what is asked for, and say so; None where that failed."""
    job: Job = connection.recv()
    try:
        if job.cores:
            os.sched_setaffinity(0, job.cores)
        backend = open_backend(job.checkpoint, job.backend, job.device, job.dtype, job.threads)
    except Exception as error:  # noqa: BLE001 - it is raised again where it was asked for
        connection.send(_failed(None, error))
        return None
    connection.send(Ready(backend.name, backend.choice, backend.batch_tokens, backend.pads))
    return backend


def _answer(backend: Backend, batch: Batch) -> Done | Failed:
    try:
        return Done(batch.number, backend.run(batch.texts, batch.legs))
    except Exception as error:  # noqa: BLE001 - it is raised again where it was asked for
        return _failed(batch.number, error)


def _failed(number: int | None, error: Exception) -> Failed:
    ours = error if isinstance(error, M3ConnectError) else None
    return Failed(number, ours, "".join(traceback.format_exception(error)))


def _receive(connection: Connection, batches: SimpleQueue[Batch]) -> None:
    """Always ready to read, so that both sides never wait for each other to read."""
    try:
        while True:
            batches.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)
