"""Server-sent events: one serialisation for all viewers, and a bound on what a slow one costs.

A viewer first gets the whole, then what changes. What changed lately is kept once, for all; a viewer that took too
little to follow it gets the whole again. What waits for one viewer is at most one piece and what its socket holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Final, NamedTuple

from starlette.types import Message, Receive, Scope, Send

from quantization.errors import GammawearError

logger = logging.getLogger(__name__)

MAX_VIEWERS: Final = 64
KEPT: Final = 10
"""Changes that a viewer may be behind: two seconds."""
PING_S: Final = 10.0
"""A proxy that hears nothing for so long may close the connection."""
STALLED_S: Final = 30.0
"""A viewer that takes nothing for so long loses its place."""
_PIECE_BYTES: Final = 65_536
"""Handed over at once; more waits until the socket has taken it."""
_PING: Final = b": ping\n\n"
_BEGIN: Final = b"retry: 1000\n\n"


class TooManyViewersError(GammawearError):
    """There are as many viewers as there may be."""


def event(name: str, data: str) -> bytes:
    """One server-sent event; ``data`` is one line."""
    return f"event: {name}\ndata: {data}\n\n".encode()


class Whole(NamedTuple):
    """Everything there is, and up to which change."""

    version: int
    event: bytes


class Feed:
    """Something that viewers follow.

    Args:
        whole: makes the first event; None while there is nothing.

    Attributes:
        version: of the newest change.
    """

    def __init__(self, whole: Callable[[], Awaitable[Whole | None]]) -> None:
        self._whole = whole
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self.version = 0

    def publish(self, change: bytes) -> None:
        """One change, for everybody."""
        self.version += 1
        self._kept.append((self.version, change))

    def restart(self) -> None:
        """What was is void: everybody needs the whole."""
        self._kept.clear()
        self.version += 1

    async def after(self, seen: int | None) -> tuple[int | None, list[bytes]]:
        """What a viewer has not seen yet, and up to where that is."""
        missed = self.version - seen if seen is not None else None
        if missed is None or missed > len(self._kept):
            whole = await self._whole()
            return (whole.version, [whole.event]) if whole is not None else (None, [])
        return self.version, [change for version, change in self._kept if seen is not None and version > seen]


Opening = contextlib.AbstractContextManager[Sequence[Feed]]


class Viewers:
    """Everybody who looks, at most :data:`MAX_VIEWERS`."""

    def __init__(self) -> None:
        self._count = 0
        self._news = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return self._count

    def wake(self) -> None:
        """There may be something new."""
        self._news.set()
        self._news = asyncio.Event()

    def close(self) -> None:
        """Everybody's stream ends."""
        self._closed = True
        self.wake()

    def stream(self, opening: Opening) -> EventStream:
        """A response that follows the feeds that ``opening`` gives for as long as it lasts.

        Raises:
            TooManyViewersError: there is no place.
        """
        if self._count >= MAX_VIEWERS:
            raise TooManyViewersError(f"{MAX_VIEWERS} pages are open already: close one")
        return EventStream(self, opening)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Somebody looks."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    async def events(self, feeds: Sequence[Feed]) -> AsyncIterator[bytes]:
        """What one viewer gets, until :meth:`close`."""
        seen: list[int | None] = [None] * len(feeds)
        ping_at = time.monotonic() + PING_S
        yield _BEGIN
        while not self._closed:
            news = self._news  # before the feeds are asked, so that nothing falls between
            for number, feed in enumerate(feeds):
                seen[number], events = await feed.after(seen[number])
                for one in events:
                    yield one
            if time.monotonic() >= ping_at:
                ping_at = time.monotonic() + PING_S
                yield _PING
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_S):
                    await news.wait()


class EventStream:
    """An ASGI response: events until the viewer goes, stalls, or the server ends."""

    def __init__(self, viewers: Viewers, opening: Opening) -> None:
        self._viewers = viewers
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        del scope
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        gone = asyncio.create_task(_disconnected(receive))
        try:
            with self._viewers.place(), self._opening as feeds:
                events = self._viewers.events(feeds)
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                async for one in events:
                    for at in range(0, len(one), _PIECE_BYTES):
                        async with asyncio.timeout(STALLED_S):
                            await send(_body(one[at : at + _PIECE_BYTES], more=True))
                    if gone.done():
                        return
                await send(_body(b"", more=False))
        except TimeoutError:
            logger.info("a viewer of the page took nothing for %g s and lost its place", STALLED_S)
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


def _body(content: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
