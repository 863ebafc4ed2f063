"""A server of text-embeddings-inference: what its one model makes of texts.

By default that is the dense vector, or lexical weights where the model has SPLADE pooling. Token vectors are made
where they are asked for (``?legs=dense,multivector``): its last hidden states, special tokens included, made of
length 1; no head for late interaction is behind them.

A kind of text gets the prompt that sentence-transformers gives it, if the server knows one of that name. Routes and
errors: https://huggingface.github.io/text-embeddings-inference (``docs/openapi.json`` of its repository).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer

from m3connect.contract import Kind, ModelInfo
from m3connect.errors import (
    CheckpointError,
    ConfigError,
    FingerprintMismatch,
    InputError,
    PermanentError,
    RequestTooLarge,
)
from m3connect.inference.wire import NoRoute, Wire
from m3connect.model.checkpoint import read_tokenizer
from m3connect.model.hub import resolve_tokenizer
from m3connect.types import (
    LEGS,
    Embeddings,
    Fingerprint,
    FloatArray,
    Leg,
    MultiVectors,
    Precision,
    SparseVectors,
)
from m3connect.types.vectors import shortened

WHAT = "text-embeddings-inference server"
_ROUTES: Mapping[Leg, str] = {
    "dense": "/embed",
    "sparse": "/embed_sparse",
    "multivector": "/embed_all",
}
_PROMPTS: Mapping[Kind, Sequence[str]] = {
    "query": ("query",),
    "passage": ("document", "passage", "corpus"),
}
"""Names that sentence-transformers' ``encode_query`` and ``encode_document`` look for, in order."""
_CHARACTERS = 250
"""For each token of its limit: of a longer text the server reads as many, and counts no tokens."""
_MOST = 64  # texts of one request, where it takes as many
_PROBE = "m3connect"
_COMPARED = 64  # values of its vector that tell models apart


class _Model(BaseModel):
    """What ``/info`` says of the model, and of what the server takes."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    model_id: str
    model_sha: str | None = None
    model_dtype: str
    model_type: dict[str, dict[str, Any]]
    max_input_length: int = Field(ge=1)
    max_client_batch_size: int = Field(default=32, ge=1, exclude=True)

    @property
    def identity(self) -> str:
        """The model's name with its commit on the hub, if it comes from there."""
        return f"{self.model_id}@{self.model_sha}" if self.model_sha else self.model_id


