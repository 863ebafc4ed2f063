"""A peer at the work of databases.py, in the environment where it is installed.

    python benchmarks/peer_store.py PEER COLLECTION PLACE FOLDER BATCH...

PEER is the distribution's name: LangChain's store for a database, or the database's own client as
one would use it for what that store cannot do.

PLACE is a path, or the URL of an Elasticsearch node. FOLDER holds passages.npz and queries.npz, the
vectors that m3connect gets; answers.json is written there. Texts stand for their vectors, so no
model runs. What has an option is set as m3connect has it: 100 candidates a leg, the same weights,
the same index. langchain-qdrant always takes as many candidates as it returns, and langchain-milvus
has its weighted ranker squash the scores before it adds them. BATCH are sizes in which the clients that
take many queries at once are asked, too.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from timing import rates, timed

LIMIT, DEPTH = 10, 100
WEIGHTS = (1.0, 0.3)
"""Of dense and sparse, as m3connect.types.Weighted has them."""

Write = Callable[[list[str]], object]
Ask = Callable[[str], list[str]]
AskMany = Callable[[Sequence[str]], object]
Open = Callable[[str, str, dict, dict], tuple[Write, dict[str, Ask], dict[str, AskMany]]]
"""Collection, place, dense and sparse vectors by text; how to write texts, searches by mode, one query at
a time and many at once."""


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


def topics(texts: Sequence[str]) -> list[dict]:
    """A payload for each text."""
    return [{"topic": row % 64} for row in range(len(texts))]


def langchain(search: Callable[..., list[Document]], **options: Any) -> Ask:
    """A store's search as one for texts."""
    return lambda text: [hit.page_content for hit in search(text, k=LIMIT, **options)]


def langchain_qdrant(
    collection: str, place: str, dense: dict, sparse: dict
) -> tuple[Write, dict[str, Ask], dict[str, AskMany]]:
    """LangChain's store on the client's local mode."""
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

    def write(texts: list[str]) -> None:
        stores["rrf"].add_texts(texts, topics(texts), ids=range(len(texts)))

    return write, {name: langchain(store.similarity_search) for name, store in stores.items()}, {}


def qdrant_client(
    collection: str, place: str, dense: dict, sparse: dict
) -> tuple[Write, dict[str, Ask], dict[str, AskMany]]:
    """The client's local mode: legs, its rank fusion, and the weighted sum as a formula."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=place)
    width = len(next(iter(dense.values())))
    client.create_collection(
        collection,
        {"dense": models.VectorParams(size=width, distance=models.Distance.DOT)},
        {"sparse": models.SparseVectorParams()},
    )

    def terms(text: str) -> Any:
        found = sparse[text]
        return models.SparseVector(indices=list(found), values=list(found.values()))

    def write(texts: list[str]) -> None:
        payloads = [
            {"text": text, **topic} for text, topic in zip(texts, topics(texts), strict=True)
        ]
        vectors = [{"dense": dense[text], "sparse": terms(text)} for text in texts]
        client.upload_collection(collection, vectors, payloads, ids=range(len(texts)))

    def ask(how: Any, prefetch: Any = None, using: str | None = None) -> list[str]:
        found = client.query_points(
            collection, query=how, prefetch=prefetch, using=using, limit=LIMIT
        )
        return [point.payload["text"] for point in found.points]

    def legs(text: str) -> list:
        return [
            models.Prefetch(query=dense[text], using="dense", limit=DEPTH),
            models.Prefetch(query=terms(text), using="sparse", limit=DEPTH),
        ]

    scores = [f"$score[{leg}]" for leg in range(2)]
    products = [
        models.MultExpression(mult=[weight, score])
        for weight, score in zip(WEIGHTS, scores, strict=True)
    ]
    weighted = models.FormulaQuery(
        formula=models.SumExpression(sum=products), defaults=dict.fromkeys(scores, 0.0)
    )
    ranks = models.RrfQuery(rrf=models.Rrf(k=61))  # it counts from 0

    def ask_many(question: Callable[[str], dict]) -> AskMany:
        return lambda texts: client.query_batch_points(
            collection,
            [
                models.QueryRequest(**question(text), limit=LIMIT, with_payload=True)
                for text in texts
            ],
        )

    return (
        write,
        {
            "dense": lambda text: ask(dense[text], using="dense"),
            "sparse": lambda text: ask(terms(text), using="sparse"),
            "rrf": lambda text: ask(ranks, legs(text)),
            "hybrid": lambda text: ask(weighted, legs(text)),
        },
        {
            "dense": ask_many(lambda text: {"query": dense[text], "using": "dense"}),
            "hybrid": ask_many(lambda text: {"query": weighted, "prefetch": legs(text)}),
        },
    )


def langchain_milvus(
    collection: str, place: str, dense: dict, sparse: dict
) -> tuple[Write, dict[str, Ask], dict[str, AskMany]]:
    """LangChain's store on Milvus Lite."""
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

    def write(texts: list[str]) -> None:
        both.add_texts(texts, topics(texts), ids=[str(row) for row in range(len(texts))])
        both.client.flush(collection)  # as m3connect does it; otherwise searches are much slower

    def alone(field: str) -> Ask:
        return lambda text: [
            hit.page_content for hit in single(field).similarity_search(text, k=LIMIT)
        ]

    fused = partial(langchain, both.similarity_search, fetch_k=DEPTH)
    asks = {
        "dense": alone("dense"),
        "sparse": alone("sparse"),
        "rrf": fused(ranker_type="rrf"),
        "hybrid": fused(ranker_type="weighted", ranker_params={"weights": list(WEIGHTS)}),
    }
    return write, asks, {}


