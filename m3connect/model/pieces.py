"""The pieces of a large Unigram vocabulary, mapped from the disk: a query is tokenised at once.

``tokenizers`` takes a second to build the tree of 250,000 pieces, and a query needs twenty. What
Unigram makes of a text depends on the pieces that occur in the text and on the lowest score of all,
so a tokenizer of these alone gives the same ids.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from m3connect.model.checkpoint import read_tokenizer, tokenizer_place
from m3connect.model.folder_cache import cached_folder
from m3connect.model.mapped import read_safetensors

_VERSION = "pieces 1"
_HASH = "hash.txt"
_PIECES = "pieces.safetensors"
_LARGE = 500_000
"""Bytes of a tokenizer's file, from which it is worth it."""
_WORTH_ALL = 4096
"""Characters, of all texts until then, from which the whole tokenizer is faster."""
_MOST_SPECIAL = 100
"""Special tokens have the first ids, in every vocabulary that is known."""


class Encoded(Protocol):
    """A tokenised text."""

    @property
    def ids(self) -> list[int]:
        """Its ids, special tokens included."""


class AnyTokenizer(Protocol):
    """What encoding takes of a ``tokenizers.Tokenizer``."""

    def encode_batch_fast(self, input: list[str], /) -> Sequence[Encoded]:  # noqa: A002
        """Each text's ids."""

    def id_to_token(self, id: int, /) -> str | None:  # noqa: A002
        """The piece with an id."""

    def token_to_id(self, token: str, /) -> int | None:
        """The id of a piece."""

    def get_vocab_size(self) -> int:
        """The number of ids."""


def open_tokenizer(path: Path) -> tuple[Tokenizer | PieceTokenizer, str]:
    """A checkpoint's tokenizer, as quick to open as can be, and the hash of its file.

    Raises:
        CheckpointError: it is missing or cannot be understood.
    """
    file = tokenizer_place(path)
    facts = file.stat()
    return _open(path, file, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=2)
def _open(path: Path, file: Path, size: int, _: int) -> tuple[Tokenizer | PieceTokenizer, str]:
    """Encoders of one process share it: the whole one of m3-mini takes a second and 200 MB."""
    if size >= _LARGE:
        found = cached_folder(
            f"{path.name}-tokenizer", [file], _VERSION, lambda to: _fill(path, to), _opened
        )
        if found is not None and found[0] is not None:
            return PieceTokenizer(path, found[0]), found[1]
    return read_tokenizer(path)


@dataclass(frozen=True, slots=True)
class _Quick:
    ids: list[int]


