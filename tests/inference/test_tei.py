"""An encoder on a server of text-embeddings-inference, as its router's source answers."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect.connecting.retry import RetryPolicy
from m3connect.errors import (
    ConfigError,
    FingerprintMismatch,
    InputError,
    PermanentError,
    TransientError,
)
from m3connect.inference.remote import RemoteEncoder, _same_again
from m3connect.ingestion import ingest
from m3connect.model.hub import bundled
from m3connect.model.tokenize import whole_characters
from m3connect.searching.search import search
from m3connect.stores.memory import MemoryConnector
from m3connect.types import Compression, Document

httpx = pytest.importorskip("httpx")
QUICK = RetryPolicy(attempts=2, initial=0.0)
WIDTH = 8


class Tei:
    """A server with one model, whose tokens are words; a word's vector is drawn by its letters."""

    def __init__(self, *, pooling="cls", prompts=None, kind="embedding", most=4, longest=6):
        self.info = {
            "model_id": "m3-mini",  # whose tokenizer is on this machine
            "model_sha": "fca1453",
            "model_dtype": "float16",
            "model_type": {kind: {"pooling": pooling} if kind == "embedding" else {"id2label": {}}},
            "max_concurrent_requests": 512,
            "max_input_length": longest,
            "max_batch_tokens": 16384,
            "max_client_batch_size": most,
            "auto_truncate": False,
            "tokenization_workers": 2,
            "version": "1.8.0",
        }
        self.prompts = prompts or {}
        self.bytes = 2_000_000  # --payload-limit
        self.key = None
        self.first = []
        self.asked = []

    def encoder(self, address="http://tei", **options):
        """A client of it; the URL without its query is the client's base, as in real life."""
        base = address.partition("?")[0]
        headers = {"Authorization": f"Bearer {options.pop('api_key', '')}"}
        client = httpx.Client(
            base_url=base, headers=headers, transport=httpx.MockTransport(self.answer)
        )
        return RemoteEncoder(address, client=client, policy=QUICK, **options)

    def answer(self, request):
        """One request."""
        path = request.url.path
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return httpx.Response(401)
        if path == "/info":
            return httpx.Response(200, json=self.info)
        if path not in {"/tokenize", "/embed", "/embed_sparse", "/embed_all"}:
            return httpx.Response(404)
        if self.first:
            return self.first.pop(0)
        if len(request.content) > self.bytes:
            return httpx.Response(413, text="length limit exceeded")
        body = json.loads(request.content)
        self.asked.append((path, body))
        try:
            return httpx.Response(200, json=self.made(path, body))
        except Refusal as refusal:
            status, kind, message = refusal.args
            return httpx.Response(status, json={"error": message, "error_type": kind})

    def made(self, path, body):
        """What it makes of the texts."""
        texts, most = body["inputs"], self.info["max_client_batch_size"]
        if not texts or "" in texts:
            raise Refusal(413, "Validation", "`inputs` cannot be empty")
        if len(texts) > most:
            raise Refusal(413, "Validation", f"batch size {len(texts)} > maximum {most}")
        if body.get("prompt_name") not in {None, *self.prompts}:
            raise Refusal(413, "Validation", "it was not found in the prompts")
        pooling = self.info["model_type"].get("embedding", {}).get("pooling")
        if path != "/tokenize" and (path == "/embed_sparse") != (pooling == "splade"):
            raise Refusal(424, "Backend", "not available for this model")
        rows = [self.tokens(text, body.get("prompt_name")) for text in texts]
        if path == "/tokenize":
            return [[{"id": 5, "text": word, "special": False} for word in row] for row in rows]
        longest = self.info["max_input_length"]
        if any(len(row) > longest for row in rows) and not body["truncate"]:
            raise Refusal(413, "Validation", f"`inputs` must have less than {longest} tokens")
        vectors = [
            [drawn(word).tolist() for word in [*row[: longest - 1], row[-1]]]
            if len(row) > longest
            else [drawn(word).tolist() for word in row]
            for row in rows
        ]
        if path == "/embed_all":
            return vectors
        summed = np.array([np.sum(each, axis=0) for each in vectors])
        if path == "/embed":
            return (summed / np.linalg.norm(summed, axis=1, keepdims=True)).tolist()
        return [[{"index": i, "value": abs(v)} for i, v in enumerate(row)] for row in summed]

    def tokens(self, text, prompt):
        """Its words between the special ones."""
        return ["<s>", *(self.prompts.get(prompt, "") + text).split(), "</s>"]


