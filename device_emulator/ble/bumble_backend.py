"""A backend for bleak over Bumble: for the virtual air, or for a dongle that no operating system has claimed.

bleak takes backends through its public ``backend=`` argument; these get the radio that they share by one keyword more::

    async with Central.open("tcp-client:127.0.0.1:9001") as central:
        scanner = BleakScanner(found, backend=BumbleScanner, central=central)
        client = BleakClient(device, backend=BumbleClient, central=central)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

from bleak.args import SizedBuffer
from bleak.assigned_numbers import CharacteristicPropertyName
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient, NotifyCallback
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, AdvertisementDataCallback, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakError
from bumble import core, gatt_client, hci
from bumble.core import AdvertisingData
from bumble.device import Advertisement, Connection, Peer
from bumble.gatt import GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR, Characteristic

from device_emulator.ble.central import Central, translated

_T = TypeVar("_T")

MTU: Final = 247
"""Fills one link-layer packet with data length extension."""
PAIR_S: Final = 30.0
"""The Security Manager's own timeout (Bluetooth Core 5.4, Vol 3, Part H, 3.4)."""
END_S: Final = 10.0
"""A link to a device that has gone ends with its supervision timeout, which is below this on real controllers."""
_PROPERTIES: Final[dict[Characteristic.Properties, CharacteristicPropertyName]] = {
    Characteristic.Properties.BROADCAST: "broadcast",
    Characteristic.Properties.READ: "read",
    Characteristic.Properties.WRITE_WITHOUT_RESPONSE: "write-without-response",
    Characteristic.Properties.WRITE: "write",
    Characteristic.Properties.NOTIFY: "notify",
    Characteristic.Properties.INDICATE: "indicate",
    Characteristic.Properties.AUTHENTICATED_SIGNED_WRITES: "authenticated-signed-writes",
    Characteristic.Properties.EXTENDED_PROPERTIES: "extended-properties",
}
_SERVICE_LISTS: Final = (
    AdvertisingData.Type.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS,
    AdvertisingData.Type.INCOMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS,
    AdvertisingData.Type.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS,
    AdvertisingData.Type.INCOMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS,
)


class BumbleScanner(BaseBleakScanner):
    """See :class:`bleak.BleakScanner`; ``central`` is the radio."""

    def __init__(
        self,
        detection_callback: AdvertisementDataCallback | None,
        service_uuids: list[str] | None,
        _scanning_mode: str = "active",
        *,
        central: Central,
        **_: object,
    ) -> None:
        super().__init__(detection_callback, service_uuids)
        self._central = central

    async def start(self) -> None:
        """Begin."""
        self.seen_devices = {}
        await self._central.listen(self._found)

    async def stop(self) -> None:
        """End."""
        await self._central.deafen(self._found)

    def _found(self, advertisement: Advertisement) -> None:
        data = advertisement.data
        name = data.get(AdvertisingData.Type.COMPLETE_LOCAL_NAME) or data.get(AdvertisingData.Type.SHORTENED_LOCAL_NAME)
        address = advertisement.address.to_string(with_type_qualifier=False)
        heard = AdvertisementData(
            local_name=name,
            manufacturer_data={},
            service_data={},
            service_uuids=_services(advertisement),
            tx_power=None,
            rssi=advertisement.rssi,
            platform_data=(advertisement,),
        )
        if self.is_allowed_uuid(heard.service_uuids):
            device = self.create_or_update_device(address, address, heard.local_name, advertisement.address, heard)
            self.call_detection_callbacks(device, heard)


def _services(advertisement: Advertisement) -> list[str]:
    lists = (advertisement.data.get_all(kind) for kind in _SERVICE_LISTS)
    # Bumble joins an advertisement and its scan response, which may say the same.
    return list(dict.fromkeys(_text(uuid) for found in lists for uuids in found for uuid in uuids))


def _text(uuid: core.UUID) -> str:
    """The 128-bit form in lower case, as bleak has it."""
    raw = uuid.to_bytes(force_128=True)[::-1].hex()
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))


