"""Many callers, few forward passes: texts that arrive within a few milliseconds share one.

    64 requests of one text  ->  queue  ->  one thread takes what is there  ->  2 or 3 passes

Who is alone does not wait: the window opens where the last pass had company. Texts that are more than a
pass takes are encoded a portion at a time, and whoever comes meanwhile has its turn between two portions.

The encoder belongs to that one thread. Callers of :meth:`BatchingEncoder.encode` wait for their
rows; what a caller gave up before its turn is not computed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

from m3connect.connecting.portions import portions
from m3connect.contract import Encoder, Kind, ModelInfo
from m3connect.errors import M3ConnectError
from m3connect.types import LEGS, Embeddings, Leg

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from m3connect.model.config import M3Config

P = ParamSpec("P")
R = TypeVar("R")
_BYTES_PER_TOKEN = 4
"""UTF-8 bytes that make about one token; only the size of a batch depends on it."""


class Busy(M3ConnectError):
    """The queue is full.

    Args:
        retry_after: seconds after which there may be room, from the rate of the last batches.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; try again in {retry_after:.1f} s")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class _Job:
    texts: Sequence[str]
    kind: Kind
    legs: tuple[Leg, ...]
    tokens: int
    embeddings: Future[Embeddings]


class Threads:
    """Threads for what blocks, with a bound to what may wait for one.

    Args:
        threads: at work at a time; most of them wait for the encoder or a database.
        waiting: beside those; more are refused.
    """

    def __init__(self, *, threads: int = 32, waiting: int = 256) -> None:
        self._pool = ThreadPoolExecutor(threads, "m3connect-service")
        self.most = threads + waiting
        self._room = threading.BoundedSemaphore(self.most)

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """A call in a thread; cancelled before its turn, it is not made.

        Raises:
            Busy: too much is waiting.
        """
        if not self._room.acquire(blocking=False):
            raise Busy(1.0)
        future = self._pool.submit(function, *args, **kwargs)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def close(self) -> None:
        """Finish what runs; what waits is not begun."""
        self._pool.shutdown(cancel_futures=True)


