"""Command-line options that several commands share, and running a loop until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import inspect
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final, TypeVar, cast

import typer
from pydantic import SecretStr, ValidationError

from gammawear.completion import bundle_names, part_names
from gammawear.logs import NOTES as _NOTES
from gammawear.settings import PASSWORD, SettingsError
from protocol.broker_settings import BrokerSettings
from quantization.errors import SensorError
from quantization.sensor import Axes

Bundles = Annotated[list[Path] | None, typer.Option(help="Folder of bundles, besides those that ship; may repeat.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
Part = Annotated[
    str | None, typer.Option(help="Sensor to emulate, such as bmi270 or lsm6dso.", autocompletion=part_names)
]
DeviceBundle = Annotated[str, typer.Option(help="Whose codebook to quantize with.", autocompletion=bundle_names)]
MAX_PASSWORD_BYTES: Final = 65_535
"""What MQTT has room for (5.0, section 3.1.3.6)."""
SPEED_HELP = "Seconds of signal in a second."
_HANGUP: Final[int | None] = getattr(signal, "SIGHUP", None)
"""Of a terminal that closes; Windows has no such signal."""
T = TypeVar("T")


def broker_settings(
    host: Annotated[str, typer.Option(help="Broker's host.", envvar="GAMMAWEAR_BROKER")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Broker's port.", envvar="GAMMAWEAR_PORT", min=1, max=65535)] = 1883,
    username: Annotated[str | None, typer.Option(help="Broker's user.", envvar="GAMMAWEAR_USERNAME")] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help=f"File with the password, or set {PASSWORD}; there is no flag.", envvar="GAMMAWEAR_PASSWORD_FILE"
        ),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.", envvar="GAMMAWEAR_TLS")] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="Certificate authority that signed the broker's certificate.", envvar="GAMMAWEAR_CA_FILE"),
    ] = None,
    cert_file: Annotated[
        Path | None,
        typer.Option(help="Our own certificate, where the broker asks for one.", envvar="GAMMAWEAR_CERT_FILE"),
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="The key of it.", envvar="GAMMAWEAR_KEY_FILE")] = None,
    mqtt: Annotated[
        str, typer.Option("--mqtt", help="auto (5, else 3.1.1), 5 or 3.1.1.", envvar="GAMMAWEAR_MQTT")
    ] = "auto",
    password: str | None = None,
) -> BrokerSettings:
    """The options that :func:`takes_broker` gives a command, as settings.

    Raises:
        SettingsError: there is no password in ``password_file``.
    """
    if mqtt not in ("auto", "5", "3.1.1"):
        raise typer.BadParameter(f"--mqtt is auto, 5 or 3.1.1, not {mqtt!r}")
    if password is not None and password_file is not None:
        raise typer.BadParameter("give the password or --password-file, not both")
    secret = password if password_file is None else _first_line(password_file)
    with as_wrong_usage():
        return BrokerSettings(
            host=host,
            port=port,
            username=username,
            password=SecretStr(secret) if secret is not None else None,
            tls=tls or ca_file is not None,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            protocol=cast("Any", mqtt),
        )


@contextlib.contextmanager
def as_wrong_usage() -> Iterator[None]:
    """Settings that refuse an option's value are named by its flag."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        flag = "".join(f"--{name}: ".replace("_", "-") for name in first["loc"])
        raise typer.BadParameter(flag + first["msg"].removeprefix("Value error, ")) from None


def _first_line(file: Path) -> str:
    """A password as container engines and systemd hand it over."""
    try:
        with file.open("rb") as opened:
            line = opened.readline(MAX_PASSWORD_BYTES + 2).rstrip(b"\r\n")
        if not 0 < len(line) <= MAX_PASSWORD_BYTES:
            raise SettingsError(f"the first line of {file} is to be the password, 1 to {MAX_PASSWORD_BYTES} bytes")
        return line.decode()
    except UnicodeDecodeError as error:
        raise SettingsError(f"the password in {file} is not UTF-8") from error
    except OSError as error:
        raise SettingsError(f"cannot read the password: {file}: {error.strerror}") from error