class Refusal(Exception):
    """Status, type and message."""


def drawn(word):
    """A word's hidden state; of no particular length."""
    return np.random.default_rng(list(word.encode())).normal(size=WIDTH)


def test_a_dense_model():
    """Vectors in the order of the texts, in requests of what it takes; what it cut is told."""
    tei = Tei()
    encoder = tei.encoder()
    texts = ["a b", "", "one two three four five six", "b a c", "d", "e", "a b"]
    made = encoder.encode(texts)
    assert made.legs == ("dense",)
    assert made.n_tokens.tolist() == [4, 2, 6, 5, 3, 3, 4]
    assert made.truncated.tolist() == [False, False, True, False, False, False, False]
    np.testing.assert_allclose(np.linalg.norm(made.dense, axis=1), 1, rtol=1e-6)
    words = [drawn(word) for word in ("<s>", "a", "b", "</s>")]
    expected = np.sum(words, axis=0) / np.linalg.norm(np.sum(words, axis=0))
    np.testing.assert_allclose(made.dense[0], expected, rtol=1e-5)
    assert (made.dense[0] == made.dense[6]).all()
    assert len(encoder.encode([])) == 0
    assert encoder.encode([]).dense.shape == (0, WIDTH)
    assert [len(part) for part in encoder.stream(iter(texts))] == [4, 3]
    assert {len(body["inputs"]) for path, body in tei.asked if path == "/embed"} <= {1, 3, 4}
    assert all(body["truncate"] for path, body in tei.asked if path == "/embed")
    made_by = encoder.info.fingerprint
    assert (made_by.weights, made_by.precision) == ("m3-mini@fca1453", "float16")
    assert (made_by.legs, made_by.dense_width, made_by.max_length) == (("dense",), WIDTH, 6)
    assert encoder.config is None
    with pytest.raises(
        InputError, match="makes no sparse, no multivector vectors; it makes: dense"
    ):
        encoder.encode(["a"], legs=("dense", "sparse", "multivector"))
    with pytest.raises(InputError, match="it makes: dense"):
        encoder.compute_score([("a", "b")])
    narrow = tei.encoder(compression=Compression(dense_width=4))
    assert narrow.encode(["a b"]).dense.shape == (1, 4)


def test_a_model_with_splade_pooling():
    """Lexical weights alone; what it cannot make is refused by name, with what it can."""
    tei = Tei(pooling="splade")
    encoder = tei.encoder()
    made = encoder.encode(["a b", ""])
    assert made.legs == ("sparse",)
    summed = np.sum([drawn(word) for word in ("<s>", "a", "b", "</s>")], axis=0)
    np.testing.assert_allclose(made.sparse[0].values, abs(summed), rtol=1e-6)
    assert encoder.info.fingerprint.legs == ("sparse",)
    with pytest.raises(ConfigError, match="makes no dense vectors; it makes: sparse"):
        tei.encoder("http://tei?legs=dense,sparse")
    with pytest.raises(ConfigError, match="m3-mini at http://tei makes no sparse vectors"):
        Tei().encoder("http://tei?legs=sparse")


