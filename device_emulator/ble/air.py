"""A virtual radio: Bluetooth controllers on one link, in one process or open to others over HCI.

The stack above it is Bumble's, the same that drives real dongles; only the controllers are virtual. What Bumble's
virtual controllers leave out is added here, because a bridge has to live with it: data goes out at connection events
and not at once, a controller takes only so many packets before it makes its host wait, a connection to nobody can be
given up, and a link can fade, break or fall silent.

A controller for another process (a bridge under test) waits on a TCP port and speaks HCI there: ``tcp-client:`` is one
of Bumble's transports.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from dataclasses import dataclass
from typing import Final

from bumble import hci, ll
from bumble.controller import Connection, Controller
from bumble.core import PhysicalTransport
from bumble.device import Device as BluetoothDevice
from bumble.link import LocalLink
from bumble.transport.common import AsyncPipeSink, StreamPacketSource

from quantization.errors import ConnectError

SUPERVISION_TIMEOUT: Final = 0x08
"""The reason for which both sides lose a connection that has faded (Bluetooth Core 5.4, Vol 1, Part F, 1.3)."""
BUFFERS: Final = 8
"""ACL packets that a controller takes from its host before it makes it wait; nRF52 controllers have 3 to 10."""
CLOSE_S: Final = 1.0
"""For hosts in other processes to be let go."""
_ATT_CID: Final = 4
_ENHANCED_CONNECTION_COMPLETE: Final = 1 << 9
"""Of the LE event mask (Bluetooth Core 5.4, Vol 4, Part E, 7.8.1)."""
_NOTIFICATION: Final = 0x1B


@dataclass(frozen=True)
class AirSettings:
    """How the radio behaves.

    Args:
        connection_interval_ms: data goes out at multiples of it.
        packets_per_event: link-layer packets that one connection event has room for, each way.
        supervision_s: after so long out of range both sides lose the connection.
        loss: share of notifications that vanish. A radio repeats what is not acknowledged, so this stands for what is
            lost above it, such as a full queue.
        seed: two airs with one seed lose the same notifications.
    """

    connection_interval_ms: float = 15.0
    packets_per_event: int = 4
    supervision_s: float = 4.0
    loss: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.connection_interval_ms <= 0 or self.packets_per_event < 1 or not 0 <= self.loss <= 1:
            raise ValueError(f"no radio behaves like that: {self}")


class Air:
    """What the controllers share.

    Args:
        settings: how it behaves.

    Attributes:
        lost: notifications that have vanished.
    """

    def __init__(self, settings: AirSettings | None = None) -> None:
        self.settings: Final = settings or AirSettings()
        self.lost = 0
        self._link = _Link()  # type: ignore[no-untyped-call]
        self._random = random.Random(self.settings.seed)  # noqa: S311 - faults, not secrets
        self._controllers: dict[str, _AirController] = {}
        self._servers: list[asyncio.Server] = []
        self._carrying: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._fading: dict[str, asyncio.TimerHandle] = {}
        self._mourning: list[asyncio.TimerHandle] = []

    # -- who is on it -------------------------------------------------------------------------------------------------

    def host(self, name: str, address: str) -> BluetoothDevice:
        """A Bluetooth device of this process, not powered on yet.

        One that has had the address until now is gone as if its battery had been pulled: its peers learn of it when
        the supervision time is over.

        Args:
            name: for logs.
            address: random static: the two highest bits are set, as in ``"C0:00:00:00:00:01"``.
        """
        controller = self._controller(name, address)
        device: BluetoothDevice = BluetoothDevice.with_hci(
            name, hci.Address(address), controller, AsyncPipeSink(controller)
        )
        return device

    async def serve(self, name: str, address: str, *, port: int = 0, host: str = "127.0.0.1") -> int:
        """Open a bare controller to one other process at a time.

        Returns:
            The TCP port: the other process uses the transport ``tcp-client:127.0.0.1:PORT``.

        Raises:
            ConnectError: the port is taken.
        """
        controller = self._controller(name, address)
        # A dongle has a public address, too, and Linux connects from that.
        controller.public_address = hci.Address(address, hci.Address.PUBLIC_DEVICE_ADDRESS)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - asyncio makes one for each connection
            self._carrying[task] = writer
            try:
                await _carry_hci(controller, reader, writer)
            finally:
                del self._carrying[task]

        try:
            server = await asyncio.start_server(carry, host, port)
        except OSError as error:
            raise ConnectError(f"the virtual radio cannot listen on {host}:{port}: {error.strerror}") from error
        self._servers.append(server)
        taken: int = server.sockets[0].getsockname()[1]
        return taken

    async def close(self) -> None:
        """Stop listening, let hosts in other processes go, and stop all timers."""
        for timer in (*self._fading.values(), *self._mourning):
            timer.cancel()
        for server in self._servers:
            server.close()
        for controller in self._controllers.values():
            controller.close()
        for writer in self._carrying.values():
            writer.close()
        if self._carrying:
            await asyncio.wait(self._carrying, timeout=CLOSE_S)

    def _controller(self, name: str, address: str) -> _AirController:
        if (old := self._controllers.get(address)) is not None:
            self._pull_battery(address, old)
        controller = _AirController(self, name, self._link)
        controller.random_address = hci.Address(address)
        self._controllers[address] = controller
        return controller

    # -- faults -------------------------------------------------------------------------------------------------------

    def drop(self, address: str) -> None:
        """Both sides of the device's connections learn now that the link is gone."""
        controller = self._controllers[address]
        for connection in list(controller.le_connections.values()):
            self._lose_at_peer(connection)
            controller.on_le_disconnected(connection, SUPERVISION_TIMEOUT)

    def silence(self, address: str) -> None:
        """Nothing passes to or from the device any more, and nobody is told: a link as a hung controller leaves it."""
        self._controllers[address].silent = True

    def fade(self, address: str) -> None:
        """The device goes out of range: silence, and the end of its connections when the supervision time is over."""
        self.silence(address)
        self._fading[address] = asyncio.get_running_loop().call_later(self.settings.supervision_s, self.drop, address)

    def hear(self, address: str) -> None:
        """The device is in range again; connections that its peers have given up meanwhile have ended for it, too."""
        controller = self._controllers[address]
        controller.silent = False
        if timer := self._fading.pop(address, None):
            timer.cancel()
        for connection in list(controller.le_connections.values()):
            if self._mirror(connection) is None:
                controller.on_le_disconnected(connection, SUPERVISION_TIMEOUT)

    def _mirror(self, connection: Connection) -> tuple[_AirController, Connection] | None:
        """The other end of a connection, if it still has it."""
        peer = self._link.find_le_controller(connection.peer_address)
        other = None if peer is None else peer.le_connections.get(connection.self_address)
        return (peer, other) if isinstance(peer, _AirController) and other is not None else None

    def _lose_at_peer(self, connection: Connection) -> None:
        if mirror := self._mirror(connection):
            peer, other = mirror
            peer.on_le_disconnected(other, SUPERVISION_TIMEOUT)

    def _pull_battery(self, address: str, controller: _AirController) -> None:
        if timer := self._fading.pop(address, None):
            timer.cancel()
        loop = asyncio.get_running_loop()
        for mirror in map(self._mirror, controller.le_connections.values()):
            if mirror is not None:
                peer, other = mirror
                lose = peer.on_le_disconnected
                self._mourning.append(loop.call_later(self.settings.supervision_s, lose, other, SUPERVISION_TIMEOUT))
        controller.close()
        controller.silent = True
        controller.le_connections.clear()
        self._link.remove_controller(controller)

    def reaches(self, controller: _AirController, connection: Connection) -> bool:
        """Whether what goes out on this connection is acknowledged: the other end hears it, and has not given it up."""
        mirror = self._mirror(connection)
        return mirror is not None and not controller.silent and not mirror[0].silent

    def swallows(self, pdu: bytes) -> bool:
        """Whether this L2CAP packet is one of the notifications that vanish."""
        if self.settings.loss == 0 or not _is_notification(pdu):
            return False
        gone = self._random.random() < self.settings.loss
        self.lost += gone
        return gone