def langchain_elasticsearch(
    collection: str, place: str, dense: dict, sparse: dict
) -> tuple[Write, dict[str, Ask], dict[str, AskMany]]:
    """LangChain's store, which takes no sparse vectors and fuses only with its BM25."""
    from langchain_elasticsearch import DenseVectorStrategy, ElasticsearchStore

    del sparse
    store = ElasticsearchStore(
        collection,
        embedding=Dense(dense),
        es_url=place,
        strategy=DenseVectorStrategy(),
        num_dimensions=len(next(iter(dense.values()))),
    )

    def write(texts: list[str]) -> None:
        store.add_texts(texts, topics(texts), ids=[str(row) for row in range(len(texts))])

    return write, {"dense": langchain(store.similarity_search)}, {}


def elasticsearch(
    collection: str, place: str, dense: dict, sparse: dict
) -> tuple[Write, dict[str, Ask], dict[str, AskMany]]:
    """The client: legs, and their weighted sum as a boolean query, which the free licence has."""
    from elasticsearch import Elasticsearch, helpers

    client = Elasticsearch(place, request_timeout=60)
    fields = {
        "dense": {
            "type": "dense_vector",
            "dims": len(next(iter(dense.values()))),
            "similarity": "dot_product",
            "index_options": {"type": "int8_hnsw"},
        },
        "sparse": {"type": "sparse_vector", "index_options": {"prune": False}},
        "text": {"type": "keyword"},
        "topic": {"type": "integer"},
    }
    client.indices.create(index=collection, mappings={"properties": fields})

    def write(texts: list[str]) -> None:
        helpers.bulk(
            client,
            (
                {"dense": dense[text], "sparse": terms(text), "text": text, **topic}
                for text, topic in zip(texts, topics(texts), strict=True)
            ),
            index=collection,
        )
        client.indices.refresh(index=collection)

    def terms(text: str) -> dict[str, float]:
        return {str(term): weight for term, weight in sparse[text].items()}

    def near(text: str, k: int, boost: float = 1.0) -> dict:
        vector = {"field": "dense", "query_vector": dense[text], "boost": boost}
        return {"knn": {**vector, "k": k, "num_candidates": 1000}}

    def shared(text: str, boost: float = 1.0) -> dict:
        vector = {"field": "sparse", "query_vector": terms(text), "boost": boost}
        return {"sparse_vector": {**vector, "prune": False}}

    returned = {"size": LIMIT, "_source": False, "fields": ["text"]}

    def ask(question: dict) -> list[str]:
        found = client.search(index=collection, body={"query": question, **returned})
        return [hit["fields"]["text"][0] for hit in found["hits"]["hits"]]

    def ask_many(question: Callable[[str], dict]) -> AskMany:
        def asked(texts: Sequence[str]) -> object:
            bodies = [{"query": question(text), **returned} for text in texts]
            return client.msearch(
                index=collection, searches=[line for body in bodies for line in ({}, body)]
            )

        return asked

    def both(text: str) -> dict:
        # It scores by (1 + dot product) / 2.
        legs = [near(text, DEPTH, 2 * WEIGHTS[0]), shared(text, WEIGHTS[1])]
        return {"bool": {"should": legs}}

    return (
        write,
        {
            "dense": lambda text: ask(near(text, LIMIT)),
            "sparse": lambda text: ask(shared(text)),
            "hybrid": lambda text: ask(both(text)),
        },
        {"dense": ask_many(lambda text: near(text, LIMIT)), "hybrid": ask_many(both)},
    )


OPEN: dict[str, Open] = {
    "langchain-qdrant": langchain_qdrant,
    "qdrant-client": qdrant_client,
    "langchain-milvus": langchain_milvus,
    "langchain-elasticsearch": langchain_elasticsearch,
    "elasticsearch": elasticsearch,
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
    peer, collection, place, folder, *sizes = sys.argv[1:]
    dense, sparse = read(Path(folder, "passages.npz"), "record")
    asked_dense, asked_sparse = read(Path(folder, "queries.npz"), "query")
    write, asks, many = OPEN[peer](collection, place, dense | asked_dense, sparse | asked_sparse)
    start = time.perf_counter()
    write(list(dense))
    seconds = time.perf_counter() - start
    server = place if place.startswith("http") else None
    modes = {}
    for mode, ask in asks.items():
        modes[mode] = asdict(timed(ask, list(asked_dense), server))
    answers = {
        "client": f"{peer} {version(peer)}",
        "seconds": seconds,
        "modes": modes,
        "rates": {
            mode: rates(ask, list(asked_dense), [int(size) for size in sizes])
            for mode, ask in many.items()
        },
    }
    Path(folder, "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
