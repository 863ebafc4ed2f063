"""What the ingestion tests share: a fake encoder and an in-memory collection."""

import pytest

from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder


@pytest.fixture
def encoder():
    """Instant and deterministic; one token a word or punctuation mark."""
    return HashEncoder()


@pytest.fixture
def connector():
    """An empty collection."""
    return MemoryConnector(collection="docs")
