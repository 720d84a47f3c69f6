"""A Bluetooth peripheral on the virtual air around the pure half of any emulated board, with somebody who wears it.

Boards run in real time. A bridge tells by arrivals when samples were taken and believes a device's rate within 5 %, so
twice the speed would be another device.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import numpy as np
from bumble.att import Attribute
from bumble.core import UUID, AdvertisingData
from bumble.device import Connection
from bumble.gatt import Characteristic, CharacteristicValue, Service

from device_emulator.ble.air import Air
from device_emulator.ble.profiles.base import BLUETOOTH_BASE
from device_emulator.synthetic import SyntheticSource
from quantization.imu import ACC, ACC_GYRO
from quantization.sensor import Sensor

START_S = 0.2
"""From the last change of what is asked of it until a board measures: of two sensors, none is ahead."""

_PROPERTIES = {
    "read": (Characteristic.Properties.READ, Attribute.Permissions.READABLE),
    "write": (Characteristic.Properties.WRITE, Attribute.Permissions.WRITEABLE),
    "write-without-response": (Characteristic.Properties.WRITE_WITHOUT_RESPONSE, Attribute.Permissions.WRITEABLE),
    "notify": (Characteristic.Properties.NOTIFY, Attribute.Permissions.READABLE),
    "indicate": (Characteristic.Properties.INDICATE, Attribute.Permissions.READABLE),
}
_PARTS = {
    "tug": Sensor.symmetric("fine ±16 g", ACC_GYRO, adc_bits=16, full_scale={"acc": 16.0, "gyro": 2000.0}),
    "wisdm": Sensor.symmetric("fine ±16 g", ACC, adc_bits=16, full_scale={"acc": 16.0}),
}


def advertisement(name: str, services: tuple[str, ...]) -> bytes:
    """What fits into 31 bytes does, as with real ones: Bluetooth's own services take two bytes each."""
    data: list[tuple[AdvertisingData.Type, bytes]] = [(AdvertisingData.Type.FLAGS, b"\x06")]
    short = [UUID.from_16_bits(int(uuid[:8], 16)) for uuid in services if uuid.endswith(BLUETOOTH_BASE)]
    long = [UUID(uuid) for uuid in services if not uuid.endswith(BLUETOOTH_BASE)]
    if short:
        data.append((AdvertisingData.Type.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS, b"".join(map(bytes, short))))
    if long:
        data.append((AdvertisingData.Type.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS, b"".join(map(bytes, long))))
    data.append((AdvertisingData.Type.COMPLETE_LOCAL_NAME, name.encode()))
    packed = bytes(AdvertisingData(data))
    assert len(packed) <= 31, f"{name}: {len(packed)} bytes"
    return packed


