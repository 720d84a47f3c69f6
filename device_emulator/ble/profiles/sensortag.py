"""Texas Instruments SensorTag CC2650: its movement service.

Published in TI's "CC2650 SensorTag User's Guide", Movement Sensor. UUIDs are ``F000xxxx-0451-4000-B000-000000000000``.
Everything is little-endian.

===== ===================== =======================================================================================
xxxx  what                  value
===== ===================== =======================================================================================
AA80  movement service
AA81  data (notify)         i16 x 9, one sample: rotation x y z at ±250 °/s, acceleration x y z, magnetic field x y z
AA82  configuration (write) u16: bits 0-2 gyroscope z y x, bits 3-5 accelerometer z y x, bit 6 magnetometer, bit 7
                            wake on motion, bits 8-9 accelerometer range (0 = 2 g, 1 = 4 g, 2 = 8 g, 3 = 16 g)
AA83  period (write)        u8 in 10 ms, 10 to 255: **at most 10 samples per second**
===== ===================== =======================================================================================

**The accelerometer's scale is disputed.** By the guide it is range / 32768 g. Users report readings that are wrong by
2 or 4, because some firmware measures at another range than bits 8-9 ask for (issues 62 and 77 of
github.com/sandeepmistry/node-sensortag), and much code multiplies by 8 / 32768 whatever it wrote. Here the range is
always written and the guide is believed. If yours does not read 1 g at rest, use ``SensorTag(acc_gain=...)`` with
1 g divided by what it reads.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from device_emulator.ble.profiles.base import Seen, Write, short_uuid
from device_emulator.ble.profiles.support import RowSession, pick_range, pick_rate
from quantization.errors import ProfileError
from quantization.imu import ACC_GYRO
from quantization.sensor import Sensor


def sensortag_uuid(number: int) -> str:
    """The 128-bit UUID of one of the SensorTag's services or characteristics."""
    return f"f000{number:04x}-0451-4000-b000-000000000000"


MOVEMENT_SERVICE: Final = sensortag_uuid(0xAA80)
DATA: Final = sensortag_uuid(0xAA81)
CONFIGURATION: Final = sensortag_uuid(0xAA82)
PERIOD: Final = sensortag_uuid(0xAA83)
NAMES: Final = ("CC2650 SensorTag", "SensorTag 2.0")

WORDS: Final = 9
GYRO_AND_ACC_ON: Final = 0x003F
RANGE_BITS: Final = {2.0: 0, 4.0: 1, 8.0: 2, 16.0: 3}
USUAL_ACC_G: Final = 8.0
"""What TI's own app sets."""
GYRO_FULL_SCALE_DPS: Final = 250.0
PERIODS_PER_SECOND: Final = 100
"""The period counts in 10 ms."""


@dataclass(frozen=True)
class SensorTag:
    """The SensorTag CC2650.

    Args:
        acc_gain: by what its accelerometer's scale differs from the guide's; above 0, at most 8.
    """

    acc_gain: float = 1.0

    name: str = "sensortag"
    title: str = "TI SensorTag CC2650"
    channels: tuple[str, ...] = ACC_GYRO
    rates_hz: tuple[float, ...] = (1.0, 2.0, 4.0, 5.0, 10.0)

    def __post_init__(self) -> None:
        if not 0 < self.acc_gain <= max(RANGE_BITS) / min(RANGE_BITS):
            raise ProfileError("range", f"acc_gain must be above 0 and at most 8, not {self.acc_gain}")

    def knows(self, seen: Seen) -> bool:
        """By the factory's name, or the service in its long or its short form."""
        return seen.name in NAMES or not seen.services.isdisjoint((MOVEMENT_SERVICE, short_uuid(0xAA80)))

    def open(self, *, rate_hz: float, acc_g: float | None = None, gyro_dps: float | None = None) -> RowSession:
        """Begin a session; the gyroscope's range is fixed."""
        rate = pick_rate(self.title, self.rates_hz, rate_hz)
        acc = pick_range(self.title, "g", tuple(RANGE_BITS), acc_g, USUAL_ACC_G)
        gyro = pick_range(self.title, "deg/s", (GYRO_FULL_SCALE_DPS,), gyro_dps, GYRO_FULL_SCALE_DPS)
        full_scale = {"acc": acc * self.acc_gain, "gyro": gyro}
        return RowSession(
            title=self.title,
            sensor=Sensor.symmetric(f"{self.title} ±{acc:g} g", ACC_GYRO, adc_bits=16, full_scale=full_scale),
            rate_hz=rate,
            characteristic=DATA,
            words=WORDS,
            columns=(3, 4, 5, 0, 1, 2),
            start=(
                Write(PERIOD, bytes([round(PERIODS_PER_SECOND / rate)])),
                Write(CONFIGURATION, struct.pack("<H", GYRO_AND_ACC_ON | RANGE_BITS[acc] << 8)),
            ),
            stop=(Write(CONFIGURATION, struct.pack("<H", 0)),),
        )


SENSORTAG: Final = SensorTag()
