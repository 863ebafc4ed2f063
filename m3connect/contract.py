"""What an encoder and a connector are. With types.py, all one reads to write a connector.

A connector is translation plus I/O. It receives vectors and never embeds; constructing it does no
I/O; nothing it does on its own destroys data. Its behaviour is the in-memory connector's
(``memory.py``, the oracle), and ``m3connect.testing.conformance`` holds it to that.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, get_args

from m3connect.errors import FingerprintMismatch, InputError
from m3connect.types import LEGS, Compression, Leg, Rrf, TokenDtype

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from m3connect.filters import AnyFilter
    from m3connect.types import Embeddings, Fusion, Hit, Query, RecordBatch

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Raised when stored records change their meaning."""

FieldKind = Literal["keyword", "integer", "float", "boolean", "datetime"]
FusionKind = Literal["rrf", "weighted", "weighted_rescored"]
Kind = Literal["query", "passage"]
Precision = Literal["float32", "float16", "bfloat16", "int8", "int8-7bit"]
"""In which a network computes; ``int8-7bit`` is int8 for CPUs where 8 bits of weight overflow."""
LongMode = Literal["truncate", "chunk", "mcls"]
"""What becomes of a text that is longer than the model reads at once (``model/long_texts.py``)."""
MCLS_EVERY = 256
"""Tokens of text for each CLS of ``mcls``."""
LegSelection = bool | Sequence[Leg]
"""Which vectors a read brings: all, none, or those of some legs."""
RESERVED_PREFIX = "_m3"
"""Top-level payload keys with this prefix belong to the connector."""


# ---------------------------------------------------------------------------------- the encoder


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


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an encoder is.

    Args:
        name: what it was loaded as.
        fingerprint: identity of the model; ``chunker`` is empty here.
        weights: recommended fusion weights (dense, sparse, multivector).
    """

    name: str
    fingerprint: Fingerprint
    weights: tuple[float, float, float]

    @property
    def max_length(self) -> int:
        """Longest input in tokens, special tokens included."""
        return self.fingerprint.max_length


class Encoder(Protocol):
    """Text in, three representations out, in one pass."""

    @property
    def info(self) -> ModelInfo:
        """What this encoder is."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, with neither truncation nor padding."""

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", legs: Sequence[Leg] = LEGS
    ) -> Embeddings:
        """Encode texts; order is kept.

        Args:
            texts: any strings, empty ones included.
            kind: whether they ask or answer; some models prepend a prefix.
            legs: the representations to return.
        """

    def term(self, index: int) -> str:
        """The term (tokenizer piece) behind a sparse index."""

    def tokens(self, text: str, *, kind: Kind = "passage") -> list[str]:
        """The pieces behind the rows of ``text``'s multi-vector, in order."""


class Reranker(Protocol):
    """What reads a query and a passage together: a cross-encoder. :func:`m3connect.load_reranker`."""

    def __call__(self, query: str, passages: Sequence[str]) -> Sequence[float]:
        """A score for each passage, higher is better; on a scale of the model's own."""


# -------------------------------------------------------------------------------- the connector


