"""BBC micro:bit: its accelerometer service, which the program on it must have switched on.

Published in the "micro:bit Bluetooth Profile" (lancaster-university.github.io/microbit-docs). UUIDs are
``E95Dxxxx-251D-470A-A062-FA1922DFA9A8``. Everything is little-endian.

===== ====================== =====================================================
xxxx  what                   value
===== ====================== =====================================================
0753  accelerometer service
CA4B  data (notify, read)    i16 x 3, one sample: x y z in 1/1000 g
FB24  period (write, read)   u16, ms: 1, 2, 5, 10, 20, 80, 160 or 640
===== ====================== =====================================================

Two accelerometers were built in over the years and their periods differ: 80 ms becomes 100 ms and 160 ms a whole
second on one of them (issue 445 of github.com/lancaster-university/microbit-dal). 10 and 20 ms mean the same on both
and are what is offered; shorter ones outrun the radio. Expect the true rate to be some percent off, and samples to
arrive in bunches (issue 300).

The range is set by the program (2, 4 or 8 g; 2 g unless it says otherwise), not over Bluetooth; the scale is the same.
There is no gyroscope.
"""

from __future__ import annotations

import struct
from typing import Final

from device_emulator.ble.profiles.base import Seen, Write
from device_emulator.ble.profiles.support import RowSession, pick_rate
from quantization.errors import ProfileError
from quantization.imu import ACC
from quantization.sensor import Sensor


def microbit_uuid(number: int) -> str:
    """The 128-bit UUID of one of the micro:bit's services or characteristics."""
    return f"e95d{number:04x}-251d-470a-a062-fa1922dfa9a8"


ACCELEROMETER_SERVICE: Final = microbit_uuid(0x0753)
DATA: Final = microbit_uuid(0xCA4B)
PERIOD: Final = microbit_uuid(0xFB24)

LSB_G: Final = 0.001
ADC_BITS: Final = 14
"""±8.192 g in steps of 1 mg: covers the widest range that a program can set."""


class Microbit:
    """The micro:bit."""

    name: Final = "microbit"
    title: Final = "BBC micro:bit"
    channels: Final = ACC
    rates_hz: Final = (50.0, 100.0)

    def knows(self, seen: Seen) -> bool:
        """By the advertised name ("BBC micro:bit [zuvot]"), or by the service."""
        return seen.name.startswith(self.title) or ACCELEROMETER_SERVICE in seen.services

    def open(self, *, rate_hz: float, acc_g: float | None = None, gyro_dps: float | None = None) -> RowSession:
        """Begin a session. No range can be asked for."""
        if acc_g is not None:
            raise ProfileError("range", f"the range of {self.title} is set by the program on it, not over Bluetooth")
        if gyro_dps is not None:
            raise ProfileError("range", f"{self.title} has no gyroscope")
        rate = pick_rate(self.title, self.rates_hz, rate_hz)
        return RowSession(
            title=self.title,
            sensor=Sensor(self.title, ACC, ADC_BITS, (LSB_G,) * 3, (0,) * 3),
            rate_hz=rate,
            characteristic=DATA,
            words=3,
            columns=(0, 1, 2),
            start=(Write(PERIOD, struct.pack("<H", round(1000 / rate))),),
        )


MICROBIT: Final = Microbit()
