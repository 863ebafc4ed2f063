"""A peer integration at the work of databases.py, in the environment where it is installed.

    python benchmarks/peer_store.py TARGET COLLECTION PLACE FOLDER

PLACE is a path, or the URL of an Elasticsearch node. FOLDER holds passages.npz and queries.npz, the
vectors that m3connect gets; answers.json is written there. Texts stand for their vectors, so no
model runs. What has an option is set as m3connect has it: reciprocal ranks over 100 candidates a
leg for Milvus; the one for Qdrant always takes as many candidates as it returns.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from timing import timed

LIMIT, DEPTH = 10, 100

Ask = Callable[[str], list[Document]]
Open = Callable[[str, str, dict, dict], tuple[VectorStore, dict[str, Ask]]]
"""Collection, place, dense and sparse vectors by text; a store to write to, searches by mode."""


class Precomputed:
    """Looks vectors up by their texts."""

    def __init__(self, vectors: Mapping[str, Any]) -> None:
        self.vectors = vectors

    def embed_documents(self, texts: Sequence[str]) -> list:
        """One vector a text."""
        return [self.vectors[text] for text in texts]

    def embed_query(self, text: str) -> Any:
        """The vector of one text."""
        return self.vectors[text]


class Dense(Precomputed, Embeddings):
    """Dense vectors, as every integration takes them."""


def open_qdrant(collection: str, place: str, dense: dict, sparse: dict) -> tuple:
    """langchain-qdrant on its client's local mode."""
    from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings
    from langchain_qdrant.sparse_embeddings import SparseVector
    from qdrant_client import QdrantClient, models

    class Sparse(Precomputed, SparseEmbeddings):
        """Sparse vectors of its own type."""

    client = QdrantClient(path=place)
    width = len(next(iter(dense.values())))
    client.create_collection(
        collection,
        {"dense": models.VectorParams(size=width, distance=models.Distance.DOT)},
        {"sparse": models.SparseVectorParams()},
    )
    weights = {
        text: SparseVector(indices=list(found), values=list(found.values()))
        for text, found in sparse.items()
    }
    modes = {
        "dense": RetrievalMode.DENSE,
        "sparse": RetrievalMode.SPARSE,
        "rrf": RetrievalMode.HYBRID,
    }
    stores = {
        name: QdrantVectorStore(
            client,
            collection,
            embedding=Dense(dense),
            sparse_embedding=Sparse(weights),
            retrieval_mode=mode,
            vector_name="dense",
            sparse_vector_name="sparse",
            distance=models.Distance.DOT,
            validate_collection_config=False,  # by encoding a text of its own
        )
        for name, mode in modes.items()
    }
    asks = {name: partial(store.similarity_search, k=LIMIT) for name, store in stores.items()}
    return stores["rrf"], asks


def open_milvus(collection: str, place: str, dense: dict, sparse: dict) -> tuple:
    """langchain-milvus on Milvus Lite."""
    from langchain_milvus import Milvus
    from langchain_milvus.utils.sparse import BaseSparseEmbedding

    class Sparse(Precomputed, BaseSparseEmbedding):
        """Sparse vectors as mappings."""

    # By default it drops the smallest fifth of the weights, which Milvus Lite refuses.
    product = {"metric_type": "IP", "params": {}}
    indexes = {"dense": "AUTOINDEX", "sparse": "SPARSE_INVERTED_INDEX"}

    def store(embeddings: list, fields: list[str]) -> Milvus:
        return Milvus(
            embeddings,
            collection_name=collection,
            connection_args={"uri": place},
            vector_field=fields,
            index_params=[product | {"index_type": indexes[field]} for field in fields],
            search_params=[product for _ in fields],
        )

    @cache
    def single(field: str) -> Milvus:
        """A store on one field, which can be opened only when the collection is there."""
        return store([Dense(dense) if field == "dense" else Sparse(sparse)], [field])

    both = store([Dense(dense), Sparse(sparse)], ["dense", "sparse"])
    return both, {
        "dense": lambda text: single("dense").similarity_search(text, k=LIMIT),
        "sparse": lambda text: single("sparse").similarity_search(text, k=LIMIT),
        "rrf": partial(both.similarity_search, k=LIMIT, fetch_k=DEPTH, ranker_type="rrf"),
    }


def open_elasticsearch(collection: str, place: str, dense: dict, sparse: dict) -> tuple:
    """langchain-elasticsearch, which takes no sparse vectors and fuses only with its BM25."""
    from langchain_elasticsearch import DenseVectorStrategy, ElasticsearchStore

    del sparse
    store = ElasticsearchStore(
        collection,
        embedding=Dense(dense),
        es_url=place,
        strategy=DenseVectorStrategy(),
        num_dimensions=len(next(iter(dense.values()))),
    )
    return store, {"dense": partial(store.similarity_search, k=LIMIT)}


OPEN: dict[str, Open] = {
    "qdrant": open_qdrant,
    "milvus": open_milvus,
    "elasticsearch": open_elasticsearch,
}


def read(path: Path, name: str) -> tuple[dict, dict]:
    """Dense and sparse vectors by the texts ``NAME-0``, ``NAME-1`` and so on."""
    with np.load(path) as file:
        dense, indptr = file["dense"].tolist(), file["indptr"]
        indices, values = file["indices"].tolist(), file["values"].tolist()
    rows = [slice(*bounds) for bounds in pairwise(indptr.tolist())]
    sparse = [dict(zip(indices[row], values[row], strict=True)) for row in rows]
    texts = [f"{name}-{row}" for row in range(len(dense))]
    return dict(zip(texts, dense, strict=True)), dict(zip(texts, sparse, strict=True))


def main() -> None:
    """Write all records in one call, ask every query in every mode."""
    target, collection, place, folder = sys.argv[1:]
    dense, sparse = read(Path(folder, "passages.npz"), "record")
    asked_dense, asked_sparse = read(Path(folder, "queries.npz"), "query")
    store, asks = OPEN[target](collection, place, dense | asked_dense, sparse | asked_sparse)
    # Whole numbers are ids for Qdrant alone.
    ids: list = [row if target == "qdrant" else str(row) for row in range(len(dense))]
    topics = [{"topic": row % 64} for row in range(len(dense))]
    start = time.perf_counter()
    store.add_texts(list(dense), topics, ids=ids)
    if target == "milvus":  # sealed, as m3connect does it; otherwise searches are much slower
        store.client.flush(collection)
    seconds = time.perf_counter() - start
    modes = {}
    for mode, ask in asks.items():
        found, p50, p99 = timed(ask, list(asked_dense))
        ids_found = [[document.page_content for document in hits] for hits in found]
        modes[mode] = {"p50": p50, "p99": p99, "found": ids_found}
    name = f"langchain-{target}"
    answers = {"client": f"{name} {version(name)}", "seconds": seconds, "modes": modes}
    Path(folder, "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
