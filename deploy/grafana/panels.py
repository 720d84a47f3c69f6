# ruff: noqa: INP001
"""The panels of the dashboard, in words: title, expressions with their legends, unit.

What is a quotient or a quantile comes from the recording rules (``deploy/prometheus/rules.yml``), so that each formula
stands in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        title: of the panel.
        queries: expressions, each with its legend (Grafana's template).
        unit: as Grafana names it: "short", "Bps", "s", "percentunit", "ops" ...
        kind: of the panel.
        text: what stands behind the little i.
        width: of 24 columns.
        top: of the axis, where it is known.
        stacked: the lines add up.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    text: str = ""
    width: int = 8
    top: float | None = None
    stacked: bool = False


def line(
    title: str,
    *queries: tuple[str, str],
    unit: str = "short",
    text: str = "",
    width: int = 8,
    top: float | None = None,
    stacked: bool = False,
) -> Panel:
    """Lines over time."""
    return Panel(title, queries, unit=unit, text=text, width=width, top=top, stacked=stacked)


def stat(title: str, expression: str, unit: str = "short", text: str = "") -> Panel:
    """One figure for each gateway: the latest."""
    return Panel(title, ((expression, "{{instance}}"),), unit=unit, kind="stat", text=text, width=3)


GATEWAY: Final = 'instance=~"$gateway"'
BRIDGE: Final = 'instance=~"$bridge"'
DEVICE: Final = f'{GATEWAY}, device=~"$device"'


def per_second(metric: str, labels: str = GATEWAY) -> str:
    """A counter's rate as Grafana likes it."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


