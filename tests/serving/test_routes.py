"""Our own routes and those of text-embeddings-inference."""

import asyncio
import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from m3connect.ingestion import ingest
from m3connect.searching import scoring
from m3connect.serving import waiting
from m3connect.serving.app import create_app
from m3connect.serving.service import Service
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Compression, Document, Embeddings, RecordBatch


def test_all_three_representations_in_one_pass(client, encoder):
    """JSON holds what the encoder made, and it was asked once."""
    answer = client.post("/v1/m3/embeddings", json={"input": ["one two", "three"]}).json()
    assert encoder.passes == 1
    expected = encoder.encode(["one two", "three"])
    for row, given in enumerate(answer["data"]):
        np.testing.assert_allclose(given["dense"], expected.dense[row], rtol=1e-6)
        assert given["sparse"]["indices"] == expected.sparse[row].indices.tolist()
        np.testing.assert_allclose(given["multivector"], expected.multivector[row], rtol=1e-6)
        assert given["truncated"] is False
    assert answer["fingerprint"] == encoder.info.fingerprint.to_json()


def test_an_arrow_stream_is_exact(client, encoder):
    """The Arrow form gives back the very same embeddings."""
    answer = client.post(
        "/v1/m3/embeddings",
        json={"input": ["one two", "three"], "kind": "query"},
        headers={"Accept": "application/vnd.apache.arrow.stream"},
    )
    table = pa.ipc.open_stream(io.BytesIO(answer.content)).read_all()
    assert Embeddings.from_arrow(table) == encoder.encode(["one two", "three"], kind="query")


def test_a_request_may_ask_for_smaller_representations(client, encoder):
    """They are what Compression makes of the whole ones, and the fingerprint says so."""
    smaller = Compression(
        dense_width=3, sparse_top=1, multivector_width=2, multivector_dtype="int8"
    )
    body = {"input": ["one two", "three"], "compression": smaller.to_json()}
    answer = client.post("/v1/m3/embeddings", json=body).json()
    expected = smaller.of(encoder.encode(["one two", "three"]), "passage")
    for row, entry in enumerate(answer["data"]):
        np.testing.assert_allclose(entry["dense"], expected.dense[row], rtol=1e-6)
        assert entry["sparse"]["indices"] == expected.sparse[row].indices.tolist()
        np.testing.assert_allclose(entry["multivector"], expected.multivector[row], rtol=1e-6)
    assert answer["fingerprint"] == encoder.info.fingerprint.compressed(smaller).to_json()
    wide = client.post("/v1/m3/embeddings", json=body | {"compression": {"dense_width": 10**9}})
    assert wide.status_code == 400
    assert "dense_width is 1000000000" in wide.json()["error"]["message"]


def test_what_a_service_compresses_is_not_compressed_again():
    """The widths of a request would not be those of its fingerprint."""
    encoder = HashEncoder()
    smaller = encoder.info.fingerprint.compressed(Compression(dense_width=4))
    encoder.info = replace(encoder.info, fingerprint=smaller)
    with TestClient(create_app(Service(encoder, {})), base_url="http://localhost") as client:
        body = {"input": "one", "compression": {"sparse_top": 3}}
        answer = client.post("/v1/m3/embeddings", json=body)
    assert answer.status_code == 400
    assert "compresses already (dense_width 4)" in answer.json()["error"]["message"]


def test_both_names_of_a_mode_are_taken_and_one_is_given(client):
    """dense+sparse is hybrid."""
    body = {"query": "Keys are rotated", "mode": "dense+sparse"}
    assert client.post("/v1/search", json=body).json()["mode"] == "hybrid"


@pytest.mark.parametrize("mode", ["dense", "sparse", "multivector", "hybrid", "all"])
def test_search_finds_and_explains(client, mode):
    """Every mode finds the passage, and the parts of an explanation add up to its score."""
    body = {"query": "Keys are rotated", "mode": mode}
    hits = client.post("/v1/search", json=body).json()["hits"]
    assert hits[0]["document_id"] == "keys"
    assert hits[0]["metadata"] == {"tenant": "a", "year": 2021}
    assert hits[0]["text"].startswith("Keys are")
    explained = client.post("/v1/explain", json=body).json()["hits"][0]
    assert sum(explained["explanation"]["parts"].values()) == pytest.approx(explained["score"])


