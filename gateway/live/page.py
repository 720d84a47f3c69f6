"""The live page as a whole: its state, its viewers and what they may do, on the gateway's loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.types import ASGIApp

from gateway.batcher import MicroBatcher
from gateway.cameras import Cameras
from gateway.live.app import make_app
from gateway.live.guard import RequestRefusedError
from gateway.live.state import TICKS_PER_S, Link, LiveState
from gateway.live.streams import EventStream, Viewers
from gateway.pipeline import Pipeline

Publish = Callable[[str, bytes], None]
"""Topic and payload of a message that is not retained."""


class LivePage:
    """Serves what a gateway knows.

    Args:
        pipeline: read, on the loop.
        batcher: likewise.
        cameras: likewise.
        link: to the broker.
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
        *,
        previews: bool,
        token: str | None,
    ) -> None:
        self.token: Final = token
        self.viewers: Final = Viewers()
        self._cameras = cameras
        self._link = link
        self._previews = previews
        self._state = LiveState(
            pipeline,
            batcher,
            cameras,
            link,
            self.viewers,
            label_of=lambda _: None,
            previews=previews,
            read_only=token is None,
        )

    def app(self, *, loopback: bool) -> ASGIApp:
        """The application to serve."""
        return make_app(self, loopback=loopback)

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
            self._state.tick()
            self.viewers.wake()
            await asyncio.sleep(max(0.0, started + 1 / TICKS_PER_S - loop.time()))

    # -- what the application asks ------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """To the broker."""
        return self._link.connected

    async def state(self) -> str:
        """Everything, as JSON."""
        return await self._state.whole()

    def stream(self, device: str | None) -> EventStream:
        """Everything and what changes; of one device its signal, too.

        Raises:
            TooManyViewersError: there is no place.
        """
        del device
        return self.viewers.stream(self._state.feed)

    def preview(self, path: str) -> tuple[str, bytes] | None:
        """Content type and content of a camera's picture."""
        return self._cameras.page(path) if self._previews else None

    def label(self, device: str, wanted: dict[str, object]) -> None:
        """Begin or end a label."""
        raise RequestRefusedError(501, f"not yet for {device}: {wanted}")

    def ask_raw(self, device: str, wanted: dict[str, object]) -> None:
        """Ask a device for its raw samples."""
        raise RequestRefusedError(501, f"not yet for {device}: {wanted}")
