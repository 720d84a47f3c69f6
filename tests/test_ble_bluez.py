"""The bridge as bluetoothd's agent, on a bus of its own with a stand-in for bluetoothd.

The real one runs in a virtual machine: tests/bluez/run.sh.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from needed import need
from stack import patient_devices, until

from device_emulator.ble.adapter import open_adapter
from device_emulator.ble.bridge import Bridge, BridgeSettings
from quantization.errors import ConnectError

if sys.platform != "linux":
    pytest.skip("BlueZ is Linux's", allow_module_level=True)

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

__all__ = ["patient_devices"]

CONFIG = """<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="*"/><allow send_destination="*"/>
<allow receive_type="*"/></policy></busconfig>"""


@pytest.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A system bus with nobody on it."""
    need(shutil.which("dbus-daemon"), "dbus-daemon (Debian: apt install dbus)")
    (tmp_path / "bus.conf").write_text(CONFIG.format(socket=tmp_path / "bus"))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
    daemon = await asyncio.create_subprocess_exec("dbus-daemon", f"--config-file={tmp_path / 'bus.conf'}", "--nofork")
    try:
        await until((tmp_path / "bus").exists, within_s=10.0)
        yield
    finally:
        daemon.terminate()
        await daemon.wait()


class Bluetoothd:
    """As much of it as an agent sees."""

    def __init__(self, connection: MessageBus) -> None:
        self.connection = connection
        self.agents: list[tuple[str, str, str]] = []
        connection.add_message_handler(self._handle)

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[Bluetoothd]:
        connection = MessageBus(bus_type=BusType.SYSTEM)
        await connection.connect()
        bluetoothd = cls(connection)
        await connection.request_name("org.bluez")
        try:
            yield bluetoothd
        finally:
            connection.disconnect()

    def _handle(self, message: Message) -> Message | None:
        if message.message_type is MessageType.METHOD_CALL and message.member == "RegisterAgent":
            self.agents.append((message.sender, *message.body))
            return Message.new_method_return(message)
        return None

    async def ask(self, member: str, signature: str = "", *body: Any) -> Message:
        """Call the agent."""
        sender, path, _ = self.agents[-1]
        return await self.connection.call(
            Message(
                destination=sender, path=path, interface="org.bluez.Agent1", member=member, signature=signature,
                body=[*body],
            )
        )  # fmt: skip

    async def tell(self, path: str, interface: str, member: str, signature: str, *body: Any) -> None:
        await self.connection.send(
            Message(
                message_type=MessageType.SIGNAL, path=path, interface=interface, member=member, signature=signature,
                body=[*body],
            )
        )  # fmt: skip

    async def adapter_says(self, **changed: bool) -> None:
        values = {name: Variant("b", value) for name, value in changed.items()}
        properties = "org.freedesktop.DBus.Properties"
        await self.tell(
            "/org/bluez/hci0", properties, "PropertiesChanged", "sa{sv}as", "org.bluez.Adapter1", values, []
        )

    async def removed(self, path: str, *interfaces: str) -> None:
        manager = "org.freedesktop.DBus.ObjectManager"
        await self.tell("/", manager, "InterfacesRemoved", "oas", path, [*interfaces])


@pytest.mark.usefixtures("bus")
async def test_the_agent_has_neither_screen_nor_keys_and_lets_nobody_pair() -> None:
    async with Bluetoothd.running() as bluetoothd, open_adapter() as adapter:
        assert [capability for _, _, capability in bluetoothd.agents] == ["NoInputNoOutput"]
        device = "/org/bluez/hci0/dev_C0_00_00_00_00_01"
        for member, signature, *body in (
            ("RequestAuthorization", "o", device),
            ("RequestConfirmation", "ou", device, 123456),
            ("AuthorizeService", "os", device, "0000110d-0000-1000-8000-00805f9b34fb"),
        ):
            answer = await bluetoothd.ask(member, signature, *body)
            assert answer.error_name == "org.bluez.Error.Rejected"
        for member in ("Cancel", "Release"):
            assert (await bluetoothd.ask(member)).message_type is MessageType.METHOD_RETURN
        assert not adapter.lost.is_set()


@pytest.mark.usefixtures("bus")
async def test_the_adapter_counts_as_lost_when_it_is_switched_off_or_unplugged_or_bluetoothd_ends() -> None:
    async with Bluetoothd.running() as bluetoothd, open_adapter() as off, open_adapter() as unplugged:
        await bluetoothd.adapter_says(Discovering=False)
        await bluetoothd.adapter_says(Powered=True)
        await bluetoothd.removed("/org/bluez/hci0/dev_C0_00_00_00_00_01", "org.bluez.Device1")
        await bluetoothd.ask("Cancel")  # whose answer comes after the signals
        assert not off.lost.is_set()
        await bluetoothd.adapter_says(Powered=False)
        await asyncio.wait_for(off.lost.wait(), 10.0)
        unplugged.lost.clear()
        await bluetoothd.removed("/org/bluez/hci0", "org.bluez.Adapter1", "org.bluez.Media1")
        await asyncio.wait_for(unplugged.lost.wait(), 10.0)
    async with contextlib.AsyncExitStack() as stack:
        async with Bluetoothd.running():
            adapter = await stack.enter_async_context(open_adapter())
        await asyncio.wait_for(adapter.lost.wait(), 10.0)


@pytest.mark.usefixtures("bus")
async def test_without_bluetoothd_the_bridge_says_so_and_waits(mosquitto: Any) -> None:
    with pytest.raises(ConnectError, match=r"no Bluetooth on this machine: .*org\.bluez"):
        async with open_adapter():
            pass
    bridge = Bridge(BridgeSettings(), mosquitto.settings)
    running = asyncio.create_task(bridge.run())
    try:
        await until(lambda: bridge.adapter_error and "no Bluetooth" in bridge.adapter_error, within_s=10.0)
        async with Bluetoothd.running() as bluetoothd:  # which has no adapter, nor anything else that bleak asks for
            await until(lambda: len(bluetoothd.agents) >= 2, within_s=30.0)
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_without_a_bus_there_is_no_bluetooth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'none'}")
    with pytest.raises(ConnectError, match="no Bluetooth on this machine"):
        async with open_adapter():
            pass
