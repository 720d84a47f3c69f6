"""Command-line options that several commands share, and running a loop until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from pydantic import SecretStr

from models.bundle import SHIPPED
from protocol.broker_settings import BrokerSettings
from quantization.errors import SensorError
from quantization.sensor import Axes

Host = Annotated[str, typer.Option(help="Broker's host.", envvar="GAMMAWEAR_BROKER")]
Port = Annotated[int, typer.Option(help="Broker's port.", envvar="GAMMAWEAR_PORT", min=1, max=65535)]
Username = Annotated[str | None, typer.Option(help="Broker's user.", envvar="GAMMAWEAR_USERNAME")]
Password = Annotated[
    str | None, typer.Option(help="Better given in the environment.", envvar="GAMMAWEAR_PASSWORD", show_envvar=True)
]
Tls = Annotated[bool, typer.Option("--tls", help="Encrypt the connection.", envvar="GAMMAWEAR_TLS")]
CaFile = Annotated[Path | None, typer.Option(help="Certificate authority that signed the broker's certificate.")]
CertFile = Annotated[Path | None, typer.Option(help="Our own certificate, where the broker asks for one.")]
KeyFile = Annotated[Path | None, typer.Option(help="The key of it.")]
MqttVersion = Annotated[str, typer.Option("--mqtt", help="auto (5, else 3.1.1), 5 or 3.1.1.")]
Bundles = Annotated[list[Path] | None, typer.Option(help="Folder of bundles, besides those that ship; may repeat.")]
SPEED_HELP = "Seconds of signal in a second."


def broker_settings(
    host: str,
    port: int,
    *,
    username: str | None = None,
    password: str | None = None,
    tls: bool = False,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    mqtt: str = "auto",
) -> BrokerSettings:
    """Options to settings."""
    if mqtt not in ("auto", "5", "3.1.1"):
        raise typer.BadParameter(f"--mqtt is auto, 5 or 3.1.1, not {mqtt!r}")
    return BrokerSettings(
        host=host,
        port=port,
        username=username,
        password=SecretStr(password) if password is not None else None,
        tls=tls or ca_file is not None,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        protocol=cast("Any", mqtt),
    )


def bundle_dirs(folders: list[Path] | None) -> tuple[Path, ...]:
    """Folders of bundles: the given ones and those that ship."""
    return (*(folders or ()), SHIPPED)


def parse_axes(text: str | None) -> Axes | None:
    """``"2,-1,3"`` to axes."""
    if text is None:
        return None
    try:
        entries = tuple(int(part) for part in text.replace(" ", "").split(","))
    except ValueError as error:
        raise SensorError(f"axes are three signed numbers such as 2,-1,3, not {text!r}") from error
    return Axes(entries)


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    kinds = (signal.SIGINT, signal.SIGTERM)
    for kind in kinds:
        loop.add_signal_handler(kind, stop.set)
    try:
        yield
    finally:
        for kind in kinds:
            loop.remove_signal_handler(kind)


async def until_stopped(
    work: Awaitable[None], stop: Callable[[], Awaitable[None]], *, seconds: float | None = None
) -> None:
    """Await ``work``; on Ctrl-C, SIGTERM or after ``seconds`` await ``stop()``, which is to make ``work`` end.

    A second Ctrl-C cancels without a goodbye. Errors of ``work`` are raised.
    """
    asked = asyncio.Event()
    with _signals(asked):
        task = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(asked.wait())
        await asyncio.wait({task, waiting}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            asked.clear()
            stopping = asyncio.ensure_future(_stop_and_wait(stop, task))
            again = asyncio.ensure_future(asked.wait())
            await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            again.cancel()
            await asyncio.gather(stopping, again, return_exceptions=True)
        waiting.cancel()
        if not task.done():
            task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


async def _stop_and_wait(stop: Callable[[], Awaitable[None]], task: asyncio.Future[None]) -> None:
    await stop()
    await asyncio.wait({task})
