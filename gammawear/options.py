"""Command-line options that several commands share, and running a loop until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer
from pydantic import SecretStr

from models.bundle_files import SHIPPED
from protocol.broker_settings import BrokerSettings
from quantization.errors import GammawearError, SensorError
from quantization.sensor import Axes

Bundles = Annotated[list[Path] | None, typer.Option(help="Folder of bundles, besides those that ship; may repeat.")]
SPEED_HELP = "Seconds of signal in a second."
MAX_PASSWORD_BYTES: Final = 65_535
"""What MQTT has room for (5.0, section 3.1.3.6)."""


class SettingsError(GammawearError, ValueError):
    """What a command was told to use cannot be used."""


def broker_settings(
    host: Annotated[str, typer.Option(help="Broker's host.", envvar="GAMMAWEAR_BROKER")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Broker's port.", envvar="GAMMAWEAR_PORT", min=1, max=65535)] = 1883,
    username: Annotated[str | None, typer.Option(help="Broker's user.", envvar="GAMMAWEAR_USERNAME")] = None,
    password: Annotated[
        str | None,
        typer.Option(help="Better given in the environment.", envvar="GAMMAWEAR_PASSWORD", show_envvar=True),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(help="File with the password in its first line.", envvar="GAMMAWEAR_PASSWORD_FILE"),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.", envvar="GAMMAWEAR_TLS")] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="Certificate authority that signed the broker's certificate.", envvar="GAMMAWEAR_CA_FILE"),
    ] = None,
    cert_file: Annotated[Path | None, typer.Option(help="Our own certificate, where the broker asks for one.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="The key of it.")] = None,
    mqtt: Annotated[str, typer.Option("--mqtt", help="auto (5, else 3.1.1), 5 or 3.1.1.")] = "auto",
) -> BrokerSettings:
    """The options that :func:`takes_broker` gives a command, as settings."""
    if mqtt not in ("auto", "5", "3.1.1"):
        raise typer.BadParameter(f"--mqtt is auto, 5 or 3.1.1, not {mqtt!r}")
    return BrokerSettings(
        host=host,
        port=port,
        username=username,
        password=_password(password, password_file),
        tls=tls or ca_file is not None,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        protocol=cast("Any", mqtt),
    )


def _password(given: str | None, file: Path | None) -> SecretStr | None:
    """From a file as container engines and systemd hand secrets over: read at the start, never shown."""
    if file is None:
        return SecretStr(given) if given is not None else None
    if given is not None:
        raise typer.BadParameter("give the password or --password-file, not both")
    try:
        with file.open("rb") as opened:
            line = opened.readline(MAX_PASSWORD_BYTES + 2).rstrip(b"\r\n")
        if not 0 < len(line) <= MAX_PASSWORD_BYTES:
            raise SettingsError(f"the first line of {file} is to be the password, 1 to {MAX_PASSWORD_BYTES} bytes")
        return SecretStr(line.decode())
    except UnicodeDecodeError as error:
        raise SettingsError(f"the password in {file} is not UTF-8") from error
    except OSError as error:
        raise SettingsError(f"cannot read the password: {file}: {error.strerror}") from error


def takes_broker(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a broker, after its own; it gets them as ``broker``, its last parameter."""
    own, shared = (inspect.signature(f, eval_str=True).parameters for f in (command, broker_settings))
    kept = [parameter for name, parameter in own.items() if name != "broker"]

    @functools.wraps(command)
    def with_broker(**arguments: object) -> None:
        given = {name: arguments.pop(name) for name in shared}
        command(**arguments, broker=broker_settings(**cast("Any", given)))

    parameters = [*kept, *shared.values()]
    with_broker.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_broker.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_broker


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