def test_hits_are_grouped_unlike_and_expanded(serve):
    """One hit a document, hits unlike each other, and the text around a passage."""
    client = serve(writable=True)
    text = "\n\n".join(f"zebra paragraph number {number} " * 40 for number in range(4))
    client.post("/v1/ingest", json={"documents": [{"id": name, "text": text} for name in "ab"]})
    body = {"query": "zebra paragraph", "limit": 2, "mode": "sparse"}
    grouped = client.post("/v1/search", json=body | {"group_by_document": True}).json()["hits"]
    assert sorted(hit["document_id"] for hit in grouped) == ["a", "b"]
    assert [hit["rank"] for hit in grouped] == [1, 2]
    unlike = client.post("/v1/search", json=body | {"diversity": 0.9, "explain": True}).json()[
        "hits"
    ]
    assert len(unlike) == 2
    assert all(hit["explanation"] for hit in unlike)
    whole = client.post(
        "/v1/search", json=body | {"expand": "parent", "expand_tokens": 4096}
    ).json()
    assert all(f"number {number}" in whole["hits"][0]["context"] for number in range(4))
    assert grouped[0]["context"] is None


def test_records_that_came_with_vectors_are_read_as_they_are(client, collection, encoder):
    """A column position of words and a text that is none are shown as none."""
    payloads = [{"document_id": "d", "position": at, "text": at} for at in ("CEO", None)]
    collection.upsert(RecordBatch(["x", "y"], payloads, encoder.encode(["keys", "keys"])))
    passages = client.post("/v1/passages", json={"document_id": "d"}).json()
    assert [(each["position"], each["text"]) for each in passages] == [(0, "CEO"), (0, "")]
    body = {"query": "keys", "expand": "parent", "highlight": 1, "group_by_document": True}
    hits = client.post("/v1/search", json=body).json()["hits"]
    assert {"CEO", ""} & {hit["text"] for hit in hits}


def test_the_cross_encoder_orders_where_there_is_one(serve):
    """Asked for, it scores last; a service without one says how to get it."""
    body = {"query": "keys", "rerank": True, "limit": 2}
    answer = serve().post("/v1/search", json=body)
    assert answer.status_code == 403
    assert "--reranker" in answer.json()["error"]["message"]

    def holidays(query, passages):
        return ["portal" in passage for passage in passages]

    client = serve(reranker=holidays)
    hits = client.post("/v1/search", json=body | {"pool": 3, "explain": True}).json()["hits"]
    assert (hits[0]["document_id"], hits[0]["score"]) == ("holidays", 1.0)
    assert sum(hits[0]["explanation"]["parts"].values()) < 1  # the search's own score
    plain = client.post("/v1/search", json={"query": "keys", "limit": 1}).json()["hits"]
    assert plain[0]["document_id"] == "keys"


def test_hits_have_least_scores_and_marked_sentences(client):
    """Sentences come with their places in the text."""
    body = {"query": "rotated keys", "min_scores": {"sparse": 0.01}, "highlight": 1}
    (hit,) = client.post("/v1/search", json=body).json()["hits"]
    (mark,) = hit["highlights"]
    assert mark["text"] == hit["text"][mark["start"] : mark["stop"]] == hit["text"]
    assert hit["context"] is None


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"query": "x", "offset": 1000}, 400, "offset + limit, depth and pool go up to 1000"),
        ({"query": "x", "pool": 20}, 400, "nothing chooses from it"),
        ({"query": "x", "min_scores": {"multivector": 0.1}}, 400, "min_scores names multivector"),
        ({"query": "x", "filter": "year >"}, 400, "character"),
        ({"query": "x", "collection": "none"}, 404, "this service has: notes"),
        ({"query": "x", "collection": ",a:" * 2**20}, 404, "characters left out"),
        ({"query": "x", "mode": "best"}, 422, "body.mode"),
        ({"query": "x", "modes": "all"}, 422, "modes"),
        ({"query": ""}, 422, "body.query"),
        ({"query": "x", "limit": 0}, 422, "body.limit"),
    ],
)
def test_a_bad_request_says_why(client, body, status, words):
    """Errors are of the caller's making and say which part."""
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_documents_come_and_go_where_writing_is_on(serve):
    """Ingested documents are found, bad ones named, deleted ones gone; a second time is unchanged."""
    client = serve(writable=True)
    body = {
        "documents": [{"id": "new", "text": "A zebra in the garden."}, {"id": "empty", "text": " "}]
    }
    first = client.post("/v1/ingest", json=body).json()
    assert first["written"] == 1
    assert client.post("/v1/ingest", json=body).json()["unchanged"] >= 1
    hit = client.post("/v1/search", json={"query": "zebra"}).json()["hits"][0]
    assert hit["document_id"] == "new"
    assert client.post("/v1/delete", json={"document_ids": ["new"]}).json() == {"deleted": 1}
    hits = client.post("/v1/search", json={"query": "zebra", "mode": "sparse"}).json()["hits"]
    assert hits == []


