"""Fixtures that several test modules share: a free port, and a real mosquitto with the settings that we ship."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import hypothesis
import pytest
from needed import need

from gammawear.broker import find_mosquitto
from gammawear.broker import free_port as find_free_port
from protocol.broker_settings import BrokerSettings

# New examples are found on people's machines; continuous integration repeats itself.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

VISION = Path(__file__).parents[2] / "shared" / "data" / "vision"
SHIPPED = Path(__file__).parent.parent / "deploy" / "mosquitto" / "mosquitto.conf"


class Mosquitto:
    """A mosquitto that can be stopped in any way and started again on the same port, with the same data."""

    host = "127.0.0.1"

    def __init__(self, binary: str, folder: Path, port: int, extra: str = "") -> None:
        self.binary = binary
        self.folder = folder
        self.port = port
        self.log = folder / "log"
        self.config = folder / "mosquitto.conf"
        shipped = SHIPPED.read_text(encoding="utf-8")
        first = f"log_dest file {self.log}\npersistence_location {folder}/\n"
        if os.geteuid() == 0:
            first += "user root\n"  # or it could not write to the test's folder
        # What stands after `listener` belongs to the listener, so it takes the place of the shipped one.
        shipped, count = re.subn(r"^listener .*$", f"listener {port} {self.host}", shipped, flags=re.MULTILINE)
        assert count == 1
        shipped = re.sub(r"^(persistence_location|log_dest) .*$", "", shipped, flags=re.MULTILINE)
        if "password_file" in extra:
            shipped = shipped.replace("allow_anonymous true", "allow_anonymous false")
        self.config.write_text(first + shipped + extra, encoding="utf-8")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def settings(self) -> BrokerSettings:
        return BrokerSettings(host=self.host, port=self.port)

    async def start(self) -> None:
        """Start and wait until it accepts connections."""
        process = await asyncio.create_subprocess_exec(
            self.binary, "-c", str(self.config), stderr=asyncio.subprocess.DEVNULL
        )
        self._process = process
        async with asyncio.timeout(10):
            while True:
                if process.returncode is not None:
                    text = self.log.read_text() if self.log.exists() else ""
                    pytest.fail(f"mosquitto ended with status {process.returncode}:\n{text}")
                try:
                    _, writer = await asyncio.open_connection(self.host, self.port)
                except OSError:
                    await asyncio.sleep(0.01)
                    continue
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                return

    async def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal and wait for the end."""
        if self._process is not None:
            process, self._process = self._process, None
            if process.returncode is None:
                process.send_signal(sig)
            await asyncio.wait_for(process.wait(), 10)


@pytest.fixture(scope="session")
def pictures_archive() -> Callable[[str], Path]:
    """A function that gives the published archive of some pictures, by its name; see :func:`needed.need`."""

    def archive(name: str) -> Path:
        path = VISION / name
        need(path.exists(), str(path))
        return path

    return archive


@pytest.fixture
def free_port() -> int:
    return find_free_port()


@pytest.fixture
async def start_mosquitto(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Mosquitto]]]:
    """A function that starts a mosquitto, given lines for its configuration (they follow the shipped ones)."""
    binary = find_mosquitto()
    need(binary and shutil.which("mosquitto_passwd"), "mosquitto and mosquitto_passwd (Debian: apt install mosquitto)")
    assert binary is not None
    started: list[Mosquitto] = []

    async def start(extra: str = "") -> Mosquitto:
        folder = tmp_path / f"mosquitto-{len(started)}"
        folder.mkdir()
        broker = Mosquitto(binary, folder, find_free_port(), extra)
        started.append(broker)
        await broker.start()
        return broker

    yield start
    for broker in started:
        await broker.stop()


@pytest.fixture
async def mosquitto(start_mosquitto: Callable[..., Awaitable[Mosquitto]]) -> Mosquitto:
    """A running mosquitto: ``port``, ``settings``, ``stop(signal)``, ``start()``."""
    return await start_mosquitto()
