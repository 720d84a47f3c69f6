"""What ``gammawear demo`` shows on a terminal: a table that follows the wearables, a line now and then, the summary."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gammawear.logs import NOTES as _NOTES
from protocol.messages import UNKNOWN

if TYPE_CHECKING:
    from gateway.cameras import Cameras
    from gateway.service import Gateway
    from gateway.views import DeviceView, Summary

REFRESH_S: Final = 0.25
LINE_EVERY_S: Final = 5.0
"""Without a terminal there is no table to redraw: a line now and then says that it is alive."""


@contextlib.asynccontextmanager
async def screen(shown: Callable[[], Group], line: Callable[[], str]) -> AsyncIterator[None]:
    """Keep a table up to date on a terminal; elsewhere print a line now and then."""

    async def lines() -> None:
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            _NOTES.print(line(), soft_wrap=True)

    async def frames(live: Live) -> None:
        while True:
            live.update(shown(), refresh=True)
            await asyncio.sleep(REFRESH_S)

    if not _NOTES.is_terminal:
        task = asyncio.create_task(lines())
        try:
            yield
        finally:
            task.cancel()
        return
    with Live(shown(), console=_NOTES, auto_refresh=False) as live:
        task = asyncio.create_task(frames(live))
        try:
            yield
            live.update(shown(), refresh=True)
        finally:
            task.cancel()


def picture(gateway: Gateway, title: str) -> Group:
    """What a terminal shows: as many wearables as it has room for, the totals, the cameras, where the page is."""
    table = Table(title=title, title_justify="left", expand=False)
    for column in ("wearable", "activity", "truth", "confidence"):
        table.add_column(column, no_wrap=True)
    for column in ("bits/value", "MQTT B/s", "at 12 bit", "saved", "lost"):
        table.add_column(column, justify="right")
    views, cameras = gateway.snapshot(), _camera_lines(gateway.cameras)
    room = _NOTES.height - 9 - len(cameras)
    for view in views[: max(1, room)]:
        table.add_row(*_row(view))
    hidden = len(views) - max(1, room)
    more = [Text(f"… and {hidden} more wearables", style="dim")] if hidden > 0 else []
    served = f"page http://127.0.0.1:{gateway.page_port}/ · metrics http://127.0.0.1:{gateway.metrics_port}/metrics"
    footer = Text(f"{served} · Ctrl-C ends", style="dim")
    return Group(table, *more, Text(summary_line(gateway.summary())), *map(Text, cameras), footer)


def save_picture(group: Group, path: Path) -> None:
    """Write it as SVG."""
    console = Console(record=True, width=120, file=io.StringIO(), force_terminal=True)
    console.print(group)
    svg = console.export_svg(title="gammawear demo")
    # rich points to a web font on a host of others; a picture should not call home.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")


def summary_line(summary: Summary) -> str:
    """All wearables, in a line."""
    parts = [
        f"{summary.streaming} streaming",
        f"live macro-F1 {summary.macro_f1:.3f}" if summary.macro_f1 is not None else "no labels yet",
        f"accuracy {summary.accuracy:.3f}" if summary.accuracy is not None else "",
        f"{summary.scored} windows scored",
        f"{summary.bits_per_value:.2f} bits/value" if summary.bits_per_value else "",
        f"{summary.compression:.1f}× below 12-bit" if summary.compression else "",
        f"latency {summary.latency_ms[0]:.0f} ms (p99 {summary.latency_ms[2]:.0f})" if summary.latency_ms else "",
        f"lost {summary.lost}",
    ]
    return " · ".join(part for part in parts if part)


def print_summary(result: dict[str, Any]) -> None:
    """The result as a table."""
    table = Table(title="summary", show_header=False, title_justify="left")
    table.add_column(style="dim")
    table.add_column()

    def figure(value: float | None, form: str) -> str:
        return "none" if value is None else format(value, form)

    live = f"{figure(result['macro_f1'], '.3f')} macro-F1, {figure(result['accuracy'], '.3f')} accuracy"
    table.add_row("recognition", f"{live} over {result['scored_windows']} windows (source: {result['source']})")
    if "offline_macro_f1" in result:
        table.add_row("the same offline", f"{result['offline_macro_f1']:.3f} macro-F1, subjects {result['subjects']}")
    bits = f"{figure(result['bits_per_sample'], '.2f')} bits a value with our header"
    table.add_row(
        "bandwidth", f"{bits}; {figure(result['compression_over_12_bit_mqtt'], '.1f')}× below 12-bit over MQTT"
    )
    latency = result["latency_ms"]
    table.add_row("latency", f"{figure(latency['p50'], '.0f')} ms median, {figure(latency['p99'], '.0f')} ms p99")
    camera = result.get("camera")
    if camera:
        table.add_row(
            "cameras",
            f"{camera['frames_received']} of {camera['frames_sent']} frames, "
            f"{figure(camera['bits_per_photosite'], '.2f')} bits a photosite, "
            f"{figure(camera['compression_over_12_bit'], '.1f')}× below 12-bit RAW; "
            f"AP50 {figure(camera['ap50'], '.3f')} (source: synthetic)",
        )
    packets = f"{result['packets_sent']} sent, {result['packets_received']} received, {result['packets_lost']} lost"
    table.add_row("packets", packets)
    _NOTES.print(table)


def _row(view: DeviceView) -> tuple[Text | str, ...]:
    activity = _readable(view.activity)
    judged = view.truth_is_of_answer and view.activity not in (None, UNKNOWN)
    style = ("green" if view.activity == view.truth else "red") if judged else "dim"
    probability = view.probability
    bar = "" if probability is None else "█" * round(10 * probability) + "░" * (10 - round(10 * probability))
    # Both as PUBLISH packets: comparing ours without MQTT to theirs with it would flatter us.
    saved = 1 - view.mqtt_bytes_per_s / view.raw12_bytes_per_s if view.raw12_bytes_per_s else None
    return (
        view.device,
        Text(activity, style=style),
        _readable(view.truth),
        f"{bar} {probability:.0%}" if probability is not None else "",
        f"{view.bits_per_value:.2f}" if view.bits_per_value else "",
        f"{view.mqtt_bytes_per_s:.0f}" if view.streaming else "",
        f"{view.raw12_bytes_per_s:.0f}" if view.streaming else "",
        f"{saved:.0%}" if saved is not None and view.streaming else "",
        str(view.lost),
    )


def _readable(label: str | None) -> str:
    return "" if label is None else label.replace("_", " ").lower()


def _camera_lines(cameras: Cameras) -> list[str]:
    """What each camera sees, and what its frames take."""
    lines = []
    for camera in cameras:
        last = camera.last
        if last is None:
            lines.append(f"{camera.id}: no frame yet")
            continue
        seen = ", ".join(f"{one.label} {one.score:.0%}" for one in last.boxes) or "nothing"
        lines.append(f"{camera.id} ({last.source or 'unannounced'}) sees {seen}")
    totals = cameras.totals
    if totals.photosites:
        parts = [
            f"{totals.frames} frames",
            f"{8 * totals.coded_bytes / totals.photosites:.2f} bits/photosite",
            f"{totals.raw12_bytes / totals.coded_bytes:.1f}× below 12-bit RAW",
            *(f"live AP50 {score.ap50:.3f}" for score in cameras.scores if score.ap50 is not None),
        ]
        lines.append(" · ".join(parts))
    return lines
