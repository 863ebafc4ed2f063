"""Every exception of the client, and every kind of answer, as one of our errors."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import elastic_transport
import elasticsearch
import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig

from m3connect.errors import (
    AuthError,
    CollectionNotFound,
    ConnectorError,
    PermanentError,
    RequestTooLarge,
    TransientError,
    Unsupported,
    WritesRefused,
)
from m3connect_elasticsearch.errors import check_items, from_answer, translated


def family(kind):
    """A class and all that inherit from it."""
    return [kind, *(below for child in kind.__subclasses__() for below in family(child))]


def api_error(kind, status=400, body=None, headers=None):
    meta = ApiResponseMeta(
        status=status,
        http_version="1.1",
        headers=HttpHeaders(headers or {}),
        duration=0.1,
        node=NodeConfig("http", "127.0.0.1", 9200),
    )
    return kind("it failed", meta, body)


CLIENT = family(elastic_transport.TransportError)
API = family(elastic_transport.ApiError)


@pytest.mark.parametrize("kind", [*CLIENT, *API], ids=lambda kind: kind.__name__)
def test_every_exception_of_the_client_arrives_as_ours(kind):
    """Whatever the client raises, the caller sees a ConnectorError with it as the cause."""
    error = api_error(kind) if kind in API else kind("it failed")
    with pytest.raises(ConnectorError) as caught, translated("search"):
        raise error
    assert caught.value.__cause__ is error
    assert (caught.value.connector, caught.value.operation) == ("elasticsearch", "search")


def test_the_clients_exceptions_were_found():
    """The walk sees the classes that are known today, so that an empty one cannot pass."""
    names = {kind.__name__ for kind in [*CLIENT, *API]}
    assert names >= {
        "ConnectionError",
        "ConnectionTimeout",
        "TlsError",
        "SerializationError",
        "NotFoundError",
        "ConflictError",
        "BadRequestError",
        "AuthenticationException",
        "AuthorizationException",
        "UnsupportedProductError",
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (elastic_transport.ConnectionError("refused"), TransientError),
        (elastic_transport.ConnectionTimeout("60 s"), TransientError),
        (elastic_transport.SerializationError("cut"), TransientError),
        (elastic_transport.TlsError("self-signed"), PermanentError),
        (api_error(elasticsearch.UnsupportedProductError, 200), PermanentError),
    ],
)
def test_a_failed_exchange(error, expected):
    """Lost, late and cut answers may be asked again; a bad certificate or product may not."""
    with pytest.raises(expected), translated("search"):
        raise error


def failure(type_, **more):
    return {"error": {"type": type_, "reason": "why", "root_cause": [{"type": type_}], **more}}


BLOCK = failure("cluster_block_exception")
SHARDS = failure("search_phase_execution_exception", caused_by={"type": "no_shard_available"})


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, failure("document_parsing_exception"), PermanentError),
        (400, failure("media_type_header_exception"), Unsupported),
        (400, failure("security_exception", **{"license.expired.feature": "x"}), Unsupported),
        (401, failure("security_exception"), AuthError),
        (401, "", AuthError),
        (403, failure("security_exception"), AuthError),
        (403, failure("security_exception", **{"license.expired.feature": "x"}), Unsupported),
        (403, BLOCK, WritesRefused),
        (404, failure("index_not_found_exception"), CollectionNotFound),
        (404, failure("search_context_missing_exception"), PermanentError),
        (405, {"error": "no handler", "status": 405}, PermanentError),
        (408, None, TransientError),
        (409, failure("version_conflict_engine_exception"), PermanentError),
        (413, None, RequestTooLarge),
        (429, failure("es_rejected_execution_exception"), TransientError),
        (429, failure("circuit_breaking_exception"), TransientError),
        (429, BLOCK, WritesRefused),
        (500, failure("exception"), TransientError),
        (502, "<html>Bad Gateway</html>", TransientError),
        (503, SHARDS, TransientError),
        (503, BLOCK, TransientError),
        (504, "", TransientError),
    ],
)
def test_an_answer_becomes_the_error_that_it_means(status, body, expected):
    """Status and type decide, not the message; exactly the class, not a parent."""
    error = from_answer(status, body, "upsert")
    assert type(error) is expected
    assert str(status) in str(error) or expected is Unsupported


def rejected(stage, wanted, most=100):
    reason = f"rejected execution of {stage} operation [all_bytes=1, {stage}_operation_bytes="
    return {
        "error": {
            "type": "es_rejected_execution_exception",
            "reason": f"{reason}{wanted}, max_{stage}_bytes={most}]",
        }
    }


@pytest.mark.parametrize(
    ("stage", "wanted", "expected"),
    [
        ("coordinating", 100, TransientError),
        ("coordinating", 101, RequestTooLarge),
        ("primary", 80, TransientError),
        ("primary", 81, RequestTooLarge),
        ("replica", 1000, TransientError),
    ],
)
def test_a_request_that_never_fits_is_too_large(stage, wanted, expected):
    """A full node empties, but what is beyond all its memory for requests must be split."""
    assert type(from_answer(429, rejected(stage, wanted), "upsert")) is expected


def test_messages_say_what_to_do():
    """A full disk, a wrong client and a missing licence come with the way out."""
    assert "free space" in str(from_answer(429, BLOCK, "upsert"))
    wrong = str(from_answer(400, failure("media_type_header_exception"), "connect"))
    assert "pip install 'elasticsearch>=" in wrong
    licence = failure("security_exception", **{"license.expired.feature": "Rank Vectors"})
    assert "licence" in str(from_answer(403, licence, "ensure"))


def test_a_message_names_the_cause():
    """The root's type and reason are in the message, and what caused it."""
    body = {
        "error": {
            "type": "outer",
            "reason": "all shards failed",
            "root_cause": [{"type": "inner", "reason": "bad vector"}],
            "caused_by": {"type": "deep", "reason": "NaN"},
        }
    }
    assert "400 inner: bad vector (NaN)" in str(from_answer(400, body, "search"))
    assert "502 <html>Bad Gateway" in str(from_answer(502, "<html>Bad Gateway</html>", "search"))