def takes_broker(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a broker, after its own; it gets them as ``broker``, its last parameter."""
    own, given_by_flag = (dict(inspect.signature(f, eval_str=True).parameters) for f in (command, broker_settings))
    shared = {name: parameter for name, parameter in given_by_flag.items() if name != "password"}
    kept = [parameter for name, parameter in own.items() if name not in ("broker", "context")]

    @functools.wraps(command)
    def with_broker(context: typer.Context, **arguments: object) -> None:
        given = {name: arguments.pop(name) for name in shared}
        source = context.get_parameter_source("password_file")
        if os.environ.get(PASSWORD) and source is not None and source.name != "COMMANDLINE":
            # A flag counts before the environment, and that before a file.
            given |= {"password": os.environ[PASSWORD], "password_file": None}
        if "context" in own:
            arguments["context"] = context
        command(**arguments, broker=broker_settings(**cast("Any", given)))

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *kept, *shared.values()]
    with_broker.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_broker.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_broker


def bundle_dirs(folders: list[Path] | None) -> tuple[Path, ...]:
    """Folders of bundles: the given ones and those that ship."""
    from models.bundle_files import SHIPPED

    for folder in folders or ():
        with contextlib.suppress(PermissionError):  # who lists it says so
            if not folder.is_dir():
                _NOTES.print(f"--bundles: there is no folder {folder}", soft_wrap=True, highlight=False, markup=False)
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
def _on_signals(act: Callable[[int], object]) -> Iterator[None]:
    """Call ``act`` on the loop at Ctrl-C, SIGTERM and SIGHUP, unless we were started to ignore SIGHUP (``nohup``)."""
    loop = asyncio.get_running_loop()

    def came(kind: int, _: FrameType | None) -> None:
        if kind == _HANGUP:
            signal.signal(kind, signal.SIG_IGN)  # both shell and kernel may send it: the second asks for nothing more
        loop.call_soon_threadsafe(act, kind)

    kinds: list[int] = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        kinds.append(_HANGUP)
    before = {kind: signal.signal(kind, came) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def check_picture(path: Path, kinds: tuple[str, ...] = (".png", ".svg")) -> None:
    """What can be known of a picture before hours of work end in it.

    Raises:
        typer.BadParameter: no kind of ours.
        OSError: it cannot be written there.
    """
    if path.suffix.lower() not in kinds:
        raise typer.BadParameter(f"--picture is a file that ends in {' or '.join(kinds)}, not {path}")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Refuse a file that could not be made where it is wanted, before the work whose result it is to hold.

    Raises:
        OSError: names the file.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def port_is_free(address: str, port: int) -> bool:
    """Whether a server could listen there now; one that cannot for another reason says so itself."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def run_command(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``, but SIGTERM and SIGHUP cancel ``main`` as Ctrl-C does: what it started ends before we do."""
    came: list[int] = []

    async def cancellable() -> T:
        task = cast("asyncio.Task[T]", asyncio.current_task())

        def cancel(kind: int) -> None:
            came.append(kind)
            task.cancel()

        with _on_signals(cancel):
            return await main

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        if not came:
            raise
    if came[0] != signal.SIGINT:
        signal.raise_signal(came[0])  # service managers know this for an end in order
    raise KeyboardInterrupt


async def until_stopped(
    work: Awaitable[None], stop: Callable[[], Awaitable[None]], *, seconds: float | None = None
) -> None:
    """Await ``work``; on Ctrl-C, SIGTERM, SIGHUP or after ``seconds`` await ``stop()``, which is to make ``work`` end.

    A second Ctrl-C cancels without a goodbye. Errors of ``work`` are raised.
    """
    asked = asyncio.Event()
    with _on_signals(lambda _: asked.set()):
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
