"""The whole path of a message through the gateway. Read this file first.

::

    feed ─ topic ─┬─ imu ──── Packet.from_bytes ─ bundle by digest ─ codes ─ Reassembler ─ WindowBuffer ─ submit ┐
                  ├─ status ─ Device.said                                                        (MicroBatcher)  │
                  ├─ frame, truth ── Cameras                                                                     │
                  ├─ raw ──── Watcher, if somebody looks                                                         │
                  └─ label ── LabelTrack ─────────────────────────┐                                              │
                                                                  ├─ LiveScore, Drift                            │
    answered ◄────────────────── probabilities ───────────────────┴───────────── publish Activity ◄──────────────┘

All of it is synchronous and runs on one thread; :mod:`gateway.service` connects it to a broker and to the clock. What
comes in is anybody's bytes: a :class:`~quantization.errors.GammawearError` on the way ends here, counted by reason and
said once per device, and the next message finds everything as if the bad one had not come.
"""

from __future__ import annotations

import functools
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gateway.bundles import BundleStore
from gateway.cameras import Cameras
from gateway.clock import DeviceClock
from gateway.devices import Device, DeviceTable
from gateway.drift import Drift, Signal
from gateway.histogram import Histogram
from gateway.labels import Scored
from gateway.predictions import make_answer, usable
from gateway.reassembly import Joint, Losses, Piece
from gateway.refusals import Refusals, RefusedFrameError, RefusedMessageError, RefusedPacketError
from gateway.scoring import LiveScore, Score
from gateway.traffic import Meter
from gateway.windows import Window
from models.bundle import Prediction
from protocol.messages import Activity, Label, Status
from protocol.packet import Packet
from protocol.topics import GATEWAY_ID, Kind, parse
from protocol.topics import topic as topic_of
from quantization.errors import GammawearError

LATENCY_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
AGE_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 60.0)
WAITED_NS: Final = 3_600_000_000_000
"""What a bridge says to have held for longer than an hour is not believed."""
RECENT_ANSWERS: Final = 2000
"""Percentiles on screens are over so many."""
RECENT_DRIFTS: Final = 50

_parse = functools.lru_cache(maxsize=16_384)(parse)  # keeps valid topics only: what raises is not remembered


