"""Connectors show what they are, and no secret."""

import pytest

from m3connect.connecting.registry import available, connect


@pytest.mark.parametrize("name", ["memory", "qdrant", "elasticsearch"])
def test_a_connector_names_itself_without_secrets(name):
    """The engine and the collection; neither the address's password nor the key."""
    if name not in available():
        pytest.skip(f"the connector {name} is not installed")
    remote = {"url": "https://bob:SECRET@127.0.0.1:9", "api_key": "HIDDEN"}
    with connect(name, collection="notes", **({} if name == "memory" else remote)) as connector:
        assert repr(connector) == f"<{name} collection 'notes'>"
