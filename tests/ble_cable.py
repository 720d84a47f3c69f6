"""The cable to a Bluetooth controller, with its faults."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Cable:
    """To a controller: can be pulled out, put in again, and hang.

    Attributes:
        plugged: whether who connects is let through.
        hung: nothing passes, and nobody is told.
    """

    def __init__(self, target: int) -> None:
        self.plugged = True
        self.hung = False
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"tcp-client:127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.pull()
            await server.wait_closed()

    def pull(self) -> None:
        self.plugged = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.plugged:
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, back]
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self.hung:
                    writer.write(data)
                    await writer.drain()
        writer.close()