class Limits(BaseModel):
    """What bounds the gateway's memory and patience."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_devices: int = Field(default=10_000, ge=1)
    forget_s: float = Field(default=900.0, gt=0)
    """A device silent for so long is forgotten."""
    lateness_s: float = Field(default=10.0, ge=0)
    """How late labels may be."""


DeviceState = Literal["online", "offline", "unannounced"]


class DriftEvent(NamedTuple):
    """A change that was detected: when (UTC), of which bundle, in which signal."""

    ms: int
    model: str
    signal: Signal


class Watcher(Protocol):
    """Follows one device closely, for somebody who looks at it."""

    def placed(self, piece: Piece, clock: DeviceClock) -> None:
        """A packet has its place."""

    def raw(self, payload: bytes) -> None:
        """Raw samples came. Raises what is wrong with them."""

    def answered(self, answer: Activity, labels: tuple[str, ...], probabilities: NDArray[np.float32]) -> None:
        """A window was answered: ``[K]`` probabilities of as many labels."""


class Pipeline:
    """Messages in, answers out.

    Args:
        bundles: what is served.
        submit: takes a window to its network; its batch comes back to :meth:`answered`.
        publish: topic and payload of an answer, to be retained.
        limits: bounds.
        cameras: what becomes of frames; None: this gateway has no detectors, and refuses them.
        refusals: where to count what is refused, if somebody else counts there as well.
        now_ns: UTC; replaceable for tests.
        monotonic_ns: by which silent devices are forgotten: the system's clock may be set.
    """

    def __init__(
        self,
        bundles: BundleStore,
        *,
        submit: Callable[[Window], None],
        publish: Callable[[str, bytes], None],
        limits: Limits | None = None,
        cameras: Cameras | None = None,
        refusals: Refusals | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        limits = limits or Limits()
        self.bundles = bundles
        self._submit = submit
        self._publish = publish
        self._now_ns = now_ns
        self._monotonic_ns = monotonic_ns
        self._lateness_ms = limits.lateness_s * 1000
        self._max_bridges = limits.max_devices
        self.devices = DeviceTable(limits.max_devices, int(limits.forget_s * 1e9), self._new_device)
        self._holding: set[Device] = set()
        self.bridges: dict[str, Status] = {}
        """What bridges say of themselves; at most as many as devices."""

        self.messages: Counter[str] = Counter()
        self.raw_bytes = 0
        self.refusals = refusals or Refusals()
        self.cameras = cameras
        self.losses = Losses()
        self.meter = Meter()
        self.flushes: Counter[str] = Counter()
        self.windows: Counter[str] = Counter()
        self.unanswered = 0
        self.predictions: Counter[tuple[str, str]] = Counter()
        self.latency = Histogram(LATENCY_SECONDS)
        self.age = Histogram(AGE_SECONDS)
        self.recent_latency_s: deque[float] = deque(maxlen=RECENT_ANSWERS)
        self.recent_age_s: deque[float] = deque(maxlen=RECENT_ANSWERS)
        self.live: dict[str, LiveScore] = {}
        self.drifts: dict[str, Drift] = {}
        self.drift_events: deque[DriftEvent] = deque(maxlen=RECENT_DRIFTS)
        self.scores: tuple[Score, ...] = ()
        self.watchers: dict[str, Watcher] = {}
        """By device."""

    # -- messages in --------------------------------------------------------------------------------------------------

    def feed(
        self,
        topic: str,
        payload: bytes,
        received_ns: int,
        *,
        qos: int = 0,
        retain: bool = False,
        taken_ns: int | None = None,
    ) -> None:
        """Take one message; what it completes is submitted or scored before this returns. Raises nothing of ours.

        Args:
            topic: as received.
            payload: any bytes.
            received_ns: UTC at which they were read from the socket.
            qos: for the size of the PUBLISH packet.
            retain: it came because we subscribed, not because it was just published.
            taken_ns: UTC at which a bridge had it, if it waited there.
        """
        device, kind = "-", "other"
        try:
            device, kind = _parse(topic)
            self.messages[kind] += 1
            if device == GATEWAY_ID:
                if kind != Kind.STATUS:  # our own status comes back to us
                    raise RefusedPacketError("topic", f"{GATEWAY_ID!r} is no wearable's id")
            elif kind == Kind.IMU:
                self._feed_packet(device, topic, payload, received_ns, taken_ns, qos=qos, retain=retain)
            elif kind == Kind.STATUS:
                self._feed_status(device, payload, retain=retain)
            elif kind == Kind.LABEL:
                self._feed_label(device, payload, retain=retain)
            elif kind == Kind.RAW:
                self._feed_raw(device, payload, retain=retain)
            elif kind in (Kind.FRAME, Kind.TRUTH):
                self._feed_camera(Kind(kind), device, topic, payload, received_ns, qos=qos, retain=retain)
        except GammawearError as error:
            if kind == "other":
                self.messages[kind] += 1
            self.refusals.refuse(kind, device, error)

    def _feed_packet(
        self,
        device_id: str,
        topic: str,
        payload: bytes,
        received_ns: int,
        taken_ns: int | None,
        *,
        qos: int,
        retain: bool,
    ) -> None:
        if retain:
            raise RefusedPacketError("retained", "a retained packet comes back with every connection")
        packet = Packet.from_bytes(payload)
        known = self.devices.get(device_id)
        bundle = self.bundles.find(packet.short_digest, known.digest if known is not None else None)
        if bundle is None:
            raise RefusedPacketError("unknown_codebook", f"no bundle is served with {packet.short_digest.hex()}")
        codes = packet.codes(bundle.codebook)
        device = self.devices.obtain(device_id, self._monotonic_ns(), streams=True)
        period_ms = device.period_ms(bundle)
        device.last_seen_ns = received_ns
        self.meter.count(
            packet,
            codes,
            bundle.codebook,
            device.recent,
            topic_bytes=len(topic),
            qos=qos,
            period_ms=period_ms,
        )
        piece = Piece(
            bundle, codes, packet.sequence, packet.tick_ms, period_ms, received_ns, hash(payload), taken_ns=taken_ns
        )
        line = device.reassembler
        for placed in line.push(piece):
            self._placed(device, placed)
        if line.held:
            self._holding.add(device)

    def _feed_camera(
        self, kind: Kind, camera: str, topic: str, payload: bytes, received_ns: int, *, qos: int, retain: bool
    ) -> None:
        if self.cameras is None:
            raise RefusedFrameError("unknown_codebook", "this gateway serves no detector")
        if kind is Kind.FRAME:
            self.cameras.feed_chunk(camera, topic, payload, received_ns, qos=qos, retain=retain)
        else:
            self.cameras.feed_truth(camera, payload, retain=retain)

    def _placed(self, device: Device, piece: Piece) -> None:
        """A packet that has its place: to windows."""
        begins = piece.joint is Joint.START
        if begins:
            device.clock = DeviceClock()
        last_sample = piece.tick + piece.duration_ms - piece.period_ms
        device.clock.observe(last_sample, _came_ns(piece) / 1e6)
        windows = device.buffer.add(piece, device.clock)
        if (watcher := self.watchers.get(device.id)) is not None:
            watcher.placed(piece, device.clock)
        if begins:
            self._score(device, device.labels.begin(device.buffer.epoch, piece.tick, device.clock))
        for window in windows:
            self.windows[window.bundle.reference] += 1
            self._submit(window)

    def _feed_status(self, device_id: str, payload: bytes, *, retain: bool) -> None:
        if not payload:  # it clears what the broker retained: that of a bridge which is gone for good
            self.bridges.pop(device_id, None)
            return
        status = Status.parse(payload).after(self._last_status(device_id))
        cameras = self.cameras
        if cameras is not None and status.camera:
            cameras.feed_status(device_id, status, retain=retain)
            return
        if status.bridge == device_id:
            self._keep_bridge(device_id, status)
            return
        device = self.devices.obtain(device_id, self._monotonic_ns())
        device.said(status)
        # Fewer packets made than we have had from it: it started anew. A retained status may be older than that.
        started_anew = status.packets is not None and status.packets < device.reassembler.line_packets
        if status.state == "online" and started_anew and not retain:
            for placed in device.reassembler.restart(status.packets or 0):
                self._placed(device, placed)

    def _last_status(self, device_id: str) -> Status | None:
        if (bridge := self.bridges.get(device_id)) is not None:
            return bridge
        # A camera before a device: its bare will, retained, was taken for a device's as long as nothing else was known.
        camera = self.cameras.get(device_id) if self.cameras is not None else None
        if camera is not None and camera.status is not None:
            return camera.status
        device = self.devices.get(device_id)
        return device.status if device is not None else None

    def _keep_bridge(self, bridge: str, status: Status) -> None:
        if bridge not in self.bridges and len(self.bridges) >= self._max_bridges:
            gone = next((name for name, one in self.bridges.items() if one.state == "offline"), None)
            if gone is None:
                raise RefusedMessageError("device_limit", f"{self._max_bridges} bridges are known already")
            del self.bridges[gone]
        self.bridges[bridge] = status

    def state_of(self, device: Device) -> DeviceState:
        """By its own word; one behind a bridge is online only if its bridge is, too: a dead bridge cannot say more."""
        status = device.status
        if status is None:
            return "unannounced"
        bridge = self.bridges.get(status.bridge) if status.bridge is not None else None
        return "offline" if bridge is not None and bridge.state == "offline" else status.state

    def _feed_label(self, device_id: str, payload: bytes, *, retain: bool) -> None:
        if retain:
            raise RefusedMessageError("retained", "labels must not be retained")
        label = Label.parse(payload)
        device = self.devices.obtain(device_id, self._monotonic_ns())
        self._score(device, device.labels.add(label, device.reassembler.tick, device.clock))

    def _feed_raw(self, device_id: str, payload: bytes, *, retain: bool) -> None:
        """For debugging: counted here, and in no figure of bandwidth."""
        self.raw_bytes += len(payload)
        if retain:
            raise RefusedMessageError("retained", "raw samples must not be retained")
        if (watcher := self.watchers.get(device_id)) is not None:
            watcher.raw(payload)

    # -- answers out --------------------------------------------------------------------------------------------------

    def answered(self, windows: list[Window], prediction: Prediction) -> None:
        """Publish and score a batch: windows of one bundle and what it says of each."""
        for window, row, evidence in zip(windows, prediction.probabilities, prediction.evidence, strict=True):
            if usable(row):
                self._answer(window, row, float(evidence))
            else:
                self.unanswered += 1

    def _answer(self, window: Window, row: NDArray[np.float32], evidence: float) -> None:
        device = self.devices.get(window.device)
        status = device.status if device is not None else None
        now_ns = self._now_ns()
        source = status.source if status is not None else None
        answer = make_answer(window, row, evidence, source=source, now_ns=now_ns)
        activity = answer.activity
        self._publish(topic_of(window.device, Kind.ACTIVITY), activity.to_json())

        latency_s = activity.latency_ms / 1000
        age_s = max(0.0, now_ns / 1e6 - window.to_ms) / 1000
        self.latency.observe(latency_s)
        self.age.observe(age_s)
        self.recent_latency_s.append(latency_s)
        self.recent_age_s.append(age_s)
        self.predictions[activity.model, activity.activity] += 1
        self._watch_drift(activity.model, "confidence", activity.probability)
        if (watcher := self.watchers.get(window.device)) is not None:
            watcher.answered(activity, window.bundle.labels, row)
        if device is not None:
            device.activity = activity
            self._score(device, device.labels.predict(answer.predicted))

    def _score(self, device: Device, scored: list[Scored]) -> None:
        for one in scored:
            model = one.predicted.window.bundle.reference
            live = self.live.get(model)
            if live is None:
                live = self.live[model] = LiveScore(model)
            live.update(one)
            device.truth = one.truth
            device.truth_from_tick = one.predicted.window.from_tick
            if one.truth_index is not None:
                self._watch_drift(model, "error", float(one.truth_index != one.predicted.likeliest))

    def _watch_drift(self, model: str, signal: Signal, value: float) -> None:
        drift = self.drifts.get(model)
        if drift is None:
            drift = self.drifts[model] = Drift()
        if drift.update(signal, value):
            self.drift_events.append(DriftEvent(self._now_ns() // 1_000_000, model, signal))

    # -- time passes --------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """What happens without a message: to be called a few times a second."""
        now_ns = self._now_ns()
        for device in list(self._holding):
            for placed in device.reassembler.expire(now_ns):
                self._placed(device, placed)
            if not device.reassembler.held:
                self._holding.discard(device)
        for device in self.devices:
            if device.labels.waiting:
                self._score(device, device.labels.expire(now_ns))
        for device in self.devices.forget_silent(self._monotonic_ns()):
            device.reassembler.restart()  # counts what it still held
            self._holding.discard(device)
            self.refusals.forget(device.id)
        self.scores = tuple(live.read() for live in self.live.values())
        if self.cameras is not None:
            self.cameras.sweep()

    def bundles_changed(self) -> None:
        """Give up the samples of devices whose bundle is no longer served. No other stream notices."""
        for device in self.devices:
            bundle = device.buffer.bundle
            if bundle is not None and self.bundles.find(bundle.codebook.short_digest, bundle.codebook.digest) is None:
                device.buffer.flush("removed")

    def _new_device(self, device: str) -> Device:
        return Device(device, lateness_ms=self._lateness_ms, losses=self.losses, flushed=self._flushed)

    def _flushed(self, reason: str) -> None:
        self.flushes[reason] += 1


def _came_ns(piece: Piece) -> int:
    """When a packet left its link: a bridge that had to keep it says since when.

    A bridge's clock may be ahead of ours: nothing comes before it was sent.
    """
    taken_ns = piece.taken_ns
    if taken_ns is None or piece.received_ns - taken_ns > WAITED_NS:
        return piece.received_ns
    return min(taken_ns, piece.received_ns)