class BumbleClient(BaseBleakClient):
    """See :class:`bleak.BleakClient`; ``central`` is the radio."""

    def __init__(
        self,
        address_or_ble_device: BLEDevice | str,
        *,
        disconnected_callback: Callable[[], None] | None,
        timeout: float,
        central: Central,
        **_: object,
    ) -> None:
        super().__init__(address_or_ble_device, disconnected_callback=disconnected_callback, timeout=timeout)
        known = address_or_ble_device if isinstance(address_or_ble_device, BLEDevice) else None
        self._name = (known and known.name) or self.address
        # The scanner has seen whether it is a public address; of one that is typed in, most are random.
        self._peer_address: hci.Address = known.details if known else hci.Address(self.address)
        self._central = central
        self._connection: Connection | None = None
        self._peer: Peer | None = None
        self._subscribers: dict[int, Callable[[bytes], None]] = {}
        self._operations: set[asyncio.Future[Any]] = set()

    @property
    def name(self) -> str:
        """As advertised; the address where nothing was."""
        return self._name

    @property
    def mtu_size(self) -> int:
        """Of ATT; 23 before it is negotiated."""
        return 23 if self._connection is None else self._connection.att_mtu

    @property
    def is_connected(self) -> bool:
        """Until the stack knows better: a link that has gone silent counts as connected."""
        return self._connection is not None

    async def connect(self, pair: bool, **_: object) -> None:  # noqa: FBT001 - bleak's signature
        """Connect, ask for an MTU of 247, find out what the device has."""
        connection = await self._central.connect(self._peer_address, self._timeout)
        self._connection, self._peer = connection, Peer(connection)
        connection.on(connection.EVENT_DISCONNECTION, self._on_disconnection)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.disconnect)
            if pair:
                await self.pair()
            await self._on_link(self._peer.request_mtu(MTU))
            self.services = await self._on_link(self._discover(self._peer))
            undo.pop_all()

    async def disconnect(self) -> None:
        """Let go, if connected."""
        connection = self._connection
        self._forget()
        if connection is not None and not self._central.lost.is_set():
            connection.remove_listener(connection.EVENT_DISCONNECTION, self._on_disconnection)
            reason = hci.HCI_ErrorCode.REMOTE_USER_TERMINATED_CONNECTION_ERROR
            ending = self._central.device.disconnect(connection, reason)
            async with asyncio.timeout(END_S):
                await translated(ending)

    def _on_disconnection(self, *_: object) -> None:
        if self._connection is not None:
            self._forget()
            if self._disconnected_callback is not None:
                self._disconnected_callback()

    def _forget(self) -> None:
        self._connection = self._peer = None
        self._subscribers.clear()
        for operation in self._operations:
            operation.cancel()

    async def _on_link(self, operation: Awaitable[_T]) -> _T:
        """Await an operation that ends with the link.

        Bumble ends only the request that is on its way. The next one in the queue would go out to nobody and wait half
        a minute for an answer.
        """
        going_on = asyncio.ensure_future(operation)
        self._operations.add(going_on)
        going_on.add_done_callback(self._operations.discard)
        return await translated(going_on)

    async def pair(self, *_: object, **__: object) -> None:
        """Encrypt the link: with the bond's key, or by pairing anew (LE Secure Connections, kept)."""
        connection, _peer = self._live()
        if connection.is_encrypted:
            return
        keystore = self._central.device.keystore
        async with asyncio.timeout(PAIR_S):
            if keystore is not None and await keystore.get(str(connection.peer_address)) is not None:
                try:
                    await self._on_link(connection.encrypt())
                except BleakError:
                    await keystore.delete(str(connection.peer_address))  # the device has forgotten the bond
                    raise
            else:
                await self._on_link(connection.pair())

    async def unpair(self) -> None:
        """Forget the bond."""
        keystore = self._central.device.keystore
        if keystore is not None:
            await keystore.delete(str(self._peer_address))

    # -- values -------------------------------------------------------------------------------------------------------

    async def read_gatt_char(
        self,
        characteristic: BleakGATTCharacteristic,
        *,
        use_cached: bool = False,  # noqa: ARG002 - nothing is cached
        **_: object,
    ) -> bytearray:
        """Read a value."""
        self._live()
        proxy = cast("gatt_client.CharacteristicProxy[bytes]", characteristic.obj)
        return bytearray(await self._on_link(proxy.read_value()))

    async def read_gatt_descriptor(
        self,
        descriptor: BleakGATTDescriptor,
        *,
        use_cached: bool = False,  # noqa: ARG002 - nothing is cached
        **_: object,
    ) -> bytearray:
        """Read a descriptor."""
        self._live()
        proxy = cast("gatt_client.DescriptorProxy", descriptor.obj)
        return bytearray(await self._on_link(proxy.read_value()))

    async def write_gatt_char(
        self,
        characteristic: BleakGATTCharacteristic,
        data: SizedBuffer,
        response: bool,  # noqa: FBT001 - bleak's signature
    ) -> None:
        """Write a value."""
        self._live()
        proxy = cast("gatt_client.CharacteristicProxy[bytes]", characteristic.obj)
        await self._on_link(proxy.write_value(bytes(data), with_response=response))

    async def write_gatt_descriptor(self, descriptor: BleakGATTDescriptor, data: SizedBuffer) -> None:
        """Write a descriptor."""
        self._live()
        proxy = cast("gatt_client.DescriptorProxy", descriptor.obj)
        await self._on_link(proxy.write_value(bytes(data), with_response=True))

    async def start_notify(
        self, characteristic: BleakGATTCharacteristic, callback: NotifyCallback, **_: object
    ) -> None:
        """Subscribe; indications where there are no notifications."""
        self._live()

        def deliver(value: bytes) -> None:
            callback(bytearray(value))

        self._subscribers[characteristic.handle] = deliver
        proxy = cast("gatt_client.CharacteristicProxy[bytes]", characteristic.obj)
        await self._on_link(proxy.subscribe(deliver))

    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        """Unsubscribe; what was on its way before the device has been told is delivered."""
        self._live()
        proxy = cast("gatt_client.CharacteristicProxy[bytes]", characteristic.obj)
        # Bumble forgets the subscriber first and tells the device then, and would drop what comes in between.
        if switch := proxy.get_descriptor(GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR):
            await self._on_link(switch.write_value(bytes(2), with_response=True))
        await self._on_link(proxy.unsubscribe(self._subscribers.pop(characteristic.handle, None)))

    def _live(self) -> tuple[Connection, Peer]:
        if self._connection is None or self._peer is None:
            raise BleakError(f"{self.address} is not connected")
        return self._connection, self._peer

    async def _discover(self, peer: Peer) -> BleakGATTServiceCollection:
        found = BleakGATTServiceCollection()
        for theirs in await peer.discover_services():
            service = BleakGATTService(theirs, theirs.handle, _text(theirs.uuid))
            found.add_service(service)
            for proxy in await theirs.discover_characteristics():
                names = [name for flag, name in _PROPERTIES.items() if proxy.properties & flag]
                characteristic = BleakGATTCharacteristic(
                    proxy, proxy.handle, _text(proxy.uuid), names, lambda: self.mtu_size - 3, service
                )
                found.add_characteristic(characteristic)
                for inner in await proxy.discover_descriptors():
                    found.add_descriptor(BleakGATTDescriptor(inner, inner.handle, _text(inner.type), characteristic))
        return found
