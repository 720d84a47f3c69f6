"""What the page's server answers.

=====================================  ===============================================================================
``GET /``, ``GET /static/<file>``      the page
``GET /healthz``                       200 while connected to the broker and up to date, else 503
``GET /api/state``                     everything, as JSON
``GET /api/events?device=<id>``        the same, and then what changes, as server-sent events
``GET /cameras/<id>.jpg``              what a camera saw last, where previews are served
``POST /api/devices/<id>/label``       ``{"activity": "walking"}`` or null: what a wearer does from now on
``POST /api/devices/<id>/raw``         ``{"seconds": 30}``: asks an emulated device for its raw samples
=====================================  ===============================================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.live.guard import Guard, Hosts, RequestRefusedError, granted, refusal
from gateway.live.streams import EventStream, TooManyViewersError
from protocol.topics import check_device_id
from quantization.errors import MessageError

STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain",
}
"""By suffix: the machine's own table may say something else, and browsers are told not to guess."""


class Page(Protocol):
    """What the application asks."""

    @property
    def token(self) -> str | None:
        """Who sends it may do something; None: nobody."""

    @property
    def connected(self) -> bool:
        """To the broker."""

    @property
    def well(self) -> bool:
        """What it shows is up to date."""

    async def state(self) -> str:
        """Everything, as JSON."""

    def stream(self, device: str | None) -> EventStream:
        """Everything and what changes; of one device its signal, too."""

    def preview(self, path: str) -> tuple[str, bytes] | None:
        """Content type and content of a camera's picture."""

    def label(self, device: str, wanted: dict[str, object]) -> None:
        """Begin or end a label."""

    def ask_raw(self, device: str, wanted: dict[str, object]) -> None:
        """Ask a device for its raw samples."""


def make_app(page: Page, hosts: Hosts) -> ASGIApp:
    """The application.

    Args:
        page: what it shows.
        hosts: under which it answers.
    """
    files = _files()

    async def index(_: Request) -> Response:
        return _file(files, "index.html")

    async def static(request: Request) -> Response:
        return _file(files, request.path_params["name"])

    async def health(_: Request) -> Response:
        trouble = "no broker" if not page.connected else "not up to date: see the log" if not page.well else None
        return PlainTextResponse(f"{trouble or 'ok'}\n", 503 if trouble else 200)

    async def state(_: Request) -> Response:
        return Response(await page.state(), media_type="application/json")

    async def camera(request: Request) -> Response:
        found = page.preview(request.url.path)
        if found is None:
            raise RequestRefusedError(404, "nothing is here")
        return Response(found[1], media_type=found[0])

    async def label(request: Request) -> Response:
        wanted = await granted(request, page.token, hosts)
        page.label(_device(request.path_params["device"]), wanted)
        return Response(status_code=204)

    async def raw(request: Request) -> Response:
        wanted = await granted(request, page.token, hosts)
        page.ask_raw(_device(request.path_params["device"]), wanted)
        return Response(status_code=204)

    routes = [
        Route("/", index),
        Route("/static/{name:path}", static),
        Route("/healthz", health),
        Route("/api/state", state),
        Route("/api/events", _Events(page)),
        Route("/cameras/{name}", camera),
        Route("/api/devices/{device}/label", label, methods=["POST"]),
        Route("/api/devices/{device}/raw", raw, methods=["POST"]),
    ]
    handlers = {RequestRefusedError: _refused, HTTPException: _refused_by_route}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts)


class _Events:
    """An endpoint that streams."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if request.method != "GET":
            await refusal(405, "events are read with GET")(scope, receive, send)
            return
        wanted = request.query_params.get("device")
        try:
            stream: ASGIApp = self._page.stream(None if wanted is None else _device(wanted))
        except TooManyViewersError as error:
            stream = refusal(503, str(error))
        await stream(scope, receive, send)


def _device(name: str) -> str:
    try:
        return check_device_id(name)
    except MessageError as error:
        raise RequestRefusedError(400, error.detail) from error


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefusedError)  # noqa: S101 - registered for no other
    return refusal(error.status, error.why)


async def _refused_by_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for no other
    answer = refusal(error.status_code, error.detail.lower())
    answer.headers.update(error.headers or {})
    return answer


def _files() -> dict[str, tuple[bytes, str]]:
    """Content and type of the page's files, by name: whatever else somebody asks for is never looked for on a disk."""
    folder = STATIC.resolve()
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), _TYPES[path.suffix])
        for path in folder.rglob("*")
        if path.suffix in _TYPES and path.is_file()
    }


def _file(files: dict[str, tuple[bytes, str]], name: str) -> Response:
    if name not in files:
        raise RequestRefusedError(404, "nothing is here")
    content, kind = files[name]
    return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})
