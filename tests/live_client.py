"""What a browser does with the live page, without one: requests, and a stream of events put together to a state."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

PATIENCE_S = 30.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def request(
    port: int | None, path: str, *, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Answer:
    """One request on a connection of its own, exactly as it is written here."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            given = {"Host": f"127.0.0.1:{port}", "Connection": "close", **(headers or {})}
            if body:
                given = {"Content-Length": str(len(body)), **given}
            lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
            writer.write("\r\n".join(lines).encode("latin-1") + body)
            head = await reader.readuntil(b"\r\n\r\n")
            status, answered = parse_head(head)
            return Answer(status, answered, await reader.read())
        finally:
            await close(writer)


async def post(port: int | None, path: str, sent: object, token: str | None, **headers: str) -> Answer:
    """What the page sends."""
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if token is not None:
        given["Authorization"] = f"Bearer {token}"
    return await request(port, path, method="POST", body=body, headers=given)


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in headers.items()}


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@dataclass
class Viewer:
    """A page that is open: reads events and keeps the state up to date as the page's script does."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    signal: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    ended: bool = False

    async def follow(self) -> None:
        """Until the stream ends."""
        name = ""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                line = (await self.reader.readuntil(b"\n")).decode().rstrip("\r\n")
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.counts[name] = self.counts.get(name, 0) + 1
                    self._take(name, json.loads(line.removeprefix("data: ")))
        self.ended = True

    def _take(self, name: str, data: dict[str, Any]) -> None:
        if name == "device":
            self.signal.append(data)
            return
        if name == "state":
            self.state = data
            self.rows = {row["device"]: row for row in data.pop("devices")}
            return
        for row in data.pop("devices", []):
            before = self.rows.get(row["device"], {"confidence": []})
            row["confidence"] = [*before["confidence"], *row["confidence"]][-60:]
            self.rows[row["device"]] = row
        for device in data.pop("gone", []):
            del self.rows[device]
        point = data.get("bandwidth", {}).pop("point", None)
        history = self.state["bandwidth"]["history"]
        self.state |= data
        if point is not None:
            for name in ("mqtt", "raw12"):
                history[name] = [*history[name], point[name]][-300:]
            history["end_ms"] = point["ms"]
        self.state["bandwidth"]["history"] = history

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not self.ended, "the stream has ended"
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def viewing(port: int | None, device: str | None = None) -> AsyncIterator[Viewer]:
    """A page that is open."""
    viewer = await connect(port, device)
    following = asyncio.create_task(viewer.follow())
    try:
        yield viewer
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await close(viewer.writer)


async def connect(port: int | None, device: str | None = None) -> Viewer:
    """One whose stream has begun, and of which nothing has been read yet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**17)
    query = "" if device is None else f"?device={device}"
    writer.write(f"GET /api/events{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    status, headers = parse_head(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S))
    assert status == 200, await reader.read(1000)
    assert headers["content-type"].startswith("text/event-stream")
    return Viewer(_Unchunked(reader), writer)  # type: ignore[arg-type]


class _Unchunked:
    """The body of a chunked answer, line by line."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._line = bytearray()

    async def readuntil(self, separator: bytes) -> bytes:
        while separator not in self._line:
            size = int((await self._reader.readuntil(b"\r\n")).strip(), 16)
            piece = await self._reader.readexactly(size + 2)
            if size == 0:
                raise asyncio.IncompleteReadError(bytes(self._line), None)
            self._line += piece[:-2]
        line, _, rest = bytes(self._line).partition(separator)
        self._line = bytearray(rest)
        return line + separator
