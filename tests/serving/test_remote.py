"""An encoder at a URL equals the one that the service runs."""

import pickle

import numpy as np
import pytest

from m3connect import M3Encoder
from m3connect.connecting.retry import RetryPolicy
from m3connect.errors import ConfigError, FingerprintMismatch, InputError, TransientError
from m3connect.inference.remote import RemoteEncoder
from m3connect.ingestion import ingest
from m3connect.searching.search import search
from m3connect.serving.app import create_app
from m3connect.serving.service import Service
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Compression, Document

httpx = pytest.importorskip("httpx")
from starlette.testclient import TestClient  # noqa: E402 - after the check for the extra


class OverTheWire(httpx.BaseTransport):  # type: ignore[name-defined]
    """Hands requests to a service in this process; answers the first with other statuses."""

    def __init__(self, client):
        self.client = client
        self.first = []
        self.hidden = "nothing"

    def handle_request(self, request):
        if self.first:
            return httpx.Response(self.first.pop(0), headers={"retry-after": "0"})
        if request.url.path.startswith(self.hidden):
            return httpx.Response(404)
        headers = dict(request.headers) | {"host": "localhost"}
        answer = self.client.request(
            request.method, request.url.path, content=request.read(), headers=headers
        )
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@pytest.fixture(scope="module")
def local():
    """The model of the repository."""
    return M3Encoder.load("m3-mini")


@pytest.fixture(scope="module")
def service_client(local):
    """A service that runs it."""
    with TestClient(create_app(Service(local, {})), base_url="http://localhost") as client:
        yield client


@pytest.fixture
def wire(service_client):
    """The way to the service."""
    return OverTheWire(service_client)


def encoder_over(wire):
    return RemoteEncoder(
        "http://service",
        client=httpx.Client(transport=wire, base_url="http://service"),
        policy=RetryPolicy(attempts=3, initial=0),
    )


@pytest.fixture
def remote(wire):
    """The encoder at a URL."""
    return encoder_over(wire)


@pytest.fixture(scope="module")
def known(service_client):
    """One for several tests: it fetches its tokenizer, which takes a second, once."""
    return encoder_over(OverTheWire(service_client))


@pytest.mark.slow
def test_what_a_service_gives_may_be_compressed_here(local, remote, wire):
    """As a local encoder's would be, with the same fingerprint; never twice."""
    kept = Compression(dense_width=64, sparse_top=2, multivector_pool=2)
    client = httpx.Client(transport=wire, base_url="http://service")
    small = RemoteEncoder("http://service", client=client, compression=kept)
    texts = ["How do I rotate keys in the console?"]
    for kind in ("query", "passage"):
        assert small.encode(texts, kind=kind) == kept.of(remote.encode(texts, kind=kind), kind)
    assert small.info.fingerprint == local.info.fingerprint.compressed(kept)
    compressing = M3Encoder.load("m3-mini", compression=Compression(sparse_top=9))
    with TestClient(create_app(Service(compressing, {})), base_url="http://localhost") as service:
        client = httpx.Client(transport=OverTheWire(service), base_url="http://service")
        assert RemoteEncoder("http://service", client=client).info == compressing.info
        with pytest.raises(ConfigError, match="compresses already"):
            RemoteEncoder("http://service", client=client, compression=kept)


