"""An encoder that runs elsewhere: no model on this machine.

    encoder = M3Encoder.load("http://encoders.example:8000")

At the address is ``m3connect serve`` (``m3_service.py``), which gives everything that a model here gives, or a
server of text-embeddings-inference (``tei.py``), which gives what its one model makes. Either says what runs
there, and is noticed when it was restarted with another model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from tokenizers import Tokenizer

from m3connect.connecting import retry
from m3connect.contract import Kind, ModelInfo
from m3connect.errors import ConfigError, InputError
from m3connect.inference import m3_service
from m3connect.inference.checks import check_asked
from m3connect.inference.m3_service import M3Service
from m3connect.inference.pairs import PairScores, score_pairs
from m3connect.inference.tei import TeiServer
from m3connect.inference.wire import NoRoute, Wire, another_model, in_portions
from m3connect.model.config import M3Config
from m3connect.types import LEGS, Compression, Embeddings, Leg

if TYPE_CHECKING:
    import httpx

KEY = "M3CONNECT_ENCODER_KEY"
"""The environment variable with the service's key."""


class Served(Protocol):
    """What is at an address. Its methods raise what :meth:`Wire.request` raises."""

    info: ModelInfo
    most: int
    """Texts of one request."""

    @property
    def config(self) -> M3Config | None:
        """The description of an M3 model."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's, with neither truncation nor padding."""

    def embeddings(self, texts: Sequence[str], kind: Kind, legs: Sequence[Leg]) -> Embeddings:
        """Of one request."""

    def term(self, index: int) -> str:
        """The piece of the vocabulary behind a term."""

    def tokens(self, text: str, kind: Kind) -> list[str]:
        """The pieces behind the rows of a text's multi-vector."""


class RemoteEncoder:
    """Satisfies :class:`m3connect.contract.Encoder`; made by :meth:`M3Encoder.load` of a URL.

    It can be pickled, by address: the key is the environment's where it is unpickled.

    Args:
        url: of the service. Of text-embeddings-inference it may end in ``?legs=`` with the
            representations to make, and ``tokenizer=`` with a folder or hub name of its tokenizer.
        api_key: its key; default: the environment's ``M3CONNECT_ENCODER_KEY``.
        timeout: seconds for one request.
        policy: how patiently a service that is away or full is asked again.
        client: in place of one for ``url``.
        compression: what is kept of what the service gives; None for all.

    Raises:
        ConfigError: httpx is not installed, the service is of another kind, or it does not give
            what is asked.
        TransientError: the service does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        policy: retry.RetryPolicy = retry.DEFAULT_POLICY,
        client: httpx.Client | None = None,
        compression: Compression | None = None,
    ) -> None:
        self._again = partial(
            RemoteEncoder, url, timeout=timeout, policy=policy, compression=compression
        )
        parts = urlsplit(url)
        wire = Wire(
            urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")),
            what=m3_service.WHAT,
            key=KEY,
            api_key=api_key,
            timeout=timeout,
            policy=policy,
            client=client,
        )
        self.url = wire.url
        self._served = _found(wire, dict(parse_qsl(parts.query)))
        self._compression = compression or Compression()
        served = self._served.info.fingerprint
        if self._compression and served.compression:
            raise ConfigError(
                f"the service at {self.url} compresses already ({served.compression}): leave "
                "compression to it"
            )
        self._compression.check(served.dense_width, served.multivector_width)

    @property
    def info(self) -> ModelInfo:
        """What runs there, with what is kept of what it makes."""
        served, kept = self._served.info, self._compression
        fingerprint = served.fingerprint.compressed(kept) if kept else served.fingerprint
        return replace(served, fingerprint=fingerprint)

    @property
    def config(self) -> M3Config | None:
        """The M3 model's description; None where another model runs."""
        return self._served.config

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's, fetched when it is first needed: to name terms and to cut, not to encode.

        Raises:
            FingerprintMismatch: another model runs there now.
            ConfigError: it cannot be had.
        """
        return self._served.tokenizer

    def __reduce__(self) -> tuple[Any, ...]:
        return _same_again, (self._again, self.info)

    def __repr__(self) -> str:
        return f"RemoteEncoder({self.info.name!r} at {self.url})"

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", legs: Sequence[Leg] | None = None
    ) -> Embeddings:
        """See :meth:`M3Encoder.encode`; without ``legs`` all that is made there.

        Raises:
            TransientError: the service did not answer within the retries.
            FingerprintMismatch: another model runs there now.
            InputError: it refuses a text, or does not make a representation.
        """
        legs = self._legs(texts, kind, legs)
        most = self._served.most
        starts = range(0, len(texts), most)
        if not starts:  # no service takes a request without texts; one tells the widths of no rows
            return self._some([""], 0, kind, legs)[:0]
        parts = [self._some(texts[start : start + most], start, kind, legs) for start in starts]
        return Embeddings.concat(parts)

    def stream(
        self, texts: Iterable[str], *, kind: Kind = "passage", legs: Sequence[Leg] | None = None
    ) -> Iterator[Embeddings]:
        """See :meth:`M3Encoder.stream`; one request's texts at a time."""
        legs = self._legs(texts, kind, legs)
        source, start = iter(texts), 0
        while some := list(islice(source, self._served.most)):
            yield self._some(some, start, kind, legs)
            start += len(some)

    def compute_score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        weights: tuple[float, float, float] | None = None,
    ) -> PairScores:
        """See :meth:`M3Encoder.compute_score`.

        Raises:
            InputError: the service does not make all three representations, besides what that raises.
        """
        self._legs([], "query", LEGS)
        return score_pairs(self, pairs, self.info.weights if weights is None else weights)

    def term(self, index: int) -> str:
        """See :meth:`M3Encoder.term`."""
        return self._served.term(index)

    def tokens(self, text: str, *, kind: Kind = "passage") -> list[str]:
        """See :meth:`M3Encoder.tokens`."""
        return self._served.tokens(text, kind)

    def _legs(self, texts: object, kind: Kind, legs: Sequence[Leg] | None) -> Sequence[Leg]:
        made = self.info.fingerprint.legs
        if legs is None:
            legs = made
        check_asked(texts, kind, legs)
        if missing := [leg for leg in legs if leg not in made]:
            raise InputError(
                f"{self.info.name!r} at {self.url} makes no {', no '.join(missing)} vectors; it "
                f"makes: {', '.join(made)}"
            )
        return legs

    def _some(
        self, texts: Sequence[str], start: int, kind: Kind, legs: Sequence[Leg]
    ) -> Embeddings:
        """A request's worth of texts, the first of them number ``start``; of one kind and checked."""
        for number, text in enumerate(texts, start):
            if not isinstance(text, str):
                raise InputError(f"text {number} is {type(text).__name__}, not a string")
        made = in_portions(lambda some: self._served.embeddings(some, kind, legs), texts, start)
        return self._compression.of(Embeddings.concat(list(made)), kind)


def _found(wire: Wire, options: dict[str, str]) -> Served:
    """What is at the address."""
    try:
        served = M3Service(wire)
    except NoRoute:
        return TeiServer(wire, options)
    if options:
        raise ConfigError(
            f"{wire.url} is an {m3_service.WHAT}: its address takes no {', '.join(sorted(options))}"
        )
    return served


def _same_again(again: Callable[[], RemoteEncoder], info: ModelInfo) -> RemoteEncoder:
    """What was pickled. What a server makes of a word may differ by rounding: that is no other model."""
    encoder = again()
    if replace(encoder.info, preparation="") != replace(info, preparation=""):
        raise another_model(encoder.url, info.name)
    return encoder
