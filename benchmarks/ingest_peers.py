"""The same short documents into Qdrant by what users would pick: ours, LangChain's, LlamaIndex's, CocoIndex's.

    python benchmarks/ingest_peers.py [--docs 10000] [--peer-python ENV/bin/python] [--ways ...]

Everyone cuts, encodes with a model that costs nothing (64 wide, drawn by the text), writes to a Qdrant in its
own process and remembers what it has done, so that a second run over the same documents finds nothing to do.
Dense vectors alone, which is what the peers hold; ours holds all three beside them in the second row. Seconds
are of processor time, wall time in brackets. Each is a process of its own.

The peers' environment needs langchain-qdrant, langchain-classic, llama-index-core,
llama-index-vector-stores-qdrant and cocoindex[qdrant]; ``--ways`` are those to run. Their Qdrant is the client's
local mode, ours the embedded engine: those are what each offers without a server.
"""

import argparse
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import NAMESPACE_URL, uuid5

import numpy as np

CORPUS = Path(__file__).parents[1] / "examples" / "data" / "tldr.jsonl"
CHARACTERS, WIDTH, PASSAGE = 100, 64, 1024


def texts(n: int) -> Iterator[tuple[str, str]]:
    """Ids and texts, as ``ingest.py`` has them."""
    with CORPUS.open(encoding="utf-8") as lines:
        pages = [json.loads(line) for line in lines]
    for at in range(n):
        page = pages[at % len(pages)]
        yield f"{page['id']}-{at}", f"{at}\n{page['text'][:CHARACTERS]}"


def vector(text: str) -> list[float]:
    """A unit vector that a text always gets."""
    drawn = zlib.crc32(text.encode())
    values = [((drawn >> (at % 24)) & 255) - 127.5 + at for at in range(WIDTH)]
    length = sum(value * value for value in values) ** 0.5
    return [value / length for value in values]


def langchain(n: int, folder: Path) -> int:
    """Its indexing API: a record manager in SQLite beside the store."""
    from langchain_classic.indexes import SQLRecordManager, index
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant import QdrantVectorStore
    from langchain_text_splitters import RecursiveCharacterTextSplitter
    from qdrant_client import QdrantClient, models

    class Drawn(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [vector(text) for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return vector(text)

    client = QdrantClient(path=str(folder / "qdrant"))
    if not client.collection_exists("docs"):
        params = models.VectorParams(size=WIDTH, distance=models.Distance.DOT)
        client.create_collection("docs", params)
    store = QdrantVectorStore(client, "docs", embedding=Drawn(), distance=models.Distance.DOT)
    records = SQLRecordManager("docs", db_url=f"sqlite:///{folder / 'records.db'}")
    records.create_schema()
    splitter = RecursiveCharacterTextSplitter(chunk_size=PASSAGE, chunk_overlap=0)
    documents = splitter.split_documents(
        Document(text, metadata={"source": id_}) for id_, text in texts(n)
    )
    done = index(
        documents,
        records,
        store,
        cleanup="incremental",
        source_id_key="source",
    )
    client.close()
    return int(done["num_added"])


def llama_index(n: int, folder: Path) -> int:
    """Its ingestion pipeline with a document store, kept in a folder."""
    from llama_index.core import Document
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.storage.docstore import SimpleDocumentStore
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    class Drawn(BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            return vector(text)

        def _get_query_embedding(self, query: str) -> list[float]:
            return vector(query)

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return vector(query)

    client = QdrantClient(path=str(folder / "qdrant"))
    kept = folder / "docstore.json"
    docstore = (
        SimpleDocumentStore.from_persist_path(str(kept)) if kept.exists() else SimpleDocumentStore()
    )
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=256, chunk_overlap=0), Drawn()],
        docstore=docstore,
        docstore_strategy=DocstoreStrategy.UPSERTS,
        vector_store=QdrantVectorStore("docs", client=client),
        disable_cache=True,
    )
    nodes = pipeline.run(documents=[Document(text=text, id_=id_) for id_, text in texts(n)])
    docstore.persist(str(kept))
    client.close()
    return len(nodes)


def cocoindex(n: int, folder: Path) -> int:
    """Its app: a remembered component for each document, its state in LMDB beside the store."""
    import cocoindex as coco
    from cocoindex.connectors import qdrant
    from cocoindex.ops.text import RecursiveSplitter
    from cocoindex.resources.schema import VectorSchema
    from qdrant_client import QdrantClient

    splitter = RecursiveSplitter()
    added = 0

    @coco.fn(memo=True)
    async def add(document: tuple[str, str], target: qdrant.CollectionTarget) -> None:
        nonlocal added
        id_, text = document
        for at, passage in enumerate(splitter.split(text, chunk_size=PASSAGE, chunk_overlap=0)):
            payload = {"document": id_, "text": passage.text}
            point = str(uuid5(NAMESPACE_URL, f"{id_}#{at}"))
            target.declare_point(qdrant.PointStruct(id=point, vector=vector(text), payload=payload))
            added += 1

    @coco.fn
    async def run() -> None:
        schema = VectorSchema(dtype=np.dtype(np.float32), size=WIDTH)
        stored = await qdrant.CollectionSchema.create(qdrant.QdrantVectorDef(schema, "dot"))
        target = await qdrant.mount_collection_target(key, "docs", stored)
        await coco.mount_each(add, ((each[0], each) for each in texts(n)), target)

    client = QdrantClient(path=str(folder / "qdrant"), force_disable_check_same_thread=True)
    key = coco.ContextKey[QdrantClient]("qdrant")
    provided = coco.ContextProvider()
    provided.provide(key, client)
    settings = coco.Settings(db_path=folder / "state")
    environment = coco.Environment(settings, name="docs", context_provider=provided)
    coco.App(coco.AppConfig("docs", environment), run).update_blocking()
    client.close()
    return added


def ours(n: int, folder: Path, legs: list[str]) -> int:
    """m3connect, with the encoder of ``ingest.py``."""
    from ingest import Drawn

    from m3connect import Document, connect, ingest
    from m3connect.testing.fakes import HashEncoder

    documents = (Document(id_, text) for id_, text in texts(n))
    with connect("qdrant", collection="docs", path=str(folder)) as collection:
        done = ingest(documents, Drawn(HashEncoder().tokenizer), collection, legs=legs)
    return done.written


WAYS: dict[str, Callable[[int, Path], int]] = {
    "m3connect, dense": lambda n, folder: ours(n, folder, ["dense"]),
    "m3connect, all three": lambda n, folder: ours(n, folder, ["dense", "sparse", "multivector"]),
    "LangChain indexing": langchain,
    "LlamaIndex pipeline": llama_index,
    "CocoIndex app": cocoindex,
}


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=10_000)
    parser.add_argument("--peer-python", help="of the peers' environment; without it ours alone")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, folder = options.one
        start, before = time.perf_counter(), time.process_time()
        written = WAYS[way](options.docs, Path(folder))
        print(json.dumps([written, time.process_time() - before, time.perf_counter() - start]))
        return
    print(
        f"| {options.docs:,} documents | first run, s | once more, s |\n|---|---|---|", flush=True
    )
    for way in options.ways:
        python = sys.executable if way.startswith("m3connect") else options.peer_python
        if python is None:
            continue
        cells = []
        with TemporaryDirectory() as folder:
            for expected in (options.docs, 0):
                command = [python, __file__, "--docs", str(options.docs), "--one", way, folder]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                written, worked, wall = json.loads(done.stdout.splitlines()[-1])
                assert written == expected, (way, written)
                cells.append(f"{worked:.1f} ({wall:.1f})")
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
