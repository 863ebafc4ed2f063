"""Text to dense, sparse and multi-vector representations in one forward pass.

    encoder = M3Encoder.load("m3-mini")
    embeddings = encoder.encode(["How do I rotate keys?"], kind="query")

The path of a text: tokenise (``model/tokenize.py``) -> batch by token budget (``batching.py``) -> forward
pass (``onnx_backend.py`` or ``torch_backend.py``) -> drop what is not content -> ``Embeddings`` -> what
of them is kept (``types/compression.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from tokenizers import Tokenizer

from m3connect.contract import Kind, ModelInfo
from m3connect.errors import ConfigError, FingerprintMismatch
from m3connect.inference.assembly import Assembly
from m3connect.inference.backend import Backend
from m3connect.inference.batching import plan
from m3connect.inference.budget import WORTH_MEASURING, suited
from m3connect.inference.checks import check_asked
from m3connect.inference.opening import BackendName, devices, open_backend
from m3connect.inference.pairs import PairScores, score_pairs
from m3connect.inference.precision import Dtype
from m3connect.model.checkpoint import Checkpoint, open_checkpoint
from m3connect.model.config import M3Config
from m3connect.model.folding import CaseFolding
from m3connect.model.hub import resolve
from m3connect.model.pieces import PieceTokenizer, open_tokenizer
from m3connect.model.tokenize import TextTokenizer, TokenIds
from m3connect.types import LEGS, Compression, Embeddings, Fingerprint, Leg, LongMode
from m3connect.types.identifiers import with_identifiers

if TYPE_CHECKING:
    from m3connect.inference.remote import RemoteEncoder

_READ_AHEAD = 64
"""Texts that :meth:`M3Encoder.stream` tokenises at once."""
_WINDOW_BATCHES = 16
"""Token budgets, at least, that :meth:`M3Encoder.stream` collects before it encodes."""


class M3Encoder:
    """An M3 model, ready to encode. Made by :meth:`load`; satisfies ``contract.Encoder``.

    It can be pickled, by name: workers of Ray, Spark or ``multiprocessing`` load it for themselves.

    Args:
        config: what the model is.
        tokenizer: its tokenizer, with neither truncation nor padding.
        tokenizer_hash: identity of the tokenizer.
        backend: the loaded network.
        max_length: the most tokens of a text, None for the model's own limit.
        long_mode: what becomes of a longer text, see :meth:`load`.
        batch_tokens: token budget of a batch, None for what suits the device.
        multivector_dtype: how token vectors are returned.
        compression: what is kept of the representations; None for all.
        identifiers: whether whole identifiers are terms, too.

    Raises:
        ConfigError: ``max_length``, ``batch_tokens`` or a width of ``compression`` is out of range, or
            ``long_mode`` is not possible.
    """

    def __init__(
        self,
        config: M3Config,
        tokenizer: Tokenizer | PieceTokenizer,
        tokenizer_hash: str,
        backend: Backend,
        *,
        max_length: int | None = None,
        long_mode: LongMode = "truncate",
        batch_tokens: int | None = None,
        multivector_dtype: Literal["float16", "float32"] = "float16",
        compression: Compression | None = None,
        identifiers: bool = False,
    ) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self.backend = backend
        self.batch_tokens = backend.batch_tokens if batch_tokens is None else batch_tokens
        if self.batch_tokens < 1:
            raise ConfigError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self._text = TextTokenizer(
            tokenizer, config, config.max_length if max_length is None else max_length, long_mode
        )
        _check_long_mode(long_mode, config, backend.name)
        self._tokenizer_hash = tokenizer_hash
        self._fold = CaseFolding(tokenizer) if config.fold_case else None
        self._multivector_dtype = np.dtype(multivector_dtype)
        self.compression = compression or Compression()
        self.compression.check(config.dense_width, config.multivector_width)
        self.identifiers = identifiers
        self._loaded: _Loaded | None = None
        self._measure: Callable[[TokenIds, Sequence[Leg]], int] | None = None
        self._done = 0

    def __repr__(self) -> str:
        backend = self.backend
        return (
            f"<M3Encoder {self.info.name!r}: up to {self.info.max_length} tokens; "
            f"{backend.choice.precision} on {backend.name}, {backend.device}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: no weights travel, and the process that unpickles it loads it once.

        Raises:
            ConfigError: it was made of parts and has no name.
        """
        if self._loaded is None:
            raise ConfigError(
                "this encoder was made of parts, which another process cannot load: save the "
                "model and use M3Encoder.load(FOLDER)"
            )
        return _load_again, (self._loaded, self.config.weights_hash, self._tokenizer_hash)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        backend: BackendName = "auto",
        device: str = "auto",
        dtype: Dtype = "auto",
        revision: str | None = None,
        max_length: int | None = None,
        long_mode: LongMode = "truncate",
        batch_tokens: int | None = None,
        multivector_dtype: Literal["float16", "float32"] = "float16",
        compression: Compression | None = None,
        identifiers: bool = False,
        threads: int | None = None,
        cache_dir: Path | None = None,
    ) -> Self | RemoteEncoder:
        """Load a model by name.

        Args:
            name: a bundled model (``m3-mini``), a folder, a hub name (``BAAI/bge-m3``), or the URL
                of an ``m3connect serve`` or a text-embeddings-inference server.
            backend: ``onnx`` needs no torch and is made for CPUs, ``torch`` takes any checkpoint
                and GPUs. ``auto`` is ONNX Runtime where the checkpoint has a graph and no GPU is
                asked for by ``device``.
            device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto`` is a GPU if torch finds one.
                ``cpu:4`` is four processes, ``cuda:0,cuda:1`` one for each; they end with the
                encoder.
            dtype: precision of the network. ``auto`` is float16 on a GPU; on a CPU the fastest
                that it has instructions for and whose cost was measured for this checkpoint, else
                float32. ``int8`` is for ONNX Runtime, ``float16`` and ``bfloat16`` for torch.
            revision: branch, tag or commit on the hub.
            max_length: the most tokens of a text; None for the model's own limit.
            long_mode: what becomes of a longer text. ``truncate`` cuts it. ``chunk`` encodes windows of
                it: its dense vector is the mean of theirs, a term has its largest weight, and all token
                vectors are kept. ``mcls`` cuts it, too, but takes the mean of a CLS every 256 tokens
                for its dense vector (M3 paper, appendix B.2); for models with CLS pooling, on torch.
            batch_tokens: token budget of a batch; None for what suits the device, which a long job
                measures once.
            multivector_dtype: how token vectors are returned.
            compression: what is kept of the representations; None for all.
            identifiers: give error codes, options, versions and paths that the tokenizer cuts a term
                each among the lexical weights, beside those of their pieces
                (:mod:`m3connect.types.identifiers`). Not in the paper: they make such names found.
            threads: threads to compute with (in torch a setting of the whole process), of each
                process where there are several.
            cache_dir: where downloads are kept, instead of the hub's default (``HF_HOME``).

        Raises:
            ConfigError: an unknown name or option, or an extra that is not installed.
            CheckpointError: a file that is missing, broken or misshapen.
        """
        if str(name).startswith(("http://", "https://")):
            from m3connect.inference.remote import RemoteEncoder

            chosen = {backend, device, dtype, long_mode} != {"auto", "truncate"}
            sized = max_length or batch_tokens or threads or multivector_dtype != "float16"
            if chosen or sized or revision or identifiers or cache_dir is not None:
                raise ConfigError(f"{name} runs elsewhere: how it runs is the service's choice")
            return RemoteEncoder(str(name), compression=compression)
        path = resolve(str(name), revision=revision, cache_dir=cache_dir)
        checkpoint = open_checkpoint(path, str(name))
        tokenizer, tokenizer_hash = open_tokenizer(checkpoint.path)
        if long_mode == "mcls" and backend == "auto":
            backend = "torch"
        encoder = cls(
            checkpoint.config,
            tokenizer,
            tokenizer_hash,
            _network(checkpoint, backend, device, dtype, threads),
            max_length=max_length,
            long_mode=long_mode,
            batch_tokens=batch_tokens,
            multivector_dtype=multivector_dtype,
            compression=compression,
            identifiers=identifiers,
        )
        if batch_tokens is None and len(devices(device)) == 1:
            encoder._measure = partial(suited, checkpoint, encoder.backend)
        encoder._loaded = _Loaded(
            # Another process may run in another folder.
            name=str(path.absolute() if path == Path(name).expanduser() else name),
            backend=backend,
            device=device,
            dtype=dtype,
            revision=revision,
            max_length=max_length,
            long_mode=long_mode,
            batch_tokens=batch_tokens,
            multivector_dtype=multivector_dtype,
            compression=compression,
            identifiers=identifiers,
            threads=threads,
            cache_dir=cache_dir,
        )
        return encoder

    def limited(
        self, *, max_length: int | None = None, batch_tokens: int | None = None
    ) -> M3Encoder:
        """The same network, not loaded again, with other limits.

        Args:
            max_length: the most tokens of a text; None for the model's own limit.
            batch_tokens: token budget of a batch; None for what suits the device.

        Raises:
            ConfigError: one of them is out of range.
        """
        other = M3Encoder(
            self.config,
            self._tokenizer,
            self._tokenizer_hash,
            self.backend,
            max_length=max_length,
            long_mode=self._text.long_mode,
            batch_tokens=batch_tokens,
            multivector_dtype="float16" if self._multivector_dtype == np.float16 else "float32",
            compression=self.compression,
            identifiers=self.identifiers,
        )
        if self._loaded is not None:
            other._loaded = replace(self._loaded, max_length=max_length, batch_tokens=batch_tokens)
        return other

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, with neither truncation nor padding."""
        tokenizer = self._tokenizer
        return tokenizer.whole if isinstance(tokenizer, PieceTokenizer) else tokenizer

    @cached_property
    def info(self) -> ModelInfo:
        """Name, identity and recommended fusion weights."""
        fingerprint = Fingerprint(
            model=self.config.name,
            weights=self.config.weights_hash,
            tokenizer=self._tokenizer_hash,
            legs=LEGS,
            dense_width=self.config.dense_width,
            multivector_width=self.config.multivector_width,
            max_length=self._text.max_length,
            pooling=self.config.pooling,
            precision=self.backend.choice.precision,
            long_mode=self._text.long_mode,
            identifiers=self.identifiers,
        )
        kept = fingerprint.compressed(self.compression)
        preparation = self.config.preparation
        if self._multivector_dtype == np.float32:
            preparation += " float32"
        return ModelInfo(self.config.name, kept, self.config.fusion_weights, preparation)

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Embeddings:
        """Encode texts; order is kept, no texts give no rows.

        Args:
            texts: any strings, empty ones included.
            kind: whether they ask or answer; some models prepend a prefix.
            legs: the representations to return.

        Raises:
            InputError: something is not a string, or not a leg or kind.
        """
        check_asked(texts, kind, legs)
        return self._encode(self._text(texts, kind), kind, legs)

    def stream(
        self, texts: Iterable[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Iterator[Embeddings]:
        """Encode texts as they come, in bounded memory.

        Texts are collected until they fill a few batches, sorted by length within that window,
        encoded, and returned in the order in which they came. While a window is encoded, the texts of
        the next one are tokenised beside it.

        Args:
            texts: any strings; read in this thread, and as far ahead as two windows.
            kind: whether they ask or answer.
            legs: the representations to return.

        Yields:
            the embeddings of the next texts, of as many as the window took.

        Raises:
            InputError: something is not a string, or not a leg or kind.
        """
        check_asked(texts, kind, legs)
        source = iter(texts)
        groups = iter(lambda: list(islice(source, _READ_AHEAD)), [])
        most = max(_WINDOW_BATCHES, 8 * self.backend.at_once) * self.batch_tokens
        window: list[TokenIds] = []
        ahead: deque[Future[TokenIds]] = deque()
        with ThreadPoolExecutor(1, "tokenise") as beside:
            tokenised = (
                beside.submit(self._text, group, kind, first=number * _READ_AHEAD)
                for number, group in enumerate(groups)
            )
            while started := ahead.popleft() if ahead else next(tokenised, None):
                window.append(started.result())
                if sum(len(tokens.ids) for tokens in window) >= most:
                    try:
                        ahead.extend(islice(tokenised, len(window) - len(ahead)))
                    finally:  # where the source fails, too
                        yield self._encode(TokenIds.concat(window), kind, legs)
                    window = []
            if window:
                yield self._encode(TokenIds.concat(window), kind, legs)

    def compute_score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        weights: tuple[float, float, float] | None = None,
    ) -> PairScores:
        """How well each passage answers its query, in all five ways.

        Args:
            pairs: (query, passage).
            weights: of dense, sparse and multivector in the combined scores; None for the model's
                own.

        Raises:
            InputError: something is not a string, or no pair, or not three weights.
        """
        return score_pairs(self, pairs, self.config.fusion_weights if weights is None else weights)

    def term(self, index: int) -> str:
        """The term (tokenizer piece) behind a sparse index.

        Raises:
            InputError: there is no such term.
        """
        return self._text.term(index)

    def tokens(self, text: str, *, kind: Kind = "passage") -> list[str]:
        """The pieces behind the rows of ``text``'s multi-vector, in order."""
        return self._text.pieces(text, kind)

    def _encode(self, tokens: TokenIds, kind: Kind, legs: Sequence[Leg]) -> Embeddings:
        """Arrays are made once at their final size; every batch is written into its place."""
        if self._measure is not None and self._done >= WORTH_MEASURING * self.batch_tokens:
            measure, self._measure = self._measure, None  # once, whatever other threads do
            if measure is not None:
                self.batch_tokens = measure(tokens, legs)
        self._done += len(tokens.ids)
        target = Assembly(
            self.config, tokens, self._text.leading(kind), legs, self._multivector_dtype
        )
        batches = plan(tokens.lengths, self.batch_tokens, pads=self.backend.pads)
        inputs = (tokens.take(rows) for rows in batches)
        for rows, outputs in zip(batches, self.backend.run_all(inputs, legs), strict=True):
            target.put(rows, outputs)
        made = target.embeddings(self._fold)
        if made.sparse is not None and self.identifiers:
            pieces = [[self.term(id_) for id_ in ids.tolist()] for ids in target.terms_of_texts()]
            made = replace(made, sparse=with_identifiers(made.sparse, pieces, self.term))
        return self.compression.of(made, kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """The arguments of :meth:`M3Encoder.load`."""

    name: str
    backend: BackendName
    device: str
    dtype: Dtype
    revision: str | None
    max_length: int | None
    long_mode: LongMode
    batch_tokens: int | None
    multivector_dtype: Literal["float16", "float32"]
    compression: Compression | None
    identifiers: bool
    threads: int | None
    cache_dir: Path | None


@lru_cache(maxsize=4)
def _load_again(loaded: _Loaded, weights: str, tokenizer: str) -> M3Encoder | RemoteEncoder:
    """What was pickled; as often as it is unpickled, a process has it once."""
    encoder = M3Encoder.load(
        loaded.name,
        backend=loaded.backend,
        device=loaded.device,
        dtype=loaded.dtype,
        revision=loaded.revision,
        max_length=loaded.max_length,
        long_mode=loaded.long_mode,
        batch_tokens=loaded.batch_tokens,
        multivector_dtype=loaded.multivector_dtype,
        compression=loaded.compression,
        identifiers=loaded.identifiers,
        threads=loaded.threads,
        cache_dir=loaded.cache_dir,
    )
    fingerprint = encoder.info.fingerprint
    if (fingerprint.weights, fingerprint.tokenizer) != (weights, tokenizer):
        raise FingerprintMismatch(
            f"{loaded.name} is another model here than where the encoder was pickled: install the "
            "same one on every machine"
        )
    return encoder


def _network(
    checkpoint: Checkpoint, backend: BackendName, device: str, dtype: Dtype, threads: int | None
) -> Backend:
    """In this process, or in one for each device."""
    names = devices(device)
    if len(names) == 1:
        return open_backend(checkpoint, backend, names[0], dtype, threads)
    from m3connect.inference.workers import Workers

    return Workers(checkpoint, backend, device, names, dtype, threads)


def _check_long_mode(mode: str, config: M3Config, backend: str) -> None:
    """Refuse what the model or the backend cannot do."""
    if mode not in get_args(LongMode):
        raise ConfigError(f"long_mode {mode!r} is none of {get_args(LongMode)}")
    if mode == "mcls" and config.pooling != "cls":
        raise ConfigError(
            f"--long-mode mcls is for models with CLS pooling; {config.name} takes the mean of all "
            "tokens already: use truncate or chunk"
        )
    if mode == "mcls" and backend == "onnx":
        raise ConfigError("--long-mode mcls runs on torch: ONNX Runtime's graph has one CLS a text")
