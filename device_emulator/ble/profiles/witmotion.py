"""WitMotion WT901BLE and its relatives (WT901BLECL, BWT901BLE).

Published in WitMotion's "Bluetooth 5.0 communication protocol" (wit-motion.gitbook.io) and the WT901BLECL datasheet,
chapter 6. UUIDs are ``0000xxxx-0000-1000-8000-00805F9A34FB``: **9A**, where Bluetooth's own base has 9B. Everything is
little-endian.

===== =============== ===========================================================
xxxx  what            value
===== =============== ===========================================================
FFE5  service
FFE4  data (notify)   a stream of frames
FFE9  commands        ``FF AA``, register u8, value u16
===== =============== ===========================================================

A frame has 20 bytes and no checksum:

====== ======= ================================================================
offset type    what
====== ======= ================================================================
0      u8      0x55
1      u8      0x61 a sample, 0x71 registers that were asked for
2      i16 x 3 acceleration x y z, 16 / 32768 g
8      i16 x 3 rotation x y z, 2000 / 32768 °/s
14     i16 x 3 roll, pitch, yaw (not used here)
====== ======= ================================================================

Samples come without being asked for, at 10 Hz from the factory. Register 0x03 is the rate; ``FF AA 69 88 B5`` unlocks
the registers for ten seconds. It is not saved: the next time it is switched on it is as it was.

A notification may hold a part of a frame, or several. A frame after which no other begins is not believed; from there
on the next header is looked for. Since a sample may hold those two bytes too, a header found that way counts only once
another one stands 20 bytes further.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from device_emulator.ble.profiles.base import Samples, Seen, Write
from device_emulator.ble.profiles.support import check_characteristic, pick_range, pick_rate
from quantization.errors import ProfileError
from quantization.imu import ACC_GYRO
from quantization.sensor import Sensor


def witmotion_uuid(number: int) -> str:
    """The 128-bit UUID of one of WitMotion's services or characteristics: not on Bluetooth's base."""
    return f"0000{number:04x}-0000-1000-8000-00805f9a34fb"


SERVICE: Final = witmotion_uuid(0xFFE5)
DATA: Final = witmotion_uuid(0xFFE4)
COMMANDS: Final = witmotion_uuid(0xFFE9)
NAMES: Final = ("WT901", "BWT901")

UNLOCK: Final = bytes.fromhex("ffaa6988b5")
RATE_REGISTER: Final = 0x03
RATE_CODES: Final = {1.0: 0x03, 2.0: 0x04, 5.0: 0x05, 10.0: 0x06, 20.0: 0x07, 50.0: 0x08}
"""What every model has; some go up to 200 Hz."""

SAMPLE: Final = 0x61
FRAME_BYTES: Final = 20
ROW: Final = struct.Struct("<6h")
ROW_AT: Final = 2

ACC_FULL_SCALE_G: Final = 16.0
GYRO_FULL_SCALE_DPS: Final = 2000.0


class WitMotionSession:
    """One connection; holds at most one incomplete frame and the header after it.

    Args:
        sensor: the part.
        rate_hz: one of :data:`RATE_CODES`.
    """

    notify: Final = (DATA,)
    stop: Final[tuple[Write, ...]] = ()

    def __init__(self, sensor: Sensor, rate_hz: float) -> None:
        self.sensor = sensor
        self.rate_hz = rate_hz
        rate = bytes([0xFF, 0xAA, RATE_REGISTER, RATE_CODES[rate_hz], 0])
        self.start = (Write(COMMANDS, UNLOCK, response=False), Write(COMMANDS, rate, response=False))
        self._held = b""
        self._aligned = True

    def feed(self, characteristic: str, data: bytes) -> list[Samples]:
        """Frames that are complete, in one block, or in two and more where bytes had to be skipped between them.

        Raises:
            ProfileError: ``characteristic`` another one; ``synchronisation`` bytes were skipped and no frame was found.
        """
        check_characteristic(WITMOTION.title, DATA, characteristic)
        self._held += data
        blocks: list[list[tuple[int, ...]]] = [[]]
        skipped = 0
        while True:
            lost = self._align()
            if lost:
                skipped += lost
                blocks.append([])
            if not self._aligned or len(self._held) < FRAME_BYTES:
                break
            if self._held[1] == SAMPLE:
                blocks[-1].append(ROW.unpack_from(self._held, ROW_AT))
            self._held = self._held[FRAME_BYTES:]
        found = [Samples(np.array(rows) * np.asarray(self.sensor.lsb)) for rows in blocks if rows]
        if skipped and not found:
            raise ProfileError("synchronisation", f"{skipped} bytes that belong to no frame of {WITMOTION.title}")
        return found

    def _align(self) -> int:
        """Drop what stands before the next frame; how many bytes that were."""
        if self._aligned and _may_begin(self._held, 0) and _may_begin(self._held, FRAME_BYTES):
            return 0
        self._aligned = False
        at = 0
        while at < len(self._held):
            if _may_begin(self._held, at) and _may_begin(self._held, at + FRAME_BYTES):
                self._aligned = len(self._held) >= at + FRAME_BYTES + 2
                break
            at += 1
        self._held = self._held[at:]
        return at


def _may_begin(held: bytes, at: int) -> bool:
    """Whether a frame begins at ``at``, as far as the bytes there have come."""
    head = held[at : at + 2]
    return head[:1] in (b"", b"\x55") and head[1:] in (b"", b"\x61", b"\x71")


class WitMotion:
    """The WT901BLE."""

    name: Final = "witmotion"
    title: Final = "WitMotion WT901BLE"
    channels: Final = ACC_GYRO
    rates_hz: Final = tuple(RATE_CODES)

    def knows(self, seen: Seen) -> bool:
        """By the service or the factory's name ("WT901BLE67")."""
        return SERVICE in seen.services or seen.name.startswith(NAMES)

    def open(self, *, rate_hz: float, acc_g: float | None = None, gyro_dps: float | None = None) -> WitMotionSession:
        """Begin a session; the scales in a frame are fixed."""
        rate = pick_rate(self.title, self.rates_hz, rate_hz)
        acc = pick_range(self.title, "g", (ACC_FULL_SCALE_G,), acc_g, ACC_FULL_SCALE_G)
        gyro = pick_range(self.title, "deg/s", (GYRO_FULL_SCALE_DPS,), gyro_dps, GYRO_FULL_SCALE_DPS)
        sensor = Sensor.symmetric(self.title, ACC_GYRO, adc_bits=16, full_scale={"acc": acc, "gyro": gyro})
        return WitMotionSession(sensor, rate)


WITMOTION: Final = WitMotion()
