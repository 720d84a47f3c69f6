"""Who may ask the page for what: headers of every answer, and the checks before anything is done."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.live.server import PageServerError

MAX_BODY_BYTES: Final = 4096
BODY_S: Final = 5.0
SHORTEST_TOKEN: Final = 16
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_OURSELVES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class RequestRefusedError(Exception):
    """A request that is not granted: an answer, not a fault of ours.

    Args:
        status: of HTTP.
        why: for a person.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def refusal(status: int, why: str) -> JSONResponse:
    """The answer to a request that is not granted."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {"Retry-After": "5"} if status == 503 else None
    return JSONResponse({"error": why}, status, headers)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def read_token(path: Path) -> str:
    """The token in a file, without the white space around it.

    Raises:
        PageServerError: unreadable, too short, or not printable ASCII.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PageServerError(f"no token can be read from {path}: {error}") from error
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise PageServerError(
            f"the token in {path} must be {SHORTEST_TOKEN} or more printable characters: openssl rand -hex 16"
        )
    return token


class Guard:
    """Gives every answer its headers, and refuses names that are not ours.

    A page that somebody else's name points to (DNS rebinding) must not read a gateway that serves its own machine only.

    Args:
        app: what is guarded.
        loopback: it listens on this machine only.
    """

    def __init__(self, app: ASGIApp, *, loopback: bool) -> None:
        self._app = app
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *_HEADERS]
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        if self._loopback and _host_of(Request(scope)) not in _OURSELVES:
            answer = refusal(403, "this page answers to localhost, 127.0.0.1 and [::1] only")
            await answer(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def _host_of(request: Request) -> str | None:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None


async def granted(request: Request, token: str | None) -> dict[str, Any]:
    """The JSON object that a request to do something carries, once it may be done.

    Raises:
        RequestRefusedError: it may not, or it is not JSON.
    """
    if token is None:
        raise RequestRefusedError(403, "this page is read-only: start the gateway with --page-token-file")
    origin = request.headers.get("origin")
    if origin is not None and origin not in (
        f"{scheme}://{request.headers.get('host')}" for scheme in ("http", "https")
    ):
        raise RequestRefusedError(403, "only this page itself may ask for that")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise RequestRefusedError(401, "the token is missing or wrong")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestRefusedError(415, "send application/json")
    return _object(await _body(request))


async def _body(request: Request) -> bytes:
    said = request.headers.get("content-length", "0")
    if not said.isdecimal() or int(said[:9]) > MAX_BODY_BYTES:
        raise RequestRefusedError(413, f"more than {MAX_BODY_BYTES} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise RequestRefusedError(413, f"more than {MAX_BODY_BYTES} bytes")
    except (TimeoutError, ClientDisconnect) as error:
        raise RequestRefusedError(408, "the rest of the request never came") from error
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefusedError(400, "this is not JSON") from error
    if not isinstance(found, dict):
        raise RequestRefusedError(400, "send a JSON object")
    return found
