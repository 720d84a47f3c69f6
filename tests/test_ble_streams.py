"""What comes from a device of our own profile, in an order that real radios make now and then."""

from __future__ import annotations

import asyncio

from device_emulator.ble import gatt
from device_emulator.ble.gatt import State
from device_emulator.ble.streams import PacketStream

OFF = bytes([State.SWITCHED_OFF])


class Overtaken:
    """A client whose answer to a read is handed over after what the device has notified of since."""

    def __init__(self, stream: PacketStream) -> None:
        self._stream = stream

    async def read_gatt_char(self, characteristic: str) -> bytes:
        assert characteristic == gatt.STATE
        self._stream.feed(gatt.STATE, OFF)
        await asyncio.sleep(0)
        return bytes([State.STREAMING])


async def test_a_state_that_is_notified_of_during_a_read_is_newer() -> None:
    stream = PacketStream("w1", publish=lambda _: None, changed=lambda: None)
    await stream.ask(Overtaken(stream))  # type: ignore[arg-type]
    assert stream.error == "switched_off"