class BatchingEncoder:
    """An encoder that many threads may call at once; satisfies :class:`m3connect.contract.Encoder`.

    Args:
        encoder: does the work, in one thread of its own.
        window: seconds to wait for company after the first text of a batch, where the batch before
            had company.
        batch_tokens: about how many tokens one pass takes.
        queue_tokens: about how many tokens may wait; more are refused.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        window: float = 0.003,
        batch_tokens: int = 16_384,
        queue_tokens: int = 262_144,
    ) -> None:
        self._encoder = encoder
        self._window = window
        self.batch_tokens = batch_tokens
        self._queue_tokens = queue_tokens
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._rate = 2_000.0  # tokens a second, measured as batches are done
        self._changed = threading.Condition()
        self._closed = False
        self._crowded = False  # the last batch was of several callers
        self.passes = 0
        """Forward passes so far."""
        self._worker = threading.Thread(target=self._work, name="m3connect-encoder", daemon=True)
        self._worker.start()

    @property
    def info(self) -> ModelInfo:
        """What the encoder is."""
        return self._encoder.info

    @property
    def config(self) -> M3Config | None:
        """The model's description, where the encoder has one."""
        return getattr(self._encoder, "config", None)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._encoder.tokenizer

    @property
    def waiting(self) -> int:
        """About how many tokens are in the queue."""
        return self._waiting

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Embeddings:
        """Encode texts together with whatever else is waiting.

        Raises:
            Busy: too much is waiting.
            InputError: from the encoder.
        """
        made = [part.result() for part in self.portions(texts, kind=kind, legs=legs)]
        return made[0] if len(made) == 1 else Embeddings.concat(made)

    def portions(
        self, texts: Sequence[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Iterator[Future[Embeddings]]:
        """The same a portion at a time; who asks for the next one waits for the last one before.

        A portion is queued when it is asked for, behind what came meanwhile: the texts of one request keep
        no other waiting for longer than a pass, and those of one that was given up are not all encoded.

        Raises:
            Busy: too much is waiting; at first, not amid the portions.
        """
        sizes = [_tokens(text) for text in texts]
        count = max(1, len(texts))
        parts = [*portions(sizes, count=count, weight=self.batch_tokens)] or [slice(0, 0)]
        with self._changed:
            self._require_room(sum(sizes))
            first = self._queue(texts[parts[0]], sum(sizes[parts[0]]), kind, legs)
        yield first
        for part in parts[1:]:
            with self._changed:
                further = self._queue(texts[part], sum(sizes[part]), kind, legs)
            yield further

    def submit(
        self, texts: Sequence[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Future[Embeddings]:
        """The same without waiting; cancel the future to give up.

        Raises:
            Busy: too much is waiting.
        """
        tokens = sum(map(_tokens, texts))
        with self._changed:
            self._require_room(tokens)
            return self._queue(texts, tokens, kind, legs)

    def _require_room(self, tokens: int) -> None:
        """Refuse so many tokens where too many wait."""
        # A single large request is taken when nothing waits, or it could never be served.
        if self._waiting and self._waiting + tokens > self._queue_tokens:
            raise Busy(max(0.1, self._waiting / self._rate))

    def _queue(
        self, texts: Sequence[str], tokens: int, kind: Kind, legs: Sequence[Leg]
    ) -> Future[Embeddings]:
        if self._closed:
            raise Busy(1.0)
        future: Future[Embeddings] = Future()
        self._jobs.append(_Job(texts, kind, tuple(legs), tokens, future))
        self._waiting += tokens
        self._changed.notify()
        return future

    def term(self, index: int) -> str:
        """The term behind a sparse index."""
        return self._encoder.term(index)

    def tokens(self, text: str, *, kind: Kind = "passage") -> list[str]:
        """The pieces behind the rows of ``text``'s multi-vector."""
        return self._encoder.tokens(text, kind=kind)

    def close(self) -> None:
        """Finish what waits, then stop; further texts are refused."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _work(self) -> None:
        with suppress(Exception):  # without this thread nobody would be served: who asks is told
            _ = self._encoder.tokenizer  # the whole one: else it is loaded amid the first requests
        while jobs := self._next():
            started = time.perf_counter()
            for kind in ("query", "passage"):
                alike = [job for job in jobs if job.kind == kind]
                if alike:
                    self._run(alike)
            spent = max(time.perf_counter() - started, 1e-6)
            tokens = sum(job.tokens for job in jobs)
            self._rate = 0.8 * self._rate + 0.2 * tokens / spent

    def _next(self) -> list[_Job]:
        """The jobs of the next pass that somebody still waits for; none when closed and done."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return []
                if self._crowded and not self._closed:
                    self._changed.wait_for(self._is_full, timeout=self._window)
                taken: list[_Job] = []
                tokens = 0
                while self._jobs and (
                    not taken or tokens + self._jobs[0].tokens <= self.batch_tokens
                ):
                    job = self._jobs.popleft()
                    self._waiting -= job.tokens
                    if job.embeddings.set_running_or_notify_cancel():
                        taken.append(job)
                        tokens += job.tokens
                if taken:
                    self._crowded = len(taken) > 1
                    return taken

    def _is_full(self) -> bool:
        return self._closed or self._waiting >= self.batch_tokens

    def _run(self, jobs: Sequence[_Job]) -> None:
        """One pass for all; if it fails, one pass each, so that only the guilty job fails."""
        asked = {leg for job in jobs for leg in job.legs}
        legs = tuple(leg for leg in LEGS if leg in asked)
        texts = [text for job in jobs for text in job.texts]
        self.passes += 1
        try:
            embeddings = self._encoder.encode(texts, kind=jobs[0].kind, legs=legs)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
            if len(jobs) == 1:
                jobs[0].embeddings.set_exception(error)
                return
            for job in jobs:
                self._run([job])
            return
        start = 0
        for job in jobs:
            rows = embeddings[start : start + len(job.texts)]
            start += len(job.texts)
            job.embeddings.set_result(rows.only(job.legs))


def _tokens(text: str) -> int:
    return 2 + len(text.encode(errors="replace")) // _BYTES_PER_TOKEN


class QueryEncoder:
    """An encoder for one search, whose query was encoded before, in company.

    Searches of one collection take turns; encoded within its turn, a query would be alone in its pass.
    Satisfies :class:`m3connect.contract.Encoder`.

    Args:
        encoder: for everything else.
        query: the text.
        embeddings: its own, of all representations that the model makes.
    """

    def __init__(self, encoder: BatchingEncoder, query: str, embeddings: Embeddings) -> None:
        self._encoder = encoder
        self._query = query
        self._embeddings = embeddings
        self.info = encoder.info
        self.config = encoder.config
        self.term = encoder.term
        self.tokens = encoder.tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._encoder.tokenizer

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Embeddings:
        """The query's embeddings, or those of other texts."""
        if kind == "query" and list(texts) == [self._query]:
            return self._embeddings.only(legs)
        return self._encoder.encode(texts, kind=kind, legs=legs)
