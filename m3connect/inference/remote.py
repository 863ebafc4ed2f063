"""An encoder that runs in a service (``m3connect serve``): no model on this machine.

    encoder = M3Encoder.load("http://encoders.example:8000")

The model's description comes over the wire at once, its tokenizer when cutting into passages or
explaining needs it; embeddings come as Arrow, exact. Every answer carries the service's fingerprint, so a
service that was restarted with another model is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from m3connect.connecting import retry
from m3connect.contract import Fingerprint, Kind, ModelInfo
from m3connect.errors import ConfigError, FingerprintMismatch, InputError
from m3connect.inference.pairs import PairScores, score_pairs
from m3connect.inference.wire import Wire
from m3connect.model.config import M3Config
from m3connect.model.tokenize import TextTokenizer
from m3connect.types import LEGS, Compression, Embeddings, Leg

if TYPE_CHECKING:
    import httpx

ARROW = "application/vnd.apache.arrow.stream"
KEY = "M3CONNECT_ENCODER_KEY"
"""The environment variable with the service's key."""
_BATCH = 64  # texts of one request


class RemoteEncoder:
    """Satisfies :class:`m3connect.contract.Encoder`; made by :meth:`M3Encoder.load` of a URL.

    Args:
        url: of the service.
        api_key: its key; default: the environment's ``M3CONNECT_ENCODER_KEY``.
        timeout: seconds for one request.
        policy: how patiently a service that is away or full is asked again.
        client: in place of one for ``url``.
        compression: what is kept of what the service gives; None for all.

    Raises:
        ConfigError: httpx is not installed, or the service is of another kind.
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
        self._wire = Wire(
            url,
            what="m3connect service",
            key=KEY,
            api_key=api_key,
            timeout=timeout,
            policy=policy,
            client=client,
        )
        self.url = self._wire.url
        self._compression = compression or Compression()
        model = self._json("GET", "/v1/m3/model")
        served = Fingerprint.from_json(model["fingerprint"])
        if self._compression and served.compression:
            raise ConfigError(
                f"the service at {self.url} compresses already ({served.compression}): leave "
                "compression to it"
            )
        self._compression.check(served.dense_width, served.multivector_width)
        self.info = ModelInfo(model["name"], self._kept(served), tuple(model["weights"]))
        self.config = M3Config.model_validate(model["config"])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The service's, fetched when it is first needed: to name terms and tokens, not to encode.

        Raises:
            FingerprintMismatch: it now runs another model.
        """
        fetched = Tokenizer.from_str(self._wire.request("GET", "/v1/m3/tokenizer").text)
        self._same(Fingerprint.from_json(self._json("GET", "/v1/m3/model")["fingerprint"]))
        return fetched

    @cached_property
    def _text(self) -> TextTokenizer:
        made_by = self.info.fingerprint
        return TextTokenizer(self.tokenizer, self.config, made_by.max_length, made_by.long_mode)

    def __repr__(self) -> str:
        return f"RemoteEncoder({self.info.name!r} at {self.url})"

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Embeddings:
        """See :meth:`M3Encoder.encode`.

        Raises:
            TransientError: the service did not answer within the retries.
            FingerprintMismatch: it now runs another model.
        """
        if isinstance(texts, str):
            raise InputError("texts is one string; give a list of strings")
        parts = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        made = [self._encode(group, kind, legs) for group in parts or [[]]]
        return Embeddings.concat(made)

    def stream(
        self, texts: Iterable[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Iterator[Embeddings]:
        """See :meth:`M3Encoder.stream`; one request's texts at a time."""
        source = iter(texts)
        while batch := list(islice(source, _BATCH)):
            yield self._encode(batch, kind, legs)

    def compute_score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        weights: tuple[float, float, float] | None = None,
    ) -> PairScores:
        """See :meth:`M3Encoder.compute_score`."""
        return score_pairs(self, pairs, weights or self.info.weights)

    def term(self, index: int) -> str:
        """See :meth:`M3Encoder.term`."""
        return self._text.term(index)

    def tokens(self, text: str, *, kind: Kind = "passage") -> list[str]:
        """See :meth:`M3Encoder.tokens`."""
        return self._text.pieces(text, kind)

    def _encode(self, texts: Sequence[str], kind: Kind, legs: Sequence[Leg]) -> Embeddings:
        import pyarrow as pa

        # The service refuses a request without texts; one text tells the widths of no rows.
        body = {"input": list(texts) or [""], "kind": kind, "legs": list(legs)}
        answer = self._wire.request("POST", "/v1/m3/embeddings", body, {"Accept": ARROW})
        table = pa.ipc.open_stream(answer.content).read_all()
        stored = (table.schema.metadata or {}).get(b"m3connect.fingerprint")
        self._same(Fingerprint.from_json(json.loads(stored)) if stored else None)
        made = Embeddings.from_arrow(table)[: len(texts)]
        return self._compression.of(made, kind)

    def _kept(self, served: Fingerprint) -> Fingerprint:
        return served.compressed(self._compression) if self._compression else served

    def _same(self, now: Fingerprint | None) -> None:
        if now is None or self._kept(now) != self.info.fingerprint:
            raise FingerprintMismatch(
                f"the service at {self.url} now runs another model than {self.info.name!r}: load "
                "the encoder again, and use a collection of that model"
            )

    def _json(self, method: str, path: str) -> dict[str, Any]:
        answer = self._wire.request(method, path)
        try:
            values = answer.json()
        except json.JSONDecodeError as error:
            raise ConfigError(f"{self.url} is no m3connect service: {path} is no JSON") from error
        if not isinstance(values, dict) or not {"name", "config", "fingerprint"} <= set(values):
            raise ConfigError(f"{self.url} is no m3connect service with an M3 model")
        return values
