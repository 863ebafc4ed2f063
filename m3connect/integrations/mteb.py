"""An M3 encoder as a model of the Massive Text Embedding Benchmark (the extra ``mteb``).

mteb.evaluate(DenseModel(encoder), tasks)              every kind of task, on the dense vector
mteb.evaluate(SearchModel(encoder, "all"), tasks)      retrieval and reranking, in any mode
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from m3connect.contract import Encoder, Kind, ModelInfo
from m3connect.errors import InputError
from m3connect.evaluation import shards
from m3connect.evaluation.offline import OfflineSearch
from m3connect.searching.modes import Preset, needed, parse_mode, preset_for
from m3connect.searching.names import Mode, ModeName
from m3connect.training_data import mining

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

_TYPES: dict[Mode, Literal["dense", "sparse", "late-interaction", "hybrid"]] = {
    "dense": "dense",
    "sparse": "sparse",
    "multivector": "late-interaction",
    "hybrid": "hybrid",
    "all": "hybrid",
}


class DenseModel:
    """The dense vector, through mteb's encoder protocol.

    Args:
        encoder: the model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes beside the results."""
        return _meta(self.encoder.info, "dense")

    def encode(
        self, inputs: Iterable[Mapping[str, Any]], *, prompt_type: Any = None, **options: Any
    ) -> NDArray[np.float32]:
        """Dense vectors ``float32 [N, D]`` of all texts of a data loader.

        Args:
            inputs: batches with a list of texts under ``text``.
            prompt_type: of mteb; its ``query`` asks, everything else is a passage.
            **options: of mteb's protocol; the task and batch size do not matter here.
        """
        del options
        kind: Kind = "query" if getattr(prompt_type, "value", prompt_type) == "query" else "passage"
        texts = [_text(text) for batch in inputs for text in batch["text"]]
        dense = self.encoder.encode(texts, kind=kind, legs=("dense",)).dense
        assert dense is not None, "asked for"
        return dense

    def similarity(self, first: Any, second: Any) -> NDArray[np.float32]:
        """Inner products of all with all."""
        return np.asarray(np.atleast_2d(first) @ np.atleast_2d(second).T, np.float32)

    def similarity_pairwise(self, first: Any, second: Any) -> NDArray[np.float32]:
        """Inner products of pairs."""
        return np.asarray((np.asarray(first) * np.asarray(second)).sum(axis=-1), np.float32)


class SearchModel:
    """Retrieval and reranking in one mode, through mteb's search protocol; the search is exact.

    Args:
        encoder: the model.
        mode: what to search and how to fuse.
        preset: depths and weights; default: what :func:`m3connect.search` does.
        cache: folder that keeps embeddings between runs; None keeps them for this object's life.
    """

    def __init__(
        self,
        encoder: Encoder,
        mode: ModeName,
        *,
        preset: Preset | None = None,
        cache: Path | None = None,
    ) -> None:
        self.encoder = encoder
        self.mode = parse_mode(mode)
        self.preset = preset or preset_for(encoder.info)
        self._cache = cache or Path(tempfile.mkdtemp(prefix="m3connect-"))
        if cache is None:
            weakref.finalize(self, shutil.rmtree, self._cache, ignore_errors=True)
        self._legs = needed([self.mode], self.preset, available=encoder.info.fingerprint.legs)
        self._ids: tuple[str, ...] = ()
        self._store: shards.EmbeddingStore | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes beside the results."""
        return _meta(self.encoder.info, self.mode)

    def index(self, corpus: Any, **options: Any) -> None:
        """Encode a corpus.

        Args:
            corpus: rows with ``id``, ``text`` and perhaps ``title``.
            **options: of mteb's protocol; they do not matter here.
        """
        del options
        titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
        texts = [
            f"{title or ''} {_text(text)}".strip()
            for title, text in zip(titles, corpus["text"], strict=True)
        ]
        self._ids = tuple(corpus["id"])
        self._store = self._encoded(texts, "passage")

    def search(
        self,
        queries: Any,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **options: Any,
    ) -> dict[str, dict[str, float]]:
        """Scores of the best documents by query and document id.

        Args:
            queries: rows with ``id`` and ``text``.
            top_k: documents a query.
            top_ranked: the candidates of each query, in reranking tasks.
            **options: of mteb's protocol; they do not matter here.

        Raises:
            InputError: nothing was indexed.
        """
        del options
        if self._store is None:
            raise InputError("index a corpus before searching")
        ids = list(queries["id"])
        texts = [_text(text) for text in queries["text"]]
        encoded = self._encoded(texts, "query").take(np.arange(len(texts)), self._legs)
        search = OfflineSearch(self._ids, self._store, encoded, self.preset, limit=top_k)
        if top_ranked is None:
            return dict(zip(ids, search.run(self.mode), strict=True))
        source = mining.OfflineSource(search, self.mode)
        return {id_: source.score(row, top_ranked[id_]) for row, id_ in enumerate(ids)}

    def _encoded(self, texts: Sequence[str], kind: Kind) -> shards.EmbeddingStore:
        legs = self._legs
        content = hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).hexdigest()
        folder = self._cache / shards.key(self.encoder, content, kind=kind, legs=legs)
        return shards.encode(folder, self.encoder, texts, len(texts), kind=kind, legs=legs)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"only texts can be encoded, got {type(value).__name__}")
    return value


def _meta(info: ModelInfo, mode: Mode) -> ModelMeta:
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    return ModelMeta(
        loader=None,
        name=f"m3connect/{info.name.rsplit('/', 1)[-1]}-{mode}",
        revision=info.fingerprint.weights,
        release_date=None,
        languages=None,
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=info.max_length,
        embed_dim=info.fingerprint.dense_width or None,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=[],
        similarity_fn_name=ScoringFunction.DOT_PRODUCT,
        use_instructions=None,
        training_datasets=None,
        model_type=[_TYPES[mode]],
    )
