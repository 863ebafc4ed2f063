"""A service over the fake encoder and an in-memory collection."""

import pytest

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from m3connect.ingestion import ingest
from m3connect.serving.app import create_app
from m3connect.serving.service import Service
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document

DOCUMENTS = [
    Document("keys", "Keys are rotated every ninety days.", {"tenant": "a", "year": 2021}),
    Document("backups", "Backups run at two in the morning.", {"tenant": "a", "year": 2023}),
    Document("holidays", "Holidays are requested in the portal.", {"tenant": "b", "year": 2024}),
]


class CountingEncoder(HashEncoder):
    """Counts its passes, and fails on one text."""

    passes = 0

    def encode(self, texts, **options):
        self.passes += 1
        if "explode" in texts:
            raise ValueError("this text explodes")
        return super().encode(texts, **options)


@pytest.fixture
def encoder():
    """The fake encoder."""
    return CountingEncoder()


@pytest.fixture
def collection(encoder):
    """Three documents of two tenants."""
    connector = MemoryConnector(collection="notes")
    ingest(DOCUMENTS, encoder, connector, index_fields={"tenant": "keyword", "year": "integer"})
    encoder.passes = 0
    return connector


@pytest.fixture
def serve(encoder, collection):
    """A function that starts a service with the given options and returns a client."""
    clients = []

    def start(**options):
        service = Service(encoder, {"notes": lambda: collection}, **options)
        client = TestClient(
            create_app(service), base_url="http://localhost", raise_server_exceptions=False
        )
        clients.append(client)
        return client.__enter__()

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve):
    """A client of a service with the defaults."""
    return serve()
