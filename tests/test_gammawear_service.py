"""``gammawear device`` and ``gammawear gateway`` as processes of their own, ended as service managers and people do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from stack import PATIENCE_S, until, windows_in

from gateway.bundles import BundleStore, DetectorStore
from models.bundle import load_bundle
from protocol.broker_settings import BrokerSettings
from protocol.connection import Connection, Received
from protocol.messages import Status
from protocol.topics import Kind, every, topic


class Command:
    """The installed command, in a process group and with temporary files of its own.

    Attributes:
        out: lines of standard output so far.
        err: the same of standard error.
    """

    def __init__(self, process: asyncio.subprocess.Process, temporary: Path) -> None:
        self.process = process
        self.temporary = temporary
        self.out: list[str] = []
        self.err: list[str] = []
        streams = ((process.stdout, self.out), (process.stderr, self.err))
        self._reading = [asyncio.create_task(self._read(stream, lines)) for stream, lines in streams]

    @classmethod
    async def start(cls, folder: Path, *arguments: str, **environment: str) -> Command:
        """``gammawear`` with these arguments, in ``folder``."""
        program = shutil.which("gammawear", path=str(Path(sys.executable).parent))
        assert program is not None, "tests run where gammawear is installed"
        temporary = Path(tempfile.mkdtemp(prefix="temporary-", dir=folder))
        for path in (folder, temporary):
            path.chmod(0o755)  # mosquitto, started by root, goes on as another user
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            cwd=folder,
            env={**os.environ, "COLUMNS": "300", "TMPDIR": str(temporary), **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return cls(process, temporary)

    @staticmethod
    async def _read(stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        assert stream is not None
        while line := await stream.readline():
            lines.append(line.decode().rstrip("\n"))

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line on standard error."""
        await until(lambda: self.process.returncode is not None or self._find(pattern))
        found = self._find(pattern)
        assert found, f"ended with {self.process.returncode}, and said:\n" + "\n".join(self.err)
        return found

    def _find(self, pattern: str) -> re.Match[str] | None:
        return next((found for line in self.err if (found := re.search(pattern, line))), None)

    async def ends(self) -> int:
        """Wait for the end; return the exit status."""
        status = await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        await asyncio.wait_for(asyncio.gather(*self._reading), PATIENCE_S)
        return status

    def press_ctrl_c(self) -> None:
        """As a terminal does: the signal goes to every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def assert_nothing_is_left(self) -> None:
        """Neither processes (a broker's configuration is in the temporary folder) nor temporary files."""
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        ps = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True, check=True)
        assert str(self.temporary) not in ps.stdout
        assert list(self.temporary.iterdir()) == []

    async def end_anyhow(self) -> None:
        """What is left after a test that failed."""
        if self.process.returncode is None:
            self.process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), 10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await asyncio.gather(*self._reading)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """A function that starts ``gammawear`` with arguments; what still runs at the end is killed."""
    started: list[Command] = []

    async def run(*arguments: str, **environment: str) -> Command:
        started.append(await Command.start(tmp_path, *arguments, **environment))
        return started[-1]

    yield run
    for command in started:
        await command.end_anyhow()


async def retained(broker: BrokerSettings, count: int) -> dict[str, Status]:
    """What the broker keeps of the statuses, by topic."""
    heard: list[Received] = []
    connection = Connection(broker, "late", subscriptions=((every(Kind.STATUS), 1),), on_message=heard.append)
    task = asyncio.create_task(connection.run())
    await until(lambda: len(heard) >= count)
    await connection.stop()
    await task
    assert all(one.retain for one in heard)
    return {one.topic: Status.parse(one.payload) for one in heard}


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
async def test_services_end_with_a_goodbye(mosquitto: Any, start: Callable[..., Any], sig: signal.Signals) -> None:
    broker = ("--host", mosquitto.host, "--port", str(mosquitto.port))
    gateway = await start("gateway", *broker, "--metrics-port", "0")
    shipped = [one.reference for store in (BundleStore(), DetectorStore()) for one in store.serving]
    await gateway.says(rf"serving {', '.join(shipped)} from ")
    heard: list[Received] = []
    watcher = Connection(
        mosquitto.settings, "watcher", subscriptions=((every(Kind.ACTIVITY), 1),), on_message=heard.append
    )
    watching = asyncio.create_task(watcher.run())
    await watcher.wait_connected(10)  # before there is anything to hear: it counts the answers
    device = await start("device", "--count", "2", "--speed", "5", *broker)
    await until(lambda: len(heard) >= 20 or device.process.returncode is not None)

    device.process.send_signal(sig)
    assert await device.ends() == 0, device.err
    made = await device.says(r"(\d+) packets made, (\d+) published, 0 messages dropped")
    said = await retained(mosquitto.settings, 3)
    packets = [said[topic(f"wearable-{n:02d}", Kind.STATUS)].packets or 0 for n in (1, 2)]
    assert sum(packets) == int(made[1]), "the devices' own goodbye, not the broker's"
    bundle = load_bundle("wrist6")
    samples = int(bundle.manifest.rate_hz)  # of a packet, which lasts a second at most
    await until(lambda: len(heard) == sum(windows_in(samples * count, bundle) for count in packets))
    gateway.process.send_signal(sig)
    assert await gateway.ends() == 0, gateway.err
    received = await gateway.says(r"(\d+) packets, 0 lost, (\d+) answers")
    assert made[1] == made[2] == received[1]
    assert len(heard) == int(received[2])
    await watcher.stop()
    await watching

    statuses = await retained(mosquitto.settings, 3)
    assert {one.state for one in statuses.values()} == {"offline"}
    assert topic("gateway", Kind.STATUS) in statuses
    for command in (device, gateway):
        command.assert_nothing_is_left()
        assert not [line for line in command.err if "Traceback" in line]


async def test_a_refusal_ends_a_service_with_a_sentence(
    start_mosquitto: Callable[..., Any], start: Callable[..., Any], tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    passwords.chmod(0o600)
    mosquitto = await start_mosquitto(f"\npassword_file {passwords}\n")
    broker, secret = ("--port", str(mosquitto.port), "--username", "w1"), {"GAMMAWEAR_PASSWORD": "mistaken"}
    ends = [
        await start("device", *broker, **secret),
        await start("gateway", *broker, "--metrics-port", "0", **secret),
    ]
    for command in ends:
        assert await command.ends() == 1
        assert command.err[-1].startswith("error: "), command.err
        assert re.search("not authori[sz]ed", command.err[-1], re.IGNORECASE)
        assert not [line for line in command.err if "Traceback" in line or "mistaken" in line]
        command.assert_nothing_is_left()


async def test_what_a_broker_never_took_is_said(start: Callable[..., Any], free_port: int) -> None:
    device = await start("device", "--seconds", "1", "--speed", "5", "--port", str(free_port), "--json")
    assert await device.ends() == 0, device.err
    result = json.loads(device.out[0])
    assert result["packets_made"] == result["packets_handed_over"] > 0
    assert result["messages_dropped"] == 0
    assert result["messages_unsent"] > result["packets_made"], "packets, labels and the goodbye"
    await device.says(rf"handed over, 0 messages dropped, {result['messages_unsent']} messages never sent: ")
