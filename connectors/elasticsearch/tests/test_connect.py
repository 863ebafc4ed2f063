"""Options become a connector without a request, or a ConfigError that says what is wrong."""

import logging
import subprocess
import sys

import pytest

from m3connect.connecting import registry
from m3connect.connecting.retry import RetryPolicy
from m3connect.errors import ConfigError, TransientError
from m3connect_elasticsearch import ElasticsearchConnector, connect


def test_connecting_sends_nothing():
    """A connector to a port where nothing listens can be made and closed, twice."""
    connector = connect(collection="handbook", url="http://127.0.0.1:1")
    assert isinstance(connector, ElasticsearchConnector)
    assert (connector.name, connector.collection) == ("elasticsearch", "handbook")
    connector.close()
    connector.close()


@pytest.mark.parametrize(
    "name",
    [
        *("", "Handbook", "a b", "a,b", "*", "a*", "_all", "-a", "+a", ".a", "a/b", "a#b", "a:b"),
        *("a\n", "x" * 256, "ä" * 128),
    ],
)
def test_a_name_that_no_index_can_have_is_refused(name):
    """Above all not a pattern: it would reach other indices."""
    with pytest.raises(ConfigError, match="collection"):
        connect(collection=name)


@pytest.mark.parametrize("name", ["handbook", "hand-book_2", "ä" * 127, "1"])
def test_names_of_indices_are_taken(name):
    """Lower case, digits, dashes and letters of any script."""
    connect(collection=name).close()


@pytest.mark.parametrize(
    "options",
    [
        {"url": "127.0.0.1:9200"},
        {"url": "http://127.0.0.1"},
        {"api_key": "key", "username": "elastic", "password": "secret"},
        {"username": "elastic"},
        {"password": "secret"},
        {"url": "https://127.0.0.1:9200", "ca_certificate": "/no/such/file.pem"},
        {"candidates": 0},
        {"candidates": 10_001},
    ],
)
def test_bad_options_are_refused(options):
    """A ConfigError, not the client's ValueError, and no password in it."""
    with pytest.raises(ConfigError) as caught:
        connect(collection="handbook", **options)
    assert "secret" not in str(caught.value)


def test_it_is_found_by_its_name():
    """The entry point leads to ``connect``."""
    with registry.connect("elasticsearch", collection="handbook") as connector:
        assert isinstance(connector, ElasticsearchConnector)


def test_importing_it_imports_no_torch():
    """The connector needs the contract and the driver only."""
    code = "import sys, m3connect_elasticsearch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_refused_connection_is_reported_once(caplog):
    """By the error and by the retries, and not by the driver's logger as well."""
    once = RetryPolicy(attempts=1)
    with (
        connect(collection="test", url="http://127.0.0.1:1", retry=once) as connector,
        pytest.raises(TransientError, match="is the server running"),
    ):
        connector.count()
    assert caplog.records == []


def test_a_log_level_of_the_application_stays(monkeypatch):
    """Only where it has set none is the driver made quiet."""
    logger = logging.getLogger("elastic_transport.node_pool")
    for level, after in ((logging.DEBUG, logging.DEBUG), (logging.NOTSET, logging.ERROR)):
        monkeypatch.setattr(logger, "level", level)
        connect(collection="handbook", url="http://127.0.0.1:1").close()
        assert logger.level == after
