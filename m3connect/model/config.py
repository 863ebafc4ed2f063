"""What an M3 checkpoint is: its body, its heads and how text is prepared for it.

``m3.json`` holds an :class:`M3Config`. A checkpoint in the published layout of BAAI/bge-m3 has
none; :mod:`m3connect.model.checkpoint` derives it from the files.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from m3connect.contract import Kind
from m3connect.types import Precision


class BodyConfig(BaseModel):
    """A BERT encoder under the names of transformers' ``config.json``, whose other keys are ignored.

    The XLM-R family is the same network; only its positions start after the padding id.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_type: Literal["bert", "roberta", "xlm-roberta", "camembert"]
    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=2)
    type_vocab_size: int = Field(gt=0)
    layer_norm_eps: float = Field(gt=0)
    pad_token_id: int = Field(ge=0)
    hidden_act: Literal["gelu"] = "gelu"
    position_embedding_type: Literal["absolute"] = "absolute"
    hidden_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> BodyConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        return self

    @property
    def first_position(self) -> int:
        """The position of the first token."""
        return 0 if self.model_type == "bert" else self.pad_token_id + 1

    @property
    def longest_input(self) -> int:
        """Tokens that have a position."""
        return self.max_position_embeddings - self.first_position


class M3Config(BaseModel):
    """Body, heads and text preparation of one checkpoint.

    Args:
        name: the model's name, for people and for fingerprints.
        body: the encoder below the heads.
        multivector_width: C, the width of a token vector.
        pooling: how the dense vector is made of the last hidden states.
        query_prefix, passage_prefix: put before every text of that kind. Their tokens take part
            in attention and in a mean; they get no lexical weight and no token vector.
        max_length: tokens after which a text is cut, special tokens included.
        special_ids: term ids that never get a lexical weight: begin, end, padding, unknown.
        fold_case: whether a term counts as its lower-case twin, where the vocabulary has one.
        fusion_weights: recommended weights of dense, sparse and multivector.
        weights_hash: see :func:`m3connect.model.checkpoint.weights_hash`; whoever writes a
            checkpoint fills it in. A conversion to another layout keeps it: still the same model.
        precisions: in which this model's cost in nDCG@10 was measured and lies within the bound of
            ``docs/precision.md``, so that ``dtype="auto"`` may take them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    body: BodyConfig
    multivector_width: int = Field(gt=0)
    pooling: Literal["cls", "mean"] = "cls"
    query_prefix: str = ""
    passage_prefix: str = ""
    max_length: int = Field(gt=2)
    special_ids: tuple[int, ...]
    fold_case: bool = False
    fusion_weights: tuple[float, float, float] = (1.0, 0.3, 1.0)
    weights_hash: str
    precisions: tuple[Precision, ...] = ()

    @model_validator(mode="after")
    def _positions_suffice(self) -> M3Config:
        if self.max_length > self.body.longest_input:
            raise ValueError(
                f"max_length {self.max_length} exceeds the body's {self.body.longest_input} "
                "positions"
            )
        return self

    def retrained(self, weights_hash: str) -> M3Config:
        """Of other weights: what was measured of the old ones does not hold for them."""
        return self.model_copy(update={"weights_hash": weights_hash, "precisions": ()})

    @property
    def dense_width(self) -> int:
        """D, the width of the dense vector."""
        return self.body.hidden_size

    @property
    def preparation(self) -> str:
        """What is done to texts, which no hash of weights or tokenizer tells."""
        return json.dumps([self.query_prefix, self.passage_prefix, self.fold_case])

    def prefix(self, kind: Kind) -> str:
        """What is put before a text of this kind."""
        return self.query_prefix if kind == "query" else self.passage_prefix
