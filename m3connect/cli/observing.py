"""What a run tells monitoring: counters in a file, spans to a collector."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli.options import Mark
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from m3connect.contract import Connector, Encoder
    from m3connect.ingestion import IngestReport
    from m3connect.integrations.telemetry import Telemetry
    from m3connect.progress import Progress

_PANEL = "Monitoring"
EVERY = 15.0
"""Seconds between two writings of the counters."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A run that is watched, or not.

    Args:
        telemetry: tells monitoring; None tells nobody.
        progress: to be given to what runs.
    """

    telemetry: Telemetry | None
    progress: Progress

    def encoder(self, encoder: Encoder) -> Encoder:
        """A model that is told of."""
        return encoder if self.telemetry is None else self.telemetry.encoder(encoder)

    def connector(self, connector: Connector) -> Connector:
        """A collection that is told of."""
        return connector if self.telemetry is None else self.telemetry.connector(connector)

    def count(self, report: IngestReport) -> None:
        """What became of the documents."""
        if self.telemetry is not None:
            self.telemetry.count(report)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observing:
    """What is told of a run, and where."""

    metrics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.prom",
            help="Where to write counters for Prometheus, all 15 seconds and at the end: for the "
            'textfile collector of its node exporter. pip install "m3connect[telemetry]"',
            rich_help_panel=_PANEL,
            show_default=False,
        ),
        Mark.WRITES,
    ] = None
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            help="Send spans of OpenTelemetry to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names.",
            rich_help_panel=_PANEL,
        ),
        Mark.FLAG_ONLY,
    ] = False

    @contextmanager
    def run(self, name: str, progress: Progress) -> Iterator[Watch]:
        """One run of a command.

        Args:
            name: of the span.
            progress: is told what the run tells, too.

        Raises:
            ConfigError: the extra is missing, or the file cannot be written.
        """
        if self.metrics is None and not self.trace:
            yield Watch(None, progress)
            return
        from m3connect.integrations.telemetry import Telemetry  # says what to install

        from prometheus_client import CollectorRegistry, write_to_textfile  # isort: skip

        registry = CollectorRegistry()
        written = time.monotonic()

        def write() -> None:
            nonlocal written
            written = time.monotonic()
            if self.metrics is not None:
                try:
                    write_to_textfile(str(self.metrics), registry)
                except OSError as error:
                    raise ConfigError(f"--metrics {self.metrics}: {error.strerror}") from error

        def told(stage: str, done: int, total: int | None) -> None:
            progress(stage, done, total)
            if time.monotonic() - written >= EVERY:
                write()

        with _spans(self.trace) as tracer:
            telemetry = Telemetry(registry, tracer)
            write()
            try:
                with telemetry.run(name):
                    yield Watch(telemetry, told)
            finally:
                write()


@contextmanager
def _spans(wanted: bool) -> Iterator[Tracer | None]:
    """What makes spans, and sends them before it is left; the environment says where to."""
    if not wanted:
        yield None
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # Not the process's provider: whoever calls this from Python has one of their own.
    named = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "m3connect")})
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider.get_tracer("m3connect")
    finally:
        provider.shutdown()
