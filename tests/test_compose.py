"""docker-compose.yml, as far as it can be checked without containers."""

from pathlib import Path

import pytest
import yaml

from tests.servers.elasticsearch.node import NEWEST

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
PORTS = {"qdrant": {"6333", "6334"}, "milvus": {"19530"}, "elasticsearch": {"9200"}}
"""By service, the ports that the connectors speak to by default."""


def test_there_is_a_service_for_every_connector():
    """And no other."""
    assert COMPOSE["services"].keys() == PORTS.keys()
    assert PORTS.keys() == {path.name for path in (ROOT / "connectors").iterdir()}


@pytest.mark.parametrize("name", PORTS)
def test_a_service_is_pinned_loopback_healthy_and_kept(name):
    """An exact version, loopback ports as expected, a health check, data in a declared volume."""
    service = COMPOSE["services"][name]
    assert service["image"].rpartition(":")[2].removeprefix("v").replace(".", "").isdigit()
    assert service["image"].count(".", service["image"].rindex(":")) == 2
    assert set(service["ports"]) == {f"127.0.0.1:{port}:{port}" for port in PORTS[name]}
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert service["healthcheck"]["retries"] >= 1
    volume, _, folder = service["volumes"][0].partition(":")
    assert volume in COMPOSE["volumes"]
    assert folder.startswith("/")


def test_elasticsearch_is_the_version_of_the_live_tests():
    """What runs in the container is what the tests ran."""
    assert COMPOSE["services"]["elasticsearch"]["image"].endswith(f":{NEWEST}")
