"""What this gateway counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from reverie_protocol.errors import CloseCode

#: Seconds; a `/generate` may take minutes.
_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)


class GatewayMetrics:
    """Counters and gauges of one gateway."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._sockets = Gauge("reverie_gateway_sockets", "Open WebSockets", registry=self._registry)
        self._frames = Counter(
            "reverie_gateway_frames_sent", "WebSocket frames sent", ["kind"], registry=self._registry
        )
        self._text, self._binary = self._frames.labels("text"), self._frames.labels("preview")
        self._closed = Counter(
            "reverie_gateway_sockets_closed",
            "WebSockets that the gateway closed",
            ["code"],
            registry=self._registry,
        )
        self._requests = Histogram(
            "reverie_gateway_request_seconds",
            "HTTP requests by route and status",
            ["route", "status"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    @contextmanager
    def open_socket(self) -> Iterator[None]:
        """Count a socket while the context is open."""
        self._sockets.inc()
        try:
            yield
        finally:
            self._sockets.dec()

    def sent(self, *, texts: int = 0, previews: int = 0) -> None:
        """Count frames."""
        if texts:
            self._text.inc(texts)
        if previews:
            self._binary.inc(previews)

    def closed(self, code: CloseCode) -> None:
        """Count one socket that we closed."""
        self._closed.labels(str(code.code)).inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one HTTP request."""
        self._requests.labels(route, str(status)).observe(seconds)

    def observe(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Report a value that is asked for at each scrape."""
        Gauge(f"reverie_gateway_{name}", description, registry=self._registry).set_function(value)
