"""What every exporter of ours needs: families of samples, and a server for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterable
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Final, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from gateway.histogram import Histogram
from quantization.errors import GammawearError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

logger = logging.getLogger(__name__)

PREFIX: Final = "gammawear_"
"""Of every metric of the gateway."""

MAX_SCRAPES: Final = 32
"""Connections at a time; further ones are closed at once."""
SCRAPE_TIMEOUT_S: Final = 10.0
"""A connection is closed once nothing has moved on it for so long."""

Rows = Iterable[tuple[tuple[str, ...], float | None]]
"""Label values and value; a value of None leaves the series out."""

_Request = socket.socket | tuple[bytes, socket.socket]
_Address = tuple[str, int]
_Family = TypeVar("_Family", CounterMetricFamily, GaugeMetricFamily)


class MetricsServerError(GammawearError, OSError):
    """The address for the metrics cannot be used."""


def counter(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> CounterMetricFamily:
    """A counter as it is now; ``_total`` is added to its name."""
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> GaugeMetricFamily:
    """A gauge as it is now."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def histogram(name: str, text: str, counts: Histogram) -> HistogramMetricFamily:
    """A histogram as it is now."""
    family = HistogramMetricFamily(name, text)
    family.add_metric((), buckets=counts.buckets(), sum_value=counts.total)
    return family


def _filled(family: _Family, rows: Rows) -> _Family:
    for values, value in rows:
        if value is not None:
            family.add_metric(values, value)
    return family


@contextlib.asynccontextmanager
async def serving_metrics(registry: CollectorRegistry, address: str, port: int) -> AsyncIterator[int]:
    """Serve ``/metrics`` on threads of their own; gives the port, which with ``port=0`` is a free one.

    Args:
        registry: what to serve.
        address: to listen on.
        port: likewise.

    Raises:
        MetricsServerError: the address cannot be used.
    """
    metrics = make_wsgi_app(registry)

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path in ("", "/", "/metrics"):
            return metrics(environ, start_response)
        content = b"nothing is here\n"
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [content]

    kind: type[_Server] = _ServerOnSix if ":" in address else _Server
    try:
        server = make_server(address, port, serve, kind, _Quiet)
    except OSError as error:
        raise MetricsServerError(f"metrics cannot be served on {address}:{port}: {error.strerror}") from error
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    logger.info("metrics on http://%s:%d/metrics", address, server.server_port)
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(_close, server, thread)


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a connection, and no more of them than :data:`MAX_SCRAPES`: each takes a file descriptor, too."""

    daemon_threads = True
    request_queue_size = MAX_SCRAPES

    def server_activate(self) -> None:
        self._room = BoundedSemaphore(MAX_SCRAPES)
        super().server_activate()

    def process_request(self, request: _Request, client_address: _Address) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no thread for it
            self._room.release()
            raise

    def process_request_thread(self, request: _Request, client_address: _Address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()


class _ServerOnSix(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    timeout = SCRAPE_TIMEOUT_S

    def handle(self) -> None:
        """One request. Whoever made it may go away, or say nothing."""
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
        """A scrape every few seconds is nothing to write home about."""


def _close(server: WSGIServer, thread: Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()
