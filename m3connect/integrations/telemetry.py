"""Spans of OpenTelemetry and counters of Prometheus: how long models and databases take, and how much they did.

    telemetry = Telemetry()  # the process's registry, the application's tracer
    with telemetry.run("ingest"):
        report = ingest(
            documents, telemetry.encoder(encoder), telemetry.connector(connector)
        )
        telemetry.count(report)

Numbers, and names that programs chose: of operations, errors, the engine, the collection. No text, no id, no
address, no message of an error, which may have some of these. Needs ``pip install "m3connect[telemetry]"``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, Self, cast

from m3connect.contract import Connector, Encoder
from m3connect.errors import ConfigError
from m3connect.ingestion.report import IngestReport
from m3connect.types import Embeddings

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Status, StatusCode, Tracer
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
except ImportError as error:
    raise ConfigError(
        f'telemetry is missing an extra ({error}): pip install "m3connect[telemetry]"'
    ) from error

OPERATIONS = (
    "ensure",
    "upsert",
    "flush",
    "delete",
    "fetch",
    "search",
    "count",
    "describe",
    "annotate",
)
"""Of a connector that are told of; ``scan``, which waits for whoever reads it, is not."""
OUTCOMES = ("written", "unchanged", "empty", "failed", "pruned")
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Telemetry:
    """What wraps a model and a connector, and tells of what they do. Each wrapped one does as before.

    Args:
        registry: of the counters; default the process's own, which most applications show.
        tracer: of the spans; default the one that the application has set up, or none.

    Raises:
        ValueError: the registry has these counters already: one object a registry.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, tracer: Tracer | None = None
    ) -> None:
        self._tracer = trace.get_tracer("m3connect") if tracer is None else tracer
        self._above: Context | None = None  # the span of the run, for whatever thread works for it
        self._documents = Counter(
            "m3connect_documents",
            "Documents by what became of them.",
            ["outcome"],
            registry=registry,
        )
        for outcome in OUTCOMES:
            self._documents.labels(outcome)  # shown from the start, as 0
        self._passages = Counter("m3connect_passages", "Passages encoded.", registry=registry)
        self._tokens = Counter("m3connect_tokens", "Tokens encoded.", registry=registry)
        self._truncated = Counter(
            "m3connect_truncated", "Passages longer than the model takes.", registry=registry
        )
        self._records = Counter(
            "m3connect_records", "Records that operations had.", ["operation"], registry=registry
        )
        self._calls = Histogram(
            "m3connect_operation_seconds",
            "Time of encoding and of a connector's operations, by the class of the error if it ended in one.",
            ["operation", "error"],
            buckets=_SECONDS,
            registry=registry,
        )

    @contextmanager
    def run(self, name: str) -> Iterator[None]:
        """One run, of which all that the wrapped ones do meanwhile is part.

        Args:
            name: of the span.
        """
        with self._span(f"m3connect.{name}", {}) as span:
            before, self._above = self._above, trace.set_span_in_context(span)
            try:
                yield
            finally:
                self._above = before

    def encoder(self, encoder: Encoder) -> Encoder:
        """A model that is told of."""
        return cast("Encoder", _Told(encoder, {"encode": self._encode}))

    def connector(self, connector: Connector) -> Connector:
        """A collection that is told of."""
        told = {name: self._operation(connector, name) for name in OPERATIONS}
        return cast("Connector", _Told(connector, told))

    def count(self, report: IngestReport) -> None:
        """What became of the documents of a run."""
        for outcome in OUTCOMES:
            self._documents.labels(outcome).inc(getattr(report, outcome))

    def _encode(self, encode: Callable[..., Embeddings]) -> Callable[..., Embeddings]:
        def told(texts: Sequence[str], **how: Any) -> Embeddings:
            with self._measured("encode", {"m3connect.passages": len(texts)}) as span:
                embeddings = encode(texts, **how)
                tokens = int(embeddings.n_tokens.sum())
                span.set_attribute("m3connect.tokens", tokens)
            self._passages.inc(len(texts))
            self._tokens.inc(tokens)
            self._truncated.inc(int(embeddings.truncated.sum()))
            return embeddings

        return told

    def _operation(
        self, connector: Connector, name: str
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        facts = {"db.system.name": connector.name, "db.collection.name": connector.collection}

        def told_of(operation: Callable[..., Any]) -> Callable[..., Any]:
            def told(*values: Any, **how: Any) -> Any:
                # Of records, ids and queries how many there are; a filter is a text, or has no length.
                first = values[0] if values else None
                records = (
                    len(first)
                    if isinstance(first, Sized) and not isinstance(first, str | Mapping)
                    else None
                )
                known: dict[str, str | int] = {**facts, "db.operation.name": name}
                if records is not None:
                    known["m3connect.records"] = records
                with self._measured(name, known):
                    answer = operation(*values, **how)
                if records is not None:
                    self._records.labels(name).inc(records)
                return answer

            return told

        return told_of

    @contextmanager
    def _measured(self, operation: str, facts: Mapping[str, str | int]) -> Iterator[Span]:
        start, fault = time.perf_counter(), ""
        try:
            with self._span(f"m3connect.{operation}", facts) as span:
                yield span
        except BaseException as error:
            fault = type(error).__name__
            raise
        finally:
            self._calls.labels(operation, fault).observe(time.perf_counter() - start)

    @contextmanager
    def _span(self, name: str, facts: Mapping[str, str | int]) -> Iterator[Span]:
        """A span that says of an error its class, and not its message."""
        with self._tracer.start_as_current_span(
            name,
            context=self._above,
            attributes=facts,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise


class _Told:
    """Another object, some of whose methods are told of."""

    def __init__(
        self, inner: Any, told: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]]
    ) -> None:
        self._inner = inner
        self._told = told

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        return self._told[name](attribute) if name in self._told else attribute

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._inner.__exit__(*exception)
