"""Every Prometheus metric of a bridge: read from its followers when somebody looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from device_emulator.ble.bridge import Bridge
from device_emulator.ble.follower import STATES, Follower
from gateway.exposition import Rows, counter, gauge

PREFIX: Final = "gammawear_bridge_"


class BridgeMetrics(Collector):
    """Reads a bridge.

    A bridge has few devices, so each has series of its own; a device that has not told its id yet is called by its
    address.

    Args:
        registry: where to register; nothing global is touched.
        bridge: read.
    """

    def __init__(self, registry: CollectorRegistry, bridge: Bridge) -> None:
        self._bridge = bridge
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now. Called by the registry, on any thread."""
        bridge = self._bridge
        followers = list(bridge.followers.values())
        states = Counter(follower.state for follower in followers)
        yield _gauge("devices", "Devices that are followed.", ("state",), [((s,), states[s]) for s in STATES])
        yield _gauge("adapter_up", "Whether there is a Bluetooth adapter.", (), [((), bridge.adapter_error is None)])
        yield _counter("adapter_losses", "Times that the adapter went.", (), [((), bridge.adapters_lost)])
        yield _gauge(
            "broker_up", "Whether there is a connection to the broker.", (), [((), bridge.connection.connected)]
        )
        yield _counter("broker_reconnects", "Connections after the first.", (), [((), bridge.connection.reconnects)])
        yield _gauge("queued_messages", "Messages that wait for the broker.", (), [((), bridge.connection.queued)])
        dropped = bridge.connection.dropped.total()
        yield _counter("dropped_messages", "Messages given up: the queue was full.", (), [((), dropped)])
        yield from self._each(followers)

    def _each(self, followers: list[Follower]) -> Iterator[Metric]:
        names = {follower.address: _name(follower) for follower in followers}

        def rows(value: str) -> list[tuple[tuple[str, ...], float]]:
            return [((names[f.address],), getattr(f, value)) for f in followers]

        device = ("device",)
        yield _counter("notifications", "Notifications received.", device, rows("notifications"))
        yield _counter("notification_bytes", "Bytes in them.", device, rows("bytes_received"))
        yield _counter(
            "connections", "Connections made; all but the first are reconnections.", device, rows("connections")
        )
        yield _counter("watchdog_kicks", "Links given up because nothing came.", device, rows("watchdog_kicks"))
        refused = [((names[f.address], r), n) for f in followers for r, n in list(f.refused.items())]
        yield _counter("refused_notifications", "Notifications that made no sense.", ("device", "reason"), refused)
        heard = [((names[f.address],), f.rssi) for f in followers if f.rssi is not None]
        yield _gauge("rssi_dbm", "Of the last advertisement.", device, heard)


def _name(follower: Follower) -> str:
    return follower.address if follower.stream is None else follower.stream.device_id


def _counter(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    return counter(PREFIX + name, text, labels, rows)


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    return gauge(PREFIX + name, text, labels, rows)
