"""What an encoder and a connector are. With ``types/``, all one reads to write a connector.

A connector is translation plus I/O. It receives vectors and never embeds; constructing it does no
I/O; nothing it does on its own destroys data. Its behaviour is the in-memory connector's
(``stores/memory.py``, the oracle), and ``m3connect.testing.conformance`` holds it to that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, get_args

from m3connect.types import LEGS, Fingerprint, Leg, Rrf, TokenDtype

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from m3connect.filters import AnyFilter
    from m3connect.types import Embeddings, Fusion, Hit, Query, RecordBatch

FieldKind = Literal["keyword", "integer", "float", "boolean", "datetime"]
FusionKind = Literal["rrf", "weighted", "weighted_rescored"]
Kind = Literal["query", "passage"]
LegSelection = bool | Sequence[Leg]
"""Which vectors a read brings: all, none, or those of some legs."""
RESERVED_PREFIX = "_m3"
"""Top-level payload keys with this prefix belong to the connector."""


# ---------------------------------------------------------------------------------- the encoder


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an encoder is.

    Args:
        name: what it was loaded as.
        fingerprint: identity of the model; ``chunker`` is empty here.
        weights: recommended fusion weights (dense, sparse, multivector).
        preparation: what else its vectors depend on, such as prefixes of texts; collections do not
            say it, and cached vectors are kept apart by it.
    """

    name: str
    fingerprint: Fingerprint
    weights: tuple[float, float, float]
    preparation: str = ""

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
        licence: the one that covers what the engine is asked for; None where there is none to name.
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
    licence: str | None = None


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

    What a collection says of itself is read then, too, and again by :meth:`upsert`, by :meth:`delete` with
    a filter and by :meth:`annotate`: nothing is written by what it was before another made it anew. What
    reads goes by what was read last; :func:`m3connect.searching.planner.run` reads it for each search.
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
