"""Several devices: a process for each, and batches handed out as they become free.

    encoder = M3Encoder.load("m3-mini", device="cpu:4")
    encoder = M3Encoder.load("BAAI/bge-m3", device="cuda:0,cuda:1")

Each worker holds one batch in work and one in reserve, and no more results are kept than
``_AHEAD`` for each. The end of a worker ends its connection, which is seen at once: the others do its
batches, unless a batch has ended two of them. What a worker raises is raised here.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from multiprocessing.connection import Connection, wait
from typing import Any

from m3connect.errors import ConfigError, M3ConnectError
from m3connect.inference.backend import Outputs
from m3connect.inference.precision import cpu_cores, cpu_count
from m3connect.inference.worker import Batch, Done, Failed, Job, Ready
from m3connect.model.checkpoint import Checkpoint
from m3connect.model.tokenize import TokenIds
from m3connect.types import Leg

_IN_HAND = 2
"""Batches that a worker has: in work and in reserve."""
_AHEAD = 4
"""Batches for each worker that are handed out or done, and not yet returned."""
_DEADLY = 2
"""Workers that may end with one and the same batch."""
_PATIENCE = 5.0  # seconds until a worker that should end is ended

_log = logging.getLogger(__name__)


class Workers:
    """A :class:`m3connect.inference.backend.Backend` of several processes.

    They end with :meth:`close`, with this object or with this process, even if it is killed. One
    call runs at a time; calls of other threads wait.

    Args:
        checkpoint, backend, dtype: see :func:`m3connect.inference.opening.open_backend`.
        device: what was asked for.
        names: the devices, one for each worker.
        threads: of each worker; None divides the CPU's cores among CPU workers, each keeping to
            its own.

    Raises:
        ConfigError: a device or a precision is not possible, or differs between workers.
        CheckpointError: a file is missing, broken or misshapen.
        M3ConnectError: a worker did not start.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        backend: str,
        device: str,
        names: Sequence[str],
        dtype: str,
        threads: int | None,
    ) -> None:
        if os.name != "posix":
            raise ConfigError(f"device {device!r}: several devices need Linux or macOS")
        _check_count(device, names.count("cpu"))
        self.device = device
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._numbers = count()
        cores = _cores(names)
        self._workers: list[_Worker] = []
        # Ends them with this object, and before the interpreter ends.
        self._finalizer = weakref.finalize(self, _stop, self._workers)
        try:
            for name, own in zip(names, cores, strict=True):
                own_threads = threads or len(own) or (1 if name == "cpu" else None)
                job = Job(checkpoint, backend, name, dtype, own_threads, own)
                self._workers.append(_Worker(job))
            ready = [worker.ready() for worker in self._workers]
        except BaseException:
            self.close()
            raise
        self.name, self.choice = ready[0].name, ready[0].choice
        self.batch_tokens = min(each.batch_tokens for each in ready)
        self.pads = any(each.pads for each in ready)
        if len({each.choice.precision for each in ready}) > 1:
            self.close()
            raise ConfigError(
                f"device {device!r}: these devices compute in different precisions, "
                f"{', '.join(each.choice.precision for each in ready)}; choose one with --dtype"
            )

    @property
    def at_once(self) -> int:
        """See :class:`m3connect.inference.backend.Backend`."""
        return max(1, len(self._workers))

    @property
    def pids(self) -> list[int]:
        """The processes that are left."""
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """End the workers; what is called afterwards fails."""
        self._finalizer()

    def run(self, texts: TokenIds, legs: Sequence[Leg]) -> Outputs:
        """See :class:`m3connect.inference.backend.Backend`."""
        return next(self.run_all([texts], legs))

    def run_all(self, batches: Iterable[TokenIds], legs: Sequence[Leg]) -> Iterator[Outputs]:
        """See :class:`m3connect.inference.backend.Backend`.

        Raises:
            ConfigError: this process was forked from the one that has the workers.
            M3ConnectError: a worker raised, or no worker is left.
        """
        if os.getpid() != self._owner:
            raise ConfigError(
                "this encoder's workers belong to the process that this one was forked from: load "
                "the encoder after forking, or start processes with the method spawn"
            )
        with self._lock:
            try:
                yield from _Call(self._workers, self._numbers, batches, legs).results()
            except KeyboardInterrupt:  # perhaps in the middle of an answer
                self.close()
                raise


