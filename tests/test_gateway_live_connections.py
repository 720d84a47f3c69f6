"""Connections to the live page that say nothing, take nothing, or are too many: they go, and everybody else stays."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from live_client import close, request, viewing
from stack import new_gateway, serving, until

from gateway.live import connection

PATIENCE_S = 20.0


@pytest.fixture
def short_times(monkeypatch):
    monkeypatch.setattr(connection, "LOOK_S", 0.05)
    monkeypatch.setattr(connection, "SILENT_S", 0.5)
    monkeypatch.setattr(connection, "STALLED_S", 0.5)


@pytest.fixture
def connections(monkeypatch):
    """Those that the server has, once there was one."""
    found = []
    made = connection.BoundedConnection.connection_made

    def note(self, transport):
        found[:] = [self.connections]
        made(self, transport)

    monkeypatch.setattr(connection.BoundedConnection, "connection_made", note)
    return lambda: len(found[0]) if found else 0


async def opened(port: int | None, said: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    return reader, writer


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What came until the other side closed it."""
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.wait_for(reader.read(2**16), PATIENCE_S):
            got += piece
    return bytes(got)


@pytest.mark.usefixtures("short_times")
async def test_a_stalled_viewer_does_not_keep_its_connection(mosquitto, connections):
    """It takes nothing while more goes by than sockets hold."""
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), viewing(gateway.page_port) as viewer:
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", gateway.page_port))
            stalled.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            page = gateway.page
            assert page is not None
            await until(lambda: len(page.viewers) == 2)
            assert connections() == 2
            for n in range(8):
                page._state.feed.publish(b": " + 2**20 * b"x" + b"\n\n")
                await viewer.until(lambda n=n: viewer.counts.get("update", 0) > 2 * n)
            await until(lambda: len(page.viewers) == 1 and connections() == 1)
        updates = viewer.counts["update"]
        await viewer.until(lambda: viewer.counts["update"] > updates + 5)


@pytest.mark.usefixtures("short_times")
async def test_an_answer_that_is_not_taken_does_not_keep_its_connection(mosquitto, connections):
    """What uvicorn has written by then would wait for ever, also once it has closed the connection."""
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway):
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", gateway.page_port))
            stalled.setblocking(False)
            asked = 2000 * b"GET /static/vendor/uPlot.iife.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
            with contextlib.suppress(BlockingIOError):
                stalled.send(asked)
            await until(lambda: connections() == 1)
            await until(lambda: connections() == 0)


@pytest.mark.usefixtures("short_times")
@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_who_asks_for_nothing_is_not_kept(mosquitto, said):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway):
        reader, writer = await opened(gateway.page_port, said)
        assert await ended(reader) == b""
        await close(writer)


@pytest.mark.usefixtures("short_times")
async def test_who_asked_once_and_then_for_half_is_not_kept(mosquitto):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway):
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        reader, writer = await opened(gateway.page_port, whole + whole[:30])
        assert (await ended(reader)).endswith(b"ok\n")
        await close(writer)


@pytest.mark.usefixtures("short_times")
async def test_who_looks_or_asks_now_and_then_is_kept(mosquitto):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), viewing(gateway.page_port) as viewer:
        reader, writer = await opened(gateway.page_port)
        for n in range(5):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"ok\n"), PATIENCE_S)
            await viewer.until(lambda n=n: viewer.counts.get("update", 0) > n)
        await viewer.until(lambda: viewer.counts["update"] > 10)
        assert viewer.counts["state"] == 1
        await close(writer)


async def test_there_is_room_for_so_many(mosquitto, connections, monkeypatch):
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 5)
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), contextlib.AsyncExitStack() as stack:
        viewer = await stack.enter_async_context(viewing(gateway.page_port))
        kept = [await opened(gateway.page_port) for _ in range(4)]
        await until(lambda: connections() == 5)
        for _ in range(20):
            reader, writer = await opened(gateway.page_port)
            assert await ended(reader) == b""
            await close(writer)
        assert connections() == 5
        await viewer.until(lambda: viewer.counts.get("update", 0) >= 5)
        for _, writer in kept:
            await close(writer)
        await until(lambda: connections() == 1)
        assert (await request(gateway.page_port, "/healthz")).status == 200
