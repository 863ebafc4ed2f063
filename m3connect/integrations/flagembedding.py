"""FlagEmbedding's ``BGEM3FlagModel`` on :class:`m3connect.M3Encoder`: change the import, keep the code.

    from m3connect.integrations.flagembedding import BGEM3FlagModel

Arguments, defaults, keys and shapes are those of FlagEmbedding 1.4. ``docs/porting.md`` has each call
beside ours, and what is deliberately otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, overload

import numpy as np

from m3connect.contract import Kind
from m3connect.errors import ConfigError, InputError
from m3connect.inference import M3Encoder
from m3connect.inference.pairs import pair_scores
from m3connect.inference.precision import Dtype
from m3connect.searching.scoring import maxsim, sparse_scores
from m3connect.types import Embeddings, FloatArray, Leg, MultiVectors, SparseVectors, TokenArray
from m3connect.types.vectors import shortened

Lexical = Mapping[str, float]
"""Weights by term id, written as a string."""
ScoreName = Literal["colbert", "sparse", "dense", "sparse+dense", "colbert+sparse+dense"]


class Output(TypedDict):
    """What an encoding returns: of one text, or of a list; None where it was not asked for."""

    dense_vecs: FloatArray | None
    lexical_weights: defaultdict[str, float] | list[defaultdict[str, float]] | None
    colbert_vecs: TokenArray | list[TokenArray] | None


class BGEM3FlagModel:
    """An M3 model behind the reference's interface.

    Args:
        model_name_or_path: see :meth:`m3connect.M3Encoder.load`.
        normalize_embeddings: vectors have length 1; there are no others here.
        use_fp16: compute in float16 on a GPU; on a CPU in float32, or in the faster precision whose
            cost was measured for this checkpoint. False is float32 everywhere.
        use_bf16: compute in bfloat16; goes before ``use_fp16``.
        query_instruction_for_retrieval: put before every text of :meth:`encode_queries`.
        query_instruction_format: how, from instruction and text.
        devices: one or several, a number is a CUDA device; None is the first GPU, else the CPU.
        pooling_method: the checkpoint's own, which ``"cls"`` leaves as it is.
        trust_remote_code: no code of a checkpoint is run here.
        cache_dir: where downloads are kept.
        colbert_dim: width of a token vector, -1 for the checkpoint's; there is no other.
        batch_size: with ``max_length``, the most tokens of a batch: their product.
        query_max_length: tokens after which a query is cut.
        passage_max_length: tokens after which a passage is cut.
        return_dense, return_sparse, return_colbert_vecs: what is returned unless a call says.
        truncate_dim: dimensions that are kept of dense and token vectors; None keeps all.
        passage_instruction_for_retrieval: put before every text of :meth:`encode_corpus`.
        passage_instruction_format: how, from instruction and text.

    Attributes:
        encoder: what it sits on.

    Raises:
        ConfigError: an argument that means something which is not done here, or see
            :meth:`m3connect.M3Encoder.load`.
        CheckpointError: a file that is missing, broken or misshapen: heads are never random.
    """

    def __init__(
        self,
        model_name_or_path: str,
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        query_instruction_format: str = "{}{}",
        devices: str | int | Sequence[str] | Sequence[int] | None = None,
        pooling_method: str = "cls",
        trust_remote_code: bool = False,
        cache_dir: str | None = None,
        colbert_dim: int = -1,
        batch_size: int = 256,
        query_max_length: int = 512,
        passage_max_length: int = 512,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
        truncate_dim: int | None = None,
        *,
        passage_instruction_for_retrieval: str | None = None,
        passage_instruction_format: str = "{}{}",
    ) -> None:
        if not normalize_embeddings:
            raise ConfigError("normalize_embeddings=False: vectors are always of length 1 here")
        if trust_remote_code:
            raise ConfigError(
                "trust_remote_code=True: no code of a checkpoint is run; leave it out"
            )
        if truncate_dim is not None and truncate_dim < 1:
            raise ConfigError(f"truncate_dim must be at least 1, got {truncate_dim}")
        dtype: Dtype = "bfloat16" if use_bf16 else "auto" if use_fp16 else "float32"
        encoder = M3Encoder.load(
            model_name_or_path,
            device=_device(devices),
            dtype=dtype,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            multivector_dtype="float32",
        )
        if not isinstance(encoder, M3Encoder):
            raise ConfigError(
                f"{model_name_or_path} runs elsewhere, with limits of its own: use "
                "m3connect.M3Encoder.load for a service"
            )
        if pooling_method not in ("cls", encoder.config.pooling):
            raise ConfigError(
                f"pooling_method {pooling_method!r}: {model_name_or_path} was made with "
                f"{encoder.config.pooling!r}"
            )
        if colbert_dim > 0 and colbert_dim != encoder.config.multivector_width:
            raise ConfigError(
                f"colbert_dim {colbert_dim}: token vectors of {model_name_or_path} are "
                f"{encoder.config.multivector_width} wide"
            )
        self.encoder = encoder
        self.query_instruction_for_retrieval = query_instruction_for_retrieval
        self.query_instruction_format = query_instruction_format
        self.passage_instruction_for_retrieval = passage_instruction_for_retrieval
        self.passage_instruction_format = passage_instruction_format
        self.batch_size = batch_size
        self.query_max_length = query_max_length
        self.passage_max_length = passage_max_length
        self.return_dense = return_dense
        self.return_sparse = return_sparse
        self.return_colbert_vecs = return_colbert_vecs
        self.truncate_dim = truncate_dim

    def encode_queries(
        self,
        queries: list[str] | str,
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
    ) -> Output:
        """Encode queries, with the query instruction before each.

        Arguments, result and errors as of :meth:`encode`; ``max_length`` defaults to
        ``query_max_length``.
        """
        return self._output(
            _instructed(
                queries, self.query_instruction_for_retrieval, self.query_instruction_format
            ),
            "query",
            batch_size,
            self.query_max_length if max_length is None else max_length,
            self._legs(return_dense, return_sparse, return_colbert_vecs),
        )

    def encode_corpus(
        self,
        corpus: list[str] | str,
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
    ) -> Output:
        """Encode passages, with the passage instruction before each.

        Arguments, result and errors as of :meth:`encode`.
        """
        return self.encode(
            _instructed(
                corpus, self.passage_instruction_for_retrieval, self.passage_instruction_format
            ),
            batch_size,
            max_length,
            return_dense,
            return_sparse,
            return_colbert_vecs,
        )

    def encode(
        self,
        sentences: list[str] | str,
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
    ) -> Output:
        """Encode texts as passages, without an instruction; None is what the model was made with.

        Args:
            sentences: one text or a list; order is kept.
            batch_size: with ``max_length``, the most tokens of a batch: their product.
            max_length: tokens after which a text is cut.
            return_dense: ``dense_vecs``, ``float32 [N, D]``, of one text ``[D]``.
            return_sparse: ``lexical_weights``, weights by term id, a mapping a text.
            return_colbert_vecs: ``colbert_vecs``, ``float32 [tokens - 1, C]`` a text.

        Raises:
            InputError: something is not a string, or a text is longer than the model takes and
                ``max_length`` is, too.
            ConfigError: ``max_length`` or ``batch_size`` is out of range.
        """
        return self._output(
            sentences,
            "passage",
            batch_size,
            self.passage_max_length if max_length is None else max_length,
            self._legs(return_dense, return_sparse, return_colbert_vecs),
        )

    @overload
    def compute_score(
        self,
        sentence_pairs: tuple[str, str],
        batch_size: int | None = None,
        max_query_length: int | None = None,
        max_passage_length: int | None = None,
        weights_for_different_modes: Sequence[float] | None = None,
    ) -> dict[ScoreName, float]: ...
    @overload
    def compute_score(
        self,
        sentence_pairs: list[tuple[str, str]],
        batch_size: int | None = None,
        max_query_length: int | None = None,
        max_passage_length: int | None = None,
        weights_for_different_modes: Sequence[float] | None = None,
    ) -> dict[ScoreName, list[float]]: ...
    def compute_score(
        self,
        sentence_pairs: list[tuple[str, str]] | tuple[str, str],
        batch_size: int | None = None,
        max_query_length: int | None = None,
        max_passage_length: int | None = None,
        weights_for_different_modes: Sequence[float] | None = None,
    ) -> dict[ScoreName, float] | dict[ScoreName, list[float]]:
        """How well passages answer queries, in five ways; the combined ones are weighted means.

        Args:
            sentence_pairs: (query, passage), one pair or a list.
            batch_size: as of :meth:`encode`.
            max_query_length: tokens after which a query is cut.
            max_passage_length: tokens after which a passage is cut.
            weights_for_different_modes: of dense, sparse and colbert; None is 1, 1, 1.

        Returns:
            a number for one pair, a list for a list. A mean whose weights sum to 0 is NaN.

        Raises:
            InputError: not three weights, or see :meth:`encode`.
            ConfigError: see :meth:`encode`.
        """
        one = bool(sentence_pairs) and isinstance(sentence_pairs[0], str)
        pairs: Any = [sentence_pairs] if one else sentence_pairs
        weights = (
            (1.0, 1.0, 1.0) if weights_for_different_modes is None else weights_for_different_modes
        )
        if len(weights) != 3:
            raise InputError(
                "weights_for_different_modes are three numbers, of dense, sparse and colbert; got "
                f"{list(weights)}"
            )
        legs: list[Leg] = ["dense", "sparse", "multivector"]
        queries = self._encode(
            [query for query, _ in pairs],
            "query",
            batch_size,
            self.query_max_length if max_query_length is None else max_query_length,
            legs,
        )
        passages = self._encode(
            [passage for _, passage in pairs],
            "passage",
            batch_size,
            self.passage_max_length if max_passage_length is None else max_passage_length,
            legs,
        )
        with np.errstate(invalid="ignore", divide="ignore"):  # weights such as 0, 0, 1
            by_mode = pair_scores(queries, passages, (weights[0], weights[1], weights[2]))
        scores: dict[ScoreName, list[float]] = {
            "colbert": by_mode["multivector"].tolist(),
            "sparse": by_mode["sparse"].tolist(),
            "dense": by_mode["dense"].tolist(),
            "sparse+dense": by_mode["hybrid"].tolist(),
            "colbert+sparse+dense": by_mode["all"].tolist(),
        }
        return {name: values[0] for name, values in scores.items()} if one else scores

    @overload
    def compute_lexical_matching_score(
        self, lexical_weights_1: Lexical, lexical_weights_2: Lexical
    ) -> float: ...
    @overload
    def compute_lexical_matching_score(
        self, lexical_weights_1: Sequence[Lexical], lexical_weights_2: Sequence[Lexical]
    ) -> FloatArray: ...
    def compute_lexical_matching_score(
        self,
        lexical_weights_1: Lexical | Sequence[Lexical],
        lexical_weights_2: Lexical | Sequence[Lexical],
    ) -> float | FloatArray:
        """The sparse score of two texts, or of all with all: :func:`sparse_scores`.

        Args:
            lexical_weights_1: N texts, or one.
            lexical_weights_2: M texts, or one if the first is one.

        Returns:
            ``float32 [N, M]``, or one number.

        Raises:
            InputError: one side is one text and the other is a list.
        """
        if isinstance(lexical_weights_1, Mapping) and isinstance(lexical_weights_2, Mapping):
            return float(
                self.compute_lexical_matching_score([lexical_weights_1], [lexical_weights_2])[0, 0]
            )
        if isinstance(lexical_weights_1, Mapping) or isinstance(lexical_weights_2, Mapping):
            raise InputError(
                "lexical weights of one text and of a list: give two texts or two lists"
            )
        # Terms are strings, of ids or of tokens: numbered here, for the one formula that there is.
        terms: defaultdict[str, int] = defaultdict(lambda: len(terms))
        left, right = (
            SparseVectors.from_rows(
                [{terms[term]: weight for term, weight in row.items()} for row in rows]
            )
            for rows in (lexical_weights_1, lexical_weights_2)
        )
        scores = np.empty((len(left), len(right)), np.float32)
        for row in range(len(left)):
            scores[row] = sparse_scores(left[row], right)
        return scores

    def colbert_score(self, q_reps: TokenArray, p_reps: TokenArray) -> np.float32:
        """Late interaction of one query with one passage: :func:`maxsim`.

        Args:
            q_reps: ``[n, C]``.
            p_reps: ``[m, C]``.
        """
        return np.float32(maxsim(q_reps, p_reps))

    def convert_id_to_token(
        self, lexical_weights: Lexical | Sequence[Lexical]
    ) -> dict[str, float] | list[dict[str, float]]:
        """The same weights by token, for people.

        Ids that read alike (with and without a space before them) are one token here, with the
        larger weight.

        Args:
            lexical_weights: of one text, or of several.

        Returns:
            a list; of one text, or of a list of one, the mapping itself, as the reference does.

        Raises:
            InputError: the vocabulary has no such id.
        """
        rows = [lexical_weights] if isinstance(lexical_weights, Mapping) else lexical_weights
        weights = [self._by_token(row) for row in rows]
        return weights[0] if len(weights) == 1 else weights

    def _by_token(self, weights: Lexical) -> dict[str, float]:
        tokens: dict[str, float] = {}
        for id_, weight in weights.items():
            self.encoder.term(int(id_))  # refuses what is not in the vocabulary
            token = self.encoder.tokenizer.decode([int(id_)], skip_special_tokens=False)
            tokens[token] = max(weight, tokens.get(token, weight))
        return tokens

    def _legs(
        self, dense: bool | None, sparse: bool | None, colbert_vecs: bool | None
    ) -> list[Leg]:
        wanted: dict[Leg, bool] = {
            "dense": self.return_dense if dense is None else dense,
            "sparse": self.return_sparse if sparse is None else sparse,
            "multivector": self.return_colbert_vecs if colbert_vecs is None else colbert_vecs,
        }
        return [leg for leg, asked in wanted.items() if asked]

    def _output(
        self,
        texts: list[str] | str,
        kind: Kind,
        batch_size: int | None,
        max_length: int,
        legs: Sequence[Leg],
    ) -> Output:
        if not legs:  # as the reference answers; our encoder is asked for something
            return {"dense_vecs": None, "lexical_weights": None, "colbert_vecs": None}
        one = isinstance(texts, str)
        embeddings = self._encode(
            [texts] if isinstance(texts, str) else texts, kind, batch_size, max_length, legs
        )
        dense = embeddings.dense
        lexical = None if embeddings.sparse is None else _lexical(embeddings.sparse)
        vectors = None
        if embeddings.multivector is not None:
            vectors = [embeddings.multivector[row] for row in range(len(embeddings))]
        return {
            "dense_vecs": dense[0] if one and dense is not None else dense,
            "lexical_weights": lexical[0] if one and lexical is not None else lexical,
            "colbert_vecs": vectors[0] if one and vectors is not None else vectors,
        }

    def _encode(
        self,
        texts: list[str],
        kind: Kind,
        batch_size: int | None,
        max_length: int,
        legs: Sequence[Leg],
    ) -> Embeddings:
        """The default of 512 tokens may be more than a small model takes; cutting there is told."""
        most = self.encoder.config.max_length
        size = self.batch_size if batch_size is None else batch_size
        encoder = self.encoder.limited(
            max_length=min(max_length, most),
            batch_tokens=min(size * max_length, self.encoder.batch_tokens),
        )
        embeddings = encoder.encode(texts, kind=kind, legs=legs)
        if max_length > most and embeddings.truncated.any():
            row = int(np.argmax(embeddings.truncated))
            raise InputError(
                f"{kind} {row} has more than the {most} tokens that {encoder.config.name} takes: "
                f"pass max_length={most} to cut it, not {max_length}"
            )
        if self.truncate_dim is None:
            return embeddings
        return _narrowed(embeddings, self.truncate_dim)


def _device(devices: str | int | Sequence[str] | Sequence[int] | None) -> str:
    """As :meth:`m3connect.M3Encoder.load` writes devices.

    >>> _device(None), _device("cuda:1"), _device(0), _device([0, 1])
    ('auto', 'cuda:1', 'cuda:0', 'cuda:0,cuda:1')
    """
    if devices is None:
        return "auto"
    several = [devices] if isinstance(devices, str | int) else devices
    return ",".join(name if isinstance(name, str) else f"cuda:{name}" for name in several)


def _instructed(texts: list[str] | str, instruction: str | None, pattern: str) -> list[str] | str:
    r"""Texts with an instruction before them; ``\n`` written out is a new line.

    >>> _instructed("rivers", "find: ", "{}{}"), _instructed(["rivers"], "find", "{}\\n{}")
    ('find: rivers', ['find\nrivers'])

    What is no string stays what it is, for the encoder to refuse by its number.
    """
    if instruction is None:
        return texts
    pattern = pattern.replace("\\n", "\n")
    if isinstance(texts, str):
        return pattern.format(instruction, texts)
    return [pattern.format(instruction, text) if isinstance(text, str) else text for text in texts]


def _lexical(rows: SparseVectors) -> list[defaultdict[str, float]]:
    """A mapping a text; what is not in it weighs 0, as in the reference.

    >>> _lexical(SparseVectors.from_rows([{7: 0.5}]))
    [defaultdict(<class 'int'>, {'7': 0.5})]
    """
    return [
        defaultdict(int, zip(map(str, row.indices.tolist()), row.values.tolist(), strict=True))
        for row in (rows[number] for number in range(len(rows)))
    ]


def _narrowed(embeddings: Embeddings, width: int) -> Embeddings:
    """The first dimensions of dense and token vectors, of length 1 again."""
    vectors = embeddings.multivector
    return Embeddings(
        None if embeddings.dense is None else shortened(embeddings.dense, width),
        embeddings.sparse,
        None
        if vectors is None
        else MultiVectors(vectors.offsets, shortened(vectors.vectors, width)),
        embeddings.n_tokens,
        embeddings.truncated,
    )
