"""What every exporter of ours needs: families of samples, and a server for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from threading import Thread
from typing import Final, TypeVar
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from gateway.histogram import Histogram
from quantization.errors import GammawearError

logger = logging.getLogger(__name__)

PREFIX: Final = "gammawear_"
"""Of every metric of the gateway."""

Rows = Iterable[tuple[tuple[str, ...], float | None]]
"""Label values and value; a value of None leaves the series out."""

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
    """Serve ``/metrics`` on a thread of its own; gives the port, which with ``port=0`` is a free one.

    Raises:
        MetricsServerError: the address cannot be used.
    """
    try:
        server, thread = start_http_server(port, address, registry=registry)
    except OSError as error:
        raise MetricsServerError(f"metrics cannot be served on {address}:{port}: {error.strerror}") from error
    logger.info("metrics on http://%s:%d/metrics", address, server.server_port)
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(_close, server, thread)


def _close(server: WSGIServer, thread: Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()
