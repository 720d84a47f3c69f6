"""What screens show of a gateway: plain values, read from the pipeline when asked for."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.devices import Device
from gateway.pipeline import DeviceState, Pipeline
from gateway.scoring import Score
from protocol.messages import SourceKind


@dataclass(frozen=True)
class DeviceView:
    """One device.

    Args:
        device: its id.
        source: where it says that its samples come from.
        online: what it said last; None if it never did.
        streaming: a packet came in the last 10 s.
        activity: the last answer, may be ``unknown``.
        likeliest: the likeliest activity of that window.
        truth: of the newest window whose truth is known; labels come late, so perhaps of an earlier one.
        truth_is_of_answer: it is of the very window that ``activity`` answers.
        probability: of ``likeliest``.
        bits_per_value: of one sample of one channel, with our header ("all-in"), over the last twenty packets.
        bytes_per_s: of packets with our header, per second of signal, over the same; 0 when it does not stream.
        mqtt_bytes_per_s: the same of PUBLISH packets, topic in full.
        raw12_bytes_per_s: the same, had it sent 12-bit values.
        last_seen_ms: UTC; None before the first packet.
        packets: that got their place.
        lost: packets that never came.
        model: the bundle of the last answer.
    """

    device: str
    source: SourceKind | None
    online: bool | None
    streaming: bool
    activity: str | None
    likeliest: str | None
    truth: str | None
    truth_is_of_answer: bool
    probability: float | None
    bits_per_value: float | None
    bytes_per_s: float
    mqtt_bytes_per_s: float
    raw12_bytes_per_s: float
    last_seen_ms: int | None
    packets: int
    lost: int
    model: str | None


@dataclass(frozen=True)
class Summary:
    """The gateway as a whole. Figures that nothing stands behind are None.

    Args:
        model: the bundle with the most scored windows; the live score is its.
        macro_f1: live, all scored windows since the start.
        accuracy: the same.
        scores: of every bundle.
        scored: windows scored, all bundles together.
        windows: windows cut.
        answers: published.
        bits_per_value: of one sample of one channel, all-in (with our header).
        payload_bits_per_value: codes only.
        compression: MQTT bytes of 12-bit values over those received, topic in full both.
        latency_ms: median, 90th and 99th percentile of the last 2000 answers: packet received to answer published.
        age_ms: median: newest sample of the window to answer published.
        packets: that got their place.
        lost: packets that never came.
        duplicate: dropped as such.
        rejected: not used, for any reason.
        devices: known.
        streaming: devices with a packet in the last 10 s.
        dropped_windows: without an answer.
    """

    model: str | None
    macro_f1: float | None
    accuracy: float | None
    scores: tuple[Score, ...]
    scored: int
    windows: int
    answers: int
    bits_per_value: float | None
    payload_bits_per_value: float | None
    compression: float | None
    latency_ms: tuple[float, float, float] | None
    age_ms: float | None
    packets: int
    lost: int
    duplicate: int
    rejected: int
    devices: int
    streaming: int
    dropped_windows: int


def view_device(device: Device, state: DeviceState, now_ns: int) -> DeviceView:
    """One device as it is now; ``state`` as :meth:`gateway.pipeline.Pipeline.state_of` has it."""
    status, activity, recent = device.status, device.activity, device.recent
    losses = device.reassembler.losses
    streaming = device.streaming(now_ns)
    return DeviceView(
        device=device.id,
        source=status.source if status is not None else None,
        online=None if state == "unannounced" else state == "online",
        streaming=streaming,
        activity=activity.activity if activity is not None else None,
        likeliest=activity.likeliest if activity is not None else None,
        truth=device.truth,
        truth_is_of_answer=activity is not None and device.truth_from_tick == activity.from_tick,
        probability=activity.probability if activity is not None else None,
        bits_per_value=recent.packet * 8 / recent.values if recent.values else None,
        bytes_per_s=recent.per_second("packet") if streaming else 0.0,
        mqtt_bytes_per_s=recent.per_second("mqtt") if streaming else 0.0,
        raw12_bytes_per_s=recent.per_second("raw12") if streaming else 0.0,
        last_seen_ms=device.last_seen_ns // 1_000_000 or None,
        packets=losses.accepted,
        lost=losses.lost,
        model=activity.model if activity is not None else None,
    )


def summarise(pipeline: Pipeline, now_ns: int, *, dropped: int = 0) -> Summary:
    """The whole as it is now; ``dropped`` windows are the batcher's."""
    scores = tuple(live.read() for live in pipeline.live.values())
    best = max(scores, key=lambda score: score.windows, default=None)
    losses, totals = pipeline.losses, pipeline.meter.totals
    latency = sorted(pipeline.recent_latency_s)
    age = sorted(pipeline.recent_age_s)
    devices = list(pipeline.devices)
    return Summary(
        model=best.model if best is not None else None,
        macro_f1=best.macro_f1 if best is not None else None,
        accuracy=best.accuracy if best is not None else None,
        scores=scores,
        scored=sum(score.windows for score in scores),
        windows=pipeline.windows.total(),
        answers=pipeline.predictions.total(),
        bits_per_value=totals.bits_per_value("packet"),
        payload_bits_per_value=totals.bits_per_value("payload"),
        compression=totals.compression("raw12"),
        latency_ms=(_at(latency, 0.5), _at(latency, 0.9), _at(latency, 0.99)) if latency else None,
        age_ms=_at(age, 0.5) if age else None,
        packets=losses.accepted,
        lost=losses.lost,
        duplicate=losses.duplicate,
        rejected=pipeline.refusals.packets.total() + losses.late + losses.unplaced,
        devices=len(devices),
        streaming=sum(device.streaming(now_ns) for device in devices),
        dropped_windows=dropped + pipeline.unanswered,
    )


def _at(ordered_s: list[float], share: float) -> float:
    """The quantile of ascending seconds, in ms; the value itself, not between two."""
    return 1000 * ordered_s[min(len(ordered_s) - 1, int(share * len(ordered_s)))]
