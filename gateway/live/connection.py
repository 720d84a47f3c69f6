"""One connection to the page: closed when it says nothing, takes nothing, or is one too many."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.live.streams import STALLED_S

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 256
"""Viewers, their pictures, and some that say nothing. With the last, a request is answered 503; more are not kept."""
SILENT_S: Final = 10.0
"""Without a whole request for so long, a connection is closed."""
LOOK_S: Final = 1.0


class BoundedConnection(H11Protocol):
    """Closes what uvicorn itself would keep: it waits without end for a first request, and for what it wrote to go."""

    _looking: asyncio.TimerHandle | None = None
    _since = 0.0
    _waiting = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep it, if there is room."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._since = self.loop.time()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """From now on it may be silent."""
        self._since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """From now on it may be stalled."""
        self._since = self.loop.time()
        super().pause_writing()

    def _look(self) -> None:
        now = self.loop.time()
        waiting = self.transport.get_write_buffer_size()
        if waiting and (self.transport.is_closing() or self.flow.write_paused):
            # Nothing is written meanwhile: another number is what the other side took.
            if waiting != self._waiting:
                self._since = now
            limit_s = STALLED_S
        else:
            asked = self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]
            if asked:
                self._since = now
            limit_s = SILENT_S
        self._waiting = waiting
        if now - self._since >= limit_s:
            logger.debug("a connection to the page said or took nothing for %g s", limit_s)
            self.transport.abort()
            return
        self._looking = self.loop.call_later(LOOK_S, self._look)
