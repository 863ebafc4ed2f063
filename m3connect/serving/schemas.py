"""Requests and answers of our own routes, as pydantic models: the source of docs/m3_embeddings.schema.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from m3connect.searching.names import Mode, ModeName
from m3connect.types import Leg, TokenDtype

Kind = Literal["query", "passage"]


class _Model(BaseModel):
    """Unknown keys are refused by name."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(_Model):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(_Model):
    """An error as OpenAI's clients read it."""

    error: ErrorDetail


class SmallerOutputs(_Model):
    """What is kept of each representation; all of it where a field is left out."""

    dense_width: int | None = Field(
        default=None, ge=1, description="The first so many values, of length 1 again."
    )
    sparse_top: int | None = Field(
        default=None, ge=1, description="The heaviest so many terms of a passage."
    )
    multivector_width: int | None = Field(
        default=None,
        ge=1,
        description="The first so many values of a token vector, of length 1 again.",
    )
    multivector_pool: int | None = Field(
        default=None, ge=2, description="One token vector of a passage for so many that are alike."
    )
    multivector_dtype: TokenDtype | None = Field(
        default=None, description="The precision to which a passage's token values are rounded."
    )


class EmbeddingsRequest(_Model):
    """Texts to encode, in one pass for all three representations."""

    input: str | list[str] = Field(description="One text, or several.")
    kind: Kind = Field(
        default="passage",
        description="Whether the texts ask or answer; some models tell them apart.",
    )
    legs: list[Leg] | None = Field(
        default=None, description="Representations to return; all that the model makes by default."
    )
    compression: SmallerOutputs | None = Field(
        default=None,
        description="Smaller representations; not where the service makes smaller ones already.",
    )


class SparseWeights(_Model):
    """Lexical weights: a positive weight for each term id of the model's tokenizer, ids once each."""

    indices: list[Annotated[int, Field(ge=0)]]
    values: list[float] = Field(description="As many as indices.")


class TextEmbeddings(_Model):
    """The representations of one text; one that was not asked for is null."""

    dense: list[float] | None = Field(description="Of length 1; compared by inner product.")
    sparse: SparseWeights | None = Field(
        description="Compared by the inner product of shared terms."
    )
    multivector: list[list[float]] | None = Field(
        description="A vector of length 1 for each token; compared by MaxSim, the mean over the "
        "query's tokens of the best inner product."
    )
    n_tokens: Annotated[int, Field(ge=0)] = Field(
        description="Tokens that were encoded: special ones and the model's prefix included."
    )
    truncated: bool = Field(description="Whether the text was longer than the model takes.")


class EmbeddingsResponse(_Model):
    """One entry a text, in the order of the request."""

    model: str
    fingerprint: dict[str, Any] = Field(
        description="Identity of the model. Vectors of equal weights, tokenizer, pooling and widths "
        "may be compared, others not."
    )
    data: list[TextEmbeddings]


class SearchRequest(_Model):
    """One query."""

    query: Annotated[str, Field(min_length=1)]
    collection: str | None = Field(default=None, description="The service's first one by default.")
    mode: ModeName = Field(default="hybrid", description="hybrid is dense+sparse.")
    filter: str | None = Field(
        default=None, description="""Such as 'lang == "de" and year >= 2020'."""
    )
    limit: Annotated[int, Field(ge=1)] = 10
    offset: Annotated[int, Field(ge=0)] = 0
    depth: Annotated[int, Field(ge=1)] | None = None
    explain: bool = False
    group_by_document: bool = Field(
        default=False, description="The best passage of each document alone."
    )
    expand: Literal["nothing", "neighbours", "parent"] = Field(
        default="nothing", description="Text around each passage, as far as expand_tokens reach."
    )
    expand_tokens: Annotated[int, Field(ge=1, le=32_768)] = 1024
    diversity: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Hits unlike each other (maximal marginal relevance)."
    )
    min_scores: dict[Leg, FiniteFloat] | None = Field(
        default=None, description="Least score of a hit, leg by leg."
    )
    rerank: bool = Field(
        default=False, description="Order by the cross-encoder that the service was started with."
    )
    pool: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Hits that group_by_document, diversity, min_scores and rerank choose from; "
        "five times offset + limit by default.",
    )
    highlight: Annotated[int, Field(ge=0, le=20)] = Field(
        default=0, description="So many sentences of each context or text, the nearest by MaxSim."
    )


class SearchHighlight(_Model):
    """A sentence: characters (code points) start to stop of the context, or else of the text."""

    start: int
    stop: int
    score: float = Field(description="MaxSim with the query.")
    text: str


class SearchHit(_Model):
    """One result, best first."""

    id: str
    score: float
    rank: int
    text: str | None
    document_id: str | None
    metadata: dict[str, Any]
    scores: dict[Leg, float | None]
    explanation: dict[str, Any] | None = None
    context: str | None = Field(default=None, description="The passage with what stands around it.")
    highlights: list[SearchHighlight] = []


class SearchResponse(_Model):
    """The hits of a query."""

    collection: str
    mode: Mode
    hits: list[SearchHit]


class PassagesRequest(_Model):
    """Passages of one document, all or from one position to another."""

    document_id: Annotated[str, Field(min_length=1)]
    first: int | None = None
    last: int | None = None
    collection: str | None = None


class Passage(_Model):
    """One passage."""

    id: str
    position: int
    text: str


class IngestDocument(_Model):
    """One document to add or replace."""

    id: Annotated[str, Field(min_length=1)]
    text: str
    metadata: dict[str, Any] = {}
    format: Literal["text", "markdown"] = "text"


class IngestRequest(_Model):
    """Documents to add or replace."""

    documents: Annotated[list[IngestDocument], Field(min_length=1)]
    collection: str | None = None


class IngestResponse(_Model):
    """What became of them."""

    written: int
    unchanged: int
    failed: list[dict[str, str]]


class DeleteRequest(_Model):
    """Documents to delete, by their ids."""

    document_ids: Annotated[list[str], Field(min_length=1)]
    collection: str | None = None


class DeleteResponse(_Model):
    """How many passages went."""

    deleted: int


class CollectionSummary(_Model):
    """A collection as the service sees it."""

    name: str
    records: int | None
    legs: list[Leg]
    model: str | None
    fields: dict[str, str]
    error: str | None = None
