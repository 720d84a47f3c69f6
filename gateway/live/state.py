"""The page's state as JSON: what a viewer gets first, and what it gets when something has changed.

Rows of devices are brought up to date in five parts, one a tick, so that a thousand of them cost a little all the time
and never much at once; while nobody looks, only histories are kept.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, Final, Protocol

from gateway.batcher import MicroBatcher
from gateway.cameras import PREVIEW_PATH, Camera, Cameras
from gateway.clock import passed
from gateway.live.history import STEP_S, BandwidthHistory
from gateway.live.rows import Row, to_json
from gateway.live.streams import Feed, Viewers, Whole, event
from gateway.pipeline import Pipeline
from gateway.views import summarise
from models.bundle import Bundle
from protocol.messages import UNKNOWN

TICKS_PER_S: Final = 5
_AT_ONCE: Final = 200
"""Rows that are made without letting anything else have its turn: some 10 ms."""


class Link(Protocol):
    """What is asked of the connection to the broker."""

    @property
    def connected(self) -> bool:
        """Whether there is one."""


class LiveState:
    """What viewers see.

    Args:
        pipeline: read, on the loop.
        batcher: likewise.
        cameras: likewise.
        link: to the broker.
        viewers: woken when there is something new.
        label_of: what somebody at a page says that a device's wearer does.
        previews: whether pictures are served.
        read_only: nobody may do anything.
        now_ns: UTC.

    Attributes:
        feed: for viewers.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        batcher: MicroBatcher,
        cameras: Cameras,
        link: Link,
        viewers: Viewers,
        *,
        label_of: Callable[[str], str | None],
        previews: bool,
        read_only: bool,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._pipeline = pipeline
        self._batcher = batcher
        self._cameras = cameras
        self._link = link
        self._viewers = viewers
        self._label_of = label_of
        self._previews = previews
        self._now_ns = now_ns
        self._fixed: dict[str, Any] = {
            "version": version("gammawear"),
            "started_ms": now_ns() // 1_000_000,
            "read_only": read_only,
        }
        self._rows: dict[str, Row] = {}
        self._parts: tuple[dict[str, Row], ...] = tuple({} for _ in range(TICKS_PER_S))
        self._ticks = 0
        self._watched = 0
        """Ticks since when somebody has been looking."""
        self._bandwidth = BandwidthHistory()
        self._noted_ms = 0
        self._sent: dict[str, str] = {}
        self._gone: list[str] = []
        """Devices that are no more, until viewers are told."""
        self._making = asyncio.Lock()
        self._made: tuple[int, str] = (-1, "")
        self.feed = Feed(self._whole)

    # -- time passes --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """To be called :data:`TICKS_PER_S` times a second."""
        self._ticks += 1
        now_ns = self._now_ns()
        self._meet_devices()
        stepped = self._note_bandwidth(now_ns // 1_000_000)
        part = self._parts[self._ticks % TICKS_PER_S]
        for row in part.values():
            row.sample()
        self._watched = self._watched + 1 if len(self._viewers) else 0
        if self._watched:
            if self._watched == 1:
                self._sent.clear()  # to somebody who has gone
            self.feed.publish(event("update", self._change(part, now_ns, stepped=stepped)))
        self._gone.clear()

    def _meet_devices(self) -> None:
        """Have a row for every device, and none for those that are no more."""
        known = 0
        for device in self._pipeline.devices:
            known += 1
            row = self._rows.get(device.id)
            if row is None or row.device is not device:
                self._forget(device.id)
                part = min(self._parts, key=len)
                self._rows[device.id] = part[device.id] = Row(device)
        if len(self._rows) == known:
            return
        for name in [name for name in self._rows if self._pipeline.devices.get(name) is None]:
            self._forget(name)
            self._gone.append(name)

    def _forget(self, device: str) -> None:
        if self._rows.pop(device, None) is not None:
            for part in self._parts:
                part.pop(device, None)

    def _note_bandwidth(self, now_ms: int) -> bool:
        if not passed(self._noted_ms, now_ms, 1000 * STEP_S - 500 // TICKS_PER_S):
            return False
        self._noted_ms = now_ms
        self._bandwidth.note(now_ms, self._pipeline.meter.totals)
        return True

    # -- what changed -------------------------------------------------------------------------------------------------

    def _change(self, part: dict[str, Row], now_ns: int, *, stepped: bool) -> str:
        for row in part.values():
            self._refresh(row, now_ns)
        changed = [row.change() for row in part.values() if row.changed]
        texts = [f'"time_ms":{now_ns // 1_000_000}']
        for key, value in self._sections(now_ns, all_of_them=stepped):
            text = to_json(value)
            if self._sent.get(key) != text:
                self._sent[key] = text
                texts.append(f'"{key}":{text}')
        if stepped:
            texts.append(f'"bandwidth":{to_json(self._figures() | {"point": self._bandwidth.point()})}')
        if changed:
            texts.append(f'"devices":[{",".join(changed)}]')
        if gone := [name for name in self._gone if name not in self._rows]:
            texts.append(f'"gone":{to_json(gone)}')
        return f"{{{','.join(texts)}}}"

    def _refresh(self, row: Row, now_ns: int) -> None:
        device = row.device
        row.refresh(self._pipeline.state_of(device), self._label_of(device.id), now_ns)

    def _figures(self) -> dict[str, Any]:
        return self._bandwidth.figures(self._pipeline.meter.totals)

    def _sections(self, now_ns: int, *, all_of_them: bool) -> Iterator[tuple[str, Any]]:
        """What is compared with what was sent before. Some of it changes slowly, and is looked at once a second."""
        pipeline = self._pipeline
        yield "broker", self._link.connected
        yield "summary", dataclasses.asdict(summarise(pipeline, now_ns, dropped=self._batcher.dropped))
        yield "cameras", [self._camera(camera) for camera in sorted(self._cameras, key=lambda one: one.id)]
        if all_of_them:
            yield "camera_scores", [dataclasses.asdict(score) for score in self._cameras.scores]
            yield "drift", [drift._asdict() for drift in reversed(pipeline.drift_events)]
            yield "models", {bundle.reference: self._model(bundle) for bundle in pipeline.bundles.serving}

    # -- the whole ----------------------------------------------------------------------------------------------------

    async def whole(self) -> str:
        """All of it, as JSON."""
        async with self._making:
            if self._made[0] != self._ticks:
                await self._catch_up()
                self._made = (self._ticks, self._compose())
            return self._made[1]

    async def _whole(self) -> Whole:
        text = await self.whole()
        return Whole(self.feed.version, event("state", text))

    async def _catch_up(self) -> None:
        """Bring rows up to date that were not while nobody looked; others are."""
        if self._watched > TICKS_PER_S:
            return
        self._meet_devices()
        for number, row in enumerate(list(self._rows.values())):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            self._refresh(row, self._now_ns())

    def _compose(self) -> str:
        now_ns = self._now_ns()
        sections = {key: to_json(value) for key, value in self._sections(now_ns, all_of_them=True)}
        sections["bandwidth"] = to_json(self._figures() | {"history": self._bandwidth.history()})
        rows = ",".join(row.whole() for row in self._rows.values() if row.ready)
        fixed = to_json(self._fixed | {"time_ms": now_ns // 1_000_000}).removesuffix("}")
        texts = ",".join(f'"{key}":{text}' for key, text in sections.items())
        return f'{fixed},{texts},"devices":[{rows}]}}'

    def _camera(self, camera: Camera) -> dict[str, Any]:
        last, status, frames = camera.last, camera.status, camera.frames
        shown = self._previews and camera.preview is not None
        return {
            "camera": camera.id,
            "online": status.state == "online" if status is not None else None,
            "model": last.model if last is not None else None,
            "frames": frames,
            "boxes": len(last.boxes) if last is not None else 0,
            "found": [[one.label, round(one.score, 3)] for one in last.boxes] if last is not None else [],
            "latency_ms": round(last.latency_ms, 2) if last is not None else None,
            "bytes_per_frame": round(camera.coded_bytes / frames, 1) if frames else None,
            "raw12_bytes_per_frame": round(camera.raw12_bytes / frames, 1) if frames else None,
            "preview": f"{PREVIEW_PATH}{camera.id}.jpg?frame={camera.preview_sequence}" if shown else None,
            "width": last.width if last is not None else None,
            "height": last.height if last is not None else None,
            "last_seen_ms": camera.last_seen_ns // 1_000_000 or None,
            "source": status.source if status is not None else None,
            "error": status.error if status is not None else None,
        }

    def _model(self, bundle: Bundle) -> dict[str, Any]:
        live = self._pipeline.live.get(bundle.reference)
        score = live.read() if live is not None else None
        labels = bundle.labels
        return {
            "labels": labels,
            "unknown": UNKNOWN,
            "accuracy": score.accuracy if score is not None else None,
            "macro_f1": score.macro_f1 if score is not None else None,
            "rolling_accuracy": score.rolling_accuracy if score is not None else None,
            "rolling_macro_f1": score.rolling_macro_f1 if score is not None else None,
            "windows": score.windows if score is not None else 0,
            "confusion": [
                [live.confusion[truth, likeliest] if live is not None else 0 for likeliest in range(len(labels))]
                for truth in range(len(labels))
            ],
            "bits": bundle.codebook.bits,
            "rate_hz": bundle.codebook.rate_hz,
            "channels": bundle.codebook.channels,
        }
