"""A broker for a demonstration, a benchmark or a test: found or embedded, started, and gone without a trace afterwards.

mosquitto is taken where it is installed. Elsewhere amqtt, a broker in pure Python, runs in this very event loop: a
tenth of the speed, MQTT 3.1.1 only (so no topic aliases), and it shares the processor with everything else here.

Not for production: ``deploy/mosquitto`` is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gammawear.logs import quiet
from protocol.broker_settings import BrokerSettings
from quantization.errors import ConnectError

HOST = "127.0.0.1"

LIMITS: dict[str, str] = {
    "max_topic_alias": "200",
    "autosave_interval": "30",
    "max_inflight_messages": "1000",
    "max_queued_messages": "100000",
    "max_queued_bytes": "268435456",
    "max_packet_size": "262144",
    "queue_qos0_messages": "false",
    "set_tcp_nodelay": "true",
}
"""As in ``deploy/mosquitto/mosquitto.conf``, which explains each and which is not part of an installed package."""

USUAL_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
"""Where packages put mosquitto; often not on a user's PATH."""

START_TIMEOUT_S = 10.0
"""mosquitto listens within 20 ms; a busy machine gets some more."""

STOP_TIMEOUT_S = 5.0
"""mosquitto writes its database on SIGTERM; if that takes longer, it is killed."""

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that accepts connections.

    Attributes:
        name: with version, for a table of results.
        settings: to connect with.
    """

    name: str
    host: str
    port: int
    settings: BrokerSettings


def find_mosquitto() -> str | None:
    """Return the path of mosquitto, None if it is not installed."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which("mosquitto", path=os.pathsep.join((path, *USUAL_FOLDERS)))


def free_port() -> int:
    """Return a TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _check_free(port: int) -> None:
    # First, because a port that somebody else holds would answer in place of our broker.
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections just closed are no hindrance
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConnectError(
                f"cannot start a broker on port {port}: {error.strerror}; choose another port, or use the broker there"
            ) from error


def mosquitto_config(port: int, folder: Path) -> str:
    """Return a configuration: one anonymous listener on loopback, everything kept in ``folder``."""
    lines = [
        f"listener {port} {HOST}",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {folder}/",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        *(f"{key} {value}" for key, value in LIMITS.items()),
    ]
    return "\n".join(lines) + "\n"


@contextlib.asynccontextmanager
async def local_broker(
    port: int | None = None, *, prefer: Literal["mosquitto", "amqtt"] | None = None
) -> AsyncIterator[RunningBroker]:
    """Run a broker on loopback for the length of a ``with``; its data goes with it.

    Args:
        port: a free one if None.
        prefer: this broker or none; None takes mosquitto if it is installed, else amqtt.

    Raises:
        ConnectError: there is no broker to be had, or it does not start; says what to do.
    """
    binary = find_mosquitto() if prefer != "amqtt" else None
    if prefer == "mosquitto" and binary is None:
        raise ConnectError("mosquitto is not installed; install it (Debian: apt install mosquitto), or use amqtt")
    if port is None:
        port = free_port()
    else:
        _check_free(port)
    running = _mosquitto(binary, port) if binary is not None else _amqtt(port)
    # amqtt does not refuse MQTT 5: it reads a CONNECT with a will by the older layout, and waits for the rest of it.
    settings = BrokerSettings(host=HOST, port=port, protocol="auto" if binary is not None else "3.1.1")
    async with running as name:
        yield RunningBroker(name, HOST, port, settings)


# -- mosquitto --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _mosquitto(binary: str, port: int) -> AsyncIterator[str]:
    version = await _mosquitto_version(binary)
    with tempfile.TemporaryDirectory(prefix="gammawear-mosquitto-") as name:
        folder = Path(name)
        config, log = folder / "mosquitto.conf", folder / "log"
        config.write_text(mosquitto_config(port, folder), encoding="utf-8")
        if os.name == "posix" and os.geteuid() == 0:
            # Started by root, mosquitto becomes its own user before it opens the database.
            with contextlib.suppress(LookupError):
                shutil.chown(folder, user="mosquitto")
        with log.open("wb") as sink:
            # In a session of its own, or Ctrl-C would end it at once, before anybody could say goodbye.
            process = await asyncio.create_subprocess_exec(
                binary, "-c", str(config), stdout=sink, stderr=sink, start_new_session=True
            )
        try:
            await _accepts(port, process, log)
            yield f"mosquitto {version}"
        finally:
            await _end(process)


async def _mosquitto_version(binary: str) -> str:
    process = await asyncio.create_subprocess_exec(
        binary, "-h", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    found = re.search(r"version (\S+)", output.decode(errors="replace"))
    return found[1] if found else "of unknown version"


async def _accepts(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    """Wait until the port answers."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT_S):
            while process.returncode is None:
                if await _answers(port):
                    return
                await asyncio.sleep(_POLL_S)
    said = (await asyncio.to_thread(log.read_text, encoding="utf-8", errors="replace")).strip()
    ended = f"ended with status {process.returncode}" if process.returncode is not None else "does not answer"
    raise ConnectError(f"mosquitto {ended} on port {port}: {said or 'it said nothing'}")


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def _end(process: asyncio.subprocess.Process) -> None:
    """Stop a process and wait for it; cancelled meanwhile, it is killed rather than left."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# -- amqtt ------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _amqtt(port: int) -> AsyncIterator[str]:
    try:
        import amqtt
        from amqtt.broker import Broker
        from amqtt.errors import BrokerError
    except ImportError as error:
        raise ConnectError(
            "neither mosquitto nor amqtt is installed; install one (Debian: apt install mosquitto, or "
            "pip install 'gammawear[demo]'), or name a broker that runs already"
        ) from error
    with quiet("amqtt", "transitions"):  # each client that leaves would be reported as an error
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        broker._subscriptions = _Subscriptions()  # noqa: SLF001
        try:
            await broker.start()
        except BrokerError as error:
            raise ConnectError(f"the embedded broker does not start on port {port}: {error}") from error
        try:
            yield f"amqtt {amqtt.__version__} (embedded)"
        finally:
            # While clients send, amqtt's shutdown has been seen to wait for ever and to ignore its cancelling.
            await asyncio.wait({asyncio.ensure_future(broker.shutdown())}, timeout=STOP_TIMEOUT_S)


class _Subscriptions(dict[str, Any]):
    """Is iterated over as it was at the start: amqtt awaits in such a loop, and other clients subscribe meanwhile."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.keys()))
