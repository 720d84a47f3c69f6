"""The live page as a whole: its state, its viewers and what they may do, on the gateway's loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from starlette.types import ASGIApp

from gateway.batcher import MicroBatcher
from gateway.cameras import Cameras
from gateway.devices import Device
from gateway.live.app import make_app
from gateway.live.guard import Hosts, RequestRefusedError
from gateway.live.labelling import Labelling
from gateway.live.signal import Signals
from gateway.live.state import TICKS_PER_S, Link, LiveState
from gateway.live.streams import EventStream, Feed, Viewers
from gateway.pipeline import Pipeline
from protocol.messages import MAX_RAW_S, Debug, now_ms
from protocol.topics import Kind, topic

logger = logging.getLogger(__name__)

FAULTY_TICKS: Final = 2 * TICKS_PER_S
"""So many in a row must succeed before the page is well again: what fails may come up once a second only."""
Publish = Callable[[str, bytes], None]


class LivePage:
    """Serves what a gateway knows.

    Args:
        pipeline: read, on the loop.
        batcher: likewise.
        cameras: likewise.
        link: to the broker.
        publish: topic and payload of a message that must arrive once, and must not be retained.
        previews: serve what cameras see.
        token: who has it may label and ask for raw samples; None: nobody.

    Attributes:
        viewers: whoever looks.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        batcher: MicroBatcher,
        cameras: Cameras,
        link: Link,
        publish: Publish,
        *,
        previews: bool,
        token: str | None,
    ) -> None:
        self.token: Final = token
        self.viewers: Final = Viewers()
        self._cameras = cameras
        self._link = link
        self._publish = publish
        self._previews = previews
        self._pipeline = pipeline
        self._sound_ticks = FAULTY_TICKS
        self._labelling = Labelling(publish)
        self._signals = Signals(pipeline)
        self._state = LiveState(
            pipeline,
            batcher,
            cameras,
            link,
            self.viewers,
            label_of=self._labelling.activity_of,
            previews=previews,
            read_only=token is None,
        )

    def app(self, hosts: Hosts) -> ASGIApp:
        """The application to serve, under these names."""
        return make_app(self, hosts)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep viewers up to date; at the end their streams end."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            self.viewers.close()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                self._labelling.tick(now_ms())
                self._state.tick()
                self._signals.tick()
            except Exception:  # a mistake in what only shows must not end what recognises
                if self.well:
                    logger.exception("the page could not be brought up to date; it goes on, recognition does anyway")
                self._sound_ticks = 0
            else:
                self._sound_ticks += 1
                if self._sound_ticks == FAULTY_TICKS:
                    self._state.feed.restart()  # what a tick noted as said before it failed was never said
            self.viewers.wake()
            await asyncio.sleep(max(0.0, started + 1 / TICKS_PER_S - loop.time()))

    # -- what the application asks ------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """To the broker."""
        return self._link.connected

    @property
    def well(self) -> bool:
        """What it shows is up to date."""
        return self._sound_ticks >= FAULTY_TICKS

    async def state(self) -> str:
        """Everything, as JSON."""
        return await self._state.whole()

    def stream(self, device: str | None) -> EventStream:
        """Everything and what changes; of one device its signal, too.

        Raises:
            TooManyViewersError: there is no place.
        """
        return self.viewers.stream(self._opening(device))

    @contextlib.contextmanager
    def _opening(self, device: str | None) -> Iterator[tuple[Feed, ...]]:
        if device is None:
            yield (self._state.feed,)
            return
        with self._signals.watching(device) as signal:
            yield (self._state.feed, signal)

    def preview(self, path: str) -> tuple[str, bytes] | None:
        """Content type and content of a camera's picture."""
        return self._cameras.page(path) if self._previews else None

    def label(self, device: str, wanted: dict[str, object]) -> None:
        """Begin or end a label.

        Raises:
            RequestRefusedError: there is no such device or activity, no connection, or too much is labelled.
        """
        known = self._device(device)
        activity = wanted.get("activity")
        if wanted.keys() != {"activity"} or not isinstance(activity, str | None):
            raise RequestRefusedError(400, 'send {"activity": "walking"} or {"activity": null}')
        if activity is None:
            self._labelling.end(device, now_ms())
            return
        if not self.connected:  # what has begun can be ended: that is said when there is a connection again
            raise RequestRefusedError(409, "there is no connection to the broker")
        labels = self._labels_of(known)
        if activity not in labels:
            raise RequestRefusedError(400, f"no activity {activity[:48]!r}; there are {', '.join(labels)}")
        self._labelling.begin(device, activity, now_ms())

    def ask_raw(self, device: str, wanted: dict[str, object]) -> None:
        """Ask a device for its raw samples.

        Raises:
            RequestRefusedError: there is no such device, it is not emulated or not there, or not for so long.
        """
        known = self._device(device)
        seconds = wanted.get("seconds")
        if wanted.keys() != {"seconds"} or type(seconds) is not int or not 1 <= seconds <= MAX_RAW_S:
            raise RequestRefusedError(400, f'send {{"seconds": 30}}, 1 to {MAX_RAW_S}')
        if known.status is None or known.status.source in (None, "device"):
            raise RequestRefusedError(409, "only emulated devices send raw samples")
        if not self.connected or self._pipeline.state_of(known) != "online":
            raise RequestRefusedError(409, "the device is not online")
        self._publish(topic(device, Kind.DEBUG), Debug(raw_s=seconds).to_json())
        self._signals.expect_raw(device, seconds)

    def _device(self, name: str) -> Device:
        known = self._pipeline.devices.get(name)
        if known is None:
            raise RequestRefusedError(404, f"no device {name} is known")
        return known

    def _labels_of(self, device: Device) -> list[str]:
        """Of the bundle that recognises it; of all bundles for one that has not sent a packet yet."""
        served = self._pipeline.bundles.serving
        bundles = [device.buffer.bundle] if device.buffer.bundle is not None else served
        return sorted({label for bundle in bundles for label in bundle.labels})
