"""Between a client and a real broker: a proxy that records and cuts, and callbacks that a test can wait for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, Self

from protocol.broker_settings import BrokerSettings
from protocol.connection import Connection, Received

PATIENCE_S = 10.0
"""The longest that a test waits for a state."""


class Inbox:
    """Keeps what arrives, and lets a test wait for it."""

    def __init__(self) -> None:
        self.messages: list[Received] = []
        self._changed = asyncio.Event()

    def __call__(self, received: Received) -> None:
        self.messages.append(received)
        self._changed.set()

    @property
    def payloads(self) -> list[bytes]:
        return [m.payload for m in self.messages]

    async def until(self, condition: Callable[["Inbox"], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def holds(self, count: int) -> None:
        await self.until(lambda inbox: len(inbox.messages) >= count)


class Signal:
    """A callback that a test can wait for, again and again."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._queue: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    def __call__(self, *args: Any) -> None:
        self.calls.append(args)
        self._queue.put_nowait(args)

    async def wait(self) -> tuple[Any, ...]:
        return await asyncio.wait_for(self._queue.get(), PATIENCE_S)


class Proxy:
    """Between client and broker (its port: ``target``): records what the client sends, can cut the line."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.sent = bytearray()
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.settings = BrokerSettings(port=self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers += [writer, up_writer]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy(reader, up_writer, self.sent))
            group.create_task(self._copy(up_reader, writer, bytearray()))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                record += data
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def packets(self) -> list[bytes]:
        """Each MQTT packet that the client sent."""
        data = bytes(self.sent)
        found: list[bytes] = []
        while data:
            length, shift, at = 0, 0, 1
            while True:
                byte = data[at]
                length |= (byte & 127) << shift
                shift, at = shift + 7, at + 1
                if byte < 128:
                    break
            found.append(data[: at + length])
            data = data[at + length :]
        return found

    def publishes(self) -> list[bytes]:
        return [p for p in self.packets() if p[0] >> 4 == 3]


@contextlib.asynccontextmanager
async def running(*connections: Connection, stop: bool = True) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Connections that run and are connected; at the end they are stopped, or with ``stop=False`` cancelled."""
    tasks = [asyncio.create_task(c.run()) for c in connections]
    try:
        for connection in connections:
            await connection.wait_connected(PATIENCE_S)
        yield tasks
        if stop:
            await asyncio.gather(*(c.stop() for c in connections))
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def with_protocol(settings: BrokerSettings, protocol: Literal["auto", "5", "3.1.1"]) -> BrokerSettings:
    return settings.model_copy(update={"protocol": protocol})