def test_token_vectors_where_they_are_asked_for():
    """The last hidden states, of length 1; each has the token that it stands for."""
    encoder = Tei().encoder("http://tei?legs=multivector,dense")
    made = encoder.encode(["a b"], kind="query")
    assert made.legs == ("dense", "multivector")
    assert encoder.tokens("a b") == ["<s>", "a", "b", "</s>"]
    state = drawn("a")
    np.testing.assert_allclose(
        made.multivector[0][1], state / np.linalg.norm(state), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize(
    ("prompts", "query", "passage"),
    [
        ({}, 3, 3),
        ({"query": "query: "}, 4, 3),
        ({"query": "task is ", "passage": "p "}, 5, 4),
        ({"document": "the document ", "passage": "p "}, 3, 5),
    ],
)
def test_each_kind_gets_the_prompt_that_sentence_transformers_gives_it(prompts, query, passage):
    """If the server has one of that name."""
    encoder = Tei(prompts=prompts).encoder()
    assert encoder.encode(["a"], kind="query").n_tokens.tolist() == [query]
    assert encoder.encode(["a"], kind="passage").n_tokens.tolist() == [passage]


@pytest.mark.parametrize("change", [{"model_sha": "0c1d2"}, {"max_input_length": 5}])
def test_another_model_is_noticed(change):
    """A server that was restarted with another model, or another limit, gives no vectors."""
    tei = Tei()
    encoder = tei.encoder()
    tei.info |= {"max_client_batch_size": 3}
    assert len(encoder.encode(["a", "b"])) == 2
    tei.info |= change
    with pytest.raises(FingerprintMismatch, match="another model than m3-mini@fca1453"):
        encoder.encode(["a"])


def test_models_without_a_commit_are_told_apart_by_what_they_make():
    """A folder on the server holds another model; the same one says the same after a restart."""

    class Other(Tei):
        def tokens(self, text, prompt):
            return [*super().tokens(text, prompt), "other"]

    servers = Tei(), Tei(), Other()
    for server in servers:
        server.info["model_sha"] = None
    same, again, other = (server.encoder().info for server in servers)
    assert same == again
    assert same.fingerprint == other.fingerprint
    assert same.preparation != other.preparation
    assert Tei().encoder().info.preparation == Other().encoder().info.preparation == ""


def test_rounding_is_no_other_model():
    """What was pickled is taken up again where the server computes the last digits otherwise."""

    class Rounding(Tei):
        def made(self, path, body):
            given = super().made(path, body)
            if path == "/embed":
                given = [[value + 6e-4 for value in row] for row in given]
            return given

    servers = Tei(), Rounding()
    for server in servers:
        server.info["model_sha"] = None
    before, now = (server.encoder() for server in servers)
    assert before.info.preparation != now.info.preparation
    assert _same_again(lambda: now, before.info) is now
    servers[1].info["max_input_length"] = 5
    with pytest.raises(FingerprintMismatch, match="another model"):
        _same_again(servers[1].encoder, before.info)


def test_what_is_too_much_at_once_is_halved():
    """A batch down to the text that is too much alone, which is named."""
    tei = Tei(most=32)
    encoder = tei.encoder()
    texts = [f"word{number} " * 20 for number in range(9)]
    whole = encoder.encode(texts)
    tei.bytes = 500
    assert encoder.encode(texts) == whole
    with pytest.raises(InputError, match="text 7 is too much"):
        encoder.encode([*texts[:7], "word " * 200])


def test_failures_have_their_class():
    """A busy server is waited for; a wrong key, a refused text and a broken model are told apart."""
    tei = Tei()
    encoder = tei.encoder()
    busy = httpx.Response(429, json={"error": "Model is overloaded", "error_type": "Overloaded"})
    tei.first = [busy]
    assert len(encoder.encode(["a"])) == 1
    for answers, error, words in (
        ([busy, busy], TransientError, "Model is overloaded"),
        (
            [httpx.Response(424, json={"error": "Inference failed"})],
            PermanentError,
            "Inference fai",
        ),
        ([httpx.Response(500)], PermanentError, "status 500"),
        (
            [httpx.Response(422, json={"error": "Tokenization error"})],
            InputError,
            "Tokenization er",
        ),
        ([httpx.Response(200, json=[])], ConfigError, "an entry a text"),
        ([httpx.Response(200, text="<html>")], ConfigError, "no JSON"),
        (
            [httpx.Response(200, json=[[1]]), httpx.Response(200, json=[[None]])],
            ConfigError,
            "finite",
        ),
        (
            [httpx.Response(200, json=[[1]]), httpx.Response(200, json=[1.5])],
            ConfigError,
            "no dense",
        ),
    ):
        tei.first = answers
        with pytest.raises(error, match=words):
            encoder.encode(["a"])
    with pytest.raises(InputError, match="text 1 is int"):
        encoder.encode(["a", 5])
    with pytest.raises(InputError, match="kind"):
        encoder.encode(["a"], kind="document")
    tei.key = "secret"
    with pytest.raises(ConfigError, match="M3CONNECT_ENCODER_KEY"):
        encoder.encode(["a"])
    assert len(tei.encoder(api_key="secret").encode(["a"])) == 1


def test_what_is_no_such_server_is_told():
    """A reranker, another service, a web page, and an address with unknown options."""
    with pytest.raises(ConfigError, match=r"no embeddings \(reranker\); .*--reranker"):
        Tei(kind="reranker").encoder()
    tei = Tei()
    tei.info = {"status": "fine"}
    with pytest.raises(ConfigError, match="/info says nothing of its model"):
        tei.encoder()
    client = httpx.Client(
        base_url="http://x", transport=httpx.MockTransport(lambda _: httpx.Response(404))
    )
    with pytest.raises(ConfigError, match="neither an m3connect service nor a text-embeddings"):
        RemoteEncoder("http://x", client=client)
    with pytest.raises(ConfigError, match=r"takes \?legs= and tokenizer=, not 'leg'"):
        Tei().encoder("http://tei?leg=dense")
    with pytest.raises(ConfigError, match="legs=dense,token"):
        Tei().encoder("http://tei?legs=dense,token")


def test_its_tokenizer_is_its_models():
    """By the model's name, or by the one in the address; where neither leads to one, that is told."""
    assert Tei().encoder().tokenizer.get_vocab_size() > 1000
    tei = Tei()
    tei.info |= {"model_id": "/data/model"}
    encoder = tei.encoder()
    assert len(encoder.encode(["a"])) == 1
    with pytest.raises(ConfigError, match=r"name a folder .* http://tei\?tokenizer=NAME"):
        _ = encoder.tokenizer
    folder: Path = bundled()["m3-mini"]
    named = tei.encoder(f"http://tei?tokenizer={folder}")
    assert named.term(500) == Tei().encoder().term(500)
    with pytest.raises(InputError, match="no term"):
        named.term(10**9)


def test_a_collection_is_filled_and_searched_without_a_model():
    """With the representations that there are; a mode that needs another says so."""
    encoder = Tei(longest=512).encoder()
    documents = [
        Document("keys", "rotate keys in the console"),
        Document("zebra", "a striped horse"),
    ]
    collection = MemoryConnector(collection="notes")
    assert ingest(documents, encoder, collection).written == 2
    found = search(collection, encoder, "rotate keys in the console", mode="dense")
    assert [hit.payload["document_id"] for hit in found] == ["keys", "zebra"]
    assert found[0].score == pytest.approx(1.0)
    with pytest.raises(InputError, match="stores dense; mode 'hybrid' needs sparse"):
        search(collection, encoder, "rotate keys", mode="hybrid")
    assert ingest(documents, encoder, collection).unchanged == 2


def test_a_service_before_it_gives_what_it_makes():
    """`m3connect serve` encodes there: dense vectors by all its routes, and a refusal by name of others."""
    testclient = pytest.importorskip("starlette.testclient")
    serving = pytest.importorskip("m3connect.serving.app")
    service = pytest.importorskip("m3connect.serving.service")
    encoder = Tei().encoder()
    app = serving.create_app(service.Service(encoder, {}))
    with testclient.TestClient(app, base_url="http://localhost") as client:
        made = client.post("/v1/m3/embeddings", json={"input": "a b"}).json()
        expected = encoder.encode(["a b"]).dense[0].tolist()
        assert made["data"][0]["dense"] == pytest.approx(expected)
        assert made["data"][0]["sparse"] is None
        assert client.post("/embed", json={"inputs": "a b"}).json()[0] == pytest.approx(expected)
        refused = client.post("/embed_sparse", json={"inputs": "a b"})
        assert refused.status_code == 400
        assert "makes no sparse vectors; it makes: dense" in refused.json()["error"]
        ranked = client.post("/rerank", json={"query": "a b", "texts": ["z", "a b"]}).json()
        assert ranked[0] == {"index": 1, "score": pytest.approx(1.0)}


@given(st.lists(st.text(st.characters(), max_size=8), min_size=1, max_size=7), st.integers(1, 4))
def test_texts_keep_their_rows(texts, most):
    """Whatever they hold, halves of surrogate pairs included, and however many it takes at once."""
    tei = Tei(most=most)
    together = tei.encoder().encode(texts)
    assert len(together) == len(texts)
    words = tei.tokens(whole_characters(texts[-1]) or " ", None)[: tei.info["max_input_length"]]
    assert together.n_tokens[-1] == len(words)
    if not together.truncated[-1]:
        summed = np.sum([drawn(word) for word in words], axis=0)
        np.testing.assert_allclose(together.dense[-1], summed / np.linalg.norm(summed), rtol=1e-4)