SECTIONS: Final[dict[str, tuple[Panel, ...]]] = {
    "Now": (
        stat("Devices streaming", f"gammawear_streaming_devices{{{GATEWAY}}}"),
        stat(
            "Bandwidth", f'instance_form:gammawear_received_mqtt_bytes:rate5m{{form="topic", {GATEWAY}}}', "Bps",
            text="PUBLISH packets, topic in full; TCP, IP and TLS are not counted.",
        ),
        stat("Bits per value", f'instance_level:gammawear_bits_per_value:rate5m{{level="mqtt_topic", {GATEWAY}}}'),
        stat(
            "Saved against 12 bit", f'instance_encoding:gammawear_saving:ratio_rate5m{{encoding="raw12", {GATEWAY}}}',
            "percentunit", text="Raw 12-bit samples at the same rate in the same packets.",
        ),
        stat("Packets lost", f"instance:gammawear_lost_packets:ratio_rate5m{{{GATEWAY}}}", "percentunit"),
        stat("Latency, p99", f'instance_quantile:gammawear_latency_seconds:rate5m{{quantile="0.99", {GATEWAY}}}', "s"),
        stat(
            "Macro-F1", f"instance_model:gammawear_live_macro_f1:rolling{{{GATEWAY}}}", "percentunit",
            text="Of the last 500 labelled windows; absent without labels.",
        ),
        stat(
            "Alerts firing", 'count(ALERTS{alertname=~"Gammawear.*", alertstate="firing"}) or vector(0)',
            text="What each means: docs/operations.md.",
        ),
    ),
    "Bandwidth": (
        line(
            "Received, and what the same samples would have taken",
            (per_second("gammawear_received_mqtt_bytes_total", f'form="topic", {GATEWAY}'), "received {{instance}}"),
            (per_second("gammawear_equivalent_bytes_total"), "{{encoding}} {{instance}}"),
            unit="Bps", width=12,
        ),
        line(
            "By device",
            (f"gammawear_device_mqtt_bytes_per_second{{{DEVICE}}}", "{{device}}"),
            unit="Bps", width=12, stacked=True,
            text="PUBLISH bytes per second of signal; needs a gateway with --per-device.",
        ),
        line(
            "Bits per value",
            (f"instance_level:gammawear_bits_per_value:rate5m{{{GATEWAY}}}", "{{level}} {{instance}}"),
            text="One sample of one channel: codes alone, with our header, in PUBLISH packets with topic or alias.",
        ),
        line(
            "Saved",
            (f"instance_encoding:gammawear_saving:ratio_rate5m{{{GATEWAY}}}", "against {{encoding}} {{instance}}"),
            unit="percentunit", top=1,
        ),
        line(
            "Smaller by a factor of, since the start",
            (f"gammawear_compression_ratio{{{GATEWAY}}}", "against {{against}} {{instance}}"),
        ),
    ),
    "Recognition": (
        line(
            "Macro-F1",
            (f"gammawear_live_macro_f1_ratio{{{GATEWAY}}}", "{{model}} {{span}}"),
            unit="percentunit", top=1,
            text="rolling: the last 500 labelled windows; pure: windows of one activity. Absent without labels.",
        ),
        line(
            "Accuracy, and share answered unknown",
            (f"gammawear_live_accuracy_ratio{{{GATEWAY}}}", "accuracy {{model}} {{span}}"),
            (f"gammawear_live_unknown_ratio{{{GATEWAY}}}", "unknown {{model}}"),
            unit="percentunit", top=1,
        ),
        line(
            "Drift events in an hour",
            (f"increase(gammawear_drift_events_total{{{GATEWAY}}}[1h])", "{{signal}} {{model}}"),
            text="Changes that ADWIN found in error (needs labels) and confidence (does not).",
        ),
        line(
            "Answers, by activity", (per_second("gammawear_predictions_total"), "{{activity}} {{model}}"),
            unit="ops", width=12, stacked=True,
        ),
        line(
            "Windows cut and scored",
            (per_second("gammawear_windows_total"), "cut {{model}}"),
            (per_second("gammawear_scored_windows_total"), "scored {{model}}"),
            unit="ops", width=12,
        ),
    ),
    "Latency": (
        line(
            "Latency",
            (f"instance_quantile:gammawear_latency_seconds:rate5m{{{GATEWAY}}}", "p {{quantile}} {{instance}}"),
            unit="s", text="From a window's last packet to its published answer.",
        ),
        line(
            "Age",
            (f"instance_quantile:gammawear_age_seconds:rate5m{{{GATEWAY}}}", "p {{quantile}} {{instance}}"),
            unit="s", text="From a window's newest sample, by the device's clock, to its answer.",
        ),
        line(
            "Seconds since a device's last packet",
            (f"time() - gammawear_device_last_packet_timestamp_seconds{{{DEVICE}}}", "{{device}}"),
            unit="s", text="Needs a gateway with --per-device.",
        ),
    ),
    "Signal": (
        line("Devices", (f"gammawear_devices{{{GATEWAY}}}", "{{state}} {{instance}}"), stacked=True),
        line(
            "Packets lost",
            (f"instance:gammawear_lost_packets:ratio_rate5m{{{GATEWAY}}}", "{{instance}}"),
            unit="percentunit",
        ),
        line(
            "Packets lost, by device", (per_second("gammawear_device_lost_packets_total", DEVICE), "{{device}}"),
            unit="ops", text="Needs a gateway with --per-device.",
        ),
        line(
            "Packets",
            (per_second("gammawear_accepted_packets_total"), "accepted {{instance}}"),
            (per_second("gammawear_duplicate_packets_total"), "duplicate {{instance}}"),
            (per_second("gammawear_reordered_packets_total"), "reordered {{instance}}"),
            unit="ops",
        ),
        line(
            "Rejected packets and messages, by reason",
            (per_second("gammawear_rejected_packets_total"), "packets {{reason}}"),
            (per_second("gammawear_rejected_messages_total"), "messages {{reason}}"),
            unit="ops", stacked=True,
        ),
        line(
            "Samples missing, streams begun anew, windows given up",
            (per_second("gammawear_missing_samples_total"), "samples {{instance}}"),
            (per_second("gammawear_stream_restarts_total"), "streams {{instance}}"),
            (per_second("gammawear_window_flushes_total"), "windows {{reason}}"),
            unit="ops",
        ),
    ),
    "Capacity": (
        line("Windows that wait for their network", (f"gammawear_queue_windows{{{GATEWAY}}}", "{{instance}}")),
        line(
            "A batch through its network",
            (f"instance_quantile:gammawear_inference_seconds:rate5m{{{GATEWAY}}}", "p {{quantile}} {{instance}}"),
            unit="s",
        ),
        line(
            "Share of the time in which the network runs",
            (per_second("gammawear_inference_seconds_sum"), "wearables {{instance}}"),
            (per_second("gammawear_detection_seconds_sum"), "cameras {{instance}}"),
            unit="percentunit", top=1, text="One thread each: near 1, more devices or frames will have to wait.",
        ),
        line(
            "Windows in a batch",
            (
                per_second("gammawear_batch_windows_sum") + " / " + per_second("gammawear_batch_windows_count"),
                "{{instance}}",
            ),
        ),
        line(
            "Windows without an answer", (per_second("gammawear_dropped_windows_total"), "{{reason}} {{instance}}"),
            unit="ops",
        ),
        line(
            "Broker",
            (f"gammawear_broker_connected{{{GATEWAY}}}", "connected {{instance}}"),
            (f"increase(gammawear_broker_reconnects_total{{{GATEWAY}}}[15m])", "reconnects in 15 min {{instance}}"),
        ),
        Panel(
            "Served",
            (
                (f"gammawear_bundle_info{{{GATEWAY}}}", ""),
                (f"gammawear_detector_info{{{GATEWAY}}}", ""),
            ),
            kind="table", width=16,
        ),
        line(
            "Folders that cannot be loaded",
            (f"gammawear_damaged_bundles{{{GATEWAY}}}", "bundles {{instance}}"),
            (f"gammawear_damaged_detectors{{{GATEWAY}}}", "detectors {{instance}}"),
        ),
    ),
    "Cameras": (
        line(
            "Cameras",
            (f"gammawear_cameras{{{GATEWAY}}}", "{{state}} {{instance}}"),
            (f"gammawear_streaming_cameras{{{GATEWAY}}}", "streaming {{instance}}"),
        ),
        line(
            "Frames",
            (per_second("gammawear_frames_total"), "complete {{instance}}"),
            (per_second("gammawear_detected_frames_total"), "looked at {{model}}"),
            (per_second("gammawear_dropped_frames_total"), "dropped {{reason}}"),
            unit="ops",
        ),
        line(
            "Frames without an answer",
            (f"instance_reason:gammawear_dropped_frames:ratio_rate5m{{{GATEWAY}}}", "{{reason}} {{instance}}"),
            unit="percentunit", top=1,
        ),
        line(
            "Bits per photosite", (f"instance:gammawear_bits_per_photosite:rate5m{{{GATEWAY}}}", "{{instance}}"),
        ),
        line(
            "Saved against 12 bit",
            (f"instance:gammawear_frame_saving:ratio_rate5m{{{GATEWAY}}}", "{{instance}}"),
            unit="percentunit", top=1,
        ),
        line(
            "Bytes of codes to bytes of JPEG",
            (f"instance:gammawear_frame_bytes_to_jpeg:ratio_rate5m{{{GATEWAY}}}", "{{instance}}"),
            text="JPEG of quality 75 of the same frames, as far as previews were made; below 1 the codes are smaller.",
        ),
        line(
            "Detection latency",
            (
                f"instance_quantile:gammawear_detection_latency_seconds:rate5m{{{GATEWAY}}}",
                "p {{quantile}} {{instance}}",
            ),
            unit="s", text="From a frame's last chunk to its published detections.",
        ),
        line(
            "Objects found", (per_second("gammawear_detections_total"), "{{class}} {{model}}"),
            unit="ops", stacked=True,
        ),
        line(
            "AP50 and recall",
            (f"gammawear_live_ap50_ratio{{{GATEWAY}}}", "AP50 {{model}}"),
            (f"gammawear_live_recall_ratio{{{GATEWAY}}}", "recall {{model}}"),
            unit="percentunit", top=1,
            text="Over the last 200 frames whose truth was published; absent without any.",
        ),
        line(
            "Chunks that were not used",
            (per_second("gammawear_rejected_chunks_total"), "rejected {{reason}}"),
            (per_second("gammawear_late_chunks_total"), "late {{instance}}"),
            (per_second("gammawear_duplicate_chunks_total"), "duplicate {{instance}}"),
            unit="ops", width=12,
        ),
        line(
            "Bandwidth",
            (per_second("gammawear_frame_mqtt_bytes_total"), "received {{instance}}"),
            (per_second("gammawear_equivalent_frame_bytes_total", f'encoding="raw12", {GATEWAY}'), "raw12"),
            unit="Bps", width=12,
        ),
    ),
    "Bridges": (
        line(
            "Bridges, by the gateways' word", (f"gammawear_bridges{{{GATEWAY}}}", "{{state}} {{instance}}"), width=6,
        ),
        line("Devices", (f"gammawear_bridge_devices{{{BRIDGE}}}", "{{state}} {{instance}}"), stacked=True, width=6),
        line(
            "Adapter and broker",
            (f"gammawear_bridge_adapter_up{{{BRIDGE}}}", "adapter {{instance}}"),
            (f"gammawear_bridge_broker_up{{{BRIDGE}}}", "broker {{instance}}"),
            top=1, width=6,
        ),
        line(
            "Adapter and broker lost, in an hour",
            (f"increase(gammawear_bridge_adapter_losses_total{{{BRIDGE}}}[1h])", "adapter {{instance}}"),
            (f"increase(gammawear_bridge_broker_reconnects_total{{{BRIDGE}}}[1h])", "broker {{instance}}"),
            width=6,
        ),
        line(
            "Over the air", (per_second("gammawear_bridge_notification_bytes_total", BRIDGE), "{{device}}"),
            unit="Bps", stacked=True,
        ),
        line(
            "Signal strength", (f"gammawear_bridge_rssi_dbm{{{BRIDGE}}}", "{{device}}"), unit="dBm",
            text="Of the last advertisement: a device that streams may not advertise.",
        ),
        line(
            "Connections made, and silent links given up, in an hour",
            (f"increase(gammawear_bridge_connections_total{{{BRIDGE}}}[1h])", "made {{device}}"),
            (f"increase(gammawear_bridge_watchdog_kicks_total{{{BRIDGE}}}[1h])", "given up {{device}}"),
        ),
        line(
            "Notifications that made no sense",
            (f"instance_device:gammawear_bridge_refused_notifications:ratio_rate5m{{{BRIDGE}}}", "{{device}}"),
            unit="percentunit", width=12,
        ),
        line(
            "Messages for the broker",
            (f"gammawear_bridge_queued_messages{{{BRIDGE}}}", "waiting {{instance}}"),
            (f"increase(gammawear_bridge_dropped_messages_total{{{BRIDGE}}}[15m])", "dropped in 15 min {{instance}}"),
            width=12,
        ),
    ),
}  # fmt: skip