def test_the_server_says_when_to_come_back():
    """Retry-After is read in seconds and as a date; anything else is no wait."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    for header, low, high in (("7", 7, 7), (soon, 28, 31), ("-5", 0, 0)):
        error = api_error(elasticsearch.ApiError, 429, headers={"retry-after": header})
        with pytest.raises(TransientError) as caught, translated("search"):
            raise error
        assert low <= caught.value.retry_after <= high
    with pytest.raises(TransientError) as caught, translated("search"):
        raise api_error(elasticsearch.ApiError, 429, headers={"retry-after": "soon"})
    assert caught.value.retry_after is None


def item(status, type_=None, **more):
    error = {"error": {"type": type_, "reason": "why"}} if type_ else {}
    return {"index": {"status": status, **error, **more}}


def test_a_bulk_item_names_its_record():
    """The error of an item says which record it is."""
    answer = {"items": [item(201), item(400, "document_parsing_exception")]}
    with pytest.raises(PermanentError, match=r"record 'b': 400 document_parsing_exception: why"):
        check_items("upsert", answer, ["a", "b"])


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_item_is_transient(status):
    """Items that the node was too busy for may be sent again."""
    answer = {"items": [item(status, "es_rejected_execution_exception"), item(201)]}
    with pytest.raises(TransientError, match="record 'a'"):
        check_items("upsert", answer, ["a", "b"])


def test_a_lasting_failure_comes_before_a_transient_one():
    """A batch that cannot succeed is not retried for the sake of its other items."""
    answer = {
        "items": [
            item(503, "unavailable_shards_exception"),
            item(400, "document_parsing_exception"),
        ]
    }
    with pytest.raises(PermanentError, match="record 'b'"):
        check_items("upsert", answer, ["a", "b"])


def test_a_record_that_changed_meanwhile_is_not_deleted_and_no_error():
    """A version conflict of a deletion is left alone, as is a record that is gone."""
    conflict = {"delete": {"status": 409, "error": {"type": "version_conflict_engine_exception"}}}
    gone = {"delete": {"status": 404, "result": "not_found"}}
    check_items("delete", {"items": [conflict, gone]}, ["a", "b"])
