"""What ``m3connect serve`` gives over the wire: a model's description, and embeddings as Arrow, exact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property

from tokenizers import Tokenizer

from m3connect.contract import Kind, ModelInfo
from m3connect.errors import ConfigError
from m3connect.inference.wire import Wire, another_model
from m3connect.model.config import M3Config
from m3connect.model.tokenize import TextTokenizer
from m3connect.types import Embeddings, Fingerprint, Leg

WHAT = "m3connect service"
_ARROW = "application/vnd.apache.arrow.stream"


class M3Service:
    """A :class:`~m3connect.inference.remote.Served` that runs an M3 model.

    Args:
        wire: the way to it.

    Raises:
        NoRoute: it is something else.
        ConfigError: its encoder is none of ours.
    """

    most = 64

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        model = wire.json("GET", "/v1/m3/model")
        if not isinstance(model, dict) or not model.get("config"):
            raise ConfigError(
                f"{wire.url} is no {WHAT} with an M3 model: where that encodes elsewhere, give its "
                "encoder's address"
            )
        fingerprint = Fingerprint.from_json(model["fingerprint"])
        self.config = M3Config.model_validate(model["config"])
        self.info = ModelInfo(
            model["name"], fingerprint, tuple(model["weights"]), self.config.preparation
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Fetched when it is first needed: to name terms and tokens and to cut, not to encode.

        Raises:
            FingerprintMismatch: the service now runs another model.
        """
        fetched = Tokenizer.from_str(self._wire.request("GET", "/v1/m3/tokenizer").text)
        self._same(Fingerprint.from_json(self._wire.json("GET", "/v1/m3/model")["fingerprint"]))
        return fetched

    @cached_property
    def _text(self) -> TextTokenizer:
        made_by = self.info.fingerprint
        return TextTokenizer(self.tokenizer, self.config, made_by.max_length, made_by.long_mode)

    def embeddings(self, texts: Sequence[str], kind: Kind, legs: Sequence[Leg]) -> Embeddings:
        """Of one request. Every answer carries the fingerprint of what made it.

        Raises:
            FingerprintMismatch: the service now runs another model.
        """
        import pyarrow as pa

        body = {"input": list(texts), "kind": kind, "legs": list(legs)}
        answer = self._wire.request("POST", "/v1/m3/embeddings", body, {"Accept": _ARROW})
        table = pa.ipc.open_stream(answer.content).read_all()
        stored = (table.schema.metadata or {}).get(b"m3connect.fingerprint")
        self._same(Fingerprint.from_json(json.loads(stored)) if stored else None)
        return Embeddings.from_arrow(table)

    def term(self, index: int) -> str:
        """The piece of the vocabulary behind a term."""
        return self._text.term(index)

    def tokens(self, text: str, kind: Kind) -> list[str]:
        """The pieces behind the rows of a text's multi-vector."""
        return self._text.pieces(text, kind)

    def _same(self, now: Fingerprint | None) -> None:
        if now != self.info.fingerprint:
            raise another_model(self._wire.url, self.info.name)
