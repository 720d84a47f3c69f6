"""The virtual controllers, as a host of another make sees them: Linux, which asks for more than Bumble does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from ble_stack import BRIDGE, FAST, address_of
from bumble import hci
from bumble.core import AdvertisingData
from bumble.device import Device as Radio
from stack import patient_devices, until

from device_emulator.ble.air import SUPERVISION_TIMEOUT, Air

__all__ = ["patient_devices"]

NEWER = 1 << 9
"""LE Enhanced Connection Complete, in the LE event mask."""
NOTIFICATION = bytes.fromhex("1b 0100 00")
"""Of attribute 1."""
CONNECTION_COMPLETE, ENHANCED_CONNECTION_COMPLETE = 0x01, 0x0A


class RawHost:
    """Speaks HCI over a socket, without a stack."""

    def __init__(self, air: Air, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.air = air
        self.events: list[hci.HCI_Packet] = []
        self._reader = reader
        self._writer = writer

    async def listen(self) -> None:
        while True:
            kind = (await self._reader.readexactly(1))[0]
            head = await self._reader.readexactly({hci.HCI_EVENT_PACKET: 2, hci.HCI_ACL_DATA_PACKET: 4}[kind])
            length = head[1] if kind == hci.HCI_EVENT_PACKET else int.from_bytes(head[2:4], "little")
            body = await self._reader.readexactly(length)
            self.events.append(hci.HCI_Packet.from_bytes(bytes([kind]) + head + body))

    async def command(self, command: hci.HCI_Packet) -> int:
        """Its status."""
        before = len(self.events)
        self._writer.write(bytes(command))
        answers = (hci.HCI_Command_Complete_Event, hci.HCI_Command_Status_Event)
        await until(lambda: any(isinstance(event, answers) for event in self.events[before:]), within_s=10.0)
        answer = next(event for event in self.events[before:] if isinstance(event, answers))
        if isinstance(answer, hci.HCI_Command_Status_Event):
            return answer.status
        return int(answer.return_parameters.status)

    async def connect(self, address: str) -> int:
        """The handle."""
        status = await self.command(
            hci.HCI_LE_Create_Connection_Command(
                le_scan_interval=16, le_scan_window=16, initiator_filter_policy=0,
                peer_address_type=1, peer_address=hci.Address(address), own_address_type=1,
                connection_interval_min=6, connection_interval_max=6, max_latency=0, supervision_timeout=50,
                min_ce_length=0, max_ce_length=0,
            )
        )  # fmt: skip
        assert status == 0
        await until(lambda: self.connected, within_s=10.0)
        return int(self.connected[-1].connection_handle)

    @property
    def connected(self) -> list[hci.HCI_LE_Connection_Complete_Event | hci.HCI_LE_Enhanced_Connection_Complete_Event]:
        kinds = hci.HCI_LE_Connection_Complete_Event | hci.HCI_LE_Enhanced_Connection_Complete_Event
        return [event for event in self.events if isinstance(event, kinds)]

    def send(self, handle: int, pdu: bytes) -> None:
        self._writer.write(bytes(hci.HCI_AclDataPacket(handle, 0, 0, len(pdu), pdu)))

    @property
    def data(self) -> list[bytes]:
        return [event.data for event in self.events if isinstance(event, hci.HCI_AclDataPacket)]


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[tuple[RawHost, Radio]]:
    """A raw host, and a peripheral that advertises."""
    air = Air(FAST)
    radio = air.host("peripheral", address_of(1))
    port = await air.serve("host", BRIDGE)
    radio.advertising_data = bytes(AdvertisingData([(AdvertisingData.Type.FLAGS, bytes([0x06]))]))
    await radio.power_on()
    await radio.start_advertising(advertising_interval_min=20, advertising_interval_max=20, auto_restart=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    host = RawHost(air, reader, writer)
    listening = asyncio.create_task(host.listen())
    try:
        assert await host.command(hci.HCI_Reset_Command()) == 0
        yield host, radio
        assert not listening.done(), listening.exception()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        writer.close()
        await radio.stop_advertising()
        await air.close()


async def test_a_host_is_told_of_a_connection_by_the_event_that_it_has_asked_for() -> None:
    for mask, code in ((NEWER | 1, ENHANCED_CONNECTION_COMPLETE), (1, CONNECTION_COMPLETE)):
        async with linked() as (host, _):
            await host.command(hci.HCI_LE_Set_Event_Mask_Command(le_event_mask=mask.to_bytes(8, "little")))
            await host.connect(address_of(1))
            assert [event.subevent_code for event in host.connected] == [code]
            assert host.connected[0].peer_address == hci.Address(address_of(1))


async def test_another_random_address_does_not_harm_the_connections_there_are() -> None:
    async with linked() as (host, _):
        handle = await host.connect(address_of(1))
        await host.command(hci.HCI_LE_Set_Random_Address_Command(random_address=hci.Address("3F:00:00:00:00:99")))
        host.send(handle, bytes.fromhex("0300 0400 02 f700"))  # ATT: exchange MTU
        await until(lambda: host.data, within_s=10.0)
        assert host.data[0][4] == 0x03, "its answer"


async def test_a_reset_ends_scan_and_connections() -> None:
    async with linked() as (host, radio):
        await host.connect(address_of(1))
        assert await host.command(hci.HCI_LE_Set_Scan_Enable_Command(le_scan_enable=1, filter_duplicates=0)) == 0
        scan = hci.HCI_LE_Set_Scan_Parameters_Command(
            le_scan_type=1, le_scan_interval=16, le_scan_window=16, own_address_type=1, scanning_filter_policy=0
        )
        assert await host.command(scan) == hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR, "while it scans"
        assert radio.connections
        assert await host.command(hci.HCI_Reset_Command()) == 0
        assert await host.command(scan) == 0
        await until(lambda: not radio.connections, within_s=10.0)


async def test_the_controller_has_a_public_address_as_a_dongle_has() -> None:
    async with linked() as (host, _):
        await host.command(hci.HCI_Read_BD_ADDR_Command())
        answers = [event for event in host.events if isinstance(event, hci.HCI_Command_Complete_Event)]
        assert answers[-1].return_parameters.bd_addr.to_string(with_type_qualifier=False) == BRIDGE


@pytest.mark.parametrize("who", ["hears nothing", "has given the link up"])
async def test_what_the_other_end_does_not_take_is_not_completed(who: str) -> None:
    """A link layer repeats what is not acknowledged: whoever counts completed packets loses none."""
    async with linked() as (host, radio):
        air, handle = host.air, await host.connect(address_of(1))
        queue = next(iter(radio.connections.values())).data_packet_queue
        assert queue is not None
        radio.send_l2cap_pdu(handle, 4, NOTIFICATION)
        await until(lambda: queue.completed == 1, within_s=10.0)
        air.silence(BRIDGE)
        if who == "has given the link up":
            disconnect = hci.HCI_Disconnect_Command(connection_handle=handle, reason=SUPERVISION_TIMEOUT)
            assert await host.command(disconnect) == 0
            air.hear(BRIDGE)
        radio.send_l2cap_pdu(handle, 4, NOTIFICATION)
        await asyncio.sleep(20 * FAST.connection_interval_ms / 1000)
        assert (queue.completed, queue.pending) == (1, 1)
        if who == "hears nothing":
            air.hear(BRIDGE)
            await until(lambda: queue.completed == 2, within_s=10.0)
        await until(lambda: len(host.data) == queue.completed, within_s=10.0)