def test_fields_to_filter_by_are_told_without_an_index(serve):
    """As the records have them, for the page's chips."""
    client = serve(writable=True)
    metadata = {"public": True, "weight": 0.5, "tags": ["x"], "lang": "en"}
    body = {"documents": [{"id": "new", "text": "A zebra.", "metadata": metadata}]}
    assert client.post("/v1/ingest", json=body).json()["written"] == 1
    fields = client.get("/v1/collections").json()[0]["fields"]
    plain = {"public": "boolean", "weight": "float", "lang": "keyword"}
    assert fields == plain | {"tenant": "keyword", "year": "integer"}


def test_a_collection_that_keeps_tenants_apart_is_listed(encoder):
    """With all its records and their fields."""
    apart = MemoryConnector(collection="apart", tenant_field="tenant")
    ingest([Document("a", "A zebra.", {"tenant": "x", "year": 2020})], encoder, apart)
    service = Service(encoder, {"apart": lambda: apart})
    with TestClient(create_app(service), base_url="http://localhost") as client:
        listed = client.get("/v1/collections").json()[0]
    assert (listed["records"], listed["fields"]) == (1, {"tenant": "keyword", "year": "integer"})


def test_each_document_fails_alone(serve):
    """However many there are and wherever the bad ones stand; where all are bad, each is told, too."""
    client = serve(writable=True)
    documents = [
        {"id": f"d{row}", "text": f"A zebra, {row}.", "metadata": {"_ingest": 1} if bad else {}}
        for row in range(33)
        for bad in [row in (3, 32)]
    ]
    answer = client.post("/v1/ingest", json={"documents": documents}).json()
    assert answer["written"] == 31
    assert [each["id"] for each in answer["failed"]] == ["d3", "d32"]
    answer = client.post("/v1/ingest", json={"documents": documents[32:]}).json()
    assert (answer["written"], answer["failed"][0]["id"]) == (0, "d32")
    assert "reserved" in answer["failed"][0]["reason"]


