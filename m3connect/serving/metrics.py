"""Figures for Prometheus at ``/metrics``; no label holds anything that a request said."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from m3connect.serving.service import Service

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Requests by route and status, their time, the queue and the passes."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        labels = ("route", "status")
        self._requests = Counter("m3connect_requests", "Requests.", labels, registry=self._registry)
        self._seconds = Histogram(
            "m3connect_request_seconds",
            "Time of requests.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        waiting = Gauge(
            "m3connect_queue_tokens", "Tokens that wait, about.", registry=self._registry
        )
        waiting.set_function(lambda: service.encoder.waiting)
        passes = Gauge("m3connect_forward_passes", "Passes so far.", registry=self._registry)
        passes.set_function(lambda: service.encoder.passes)

    def count(self, route: str, status: int, seconds: float) -> None:
        """One request."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def router(self) -> APIRouter:
        """``/metrics``."""
        routes = APIRouter(tags=["operations"])

        @routes.get("/metrics")
        async def metrics() -> Response:
            """Figures in Prometheus' text form."""
            return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4")

        return routes
