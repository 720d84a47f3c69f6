"""One Bluetooth radio in the central's role, over Bumble: what scanner and clients of one process share."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Self, TypeVar

from bleak.exc import BleakDeviceNotFoundError, BleakError
from bumble import att, core, hci
from bumble.device import Advertisement, Connection, Device
from bumble.keys import JsonKeyStore, MemoryKeyStore
from bumble.pairing import PairingConfig
from bumble.transport import open_transport
from bumble.transport.common import Transport

from quantization.errors import ConnectError

ADDRESS: Final = "F0:67:61:6D:6D:61"
"""Random static: for a controller that has no address of its own."""
OPEN_S: Final = 10.0
"""A controller that has not answered by then does not."""
ANSWER_S: Final = 5.0
"""A device that is near, and advertises every two seconds or more often, has taken a connection by then. Whoever else
wants one waits so long for a device that is not there."""
COMMAND_S: Final = 4.0
"""Controllers answer commands within milliseconds: one that has not by then has hung."""

_APPLICATION_ERROR: Final = 0x80
"""From here on up a profile says what an error means (Bluetooth Core 5.4, Vol 3, Part F, 3.4.1.1)."""

_T = TypeVar("_T")


async def translated(operation: Awaitable[_T]) -> _T:
    """Await one of Bumble's operations; what it raises comes out as :class:`bleak.exc.BleakError`.

    Bumble cancels what waits when a link or a controller goes; unless we have been cancelled ourselves, that is an
    error like any other. If we are, the operation goes on to its end without us: the answer to a request that is given
    up would be taken for the next one's, and Bumble's ``asyncio.wait_for`` swallows a cancellation that comes together
    with an answer (Python before 3.12).
    """
    task = asyncio.current_task()
    cancelled_before = 0 if task is None else task.cancelling()
    going_on = asyncio.ensure_future(operation)
    going_on.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio complains of ours
    try:
        return await asyncio.shield(going_on)
    except asyncio.CancelledError as error:
        if not going_on.cancelled() or (task is not None and task.cancelling() > cancelled_before):
            raise
        raise BleakError("the connection is gone") from error
    except att.ATT_Error as error:
        name = "" if error.error_code >= _APPLICATION_ERROR else f", {error.error_name}"
        raise BleakError(f"the device refuses: ATT error 0x{error.error_code:02X}{name}") from error
    except (core.BaseBumbleError, OSError, ValueError, LookupError, struct.error, asyncio.InvalidStateError) as error:
        # Beside Bumble's own errors what its parsers raise where a device answers with nonsense.
        raise BleakError(str(error) or type(error).__name__) from error


@contextlib.asynccontextmanager
async def open_controller(spec: str) -> AsyncIterator[Transport]:
    """Open one of Bumble's transports, such as ``tcp-client:127.0.0.1:9001`` or ``usb:0``; it is closed at the end.

    Raises:
        ConnectError: there is no such controller.
    """
    try:
        async with asyncio.timeout(OPEN_S):
            transport = await open_transport(spec)
    except Exception as error:  # each kind raises its libraries' own: usb1.USBError, ModuleNotFoundError, Exception
        raise ConnectError(f"no Bluetooth controller at {spec}: {str(error) or type(error).__name__}") from error
    try:
        yield transport
    finally:
        await transport.close()


async def start_radio(spec: str, starting: Awaitable[None]) -> None:
    """Await what switches a radio on.

    Raises:
        ConnectError: the controller does not answer.
    """
    try:
        async with asyncio.timeout(OPEN_S):
            await translated(starting)
    except (TimeoutError, BleakError) as error:
        why = f": {error}" if str(error) else ""
        raise ConnectError(f"the Bluetooth controller at {spec} does not answer{why}") from error


def _bonds_in(file: str) -> JsonKeyStore:
    return JsonKeyStore("gammawear", file)


async def _check_bonds(file: str) -> None:
    """Read all of them: Bumble would do so while the radio starts, and then it is the controller's fault.

    Raises:
        ConnectError: the file is damaged, or not ours to read.
    """
    try:
        await _bonds_in(file).get_all()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConnectError(
            f"the bonds in {file} cannot be read: {error}; without that file, devices pair anew"
        ) from error


def pairing(_: Connection) -> PairingConfig:
    """LE Secure Connections, bonded, without a display.

    Our radios connect from their random address, so a bond is kept under that. Bumble would give the other side a
    dongle's public address for it, and the bond would not be found the next time.
    """
    return PairingConfig(sc=True, mitm=False, bonding=True, identity_address_type=PairingConfig.AddressType.RANDOM)


class Central:
    """One radio in the central's role.

    Args:
        transport: an HCI transport that is open.
        address: our own, random static, for a controller that has none.
        bonds: file of the bonds that are kept; None keeps them as long as this object.

    Attributes:
        device: Bumble's host stack.
        lost: set once the controller has gone: a dongle unplugged, a process ended, a firmware that has hung.
    """

    def __init__(self, transport: Transport, *, address: str = ADDRESS, bonds: str | None = None) -> None:
        self._transport = transport
        self.device: Final[Device] = Device.with_hci(
            "gammawear bridge", hci.Address(address), transport.source, transport.sink
        )
        self.device.keystore = MemoryKeyStore() if bonds is None else _bonds_in(bonds)
        self.device.pairing_config_factory = pairing
        self.lost: Final = asyncio.Event()
        self._connecting = asyncio.Lock()
        self._scanners: set[Callable[[Advertisement], None]] = set()
        self.device.on("advertisement", self._on_advertisement)
        self.device.host.on("flush", self.lost.set)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, spec: str, *, address: str = ADDRESS, bonds: str | None = None) -> AsyncIterator[Self]:
        """Open a transport and start the radio; it is closed at the end.

        Args:
            spec: one of Bumble's transports, such as ``tcp-client:127.0.0.1:9001`` or ``usb:0``.
            address: see the class.
            bonds: see the class.

        Raises:
            ConnectError: there is no such controller, it does not answer, or the bonds cannot be read.
        """
        async with open_controller(spec) as transport:
            central = cls(transport, address=address, bonds=bonds)
            if bonds is not None:
                await _check_bonds(bonds)
            await start_radio(spec, central.device.power_on())
            yield central

    def _on_advertisement(self, advertisement: Advertisement) -> None:
        for found in tuple(self._scanners):
            found(advertisement)

    async def listen(self, found: Callable[[Advertisement], None]) -> None:
        """Report what is heard; the first listener starts the radio's scan."""
        self._scanners.add(found)
        if not self.device.is_scanning:
            await self.answered(self.device.start_scanning(filter_duplicates=False))

    async def deafen(self, found: Callable[[Advertisement], None]) -> None:
        """Report no more; the last listener ends the scan."""
        self._scanners.discard(found)
        if not self._scanners and self.device.is_scanning and not self.lost.is_set():
            await self.answered(self.device.stop_scanning())

    async def answered(self, command: Awaitable[_T]) -> _T:
        """Await what takes a controller no time: one that does not answer has hung, and counts as lost.

        Raises:
            BleakError: refused, or the controller has gone.
        """
        try:
            async with asyncio.timeout(COMMAND_S):
                return await translated(command)
        except TimeoutError:
            self.lost.set()
            raise BleakError(f"the Bluetooth controller has not answered for {COMMAND_S:g} s") from None

    async def connect(self, address: hci.Address, seconds: float) -> Connection:
        """Connect to a device: one after the other, as a controller has one connection in the making.

        Args:
            address: with its type.
            seconds: to wait for its answer, from when it is its turn; at most :data:`ANSWER_S`.

        Raises:
            BleakDeviceNotFoundError: it did not answer in time.
            BleakError: anything else.
        """
        async with self._connecting:
            if self.lost.is_set():
                raise BleakError("the Bluetooth controller has gone")
            seconds = min(seconds, ANSWER_S)
            connecting = asyncio.ensure_future(self.device.connect_le(address, timeout=None))
            try:
                async with asyncio.timeout(seconds):
                    connection = await translated(connecting)
            except BaseException as error:
                # Whoever gives up, by time or cancelled: the controller would go on trying, and take no other.
                await asyncio.shield(asyncio.ensure_future(self._give_up(connecting)))
                if not isinstance(error, TimeoutError):
                    raise
                text = address.to_string(with_type_qualifier=False)
                raise BleakDeviceNotFoundError(text, f"{text} did not answer within {seconds:g} s") from None
        if self.device.connections.get(connection.handle) is not connection:
            raise BleakError("the connection failed to be established")  # 0x3E: lost before its first packet
        return connection

    async def _give_up(self, connecting: asyncio.Future[Connection]) -> None:
        """Make the controller stop trying. A connection that comes just then belongs to nobody: end it."""
        with contextlib.suppress(BleakError):
            if not connecting.done():
                await self.answered(self.device.host.send_command(hci.HCI_LE_Create_Connection_Cancel_Command()))
            late = await self.answered(connecting)
            await self.answered(late.disconnect())