def test_writing_is_off(client):
    """Without being asked for, nothing can be changed."""
    for path, body in (
        ("/v1/ingest", {"documents": [{"id": "x", "text": "y"}]}),
        ("/v1/delete", {"document_ids": ["keys"]}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 403
        assert "--writable" in answer.json()["error"]["message"]


def test_tei_routes_speak_its_shapes(client, encoder):
    """The shapes and the values of text-embeddings-inference's clients."""
    made = encoder.encode(["one two"])
    assert client.post("/embed", json={"inputs": "one two"}).json()[0] == pytest.approx(
        made.dense[0].tolist()
    )
    sparse = client.post("/embed_sparse", json={"inputs": ["one two"]}).json()[0]
    assert [entry["index"] for entry in sparse] == made.sparse[0].indices.tolist()
    tokens = client.post("/embed_all", json={"inputs": ["one two"]}).json()[0]
    np.testing.assert_allclose(tokens, made.multivector[0], rtol=1e-6)
    asked = {"inputs": "one two", "prompt_name": "query"}
    (words,) = client.post("/tokenize", json=asked).json()
    assert [(each["text"], each["start"], each["special"]) for each in words] == [
        ("one", 0, False),
        ("two", 4, False),
    ]
    info = client.get("/info").json()
    assert info["model_id"] == encoder.info.name
    assert info.keys() >= {
        "model_dtype",
        "model_type",
        "max_concurrent_requests",
        "max_input_length",
        "max_batch_tokens",
        "max_client_batch_size",
        "auto_truncate",
        "tokenization_workers",
        "version",
    }  # fmt: skip - what the server's own description calls required
    assert client.get("/health").status_code == 200


def test_rerank_orders_by_the_fused_score(client, encoder):
    """Scores are the weighted mean of the three, for both dialects."""
    texts = ["cold winter", "keys are rotated", "keys"]
    query = encoder.encode(["rotated keys"], kind="query")
    passages = encoder.encode(texts)
    dense = scoring.dense_scores(query.dense[0], passages.dense)
    sparse = scoring.sparse_scores(query.sparse[0], passages.sparse)
    late = scoring.maxsim_scores(query.multivector[0], passages.multivector)
    expected = (dense + 0.3 * sparse + late) / 2.3
    ranked = client.post("/rerank", json={"query": "rotated keys", "texts": texts}).json()
    assert [entry["index"] for entry in ranked] == np.argsort(-expected).tolist()
    assert [entry["score"] for entry in ranked] == pytest.approx(
        sorted(expected.tolist(), reverse=True)
    )
    body = {"query": "rotated keys", "documents": [{"text": text} for text in texts], "top_n": 1}
    best = client.post("/v1/rerank", json=body).json()["results"]
    assert best == [{"index": 1, "relevance_score": pytest.approx(float(expected.max()))}]


def test_a_reranker_takes_the_place_of_the_fused_score(serve, encoder):
    """A service that has one orders by it, in both dialects, without a pass of the encoder."""
    client = serve(reranker=lambda query, passages: [float(len(each)) for each in passages])
    texts = ["keys", "cold winter"]
    ranked = client.post("/rerank", json={"query": "keys", "texts": texts}).json()
    assert ranked == [{"index": 1, "score": 11.0}, {"index": 0, "score": 4.0}]
    best = client.post("/v1/rerank", json={"query": "keys", "documents": texts, "top_n": 1}).json()
    assert best["results"] == [{"index": 1, "relevance_score": 11.0}]
    assert encoder.passes == 0


def test_a_reranker_that_gives_no_numbers_is_told(serve):
    """One that fails for a passage is an error, and not a broken answer."""
    client = serve(reranker=lambda query, passages: [float("nan")] * len(passages))
    answer = client.post("/rerank", json={"query": "keys", "texts": ["a"]})
    assert answer.status_code == 400
    assert "no finite score" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": ["word " * 600]}),
        ("/rerank", {"query": "x", "texts": ["y", "word " * 600]}),
        ("/rerank", {"query": "word " * 600, "texts": ["y"]}),
    ],
)
def test_tei_errors_have_its_shape(client, path, body):
    """Its clients read ``error`` and ``error_type``; what is too long is cut unless they forbid it."""
    assert client.post(path, json=body).status_code == 200
    answer = client.post(path, json=body | {"truncate": False})
    assert answer.status_code == 400
    assert answer.json()["error_type"] == "Validation"
    assert "more than 512 tokens" in answer.json()["error"]


def test_an_unexpected_error_tells_nothing_but_its_kind(client):
    """The answer has no traceback and no text of the request."""
    answer = client.post("/v1/m3/embeddings", json={"input": ["explode"]})
    assert answer.status_code == 500
    assert "explodes" not in answer.text
    assert "ValueError" in answer.json()["error"]["message"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert 'route="/v1/m3/embeddings",status="500"' in client.get("/metrics").text


def test_metrics_count_requests_and_passes(client):
    """Prometheus sees routes, statuses and passes, and nothing that a request said."""
    client.post("/v1/search", json={"query": "secret words"})
    client.get("/secret-path")
    text = client.get("/metrics").text
    assert 'm3connect_requests_total{route="/v1/search",status="200"} 1.0' in text
    assert "m3connect_forward_passes 1.0" in text
    assert "secret" not in text


def test_a_page_of_ones_own_takes_the_place_of_the_search_page(encoder, collection, tmp_path):
    """A folder's index, script and style are served, and what draws explanations beside them."""
    for name in ("index.html", "page.js", "page.css"):
        (tmp_path / name).write_text(f"mine: {name}", encoding="utf-8")
    app = create_app(Service(encoder, {"notes": lambda: collection}), page=tmp_path)
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/").text == "mine: index.html"
        assert client.get("/page.js").headers["content-type"].startswith("text/javascript")
        assert "export function draw" in client.get("/parts.js").text
        assert client.get("/icon.svg").headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/m3/embeddings", "input"),
        ("/v1/embeddings", "input"),
        ("/embed", "inputs"),
        ("/embed_sparse", "inputs"),
        ("/embed_all", "inputs"),
    ],
)
def test_vectors_are_written_beside_the_event_loop(client, monkeypatch, path, field):
    """Many million numbers, written in its thread or at once, would keep all others waiting."""
    written, plain = [], json.dumps

    def dumps(item, **options):
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        written.append(item)
        return plain(item, **options)

    monkeypatch.setattr(waiting, "json", SimpleNamespace(dumps=dumps))
    answer = client.post(path, json={field: ["one two", "three"]}).json()
    assert written == (answer["data"] if isinstance(answer, dict) else answer)
    assert len(written) == 2