class _Worker:
    """A process, its connection and the batches that it has."""

    def __init__(self, job: Job) -> None:
        self.device = job.device
        self.in_hand: dict[int, Batch] = {}
        ours, theirs = socket.socketpair()
        # Not multiprocessing's "spawn", which runs the user's program again if it is a script
        # without a guard. Modules are looked for where this process looks for them.
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from m3connect.inference.worker import serve; serve({theirs.fileno()})"
        )
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.connection = Connection(ours.detach())
        self.connection.send(job)

    def ready(self) -> Ready:
        """Wait until it has loaded.

        Raises:
            M3ConnectError: it could not, or ended.
        """
        try:
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise M3ConnectError(
                f"the worker on {self.device} {self.end()} as it started"
            ) from error
        if isinstance(answer, Failed):
            raise _raised(self.device, answer)
        assert isinstance(answer, Ready)
        return answer

    def end(self) -> str:
        """End it if it has not ended; how it ended."""
        self.connection.close()
        try:
            code = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


class _Call:
    """One call's batches: waiting, in hand, done."""

    def __init__(
        self,
        workers: list[_Worker],
        numbers: Iterator[int],
        batches: Iterable[TokenIds],
        legs: Sequence[Leg],
    ) -> None:
        self.workers = workers
        self.source = (
            Batch(number, texts, legs) for number, texts in zip(numbers, batches, strict=False)
        )
        self.again: deque[Batch] = deque()
        self.order: deque[int] = deque()
        self.done: dict[int, Outputs] = {}
        self.deaths: dict[int, int] = {}

    def results(self) -> Iterator[Outputs]:
        """Each batch's outputs, in order."""
        while True:
            if not self.workers:
                raise M3ConnectError("no worker is left: load the encoder again")
            more = self._hand_out()
            while self.order and self.order[0] in self.done:
                yield self.done.pop(self.order.popleft())
            if not self.order and not more:
                return
            # Where nothing of this call is in hand, workers may be busy with one that was given up.
            if self.order or all(len(one.in_hand) >= _IN_HAND for one in self.workers):
                self._take()

    def _hand_out(self) -> bool:
        """Give batches to who is free, the least busy first; whether there may be more."""
        while len(self.order) < _AHEAD * len(self.workers) or self.again:
            worker = min(self.workers, key=lambda one: len(one.in_hand))
            if len(worker.in_hand) >= _IN_HAND:
                return True
            batch = self.again.popleft() if self.again else next(self.source, None)
            if batch is None:
                return False
            if batch.number not in self.deaths:
                self.order.append(batch.number)
            worker.in_hand[batch.number] = batch
            try:
                worker.connection.send(batch)
            except OSError:
                self._bury(worker)
        return True

    def _take(self) -> None:
        """Wait for results, or for the end of a worker."""
        by_connection: dict[Any, _Worker] = {worker.connection: worker for worker in self.workers}
        for connection in wait(list(by_connection)):
            worker = by_connection[connection]
            try:
                answer: Done | Failed = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            assert answer.number is not None
            del worker.in_hand[answer.number]
            if answer.number not in self.order:
                continue  # of a call that was given up
            if isinstance(answer, Failed):
                raise _raised(worker.device, answer)
            self.done[answer.number] = answer.outputs

    def _bury(self, worker: _Worker) -> None:
        """Let the others do what a worker leaves behind."""
        self.workers.remove(worker)
        how = worker.end()
        for number, batch in worker.in_hand.items():
            if number not in self.order:
                continue
            self.deaths[number] = self.deaths.get(number, 0) + 1
            if self.deaths[number] >= _DEADLY or not self.workers:
                raise M3ConnectError(
                    f"the worker on {worker.device} {how} with {len(batch.texts)} texts of up to "
                    f"{batch.texts.lengths.max()} tokens in hand, and {len(self.workers)} are left; if "
                    "memory ran out, take fewer workers or a smaller --batch-tokens"
                )
            self.again.append(batch)
        _log.warning("the worker on %s %s; %d are left", worker.device, how, len(self.workers))


def _raised(device: str, failed: Failed) -> M3ConnectError:
    """What a worker raised, to be raised here."""
    if failed.error is not None:
        return failed.error
    return M3ConnectError(f"the worker on {device} failed:\n{failed.trace}")


def _check_count(device: str, workers: int) -> None:
    """Warn of more CPU workers than cores: each takes memory, and none makes the others faster."""
    cores = cpu_count()
    if workers > cores:
        _log.warning(
            "device %r: %d CPU workers for %d cores; more than cpu:%d only takes memory",
            device,
            workers,
            cores,
            cores,
        )


def _cores(names: Sequence[str]) -> list[frozenset[int]]:
    """The cores of each worker: equal shares of those that there are, none where that is not known."""
    workers = names.count("cpu")
    cores = cpu_cores()
    share = len(cores) // workers if workers else 0
    parts = iter(
        frozenset(cores[worker * share : (worker + 1) * share]) for worker in range(workers)
    )
    return [next(parts) if name == "cpu" else frozenset() for name in names]


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()
    while workers:
        workers.pop().end()
