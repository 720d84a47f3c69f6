"""The page's HTTP server, inside the gateway's own event loop: pipeline state may be read there only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from gateway.live.connection import MAX_CONNECTIONS, BoundedConnection
from quantization.errors import GammawearError

logger = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 5
GOODBYE_S: Final = 1


class PageServerError(GammawearError, OSError):
    """The address or the token for the page cannot be used."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to the program that we are part of."""
        yield


@contextlib.asynccontextmanager
async def serving_page(app: ASGIApp, address: str, port: int) -> AsyncIterator[int]:
    """Serve an application on this loop; gives the port, which with ``port=0`` is a free one.

    Raises:
        PageServerError: the address cannot be used.
    """
    listening = _listen(address, port)
    taken: int = listening.getsockname()[1]
    config = uvicorn.Config(
        app,
        http=BoundedConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GOODBYE_S,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve([listening]))
    logger.info("page on %s", url_of(address, taken))
    try:
        yield taken
    finally:
        server.should_exit = True
        await asyncio.gather(running, return_exceptions=True)
        listening.close()


def url_of(address: str, port: int) -> str:
    """Where a browser finds a page that listens on ``address``.

    >>> url_of("::1", 80), url_of("0.0.0.0", 9465)
    ('http://[::1]:80/', 'http://0.0.0.0:9465/')
    """
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
    except OSError as error:
        listening.close()
        raise PageServerError(
            f"the page cannot be served on {address}:{port}: {error.strerror}; choose another --page-port, or 0 for any"
        ) from error
    return listening