class _Link(LocalLink):
    """Tells nobody of a peer that has gone: a controller on the air has no way to know."""

    def send_acl_data(
        self, sender_controller: Controller, destination_address: hci.Address, transport: PhysicalTransport, data: bytes
    ) -> None:
        """At once: the sender counts as delivered what it has sent, so nothing may come in between.

        From the address that the connection was made with: Linux sets another one for each scan.
        """
        connection = sender_controller.le_connections.get(destination_address)
        receiver = self.find_le_controller(destination_address)
        if connection is not None and receiver is not None:
            receiver.on_link_acl_data(connection.self_address, transport, data)

    def send_ll_control_pdu(
        self, sender_address: hci.Address, receiver_address: hci.Address, packet: ll.ControlPdu
    ) -> None:
        receiver = self.find_le_controller(receiver_address)
        sender = self.find_le_controller(sender_address)
        if receiver is None or any(isinstance(c, _AirController) and c.silent for c in (receiver, sender)):
            return
        super().send_ll_control_pdu(sender_address, receiver_address, packet)


class _AirController(Controller):
    """A virtual controller that keeps to connection events.

    Attributes:
        silent: nothing goes out or comes in.
    """

    le_acl_data_packet_length = 251  # with data length extension a notification is one packet
    total_num_le_acl_data_packets = BUFFERS

    def __init__(self, air: Air, name: str, link: LocalLink) -> None:
        super().__init__(name, link=link)
        self.silent = False
        self._air = air
        self._waiting: dict[int, deque[hci.HCI_AclDataPacket]] = {}
        self._events: dict[int, asyncio.TimerHandle] = {}

    # -- data, at connection events -----------------------------------------------------------------------------------

    def on_hci_acl_data_packet(self, packet: hci.HCI_AclDataPacket) -> None:
        """From the host: to the next connection event."""
        handle = packet.connection_handle
        if self.find_le_connection_by_handle(handle) is None:
            return  # it has gone while this was on its way
        self._waiting.setdefault(handle, deque()).append(packet)
        if handle not in self._events:
            self._await_event(handle)

    def _await_event(self, handle: int) -> None:
        interval = self._air.settings.connection_interval_ms / 1000
        loop = asyncio.get_running_loop()
        # Connections of one controller take turns within the interval, as on a real radio.
        phase = interval * (handle % 16) / 16
        at = (math.floor((loop.time() - phase) / interval) + 1) * interval + phase
        self._events[handle] = loop.call_at(at, self._event, handle)

    def _event(self, handle: int) -> None:
        del self._events[handle]
        connection = self.find_le_connection_by_handle(handle)
        waiting = self._waiting[handle]
        if connection is None:
            waiting.clear()
            return
        if self._air.reaches(self, connection):  # else nothing is completed: the host waits, and its queue fills
            for _ in range(min(self._air.settings.packets_per_event, len(waiting))):
                self._send(connection, waiting.popleft())
        if waiting:
            self._await_event(handle)

    def _send(self, connection: Connection, packet: hci.HCI_AclDataPacket) -> None:
        if self._air.swallows(packet.data):
            completed = hci.HCI_Number_Of_Completed_Packets_Event(
                connection_handles=[connection.handle], num_completed_packets=[1]
            )
            self.send_hci_packet(completed)
            return
        connection.on_hci_acl_data_packet(packet)

    def on_le_disconnected(self, connection: Connection, reason: int) -> None:
        """The connection's end; twice is once."""
        if self.le_connections.get(connection.peer_address) is connection:
            self._waiting.pop(connection.handle, None)
            if timer := self._events.pop(connection.handle, None):
                timer.cancel()
            super().on_le_disconnected(connection, reason)

    # -- advertising and connecting -----------------------------------------------------------------------------------

    def send_hci_packet(self, packet: hci.HCI_Packet) -> None:
        """To the host. Bumble's controller tells of a connection by the older of two events only.

        A host that has asked for the newer one gets that instead (Vol 4, Part E, 7.7.65.10): Linux waits for it.
        """
        wants_newer = self.le_event_mask & _ENHANCED_CONNECTION_COMPLETE
        if isinstance(packet, hci.HCI_LE_Connection_Complete_Event) and wants_newer:
            packet = _enhanced(packet)
        super().send_hci_packet(packet)

    def send_advertising_pdu(self, packet: ll.AdvertisingPdu) -> None:
        """Out of range, nobody hears it."""
        if not self.silent:
            super().send_advertising_pdu(packet)

    def on_ll_advertising_pdu(self, packet: ll.AdvertisingPdu) -> None:
        """Out of range, it hears nobody."""
        if not self.silent:
            super().on_ll_advertising_pdu(packet)

    def on_hci_le_create_connection_cancel_command(
        self, command: hci.HCI_LE_Create_Connection_Cancel_Command
    ) -> hci.HCI_StatusReturnParameters:
        """Give up a connection that nobody has answered: Bumble's controller would keep on trying.

        The host learns of it by a connection that failed (Bluetooth Core 5.4, Vol 4, Part E, 7.8.13).
        """
        pending = self.pending_le_connection
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        self.pending_le_connection = None
        failed = hci.HCI_LE_Connection_Complete_Event(
            status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
            connection_handle=0,
            role=hci.Role.CENTRAL,
            peer_address_type=pending.peer_address_type,
            peer_address=pending.peer_address,
            connection_interval=0,
            peripheral_latency=0,
            supervision_timeout=0,
            central_clock_accuracy=0,
        )
        asyncio.get_running_loop().call_soon(self.send_hci_packet, failed)
        return super().on_hci_le_create_connection_cancel_command(command)

    def on_hci_reset_command(self, command: hci.HCI_Reset_Command) -> hci.HCI_StatusReturnParameters:
        """A controller that is reset neither scans nor has connections; Bumble's would go on."""
        self.forget()
        return super().on_hci_reset_command(command)

    def forget(self) -> None:
        """The host has gone: so have its connections, and what it wanted."""
        self.pending_le_connection = None
        self.le_scan_enable = False
        for connection in list(self.le_connections.values()):
            connection.send_ll_control_pdu(ll.TerminateInd(SUPERVISION_TIMEOUT))
            self.on_le_disconnected(connection, SUPERVISION_TIMEOUT)

    def close(self) -> None:
        """Stop all timers."""
        self.le_legacy_advertiser.stop()
        for advertising in self.advertising_sets.values():
            advertising.stop()
        for timer in self._events.values():
            timer.cancel()