class BoardPeripheral:
    """One board with somebody who wears it.

    Args:
        board: see ``emulated_boards.Board``.
        air: where it is.
        address: its own.
        wearer: "tug" has six channels, "wisdm" three.
        seed: of the wearer.

    Attributes:
        stretches: when each one in which it measured began, on the loop's clock.
        rate_hz: of the last stretch.
        values: ``[n, C]`` g and °/s of that stretch.
        labels: what the wearer did, a name for each of them; "" = in between.
        connections: so far.
    """

    def __init__(self, board: Any, air: Air, address: str, *, wearer: str = "tug", seed: int = 0) -> None:
        self.board = board
        self.address = address
        self.name, services = board.advertised
        self.stretches: list[float] = []
        self.rate_hz = 0.0
        self.values = np.empty((0, len(_PARTS[wearer].channels)))
        self.labels: list[str] = []
        self.connections = 0
        self._wearer, self._seed = wearer, seed
        self._radio = air.host(self.name, address)
        self._connection: Connection | None = None
        self._subscribed: set[str] = set()
        self._changed_s = 0.0
        self._characteristics: dict[str, Characteristic[bytes]] = {}
        self._radio.add_services(
            [
                Service(UUID(service), [self._characteristic(uuid, properties) for uuid, properties in inner.items()])
                for service, inner in board.services.items()
            ]
        )
        self._radio.advertising_data = advertisement(self.name, services)
        self._radio.on("connection", self._on_connection)

    async def run(self) -> None:
        """Advertise; measure and send while asked to."""
        await self._radio.power_on()
        await self._radio.start_advertising(auto_restart=True)
        try:
            while True:
                await asyncio.sleep(0.01)
                if self._streaming():
                    await self._measure()
        finally:
            with contextlib.suppress(TimeoutError):  # a controller that has gone cannot be switched off
                async with asyncio.timeout(2):
                    await self._radio.power_off()

    def _streaming(self) -> bool:
        quiet_s = asyncio.get_running_loop().time() - self._changed_s
        return self._connection is not None and self._asked() and quiet_s >= START_S

    def _asked(self) -> bool:
        notifying = {
            uuid
            for inner in self.board.services.values()
            for uuid, properties in inner.items()
            if properties & {"notify", "indicate"}
        }
        return self._subscribed == notifying and self.board.streaming

    async def _measure(self) -> None:
        """One stretch: each sample is taken when its time has come."""
        loop = asyncio.get_running_loop()
        rate_hz, connection = float(self.board.rate_hz), self._connection
        # A wearer does not stand still while nobody asks: every stretch is another one of his.
        source = SyntheticSource(
            _PARTS[self._wearer], rate_hz=rate_hz, seed=self._seed + 100 * self.connections, wearer=self._wearer
        )
        self.rate_hz, self.values, self.labels = rate_hz, self.values[:0], []
        started = loop.time()
        self.stretches.append(started)
        while self._connection is connection and self._asked() and self.board.rate_hz == rate_hz:
            due = int((loop.time() - started) * rate_hz) + 1 - len(self.values)
            if due > 0:
                block = source.read(due)
                values = source.sensor.to_physical(block.counts)
                self.values = np.concatenate([self.values, values])
                self.labels += [source.labels[label] if label >= 0 else "" for label in block.label]
                for characteristic, data in self.board.encode(values):
                    await self._send(characteristic, data)
            await asyncio.sleep(max(0.0, started + len(self.values) / rate_hz - loop.time()))

    async def _send(self, characteristic: str, data: bytes) -> None:
        if self._connection is None:
            return
        attribute = self._characteristics[characteristic]
        if attribute.properties & Characteristic.Properties.INDICATE:
            await self._radio.indicate_subscriber(self._connection, attribute, data)
        else:
            assert len(data) <= self._connection.att_mtu - 3, f"{len(data)} bytes are cut"
            await self._radio.notify_subscriber(self._connection, attribute, data)

    # -- GATT ---------------------------------------------------------------------------------------------------------

    def _characteristic(self, uuid: str, properties: set[str]) -> Characteristic[bytes]:
        flags, permissions = Characteristic.Properties(0), Attribute.Permissions(0)
        for name in properties:
            flags, permissions = flags | _PROPERTIES[name][0], permissions | _PROPERTIES[name][1]

        def read(_: Connection) -> bytes:
            return bytes(self.board.on_read(uuid))

        def write(_: Connection, data: bytes) -> None:
            self._changed_s = asyncio.get_running_loop().time()
            for answer in self.board.on_write(uuid, data):
                asyncio.get_running_loop().create_task(self._send(*answer))

        made: Characteristic[bytes] = Characteristic(
            UUID(uuid), flags, permissions, CharacteristicValue(read=read, write=write)
        )

        def subscribed(_: object, notify: bool, indicate: bool) -> None:
            self._changed_s = asyncio.get_running_loop().time()
            (self._subscribed.add if notify or indicate else self._subscribed.discard)(uuid)

        made.on(Characteristic.EVENT_SUBSCRIPTION, subscribed)
        self._characteristics[uuid] = made
        return made

    def _on_connection(self, connection: Connection) -> None:
        self._connection = connection
        self.connections += 1
        connection.on(connection.EVENT_DISCONNECTION, self._on_disconnection)

    def _on_disconnection(self, _: int) -> None:
        self._connection = None
        self._subscribed.clear()