class TeiServer:
    """A :class:`~m3connect.inference.remote.Served` that runs any embedding model.

    Args:
        wire: the way to it.
        options: ``legs``, the representations to make, with commas; ``tokenizer``, a folder or hub
            name of its tokenizer, where its model's own name leads to none.

    Raises:
        ConfigError: it is something else, its model makes no embeddings or not these
            representations, or an option is unknown.
    """

    config = None

    def __init__(self, wire: Wire, options: Mapping[str, str]) -> None:
        if unknown := sorted(set(options) - {"legs", "tokenizer"}):
            raise ConfigError(
                f"{wire.url}: its address takes ?legs= and tokenizer=, not {unknown[0]!r}"
            )
        self._wire = wire.known_as(WHAT)
        self._model = self._read_model()
        self._tokenizer_name = options.get("tokenizer")
        self.most = min(_MOST, self._model.max_client_batch_size)
        pooling = str(self._model.model_type["embedding"].get("pooling", ""))
        usual = "sparse" if pooling == "splade" else "dense"
        legs = self._asked(options.get("legs", usual))
        self._prompts: dict[Kind, str] = {}
        made = self._probe(legs)
        self._prompts = self._known_prompts(legs[0])
        dense, tokens = made.dense, made.multivector
        # As many tokens without a vector come first: none here, one where m3connect serve answers.
        self._leading = 0 if tokens is None else int(made.n_tokens[0]) - len(tokens[0])
        fingerprint = Fingerprint(
            model=self._model.model_id,
            weights=self._model.identity,
            tokenizer=self._model.identity,
            legs=legs,
            dense_width=0 if dense is None else dense.shape[1],
            multivector_width=0 if tokens is None else tokens.width,
            max_length=self._model.max_input_length,
            pooling=pooling,
            precision=cast("Precision", self._model.model_dtype),
        )
        # A folder on the server may hold another model tomorrow: what it makes of a word tells them apart.
        preparation = "" if self._model.model_sha else _first_values(made)
        self.info = ModelInfo(self._model.model_id, fingerprint, (1.0, 0.3, 1.0), preparation)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Of the model's name, or of the one in the address: the server does not give it.

        Raises:
            ConfigError: it cannot be had.
        """
        named, model = self._tokenizer_name, self._model
        try:
            if named:
                return read_tokenizer(resolve_tokenizer(named))[0]
            return read_tokenizer(resolve_tokenizer(model.model_id, revision=model.model_sha))[0]
        except (CheckpointError, ConfigError) as error:
            raise ConfigError(
                f"{self._wire.url} does not give its tokenizer, which cutting and explaining need, "
                f"and {named or model.model_id!r} leads to none ({error}): name a folder with "
                f"tokenizer.json, or a model on the hub: {self._wire.url}?tokenizer=NAME"
            ) from error

    def embeddings(self, texts: Sequence[str], kind: Kind, legs: Sequence[Leg]) -> Embeddings:
        """Of one request a representation, and one that counts tokens.

        Raises:
            FingerprintMismatch: the server now runs another model.
            RequestTooLarge: it takes less at once.
        """
        longest = self._model.max_input_length
        most = _CHARACTERS * longest
        sent = [text[:most] or " " for text in texts]  # an empty text is refused
        counts = np.array([len(tokens) for tokens in self._tokens(sent, kind)], np.int32)
        made = {leg: self._rows(leg, sent, kind) for leg in legs}
        if self._read_model().model_dump() != self._model.model_dump():
            raise FingerprintMismatch(
                f"{self._wire.url} now runs another model than {self._model.identity}, or runs it "
                "otherwise: load the encoder again, and use a collection of that model"
            )
        try:
            return Embeddings(
                _dense(made["dense"]) if "dense" in made else None,
                _sparse(made["sparse"]) if "sparse" in made else None,
                _multivector(made["multivector"]) if "multivector" in made else None,
                np.minimum(counts, longest),
                (counts > longest) | [len(text) > most for text in texts],
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{self._wire.url} is no {WHAT}: what it answers is no {' and no '.join(legs)} vectors "
                f"({error})"
            ) from error

    def term(self, index: int) -> str:
        """The piece of the vocabulary behind a term."""
        piece: str | None = self.tokenizer.id_to_token(index)
        if piece is None:
            raise InputError(f"the vocabulary has no term {index}")
        return piece

    def tokens(self, text: str, kind: Kind) -> list[str]:
        """The pieces behind the rows of a text's multi-vector."""
        found = self._tokens([text or " "], kind)[0][: self._model.max_input_length]
        return [str(token["text"]) for token in found[self._leading :]]

    def _read_model(self) -> _Model:
        try:
            model = _Model.model_validate(self._wire.json("GET", "/info"))
        except NoRoute as error:
            raise ConfigError(
                f"{self._wire.url} is neither an m3connect service nor a {WHAT}"
            ) from error
        except ValidationError as error:
            raise ConfigError(
                f"{self._wire.url} is no {WHAT}: /info says nothing of its model"
            ) from error
        if "embedding" not in model.model_type:
            kind = ", ".join(model.model_type)
            raise ConfigError(
                f"{self._wire.url} runs {model.model_id}, which makes no embeddings ({kind}); "
                "a reranker is given as --reranker, and to load_reranker"
            )
        return model

    def _asked(self, names: str) -> tuple[Leg, ...]:
        asked = names.split(",")
        legs = tuple(leg for leg in LEGS if leg in asked)
        if len(legs) != len(asked):
            raise ConfigError(f"legs={names} of {self._wire.url} are not of {', '.join(LEGS)}")
        return legs

    def _probe(self, legs: Sequence[Leg]) -> Embeddings:
        """What it makes of a word; representations that it cannot make are refused, with those it can."""
        try:
            return self.embeddings([_PROBE], "passage", legs)
        except (NoRoute, PermanentError) as error:
            gives = [leg for leg in LEGS if self._gives(leg)]
            lacks = [leg for leg in legs if leg not in gives]
            raise ConfigError(
                f"{self._model.model_id} at {self._wire.url} makes no {' and no '.join(lacks)} vectors; "
                f"it makes: {', '.join(gives) or 'none'} ({error})"
            ) from error

    def _gives(self, leg: Leg) -> bool:
        try:
            self._rows(leg, [_PROBE], "passage")
        except (NoRoute, PermanentError):
            return False
        return True

    def _known_prompts(self, leg: Leg) -> dict[Kind, str]:
        """The prompt of each kind of text; a name that it does not know is refused, as too large."""
        known: dict[Kind, str] = {}
        for kind, names in _PROMPTS.items():
            for name in names:
                try:
                    self._post(_ROUTES[leg], [_PROBE], name, truncate=True)
                except (RequestTooLarge, InputError):
                    continue
                known[kind] = name
                break
        return known

    def _rows(self, leg: Leg, texts: Sequence[str], kind: Kind) -> list[Any]:
        return self._post(_ROUTES[leg], texts, self._prompts.get(kind), truncate=True)

    def _tokens(self, texts: Sequence[str], kind: Kind) -> list[list[dict[str, Any]]]:
        return self._post("/tokenize", texts, self._prompts.get(kind))

    def _post(
        self, path: str, texts: Sequence[str], prompt: str | None, **further: bool
    ) -> list[Any]:
        """One entry a text."""
        body: dict[str, Any] = {"inputs": list(texts), **further}
        if prompt is not None:
            body["prompt_name"] = prompt
        given = self._wire.json("POST", path, body)
        if not isinstance(given, list) or len(given) != len(texts):
            raise ConfigError(
                f"{self._wire.url} is no {WHAT}: {path} gives no list with an entry a text"
            )
        return given


def _first_values(made: Embeddings) -> str:
    """The first values of a text's vectors, rounded, as what a server makes twice differs by rounding."""
    sparse, multi = made.sparse, made.multivector
    for values in (
        made.dense,
        None if sparse is None else sparse.values,
        None if multi is None else multi.vectors,
    ):
        if values is not None:
            return " ".join(f"{value:.3f}" for value in values.ravel()[:_COMPARED])
    return ""


def _dense(rows: list[Any]) -> FloatArray:
    vectors = np.array(rows, np.float32)  # of null, which stands for NaN, it makes NaN
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError("an entry is no list of finite numbers")
    return vectors


def _sparse(rows: list[Any]) -> SparseVectors:
    return SparseVectors.from_rows(
        [{int(each["index"]): float(each["value"]) for each in row} for row in rows]
    )


def _multivector(rows: list[Any]) -> MultiVectors:
    texts = [_dense(row) for row in rows]
    return MultiVectors.from_rows(
        [shortened(row, row.shape[1]).astype(np.float16) for row in texts]
    )
