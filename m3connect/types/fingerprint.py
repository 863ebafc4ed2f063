"""Which model made a collection's vectors, and whether another one may use them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

from m3connect.errors import FingerprintMismatch, InputError
from m3connect.types.compression import Compression
from m3connect.types.vectors import Leg

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Raised when stored records change their meaning."""

Precision = Literal["float32", "float16", "bfloat16", "int8", "int8-7bit"]
"""In which a network computes; ``int8-7bit`` is int8 for CPUs where 8 bits of weight overflow."""
LongMode = Literal["truncate", "chunk", "mcls"]
"""What becomes of a text that is longer than the model reads at once (``model/long_texts.py``)."""
MCLS_EVERY = 256
"""Tokens of text for each CLS of ``mcls``."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Which model made a collection's vectors; stored in the collection.

    Args:
        model: the model's name, for people.
        weights: hash of the weights.
        tokenizer: hash of the tokenizer.
        legs: representations that are stored.
        dense_width, multivector_width: D and C as they are stored, 0 where the head is absent.
        max_length: tokens after which a passage was cut.
        pooling: how the dense vector is made, ``cls`` or ``mean``.
        chunker: how documents were cut, empty when records came ready-made.
        precision: in which the network computed. Vectors of two precisions differ by rounding and
            may be mixed, so a difference is logged and not refused (``docs/precision.md``).
        long_mode: what became of passages longer than that.
        format_version: of the stored records.
        compression: what was kept of the representations.
        identifiers: whether lexical weights have terms for whole identifiers, too.
    """

    model: str
    weights: str
    tokenizer: str
    legs: tuple[Leg, ...]
    dense_width: int
    multivector_width: int
    max_length: int
    pooling: str
    chunker: str = ""
    precision: Precision = "float32"
    long_mode: LongMode = "truncate"
    format_version: int = FORMAT_VERSION
    compression: Compression = field(default_factory=Compression)
    identifiers: bool = False

    def compressed(self, compression: Compression) -> Fingerprint:
        """The same model with smaller representations."""
        dense, multi = compression.dense_width, compression.multivector_width
        return replace(
            self,
            dense_width=min(self.dense_width, dense or self.dense_width),
            multivector_width=min(self.multivector_width, multi or self.multivector_width),
            compression=compression,
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values; :meth:`from_json` reads them back."""
        values = asdict(self) | {"legs": list(self.legs)}
        del values["compression"]  # where nothing is left out, nothing is said
        kept = self.compression.to_json()
        return values | ({"compression": kept} if kept else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what :meth:`to_json` gave; long texts were truncated before there was a choice.

        Raises:
            InputError: a key is missing or unknown.
        """
        values = {"long_mode": "truncate", "identifiers": False, **values}
        known = {field.name for field in fields(cls)}
        if set(values) | {"compression"} != known:
            raise InputError(
                f"a fingerprint has the keys {sorted(known)}, this one {sorted(values)}"
            )
        kept = Compression.from_json(values.get("compression", {}))
        return cls(**{**values, "legs": tuple(values["legs"]), "compression": kept})

    def require(
        self, stored: Fingerprint, *, collection: str, writing: bool, cut_alike: str = ""
    ) -> None:
        """Check that a collection made with ``stored`` can be used with this model.

        Reading needs the same model and vectors at least as wide, which are made as narrow; writing
        also the same compression, chunker, maximum length and way with long texts, so that the
        collection stays of one piece. Another precision is logged as a warning.

        Args:
            stored: the collection's.
            collection: its name, for the message.
            writing: whether records are to be added.
            cut_alike: the options that cut documents as the collection's were, for the message.

        Raises:
            FingerprintMismatch: names what differs and the ways out.
        """
        matters = {"weights", "tokenizer", "pooling"}
        if writing:
            matters |= _SETTINGS | {"format_version"}
        if not writing or self.compression == stored.compression:  # else that is what differs
            matters |= {"dense_width", "multivector_width"}
        now = replace(self.compressed(stored.compression), compression=self.compression)
        differs = [
            name
            for name in (field.name for field in fields(self))
            if name in matters and getattr(stored, name) != getattr(now, name)
        ]
        if differs:
            told = "; ".join(
                f"{name}: collection {_shown(getattr(stored, name))}, now {_shown(getattr(now, name))}"
                for name in differs
            )
            if set(differs) <= _SETTINGS:
                what = "with other settings"
                way = stored._way_to_make(differs, cut_alike, self.compression)
            else:
                what, way = f"and cannot be used with {self.model!r}", self._way_to_model(stored)
            raise FingerprintMismatch(
                f"collection {collection!r} was made by {stored.model!r} {what} ({told}). "
                f"{way}, or ingest into a new collection (--collection NAME)."
            )
        if stored.precision != self.precision:
            log.warning(
                "collection %r holds vectors in %s, the encoder computes in %s: scores differ by "
                "rounding (docs/precision.md has what it costs; --dtype chooses)",
                collection,
                stored.precision,
                self.precision,
            )

    def _way_to_make(
        self, differs: Collection[str], cut_alike: str, compression: Compression
    ) -> str:
        """What to pass, and what not, to cut and store documents as with this one."""
        ways = [f"--max-length {self.max_length}"] if "max_length" in differs else []
        ways += [f"--long-mode {self.long_mode}"] if "long_mode" in differs else []
        ways += ["--identifiers"] if "identifiers" in differs and self.identifiers else []
        ways += [cut_alike] if "chunker" in differs and cut_alike else []
        mine, others = self.compression.to_json(), compression.to_json()
        ways += [
            f"{_flag(name)} {value}" for name, value in mine.items() if others.get(name) != value
        ]
        unwanted = [name for name in others if name not in mine]
        unwanted += ["identifiers"] if "identifiers" in differs and not self.identifiers else []
        without = " and ".join(map(_flag, unwanted))
        told = [f"Pass {' '.join(ways)}"] if ways else []
        told += [f"{'l' if ways else 'L'}eave out {without}"] if without else []
        return " and ".join(told) or "Cut documents alike"

    def _way_to_model(self, stored: Fingerprint) -> str:
        """What to pass to get the stored one's model."""
        if stored.model == self.model and stored.weights != self.weights:  # trained from it, say
            return "Use --model with the folder or address it was made by, where two models share a name"
        return f"Use the same model and options (--model {stored.model})"


_SETTINGS = frozenset({"max_length", "long_mode", "chunker", "compression", "identifiers"})
"""What of a fingerprint is chosen at every ingestion, and not the model's."""


def _shown(value: object) -> str:
    return str(value) if isinstance(value, Compression) else repr(value)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
