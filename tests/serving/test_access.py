"""Keys, scopes and limits."""

import pytest

from m3connect.errors import ConfigError, InputError
from m3connect.serving.access import Access, require_keys
from m3connect.serving.service import Limits
from m3connect.types import RecordBatch

KEY_A, KEY_B, MASTER = "a" * 20, "b" * 20, "m" * 20
SCOPES = {KEY_A: 'tenant == "a"', KEY_B: 'tenant == "b"', MASTER: None}


def bearer(key):
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def guarded(serve):
    """A service with three keys."""
    return serve(access=Access.of(SCOPES), writable=True)


def test_another_address_needs_a_key():
    """Listening beyond this machine without a key is refused, with the way out."""
    require_keys("127.0.0.1", Access())
    require_keys("0.0.0.0", Access.of({MASTER: None}))
    with pytest.raises(ConfigError, match="M3CONNECT_SERVE_KEY"):
        require_keys("0.0.0.0", Access())


@pytest.mark.parametrize("key", ["short", "with blank in the middle", "ümlaut" * 5])
def test_weak_keys_are_refused(key):
    """Keys have a least length and plain characters."""
    with pytest.raises(ConfigError, match="16 characters"):
        Access.of({key: None})


@pytest.mark.parametrize(("own", "scope"), [("", None), ("  ", None), (None, "")])
def test_a_blank_filter_binds_no_key_to_everything(own, scope):
    """Such as that of a variable which is not set: who meant a part must not have opened all."""
    with pytest.raises(InputError, match="expected a field"):
        Access.of({KEY_A: own}, scope)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong" * 5),
        bearer(""),
        {"Authorization": KEY_A},
        {"Authorization": "Basic " + KEY_A},
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/collections", "/info", "/metrics", "/openapi.json", "/nothing"]
)
def test_without_a_key_nothing_is_told(guarded, headers, path):
    """Every path but the health check and the page asks for the key, encoding at / included."""
    refused = guarded.get(path, headers=headers, params={"key": MASTER, "api_key": MASTER})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert guarded.options(path, headers=headers).status_code == 401
    assert guarded.post("/", json={"inputs": "x"}, headers=headers).status_code == 401
    assert guarded.get("/health", headers=headers).status_code == 200
    assert guarded.head("/health", headers=headers).status_code == 200


