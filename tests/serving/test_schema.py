"""The published JSON Schema, and the service against its own OpenAPI document: also prints the former."""

import json
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.json_schema import models_json_schema
from starlette.testclient import TestClient

from m3connect.ingestion import ingest
from m3connect.serving.app import create_app
from m3connect.serving.schemas import EmbeddingsRequest, EmbeddingsResponse
from m3connect.serving.service import Service
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document

PUBLISHED = Path(__file__).parents[2] / "docs" / "m3_embeddings.schema.json"
ROUTES = (
    "/v1/m3/embeddings", "/v1/search", "/v1/explain", "/v1/passages", "/v1/ingest", "/v1/delete",
    "/v1/embeddings", "/v1/rerank", "/", "/embed", "/embed_sparse", "/embed_all", "/tokenize", "/rerank",
    "/similarity",
)  # fmt: skip
EXAMPLES = min(30, settings().max_examples)  # of each route: a request takes milliseconds
TEXT = st.text(st.characters(exclude_categories=()), max_size=9)  # halves of surrogate pairs, too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def values(schema, named):
    """What a schema allows, as a strategy: of the keywords that pydantic's models use."""
    if "$ref" in schema:
        return values(named[schema["$ref"].rpartition("/")[2]], named)
    if "anyOf" in schema:
        return st.one_of([values(each, named) for each in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema.get("type"):
        case "string":
            least = schema.get("minLength", 0)
            return st.sampled_from(["notes", "year >= 2", "keys"]) | TEXT.filter(
                lambda text: len(text) >= least
            )
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            least, most = schema.get("minimum"), schema.get("maximum")
            return st.floats(least, most, allow_nan=False, allow_infinity=False)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            return st.lists(
                values(schema["items"], named), min_size=schema.get("minItems", 0), max_size=3
            )
        case "object" if "properties" in schema:
            every = {name: values(each, named) for name, each in schema["properties"].items()}
            needed = schema.get("required", ())
            optional = {name: every.pop(name) for name in [*every] if name not in needed}
            return st.fixed_dictionaries(every, optional=optional)
        case "object":
            more = schema.get("additionalProperties")
            keys = values(schema.get("propertyNames", {"type": "string"}), named)
            return st.dictionaries(
                keys, values(more, named) if isinstance(more, dict) else JSON, max_size=3
            )
        case None:
            return JSON
        case other:
            raise AssertionError(f"a schema of an unknown kind: {other}")


def schema_of_embeddings():
    """Request and answer of ``POST /v1/m3/embeddings``, as ``$defs``."""
    _, schema = models_json_schema(
        [(EmbeddingsRequest, "validation"), (EmbeddingsResponse, "serialization")],
        title="POST /v1/m3/embeddings",
        description="EmbeddingsRequest is the body, EmbeddingsResponse the answer in JSON. With "
        "Accept: application/vnd.apache.arrow.stream the answer is a table: see docs/service.md.",
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def part(schema, name):
    """One definition of a schema, by itself."""
    return {**schema, "$ref": f"#/$defs/{name}"}


def test_the_published_schema_is_the_services():
    """`python tests/serving/test_schema.py > docs/m3_embeddings.schema.json` makes it anew."""
    assert json.loads(PUBLISHED.read_text("utf-8")) == schema_of_embeddings()


@pytest.fixture(scope="module")
def client():
    """A client of a writable service over one document."""
    encoder, connector = HashEncoder(), MemoryConnector(collection="notes")
    ingest([Document("keys", "Keys are rotated.", {"year": 2021})], encoder, connector)
    service = Service(
        encoder,
        {"notes": lambda: connector},
        writable=True,
        reranker=lambda _, passages: [float(len(each)) for each in passages],
        window=0.0,
    )
    with TestClient(
        create_app(service), base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        yield client


@pytest.fixture(scope="module")
def openapi(client):
    """Its own description."""
    return client.get("/openapi.json").json()


@pytest.mark.parametrize("body", [{"input": "one"}, {"input": ["one", ""], "legs": ["sparse"]}])
def test_requests_and_answers_are_as_published(client, body):
    """A request that the schema allows is taken, and answered as it says."""
    published = json.loads(PUBLISHED.read_text("utf-8"))
    jsonschema.validate(body, part(published, "EmbeddingsRequest"))
    answer = client.post("/v1/m3/embeddings", json=body)
    jsonschema.validate(answer.json(), part(published, "EmbeddingsResponse"))
    for wrong in ({}, {"input": 1}, {"input": "x", "kind": "title"}, {"input": "x", "more": 1}):
        assert client.post("/v1/m3/embeddings", json=wrong).status_code == 422
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, part(published, "EmbeddingsRequest"))


def test_every_route_that_takes_a_body_is_tried(openapi):
    """A new one is added to the list above."""
    assert {path for path, methods in openapi["paths"].items() if "post" in methods} == set(ROUTES)


@pytest.mark.parametrize("path", ROUTES)
def test_what_the_description_allows_is_answered_as_it_says(client, openapi, path):
    """No request of the schema ends in a 5xx, and every answer has the shape that is described."""
    described = openapi["paths"][path]["post"]
    body = described["requestBody"]["content"]["application/json"]["schema"]

    @settings(max_examples=EXAMPLES)
    @given(values(body, openapi["components"]["schemas"]))
    def ask(body):
        _check(client, openapi, path, json.dumps(body).encode())

    ask()


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(ROUTES), JSON)
def test_what_is_no_request_is_refused(client, openapi, path, body):
    """Any JSON is answered, most of it by an error of the caller's."""
    _check(client, openapi, path, json.dumps(body).encode())


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"NaN", b"[" * 100_000, b'{"a": 1e999}'])
def test_what_is_no_json_is_refused(client, openapi, path, content):
    """Broken, nested too deep or not UTF-8."""
    assert 400 <= _check(client, openapi, path, content).status_code < 500


def _check(client, openapi, path, content):
    answer = client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code < 500, (content, answer.text)
    responses = openapi["paths"][path]["post"]["responses"]
    described = responses.get(str(answer.status_code)) or responses["default"]
    schema = described["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**schema, "components": openapi["components"]})
    return answer


if __name__ == "__main__":
    print(json.dumps(schema_of_embeddings(), indent=2))  # noqa: T201
