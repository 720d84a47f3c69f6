"""Who may ask the page for what: headers of every answer, and the checks before anything is done."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
from collections.abc import Iterable
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
_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")


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


class Hosts:
    """Names and addresses under which the page answers.

    A web site whose own name somebody points to the page (DNS rebinding) must not read it. Nobody can do that to an
    address, so that on a network addresses are taken as long as no names are given.

    Args:
        address: where the page listens.
        given: further names, such as that of a proxy.

    Raises:
        PageServerError: a name that is none.

    >>> hosts = Hosts("0.0.0.0", ["gateway.example"])
    >>> hosts.answer_to("localhost:9465"), hosts.answer_to("gateway.example"), hosts.answer_to("192.0.2.1")
    (True, True, False)
    """

    def __init__(self, address: str, given: Iterable[str] = ()) -> None:
        self._given = frozenset(map(_checked, given))
        self._names = _OURSELVES | self._given
        self._any_address = not self._given and not is_loopback(address)
        listening = _ip(address)
        if listening is None or not listening.is_unspecified:
            self._names |= {str(listening or address.lower())}

    def __str__(self) -> str:
        return ", ".join([*sorted(self._names), *(["any address"] if self._any_address else [])])

    def answer_to(self, host: str) -> bool:
        """Whether a request with this ``Host`` is answered."""
        name = _name_in(f"//{host}")
        return name in self._names or (self._any_address and name is not None and _ip(name) is not None)

    def are_origin(self, origin: str, host: str) -> bool:
        """Whether a request with this ``Origin`` and ``Host`` comes from the page itself."""
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and (rest == host or _name_in(f"//{rest}") in self._given)


class Guard:
    """Gives every answer its headers, and refuses names that are not ours.

    Args:
        app: what is guarded.
        hosts: under which it answers.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *_HEADERS]
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        if not self._hosts.answer_to(Request(scope).headers.get("host", "")):
            answer = refusal(403, f"this page answers to {self._hosts} only; --page-host adds a name")
            await answer(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def _checked(name: str) -> str:
    found = _ip(name.removeprefix("[").removesuffix("]"))
    if found is None and not _NAME.fullmatch(name.lower()):
        raise PageServerError(f"--page-host takes a name without scheme and port, such as gateway.example: {name!r}")
    return str(found or name.lower())


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _name_in(url: str) -> str | None:
    """The host, as names are compared."""
    try:
        name = urlsplit(url).hostname
    except ValueError:
        return None
    return str(_ip(name) or name) if name is not None else None


async def granted(request: Request, token: str | None, hosts: Hosts) -> dict[str, Any]:
    """The JSON object that a request to do something carries, once it may be done.

    Raises:
        RequestRefusedError: it may not, or it is not JSON.
    """
    if token is None:
        raise RequestRefusedError(403, "this page is read-only: start the gateway with --page-token-file")
    origin = request.headers.get("origin")
    if origin is not None and not hosts.are_origin(origin, request.headers.get("host", "")):
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