def _enhanced(old: hci.HCI_LE_Connection_Complete_Event) -> hci.HCI_LE_Enhanced_Connection_Complete_Event:
    """The same in the newer form; nobody here has a resolvable address."""
    return hci.HCI_LE_Enhanced_Connection_Complete_Event(
        status=old.status,
        connection_handle=old.connection_handle,
        role=old.role,
        peer_address_type=old.peer_address_type,
        peer_address=old.peer_address,
        local_resolvable_private_address=hci.Address.ANY_RANDOM,
        peer_resolvable_private_address=hci.Address.ANY_RANDOM,
        connection_interval=old.connection_interval,
        peripheral_latency=old.peripheral_latency,
        supervision_timeout=old.supervision_timeout,
        central_clock_accuracy=old.central_clock_accuracy,
    )


class _HciWriter:
    """Gives a host in another process what its controller says."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def on_packet(self, packet: bytes) -> None:
        self._writer.write(packet)


async def _carry_hci(controller: _AirController, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if controller.host is not None:
        writer.close()  # a controller has one host
        return
    source = StreamPacketSource()  # a new one: the last host may have left in the middle of a packet
    source.set_packet_sink(controller)
    controller.host = _HciWriter(writer)
    try:
        while data := await reader.read(4096):
            source.data_received(data)
    except ConnectionError:
        pass
    finally:
        controller.host = None
        controller.forget()
        writer.close()


def _is_notification(pdu: bytes) -> bool:
    """Of an L2CAP basic frame: length u16, channel u16, and ATT's opcode (Vol 3, Part A, 3.1; Part F, 3.4.7.1)."""
    return len(pdu) > 4 and int.from_bytes(pdu[2:4], "little") == _ATT_CID and pdu[4] == _NOTIFICATION
