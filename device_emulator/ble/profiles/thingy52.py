"""Nordic Thingy:52: raw data of its motion service.

Published in "Nordic Thingy:52 firmware architecture", Motion service
(nordicsemiconductor.github.io/Nordic-Thingy52-FW), and in the firmware's ``ble_tms.h`` and ``m_motion.c``. UUIDs are
``EF68xxxx-9B35-4933-9B10-52FFA9740042``. Everything is little-endian.

===== ====================== ======================================================================================
xxxx  what                   value
===== ====================== ======================================================================================
0100  configuration service  the one that is advertised
0400  motion service
0401  configuration (write)  u16 step counter interval in ms (100-5000), u16 temperature compensation interval in ms
                             (100-5000), u16 compass compensation interval in ms (100-1000), u16 rate in Hz (5-200),
                             u8 wake on motion (0, 1)
0406  raw data (notify)      i16 x 9, one sample: acceleration x y z in 1/1024 g (6Q10), rotation x y z in 1/32 °/s
                             (11Q5), magnetic field x y z in 1/16 µT (12Q4)
===== ====================== ======================================================================================

It streams while a central is subscribed; there is nothing to start but the rate, which the Thingy keeps in flash. The
firmware saturates at 31 g and 1023 °/s; its ranges cannot be chosen. The MPU-9250's own rate is 200 Hz divided by a
whole number, so only such rates are exact.
"""

from __future__ import annotations

import struct
from typing import Final

from device_emulator.ble.profiles.base import Seen, Write
from device_emulator.ble.profiles.support import RowSession, pick_range, pick_rate
from quantization.imu import ACC_GYRO
from quantization.sensor import Sensor


def thingy_uuid(number: int) -> str:
    """The 128-bit UUID of one of the Thingy's services or characteristics."""
    return f"ef68{number:04x}-9b35-4933-9b10-52ffa9740042"


CONFIGURATION_SERVICE: Final = thingy_uuid(0x0100)
MOTION_SERVICE: Final = thingy_uuid(0x0400)
MOTION_CONFIGURATION: Final = thingy_uuid(0x0401)
RAW_DATA: Final = thingy_uuid(0x0406)

CONFIGURATION: Final = struct.Struct("<HHHHB")
STEP_INTERVAL_MS: Final = 1000
TEMPERATURE_INTERVAL_MS: Final = 500
COMPASS_INTERVAL_MS: Final = 500
WAKE_ON_MOTION: Final = 1
"""This and the intervals above: what the firmware itself begins with."""

WORDS: Final = 9
ACC_FULL_SCALE_G: Final = 32.0
"""6Q10: 2**15 / 1024."""
GYRO_FULL_SCALE_DPS: Final = 1024.0
"""11Q5: 2**15 / 32."""


class Thingy52:
    """The Thingy:52."""

    name: Final = "thingy52"
    title: Final = "Nordic Thingy:52"
    channels: Final = ACC_GYRO
    rates_hz: Final = (5.0, 10.0, 20.0, 25.0, 40.0, 50.0, 100.0, 200.0)

    def knows(self, seen: Seen) -> bool:
        """By the advertised service or the factory's name."""
        return CONFIGURATION_SERVICE in seen.services or seen.name.startswith("Thingy")

    def open(self, *, rate_hz: float, acc_g: float | None = None, gyro_dps: float | None = None) -> RowSession:
        """Begin a session; ranges are fixed."""
        rate = pick_rate(self.title, self.rates_hz, rate_hz)
        acc = pick_range(self.title, "g", (ACC_FULL_SCALE_G,), acc_g, ACC_FULL_SCALE_G)
        gyro = pick_range(self.title, "deg/s", (GYRO_FULL_SCALE_DPS,), gyro_dps, GYRO_FULL_SCALE_DPS)
        configuration = CONFIGURATION.pack(
            STEP_INTERVAL_MS, TEMPERATURE_INTERVAL_MS, COMPASS_INTERVAL_MS, int(rate), WAKE_ON_MOTION
        )
        return RowSession(
            title=self.title,
            sensor=Sensor.symmetric(self.title, ACC_GYRO, adc_bits=16, full_scale={"acc": acc, "gyro": gyro}),
            rate_hz=rate,
            characteristic=RAW_DATA,
            words=WORDS,
            columns=(0, 1, 2, 3, 4, 5),
            start=(Write(MOTION_CONFIGURATION, configuration),),
        )


THINGY52: Final = Thingy52()