def test_it_is_the_same_encoder(local, known):
    """Embeddings, identity, terms, tokens and scores are the local ones, exactly."""
    texts = ["How do I rotate keys?", "", "Wie entpacke ich ein Archiv?"]
    for kind in ("query", "passage"):
        assert known.encode(texts, kind=kind) == local.encode(texts, kind=kind)
    assert known.info == local.info
    assert known.tokens("rotate keys") == local.tokens("rotate keys")
    assert known.term(500) == local.term(500)
    assert len(known.encode([])) == 0
    pairs = [("keys", "How to rotate keys"), ("keys", "A zebra")]
    scores = local.compute_score(pairs)
    for name, given in known.compute_score(pairs).items():
        np.testing.assert_array_equal(given, scores[name])
    weighted = known.compute_score(pairs, weights=np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(weighted["all"], weighted["dense"], atol=1e-6)
    with pytest.raises(InputError, match="2 weights"):
        known.compute_score(pairs, weights=(1, 1))
    assert "service" in repr(known)


@pytest.mark.slow
def test_a_collection_of_one_is_searched_with_the_other(local, known):
    """Ingested over the wire, searched locally, with the same chunker and fingerprint."""
    collection = MemoryConnector(collection="notes")
    document = Document("keys", "Keys are rotated every ninety days in the console.")
    ingest([document], known, collection)
    assert ingest([document], local, collection).unchanged == 1
    assert search(collection, local, "rotate keys")[0].payload["document_id"] == "keys"


def test_a_busy_service_is_asked_again(remote, wire, local):
    """429 and 503 are waited for; a service that stays away is a transient error."""
    wire.first = [429, 503]
    assert remote.encode(["x"]) == local.encode(["x"])
    wire.first = [503] * 3
    with pytest.raises(TransientError, match="m3connect service"):
        remote.encode(["x"])


def test_another_model_is_noticed(remote, wire, service_client):
    """A service that was restarted with another model gives no vectors, and no tokenizer."""
    with TestClient(create_app(Service(HashEncoder(), {})), base_url="http://localhost") as other:
        wire.client = other
        with pytest.raises(FingerprintMismatch, match="another model"):
            remote.encode(["x"])
        with pytest.raises(FingerprintMismatch, match="another model"):
            _ = remote.tokenizer
        with pytest.raises(ConfigError, match="with an M3 model"):  # it has another kind of encoder
            RemoteEncoder(
                "http://service", client=httpx.Client(transport=wire, base_url="http://x")
            )
    wire.client = service_client
    assert len(remote.encode(["x"])) == 1
    with pytest.raises(ConfigError, match="takes no legs"):
        RemoteEncoder(
            "http://service?legs=dense", client=httpx.Client(transport=wire, base_url="http://x")
        )


def test_it_is_pickled_by_its_address(remote, wire, monkeypatch):
    """Without its key; where another model runs meanwhile, that is noticed."""
    asked = []

    def client(url, api_key, timeout):
        asked.append((url, api_key, timeout))
        return httpx.Client(transport=wire, base_url=url)

    monkeypatch.setattr("m3connect.inference.wire._client", client)
    stored = pickle.dumps(RemoteEncoder("http://service", api_key="secret", timeout=5))
    assert b"secret" not in stored
    again = pickle.loads(stored)
    assert again.encode(["x"]) == remote.encode(["x"])
    assert asked == [("http://service", "secret", 5), ("http://service", None, 5)]
    smaller = RemoteEncoder("http://service", compression=Compression(sparse_top=2))
    assert pickle.loads(pickle.dumps(smaller)).info == smaller.info
    wire.hidden = "/v1/m3/"
    with pytest.raises(FingerprintMismatch, match="another model"):
        pickle.loads(stored)


def test_what_it_refuses_is_named(remote, local):
    """A text that is no string or too large by its number; halves of surrogate pairs are taken."""
    texts = ["x", "\ud800y", "z"]
    assert remote.encode(texts) == local.encode(texts)
    with pytest.raises(InputError, match="text 1 is int"):
        remote.encode(["x", 5])
    with pytest.raises(InputError, match="one string"):
        remote.encode("x")


def test_through_the_routes_of_text_embeddings_inference_it_is_the_same_encoder(local, wire):
    """All three representations, as its clients get them from this service."""
    wire.hidden = "/v1/m3/"
    client = httpx.Client(transport=wire, base_url="http://service")
    remote = RemoteEncoder("http://service?legs=dense,sparse,multivector", client=client)
    texts = ["How do I rotate keys?", "", "Wie entpacke ich ein Archiv?", "\ud800"]
    for kind in ("query", "passage"):
        made, expected = remote.encode(texts, kind=kind), local.encode(texts, kind=kind)
        np.testing.assert_array_equal(made.dense, expected.dense)
        assert made.sparse == expected.sparse
        np.testing.assert_array_equal(made.multivector.offsets, expected.multivector.offsets)
        np.testing.assert_allclose(
            made.multivector.vectors, expected.multivector.vectors, atol=1e-3
        )
        np.testing.assert_array_equal(made.n_tokens, expected.n_tokens)
    long = ["word " * 9000]
    assert remote.encode(long).truncated.tolist() == local.encode(long).truncated.tolist() == [True]
    assert remote.info.max_length == local.info.max_length
    assert remote.term(500) == local.term(500)
    pieces = [piece.lstrip("▁") for piece in local.tokens("rotate keys")]
    assert [token.strip() for token in remote.tokens("rotate keys")] == pieces
    usual = RemoteEncoder("http://service", client=client)
    assert usual.encode(texts[:1]).legs == ("dense",)


@pytest.mark.parametrize(
    ("status", "error"), [(401, ConfigError), (404, ConfigError), (400, InputError)]
)
def test_refusals_have_their_class(remote, wire, status, error):
    """A wrong key or address is the user's, a refused text the caller's."""
    wire.first = [status]
    with pytest.raises(error):
        remote.encode(["x"])