def test_a_key_is_taken_as_the_standard_writes_it(guarded):
    """The scheme's case does not matter."""
    assert guarded.get("/info", headers={"authorization": f"bearer {KEY_A}"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/parts.js", "/icon.svg"])
def test_the_page_is_these_files_and_no_others(guarded, path):
    """What is served without a key cannot be pointed at another file, or told another type."""
    plain = guarded.get(path)
    asked = guarded.get(path, params={"name": "/etc/hosts", "file": "/etc/hosts", "kind": "x/y"})
    assert plain.status_code == asked.status_code == 200
    assert asked.content == plain.content
    assert asked.headers["content-type"] == plain.headers["content-type"]


def test_a_key_sees_its_scope_and_can_only_narrow_it(guarded):
    """No filter of a request reaches what the key's filter excludes."""
    for asked in (None, 'tenant == "b"', 'tenant == "a" or tenant == "b"', 'not tenant == "x"'):
        body = {"query": "holidays in the portal", "mode": "dense", "filter": asked}
        hits = guarded.post("/v1/search", json=body, headers=bearer(KEY_A)).json()["hits"]
        assert {hit["metadata"]["tenant"] for hit in hits} <= {"a"}
        everything = guarded.post("/v1/search", json=body, headers=bearer(MASTER)).json()["hits"]
        assert "holidays" in {hit["document_id"] for hit in everything}
    counts = {
        key: guarded.get("/v1/collections", headers=bearer(key)).json()[0]["records"]
        for key in SCOPES
    }
    assert counts == {KEY_A: 2, KEY_B: 1, MASTER: 3}
    body = {"document_id": "holidays"}
    assert guarded.post("/v1/passages", json=body, headers=bearer(KEY_A)).json() == []
    assert len(guarded.post("/v1/passages", json=body, headers=bearer(KEY_B)).json()) == 1


def test_a_bound_key_is_not_told_what_else_the_database_holds(guarded, collection):
    """Where a collection is gone, an unbound key reads which others there are, a bound one does not."""
    collection.beside("other").ensure(collection.describe().schema)
    collection.drop()
    body = {"query": "zebras", "mode": "sparse"}
    said = {
        key: guarded.post("/v1/search", json=body, headers=bearer(key)) for key in (KEY_A, MASTER)
    }
    assert {answer.status_code for answer in said.values()} == {404}
    assert "other" in said[MASTER].text
    assert "other" not in said[KEY_A].text
    listed = {
        key: guarded.get("/v1/collections", headers=bearer(key)).json()[0]["error"]
        for key in (KEY_A, MASTER)
    }
    assert "other" in listed[MASTER]
    assert listed[KEY_A] == "there is no such collection"


def test_what_stands_around_a_hit_is_within_the_scope_too(guarded, collection, encoder):
    """A neighbour that the key may not find is not read through its neighbour."""
    texts = ["zebras are striped", "and the password is hunter2"]
    payloads = [
        {"text": text, "document_id": "z", "position": row, "tenant": tenant}
        for row, (text, tenant) in enumerate(zip(texts, "ab", strict=True))
    ]
    collection.upsert(RecordBatch(["z#0", "z#1"], payloads, encoder.encode(texts)))
    body = {"query": "zebras", "mode": "sparse", "expand": "parent"}
    seen = {
        key: guarded.post("/v1/search", json=body, headers=bearer(key)).json()["hits"][0]["context"]
        for key in (KEY_A, MASTER)
    }
    assert seen == {KEY_A: texts[0], MASTER: "\n\n".join(texts)}


def test_a_bound_key_cannot_write(guarded):
    """Whoever sees a part changes nothing."""
    body = {"document_ids": ["keys"]}
    assert guarded.post("/v1/delete", json=body, headers=bearer(KEY_A)).status_code == 403
    assert guarded.post("/v1/delete", json=body, headers=bearer(MASTER)).json() == {"deleted": 1}


def test_a_foreign_page_does_not_reach_a_local_service(client):
    """On the loopback address only this machine's names are answered (DNS rebinding)."""
    assert client.get("/info", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/info", headers={"Host": "localhost:8000"}).status_code == 200
    assert (
        "access-control-allow-origin"
        not in client.get("/info", headers={"Origin": "http://x.y"}).headers
    )


def test_a_foreign_page_cannot_write_to_a_local_service(serve):
    """What a page of any origin may send without asking is not read as JSON: no type, or that of a form."""
    client = serve(writable=True)
    for kind in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}):
        request = client.build_request("POST", "/v1/delete", content=b'{"document_ids": ["keys"]}')
        request.headers.pop("content-type", None)
        request.headers.update(kind)
        assert client.send(request).status_code == 422
    assert client.get("/v1/collections").json()[0]["records"] == 3


def test_limits_are_named(serve):
    """Too large, too many, too long, too deep: each is refused with its limit."""
    limits = Limits(body_bytes=2000, texts=2, text_bytes=100, filter_bytes=100, hits=5)
    client = serve(limits=limits)
    for path, body, status, words in (
        ("/v1/m3/embeddings", {"input": "x" * 3000}, 413, "2000"),
        ("/v1/m3/embeddings", {"input": ["a", "b", "c"]}, 400, "the limit is 2"),
        ("/v1/m3/embeddings", {"input": ["a", "x" * 101]}, 400, "input[1] has 101 bytes"),
        ("/v1/m3/embeddings", {"input": []}, 400, "no text"),
        ("/v1/search", {"query": "x", "limit": 6}, 400, "up to 5"),
        (
            "/v1/search",
            {"query": "x", "limit": 1, "filter": "a == 1 and " * 10},
            400,
            "filter has 110",
        ),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == status
        assert words in answer.json()["error"]["message"]


def test_a_body_without_a_length_is_refused(client):
    """An endless body cannot be sent."""
    answer = client.post("/v1/search", content=(chunk for chunk in [b"{}"]))
    assert answer.status_code == 411
