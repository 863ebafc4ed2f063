"""What the routes work on: one encoder, and the collections that may be asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from m3connect.contract import Connector, Encoder, Reranker
from m3connect.errors import InputError
from m3connect.serving.access import Access
from m3connect.serving.batching import BatchingEncoder, Threads

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for.

    Args:
        body_bytes: of a request.
        texts: of a request.
        text_bytes: of one text, in UTF-8.
        filter_bytes: of a filter's text; a database takes seconds for thousands of conditions.
        hits: ``limit`` of a search.
        seconds: after which a request is given up.
    """

    body_bytes: int = 16 * MIB
    texts: int = 1024
    text_bytes: int = 1 * MIB
    filter_bytes: int = 32 * 1024
    hits: int = 1000
    seconds: float = 60.0

    def check(self, texts: Sequence[str], field_name: str = "input") -> None:
        """Refuse too many or too long texts.

        Raises:
            InputError: says which text, and the limit.
        """
        if not texts:
            raise InputError(f"{field_name} holds no text")
        if len(texts) > self.texts:
            raise InputError(f"{field_name} holds {len(texts)} texts; the limit is {self.texts}")
        for number, text in enumerate(texts):
            size = len(text.encode(errors="replace"))
            if size > self.text_bytes:
                raise InputError(
                    f"{field_name}[{number}] has {size} bytes; the limit is {self.text_bytes}"
                )


class UnknownCollection(InputError):
    """A collection that this service does not offer."""


@dataclass(frozen=True, slots=True)
class _Open:
    connector: Connector
    lock: threading.Lock = field(default_factory=threading.Lock)


class Service:
    """One encoder and its collections.

    Args:
        encoder: the model; it gets a thread of its own.
        collections: name -> how to open it. Opened on first use and kept open.
        access: who may call.
        limits: what a request may ask for.
        writable: whether documents may be added and deleted.
        reranker: orders the hits of the searches that ask for it.
        window, queue_tokens: of the :class:`~m3connect.serving.batching.BatchingEncoder`.
    """

    def __init__(
        self,
        encoder: Encoder,
        collections: Mapping[str, Callable[[], Connector]],
        *,
        access: Access | None = None,
        limits: Limits | None = None,
        writable: bool = False,
        reranker: Reranker | None = None,
        window: float = 0.003,
        queue_tokens: int = 262_144,
    ) -> None:
        self.encoder = BatchingEncoder(encoder, window=window, queue_tokens=queue_tokens)
        self.threads = Threads()
        self.access = access or Access()
        self.limits = limits or Limits()
        self.writable = writable
        self.reranker = reranker
        self._factories = dict(collections)
        self._open: dict[str, _Open] = {}
        self._opening = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The collections' names; the first is taken where a request names none."""
        return list(self._factories)

    @contextmanager
    def collection(self, name: str | None) -> Iterator[Connector]:
        """One collection, for this thread alone until the block ends.

        Raises:
            UnknownCollection: it is not offered; names those that are.
        """
        if name is None and self._factories:
            name = self.names[0]
        if name is None or name not in self._factories:
            raise UnknownCollection(
                f"there is no collection {name!r}; this service has: {', '.join(self.names) or '-'}"
            )
        with self._opening:
            if name not in self._open:
                self._open[name] = _Open(self._factories[name]())
            opened = self._open[name]
        with opened.lock:  # a connector serves any thread, one at a time
            yield opened.connector

    def close(self) -> None:
        """Finish what waits, then close the collections."""
        self.threads.close()
        self.encoder.close()
        for opened in self._open.values():
            with opened.lock:
                opened.connector.close()