class PieceTokenizer:
    """A tokenizer that builds what a text needs; the whole one when it is worth it.

    Args:
        path: the checkpoint.
        stored: what :func:`_fill` wrote: pieces in the order of their bytes.
    """

    def __init__(self, path: Path, stored: Mapping[str, NDArray[Any]]) -> None:
        self._path = path
        self._blob = stored["blob"].data
        self._ends = stored["ends"].data
        self._ids = stored["ids"]
        self._places = stored["places"]
        self._scores = stored["scores"]
        self._always: list[int] = stored["always"].tolist()
        self._frame = stored["frame"].tobytes().decode()
        frame = json.loads(self._frame)
        self._unknown: int = frame["model"]["unk_id"]
        self._special = [token["content"] for token in frame["added_tokens"]]
        self._characters = 0
        self._lock = threading.Lock()

    @cached_property
    def _framed(self) -> Tokenizer:
        """Normalisation and pre-tokenisation."""
        return Tokenizer.from_str(self._frame)

    @cached_property
    def _whole(self) -> Tokenizer:
        return read_tokenizer(self._path)[0]

    @property
    def whole(self) -> Tokenizer:
        """The whole tokenizer."""
        with self._lock:
            return self._whole

    def encode_batch_fast(self, input: list[str], /) -> Sequence[Encoded]:  # noqa: A002
        """See ``Tokenizer.encode_batch_fast``."""
        if "_whole" not in self.__dict__:
            self._characters += sum(map(len, input))
            if self._characters <= _WORTH_ALL:
                quick = self._quick(input)
                if quick is not None:
                    return quick
        return self.whole.encode_batch_fast(input)

    def id_to_token(self, id: int, /) -> str | None:  # noqa: A002
        """See ``Tokenizer.id_to_token``."""
        known = 0 <= id < len(self._places)
        return self._piece(int(self._places[id])).decode() if known else None

    def token_to_id(self, token: str, /) -> int | None:
        """See ``Tokenizer.token_to_id``."""
        piece = token.encode()
        place = self._at(piece, 0)
        same = place < len(self._ids) and self._piece(place) == piece
        return int(self._ids[place]) if same else None

    def get_vocab_size(self) -> int:
        """See ``Tokenizer.get_vocab_size``."""
        return len(self._ids)

    def _quick(self, texts: Sequence[str]) -> list[_Quick] | None:
        """The ids by a tokenizer of the pieces that occur; None where special tokens do."""
        frame = self._framed
        needed = dict.fromkeys(self._always)  # in order: special tokens keep their ids
        for text in texts:
            normal = frame.normalizer.normalize_str(text) if frame.normalizer else text
            if any(special in text or special in normal for special in self._special):
                return None
            parts = [normal]
            if frame.pre_tokenizer:
                parts = [part for part, _ in frame.pre_tokenizer.pre_tokenize_str(normal)]
            for part in parts:
                needed.update(dict.fromkeys(self._within(part)))
        places = list(needed)
        vocabulary = [(self._piece(place).decode(), float(self._scores[place])) for place in places]
        tokenizer = Tokenizer.from_str(self._frame)
        tokenizer.model = models.Unigram(vocabulary, self._unknown, False)
        ids = self._ids[places].tolist()
        return [
            _Quick([ids[place] for place in encoding.ids])
            for encoding in tokenizer.encode_batch_fast(list(texts))
        ]

    def _within(self, text: str) -> Iterator[int]:
        """The places of all pieces that occur in a text."""
        for start in range(len(text)):
            place = 0
            for end in range(start + 1, len(text) + 1):
                begin = text[start:end].encode()
                place = self._at(begin, place)
                if place == len(self._ids):
                    break
                piece = self._piece(place)
                if piece == begin:
                    yield place
                elif not piece.startswith(begin):
                    break

    def _at(self, piece: bytes, low: int) -> int:
        """The first place, from ``low``, of a piece that is not before this one."""
        return bisect_left(range(len(self._ids)), piece, low, key=self._piece)

    def _piece(self, place: int) -> bytes:
        return bytes(self._blob[self._ends[place] : self._ends[place + 1]])


def _fill(path: Path, folder: Path) -> None:
    """Write the hash of a tokenizer and, where it is of the kind, its pieces."""
    tokenizer, digest = read_tokenizer(path)
    (folder / _HASH).write_text(digest, encoding="utf-8")
    content = json.loads(tokenizer.to_str())
    model = content["model"]
    if model["type"] != "Unigram" or model.get("byte_fallback") or model["unk_id"] is None:
        return
    pieces = [piece.encode() for piece, _ in model["vocab"]]
    scores = np.array([score for _, score in model["vocab"]], np.float64)
    count = max([model["unk_id"], *tokenizer.encode("").ids]) + 1
    plain = len(set(pieces)) == len(pieces) == tokenizer.get_vocab_size()
    if count > _MOST_SPECIAL or not plain:
        return
    order = sorted(range(len(pieces)), key=pieces.__getitem__)
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(len(order))
    model["vocab"] = model["vocab"][:count]
    content["truncation"] = content["padding"] = None
    lowest = int(places[scores.argmin()])
    always = dict.fromkeys([*places[:count].tolist(), lowest])
    tensors: dict[str, NDArray[Any]] = {
        "blob": _bytes(b"".join(pieces[number] for number in order)),
        "ends": np.cumsum([0, *(len(pieces[number]) for number in order)], dtype=np.int64),
        "ids": np.array(order, np.int32),
        "places": places,
        "scores": scores[order],
        "always": np.array(list(always), np.int32),
        "frame": _bytes(json.dumps(content).encode()),
    }
    save_file(tensors, folder / _PIECES)


def _opened(folder: Path) -> tuple[dict[str, NDArray[Any]] | None, str]:
    """What :func:`_fill` wrote."""
    file = folder / _PIECES
    stored = read_safetensors(file) if file.is_file() else None
    return stored, (folder / _HASH).read_text(encoding="utf-8")


def _bytes(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8)