@dataclass(frozen=True, slots=True)
class Limits:
    """What a backend takes; what exceeds it is split, or refused by name.

    Args:
        request_bytes: payload of one write request.
        multivector_floats: tokens x width of one record's multi-vector.
        id_bytes: UTF-8 length of an id.
        payload_bytes: JSON length of one payload.
        results: the largest ``limit`` and depth of a search.
        results_by: what of the backend says so, by the backend's name for it.
        candidates: of both legs together, in one fused search; what exceeds it is composed.
        records: of one write request.
    """

    request_bytes: int = 16 * 1024 * 1024
    multivector_floats: int | None = None
    id_bytes: int | None = None
    payload_bytes: int | None = None
    results: int | None = None
    results_by: str = ""
    candidates: int | None = None
    records: int | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend does itself; the planner composes the rest on the client.

    Args:
        engine: for people, such as ``qdrant-edge 0.9.0``.
        embedded: whether the engine runs in this process.
        legs: representations the engine can search.
        stores: representations it can store.
        token_dtypes: precisions that it can store token values in.
        fusions: fusions of dense and sparse it answers in one request: ``rrf``, ``weighted``
            (missing legs count 0) and ``weighted_rescored`` (every candidate gets true scores).
        maxsim: whether it scores candidates by MaxSim in the same request, as a leg of
            ``fusions`` and as ``rerank``.
        scores_within: representations whose true scores it gives of named records: a search of that
            leg, ``within`` their ids. Of the others the client reads the vectors.
        exact: whether a dense search is exact rather than approximate. An approximate one is
            still exact on a few hundred records.
        aliases: whether a name that no collection has can be made to stand for one.
        limits: sizes it takes.
    """

    engine: str
    embedded: bool
    legs: frozenset[Leg]
    stores: frozenset[Leg] = frozenset(LEGS)
    token_dtypes: frozenset[TokenDtype] = frozenset(get_args(TokenDtype))
    fusions: frozenset[FusionKind] = frozenset()
    maxsim: bool = False
    scores_within: frozenset[Leg] = frozenset()
    exact: bool = False
    aliases: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class CollectionSchema:
    """What a collection holds.

    Args:
        dense_width: D, None without dense vectors.
        sparse: whether lexical weights are stored.
        multivector_width: C, None without multi-vectors.
        multivector_dtype: how token values are stored (:mod:`m3connect.types.tokens`).
        payload_fields: payload paths to index for filtering, with their kinds. Filters work on
            every field; these are fast.
        fingerprint: the model behind the vectors, None when unknown.
        tenant_field: the payload field whose string keeps records apart (:mod:`m3connect.connecting.tenants`);
            None where all belong together.
    """

    dense_width: int | None
    sparse: bool
    multivector_width: int | None
    multivector_dtype: TokenDtype = "float16"
    payload_fields: Mapping[str, FieldKind] = field(default_factory=dict)
    fingerprint: Fingerprint | None = None
    tenant_field: str | None = None

    @classmethod
    def of(
        cls,
        made_by: Fingerprint,
        legs: Collection[Leg],
        *,
        payload_fields: Mapping[str, FieldKind] | None = None,
        chunker: str = "",
        tenant_field: str | None = None,
    ) -> Self:
        """A collection for some of the representations that a model makes.

        Args:
            made_by: the model.
            legs: those to store; what the model does not make is left out.
            payload_fields: payload paths to index.
            chunker: how documents are cut.
            tenant_field: the payload field that keeps tenants apart.
        """
        kept = tuple(leg for leg in LEGS if leg in legs and leg in made_by.legs)
        return cls(
            made_by.dense_width if "dense" in kept else None,
            "sparse" in kept,
            made_by.multivector_width if "multivector" in kept else None,
            made_by.compression.multivector_dtype or "float16",
            payload_fields=payload_fields or {},
            fingerprint=replace(made_by, legs=kept, chunker=chunker),
            tenant_field=tenant_field,
        )

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The representations it stores."""
        present = (self.dense_width, self.sparse or None, self.multivector_width)
        return tuple(leg for leg, width in zip(LEGS, present, strict=True) if width is not None)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; :meth:`from_json` reads them back."""
        values = {
            "dense_width": self.dense_width,
            "sparse": self.sparse,
            "multivector_width": self.multivector_width,
            "multivector_dtype": self.multivector_dtype,
            "payload_fields": dict(self.payload_fields),
            "fingerprint": self.fingerprint.to_json() if self.fingerprint else None,
        }
        # Where there are no tenants, nothing is said: earlier versions read it, too.
        return values | ({"tenant_field": self.tenant_field} if self.tenant_field else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what :meth:`to_json` gave."""
        stored = values["fingerprint"]
        return cls(**{**values, "fingerprint": Fingerprint.from_json(stored) if stored else None})

    def differences(self, stored: CollectionSchema) -> list[str]:
        """Why a collection made as ``stored`` cannot serve as this one; empty when it can.

        Payload indexes and the fingerprint are not compared: indexes can be added, and the
        fingerprint has :meth:`Fingerprint.require`. A collection with tenants has them unasked.
        """
        names = ["dense_width", "sparse", "multivector_width", "multivector_dtype"]
        names += ["tenant_field"] if self.tenant_field is not None else []
        return [
            f"{name}: collection {getattr(stored, name)!r}, wanted {getattr(self, name)!r}"
            for name in names
            if getattr(stored, name) != getattr(self, name)
        ]


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection as the database holds it.

    Args:
        name: the collection's name.
        schema: as it was made, fingerprint included.
        notes: what :meth:`Connector.annotate` stored, such as tuned fusion weights.
        engine: the engine and version that answered.
        stands_for: the collection that the name stands for: itself, unless it is an alias or was
            switched.
    """

    name: str
    schema: CollectionSchema
    notes: Mapping[str, Any]
    engine: str
    stands_for: str


class Connector(Protocol):
    """One collection in one database. Methods raise the ConnectorError family, or InputError.

    It is a context manager; leaving it closes it. A filter may be given as text everywhere. Any
    thread may use it, one at a time.

    Its name may stand for another collection (an alias, or :meth:`switch`). Which one is looked up
    when the connector is first used, and by :meth:`describe`; in between, all that it does is done to
    the same collection, so that what begins on one is not finished on another.
    """

    name: str
    """The connector's name: ``qdrant``, ``milvus``, ``elasticsearch``, ``memory``."""
    collection: str

    @property
    def capabilities(self) -> Capabilities:
        """What the backend does itself; may ask the server for its version and licence."""

    def ensure(self, schema: CollectionSchema) -> None:
        """Create the collection, or verify that it fits; adds missing payload indexes.

        The stored fingerprint is never replaced. Never drops anything.

        Raises:
            SchemaMismatch: the collection differs; says in what.
        """

    def upsert(self, batch: RecordBatch) -> None:
        """Write records; acknowledged and durable on return. The last of equal ids wins.

        Raises:
            InputError: a record is bad (see :func:`m3connect.connecting.checks.check_records`); nothing was
                written.
        """

    def flush(self) -> None:
        """Make all that was acknowledged findable, fast (refresh, optimize, load)."""

    def delete(self, where: Sequence[str] | AnyFilter) -> int:
        """Delete by ids or by filter; returns how many records went. Missing ids are no error.

        A string is the text of a filter; one id is given as a list.
        """

    def fetch(self, ids: Sequence[str], *, vectors: LegSelection = True) -> RecordBatch:
        """The records with these ids, in the order asked; missing ids are left out.

        Vectors come back to the stored precision, those of the legs in ``vectors`` alone.

        Raises:
            InputError: ``vectors`` names a leg that the collection does not store.
        """

    def scan(
        self,
        where: AnyFilter | None = None,
        *,
        vectors: LegSelection = False,
        batch_size: int = 256,
    ) -> Iterator[RecordBatch]:
        """All matching records, each once, in no particular order, with the legs in ``vectors``."""

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Answer what :attr:`capabilities` calls native; hits sorted by (-score, id).

        Raises:
            Unsupported: a query is not native; ``m3connect.searching.planner`` composes those.
        """

    def count(self, where: AnyFilter | None = None) -> int:
        """How many records match; exact."""

    def annotate(self, notes: Mapping[str, Any]) -> None:
        """Merge JSON notes into the collection itself; a None value removes the key."""

    def describe(self) -> CollectionInfo:
        """Schema, fingerprint and notes as the database holds them, of what the name stands for now.

        Raises:
            CollectionNotFound: there is no such collection.
        """

    def beside(self, collection: str) -> Connector:
        """Another collection of the same database, opened with the same options; nothing is sent yet.

        It may use this one's connection, and ends with this one. Closing it leaves this one open.

        Raises:
            ConfigError: no collection can have this name.
        """

    def switch(self, collection: str) -> None:
        """Let this connector's name stand for another collection, in one step; its own name undoes it.

        Nothing is copied and nothing is removed. Where the name is an alias, or free and aliases are
        possible, the alias is set; a collection of this name notes for which other it stands. Who
        has described the name before goes on with what it stood for, until it describes it again.

        Raises:
            CollectionNotFound: there is no such collection, or none of this name where there are no
                aliases.
            Unsupported: this database has no more than one collection.
        """

    def collections(self) -> list[str]:
        """The names of the collections that m3connect made in this database, sorted; none is opened."""

    def size(self) -> int | None:
        """Bytes of the collection on disk, replicas included; None where the engine does not tell."""

    def drop(self) -> None:
        """Remove the collection with all that is in it; :meth:`ensure` makes it anew.

        One of an older format goes, too.

        Raises:
            CollectionNotFound: there is no such collection.
            SchemaMismatch: m3connect did not make it; it stays.
            PermanentError: the name stands for another collection; both stay.
        """

    def close(self) -> None:
        """Release files and connections; closing twice is fine."""

    def __enter__(self) -> Self:
        """The connector itself."""

    def __exit__(self, *exception: object) -> None:
        """Close it."""


def fusion_kind(fusion: Fusion) -> FusionKind:
    """The name under which :class:`Capabilities` lists a fusion."""
    if isinstance(fusion, Rrf):
        return "rrf"
    return "weighted_rescored" if fusion.rescore else "weighted"
