"""Every Prometheus metric of the gateway: name, help, unit, labels. The figures themselves live in the pipeline.

A collector that reads them when somebody looks costs the hot path nothing, and leaves out what does not exist: the live
score of a gateway that has no labels is *absent*, not 0. No label takes values from outside: reasons, states and forms
are fixed sets, models and activities come from the bundles served. Only with ``per_device`` is there a label
``device``, and a device silent for ``silent_after_s`` drops out.

Metrics are in base units, as ``promtool check metrics`` asks: bytes per value × 8 are the bits of the screens.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.batcher import MicroBatcher
from gateway.exposition import PREFIX, Rows, counter, gauge, histogram
from gateway.histogram import Histogram
from gateway.pipeline import Pipeline
from gateway.refusals import REASONS

SILENT_AFTER_S: Final = 300.0
LEVELS: Final = ("payload", "packet", "mqtt_topic", "mqtt_alias")
RIVALS: Final = ("raw12", "float32", "json")
STATES: Final = ("online", "offline", "unannounced")
FLUSHES: Final = ("gap", "restart", "codebook", "removed")


class Link(Protocol):
    """What is asked of the connection to the broker."""

    reconnects: int

    @property
    def connected(self) -> bool:
        """Whether there is one."""


class GatewayMetrics(Collector):
    """Reads a pipeline and its batcher.

    Args:
        registry: where to register; nothing global is touched.
        pipeline: read.
        batcher: read, if windows go through one.
        link: read, if there is a broker.
        per_device: give each device's traffic and losses a series of its own.
        silent_after_s: a device silent for so long has none.
        now_ns: UTC.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        pipeline: Pipeline,
        *,
        batcher: MicroBatcher | None = None,
        link: Link | None = None,
        per_device: bool = False,
        silent_after_s: float = SILENT_AFTER_S,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._pipeline = pipeline
        self._batcher = batcher
        self._link = link
        self._per_device = per_device
        self._silent_after_ns = int(silent_after_s * 1e9)
        self._now_ns = now_ns
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now. Called by the registry, on any thread."""
        yield from self._traffic()
        yield from self._packets()
        yield from self._devices()
        yield from self._windows()
        yield from self._scores()
        yield from self._service()
        if self._per_device:
            yield from self._each_device()

    def _traffic(self) -> Iterator[Metric]:
        p, t = self._pipeline, self._pipeline.meter.totals
        kinds = ("imu", "status", "label", "frame", "truth", "raw", "other")
        known = dict(p.messages)
        other = sum(known.values()) - sum(known.get(kind, 0) for kind in kinds[:-1])
        yield _counter(
            "received_messages",
            "MQTT messages received, by the last level of their topic.",
            ("kind",),
            [((kind,), known.get(kind, 0) if kind != "other" else other) for kind in kinds],
        )
        yield _counter("received_payload_bytes", "Bytes of codes received.", (), [((), t.payload_bytes)])
        yield _counter("received_packet_bytes", "Bytes received of codes and our header.", (), [((), t.packet_bytes)])
        yield _counter(
            "received_mqtt_bytes",
            "Bytes of the MQTT 5 PUBLISH packets around them, with the topic in full or with a topic alias; "
            "TCP, IP and TLS are not counted.",
            ("form",),
            [(("topic",), t.mqtt_topic_bytes), (("alias",), t.mqtt_alias_bytes)],
        )
        yield _counter(
            "received_raw_trace_bytes",
            "Bytes of raw samples that devices were asked for to debug them; in no other figure of bytes.",
            (),
            [((), p.raw_bytes)],
        )
        yield _counter("received_samples", "Samples received; one has a value per channel.", (), [((), t.samples)])
        yield _counter("received_values", "Values received: samples times channels.", (), [((), t.values)])
        yield _gauge(
            "bytes_per_value",
            "Bytes that one sample of one channel took, since the start; times 8 are bits.",
            ("level",),
            [((level,), _scaled(t.bits_per_value(level), 1 / 8)) for level in LEVELS],
        )
        yield _counter(
            "equivalent_bytes",
            "Bytes of the MQTT 5 PUBLISH packets, topic in full, that the same samples would have taken: 12-bit values "
            "or float32 with our header, or compact JSON with three decimals.",
            ("encoding",),
            [(("raw12",), t.raw12_bytes), (("float32",), t.float32_bytes), (("json",), t.json_bytes)],
        )
        yield _gauge(
            "compression_ratio",
            "Equivalent bytes over received MQTT bytes, topic in full, since the start.",
            ("against",),
            [((rival,), t.compression(rival)) for rival in RIVALS],
        )

    def _packets(self) -> Iterator[Metric]:
        p, losses = self._pipeline, self._pipeline.losses
        yield _counter("accepted_packets", "Packets that got their place in a stream.", (), [((), losses.accepted)])
        yield _counter(
            "lost_packets",
            "Packets that never came, by their sequence numbers: an outage of over 4095 counts modulo 4096.",
            (),
            [((), losses.lost)],
        )
        yield _counter("missing_samples", "Samples that never came, by ticks.", (), [((), losses.samples_missing)])
        yield _counter("duplicate_packets", "Packets dropped because they came before.", (), [((), losses.duplicate)])
        yield _counter("reordered_packets", "Packets that were put in order.", (), [((), losses.reordered)])
        yield _counter("stream_restarts", "Streams that began anew in mid-stream.", (), [((), losses.restarts)])
        refused = {**dict(p.refusals.packets), "late": losses.late, "unplaced": losses.unplaced}
        yield _counter("rejected_packets", "Packets that were not used.", ("reason",), _by_reason(refused))
        yield _counter(
            "rejected_messages",
            "Status, label and truth messages, and messages on other topics, that were not used.",
            ("reason",),
            _by_reason(dict(p.refusals.messages)),
        )

    def _devices(self) -> Iterator[Metric]:
        now_ns = self._now_ns()
        states = dict.fromkeys(STATES, 0)
        streaming = 0
        for device in self._pipeline.devices:
            states[self._pipeline.state_of(device)] += 1
            streaming += device.streaming(now_ns)
        yield _gauge("devices", "Devices known, by their own word.", ("state",), [((k,), v) for k, v in states.items()])
        bridges = Counter(status.state for status in list(self._pipeline.bridges.values()))
        yield _gauge("bridges", "Bridges known.", ("state",), [((k,), bridges[k]) for k in STATES[:2]])
        yield _gauge("streaming_devices", "Devices with a packet in the last 10 s.", (), [((), streaming)])

    def _windows(self) -> Iterator[Metric]:
        p, batcher = self._pipeline, self._batcher
        windows, predictions, flushes = list(p.windows.items()), list(p.predictions.items()), dict(p.flushes)
        yield _counter("windows", "Windows cut.", ("model",), [((model,), n) for model, n in windows])
        yield _counter(
            "window_flushes",
            "Times that samples too few for a window were given up.",
            ("reason",),
            [((reason,), flushes.get(reason, 0)) for reason in FLUSHES],
        )
        dropped = batcher.dropped if batcher is not None else 0
        yield _counter(
            "dropped_windows",
            "Windows without an answer: the queue was full, or the network gave no number.",
            ("reason",),
            [(("queue",), dropped), (("inference",), p.unanswered)],
        )
        yield _counter("predictions", "Answers.", ("model", "activity"), predictions)
        yield _histogram("latency_seconds", "From a window's last packet to its published answer.", p.latency)
        yield _histogram(
            "age_seconds", "From a window's newest sample, by the device's clock, to its published answer.", p.age
        )
        if batcher is not None:
            yield _histogram("inference_seconds", "A batch through its network.", batcher.inferences)
            yield _histogram("batch_windows", "Windows in a batch.", batcher.sizes)
            yield _gauge("queue_windows", "Windows that wait for their network.", (), [((), len(batcher))])

    def _scores(self) -> Iterator[Metric]:
        p = self._pipeline
        scores = p.scores
        yield _gauge(
            "live_accuracy_ratio",
            "Accuracy of the likeliest activity on labelled windows; absent without any.",
            ("model", "span"),
            [((s.model, "total"), s.accuracy) for s in scores]
            + [((s.model, "rolling"), s.rolling_accuracy) for s in scores],
        )
        yield _gauge(
            "live_macro_f1_ratio",
            "Macro-F1 of the likeliest activity on labelled windows, all or the pure ones; absent without any.",
            ("model", "span"),
            [((s.model, "total"), s.macro_f1) for s in scores]
            + [((s.model, "rolling"), s.rolling_macro_f1) for s in scores]
            + [((s.model, "pure"), s.macro_f1_pure) for s in scores],
        )
        yield _gauge(
            "live_unknown_ratio",
            "Share of the scored windows that were answered unknown; absent without any.",
            ("model",),
            [((s.model,), s.unknown_share) for s in scores],
        )
        yield _counter("scored_windows", "Windows scored.", ("model",), [((s.model,), s.windows) for s in scores])
        yield _counter(
            "foreign_windows",
            "Labelled windows of an activity that the model does not know, by its answer.",
            ("model", "answer"),
            [((s.model, "unknown"), s.foreign_unknown) for s in scores]
            + [((s.model, "activity"), s.foreign - s.foreign_unknown) for s in scores],
        )
        events = [((model, signal), n) for model, drift in list(p.drifts.items()) for signal, n in drift.events.items()]
        yield _counter("drift_events", "Changes that ADWIN found.", ("model", "signal"), events)

    def _service(self) -> Iterator[Metric]:
        store = self._pipeline.bundles
        rows = [((b.reference, b.codebook.digest.hex()[:16], str(b.codebook.bits)), 1) for b in store.serving]
        yield _gauge("bundle_info", "Bundles served, one a codebook.", ("model", "codebook", "code_width"), rows)
        yield _gauge("damaged_bundles", "Bundles whose folder cannot be loaded.", (), [((), store.damaged)])
        yield _counter("bundle_load_failures", "Attempts to load a bundle that failed.", (), [((), store.failures)])
        if self._link is not None:
            connected = float(self._link.connected)
            yield _gauge("broker_connected", "1 while connected to the broker.", (), [((), connected)])
            yield _counter("broker_reconnects", "Connections after the first.", (), [((), self._link.reconnects)])

    def _each_device(self) -> Iterator[Metric]:
        since_ns = self._now_ns() - self._silent_after_ns
        heard = [d for d in self._pipeline.devices if d.last_seen_ns > max(0, since_ns)]
        accepted = [((d.id,), d.reassembler.losses.accepted) for d in heard]
        yield _counter("device_packets", "Packets accepted.", ("device",), accepted)
        yield _counter(
            "device_lost_packets", "Packets lost.", ("device",), [((d.id,), d.reassembler.losses.lost) for d in heard]
        )
        yield _gauge(
            "device_mqtt_bytes_per_second",
            "PUBLISH bytes, topic in full, per second of signal, over the last twenty packets.",
            ("device",),
            [((d.id,), d.recent.per_second("mqtt")) for d in heard],
        )
        yield _gauge(
            "device_last_packet_timestamp_seconds",
            "UTC of the last packet.",
            ("device",),
            [((d.id,), d.last_seen_ns / 1e9) for d in heard],
        )


def _by_reason(counts: dict[str, int]) -> Rows:
    return [((reason,), counts.get(reason, 0)) for reason in sorted(REASONS)]


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _counter(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    return counter(PREFIX + name, text, labels, rows)


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    return gauge(PREFIX + name, text, labels, rows)


def _histogram(name: str, text: str, counts: Histogram) -> Metric:
    return histogram(PREFIX + name, text, counts)
