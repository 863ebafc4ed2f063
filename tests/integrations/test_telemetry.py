"""Spans and counters tell how much and how long, and hold nothing that a document or a user said."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from m3connect import Document, ingest
from m3connect.errors import PermanentError
from m3connect.integrations.telemetry import Telemetry
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder

DOCUMENTS = [
    Document(f"private-id-{n}", f"SECRET text number {n}", {"who": "SECRET"}) for n in "ab"
]


@pytest.fixture
def spans():
    return InMemorySpanExporter()


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def telemetry(spans, registry):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield Telemetry(registry, provider.get_tracer("test"))
    provider.shutdown()


def run(telemetry, connector, documents=DOCUMENTS):
    with telemetry.run("ingest"):
        encoder, told = telemetry.encoder(HashEncoder()), telemetry.connector(connector)
        report = ingest(documents, encoder, told)
        telemetry.count(report)
    return report


def test_a_run_is_one_trace_of_what_it_took(telemetry, spans, registry):
    """Of all threads that work for it; the collection is the one that there is without it."""
    connector, plain = MemoryConnector(collection="docs"), MemoryConnector(collection="docs")
    report = run(telemetry, connector)
    ingest(DOCUMENTS, HashEncoder(), plain)
    assert [*connector.scan()] == [*plain.scan()]
    *inner, outer = spans.get_finished_spans()
    assert outer.name == "m3connect.ingest"
    assert {each.parent.span_id for each in inner} == {outer.context.span_id}
    names = {each.name for each in inner}
    assert {"m3connect.encode", "m3connect.upsert", "m3connect.flush"} <= names
    # The first one is an empty text: how many tokens the model adds by itself.
    empty, encoded = (each for each in inner if each.name == "m3connect.encode")
    assert empty.attributes["m3connect.passages"] == 1
    assert encoded.attributes == {"m3connect.passages": 2, "m3connect.tokens": report.tokens}
    value = registry.get_sample_value
    assert value("m3connect_documents_total", {"outcome": "written"}) == 2
    assert value("m3connect_tokens_total") == report.tokens + empty.attributes["m3connect.tokens"]
    assert value("m3connect_records_total", {"operation": "upsert"}) == 2
    assert value("m3connect_operation_seconds_count", {"operation": "upsert", "error": ""}) == 1


class Broken(MemoryConnector):
    """Names a document in its error, as databases do."""

    def flush(self):
        raise PermanentError("SECRET private-id-a", connector="memory", operation="flush")


def test_an_error_is_told_by_its_class(telemetry, spans, registry):
    """Its message may name a document."""
    with pytest.raises(PermanentError, match="private-id-a"):
        run(telemetry, Broken(collection="docs"))
    failed = {each.name: each for each in spans.get_finished_spans() if not each.status.is_ok}
    assert failed["m3connect.describe"].attributes["error.type"] == "CollectionNotFound"
    assert failed["m3connect.ingest"].attributes["error.type"] == "PermanentError"
    assert failed["m3connect.flush"].attributes["error.type"] == "PermanentError"
    labels = {"operation": "flush", "error": "PermanentError"}
    assert registry.get_sample_value("m3connect_operation_seconds_count", labels) == 1


@pytest.mark.parametrize("kind", [MemoryConnector, Broken])
def test_neither_spans_nor_counters_hold_a_text_or_an_id(telemetry, spans, registry, kind):
    """Whatever became of the run."""
    connector = telemetry.connector(kind(collection="docs"))
    try:
        run(telemetry, connector)
        connector.count('who == "SECRET"')
        connector.delete('who == "SECRET"')
    except PermanentError:
        pass
    told = generate_latest(registry).decode() + "".join(
        each.to_json() for each in spans.get_finished_spans()
    )
    assert "m3connect.upsert" in told
    assert "SECRET" not in told
    assert "private-id" not in told
