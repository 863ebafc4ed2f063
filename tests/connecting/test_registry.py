"""Connectors are opened by name, and what means the same is called the same."""

from inspect import signature

import pytest

from m3connect.connecting.registry import available, connect
from m3connect.errors import ConfigError

SERVERS = ["elasticsearch", "milvus", "qdrant"]
SHARED = {"collection", "url", "api_key", "timeout", "exact", "ca_certificate", "retry"}


@pytest.mark.parametrize("target", SERVERS)
def test_options_that_mean_the_same_have_the_same_name(target):
    """Whoever changes the database changes no option that both have."""
    assert set(signature(available()[target].load()).parameters) >= SHARED


@pytest.mark.parametrize("target", SERVERS)
def test_an_authority_that_is_not_there_is_named(target):
    """A path without a file is refused before anything is opened."""
    with pytest.raises(ConfigError, match="ca_certificate: there is no file /no/such"):
        connect(target, collection="c", url="https://127.0.0.1:1", ca_certificate="/no/such.pem")


@pytest.mark.parametrize(
    ("target", "option", "other"),
    [("milvus", "FLAT", "HNSW"), ("elasticsearch", "flat", "hnsw")],
)
def test_exact_is_an_index(target, option, other):
    """It agrees with the index that is exact, and excludes the others."""
    url = "http://127.0.0.1:1"
    for given in (None, option):
        opened = connect(target, collection="c", url=url, exact=True, dense_index=given)
        assert opened._options.dense_index == option  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="give one of them"):
        connect(target, collection="c", url=url, exact=True, dense_index=other)
