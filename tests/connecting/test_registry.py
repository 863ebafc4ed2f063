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


@pytest.mark.parametrize("target", SERVERS)
@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("exact", "no", "exact takes true or false, not str"),
        ("exact", 1, "not int"),
        ("timeout", "5", "timeout takes a finite number, not str"),
        ("timeout", float("nan"), "timeout takes a finite number, not float"),
        ("timeout", True, "not bool"),
        ("timeout", 0, "timeout is in seconds, more than 0"),
        ("timeout", -1.5, "timeout is in seconds"),
        ("timeout", 10**30, "timeout is in seconds"),
        ("api_key", 4711, "api_key takes a text, not int"),
        ("api_key", ["s3cr"], "not list"),
        ("ca_certificate", 5, "takes a text, a path, not int"),
        ("retry", 3, "retry takes RetryPolicy, not int"),
        ("collection", 7, "collection takes a text"),
    ],
)
def test_an_option_of_another_type_is_named(target, option, value, says):
    """A "no" was true, and drivers failed in their own words, or much later."""
    options = {"collection": "c", "url": "http://127.0.0.1:1", option: value}
    with pytest.raises(ConfigError, match=says) as caught:
        connect(target, **options)
    assert "4711" not in str(caught.value)


def test_a_choice_is_named_with_what_there_is():
    """By the type alone, so that no connector forgets it."""
    with pytest.raises(ConfigError, match=r"dense_index is one of int8_hnsw, .*flat, not 'best'"):
        connect("elasticsearch", collection="c", dense_index="best")
    with pytest.raises(ConfigError, match=r"quantization is one of int8, binary, not \['int8'\]"):
        connect("qdrant", collection="c", quantization=["int8"])
    with pytest.raises(ConfigError, match="shards must be at least 1"):
        connect("elasticsearch", collection="c", shards=0)
